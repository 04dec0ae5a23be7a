//! What an authorizer decides, and how connections keep to it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::request::Parts;
use common::broker::TestBroker;
use common::tokens::{GRACE, connect, router, router_of};
use common::wait_until;
use roomcast::prometheus::Registry;
use roomcast::testing::{self, Client, ConnectError};
use roomcast::{
    Authorizer, CallError, CloseCode, Code, Identity, Name, Node, Options, RoomAction, RoomName, Router, Socket, UserId,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::sleep;

/// A router whose clients may be silent for as long as a test lets the time pass.
fn without_pings() -> Router {
    router_of(Node::embedded(Options::default().with(|options| options.ping_interval = Duration::from_secs(86_400))))
}

/// A token that lets Ann use the rooms of her team, for an hour.
fn token(rooms: &Value) -> Value {
    json!({ "user": "ann", "allow": [{ "rooms": rooms, "do": ["join", "publish"] }], "expires_in": 3600 })
}

async fn code_of(client: &mut Client, method: &str) -> Option<Code> {
    client.call(method, ()).await.err().map(|error| error.code)
}

#[tokio::test]
async fn a_client_may_do_what_is_granted_and_nothing_else() {
    let router = router().call("admin.stop", async || ()).fallback(async |name: Name| name.to_string());
    let allow = json!([
        { "rooms": ["user:{user}"], "do": ["join", "members"] },
        { "rooms": ["news"], "do": ["publish"] },
        { "calls": ["chat.*"], "do": ["call"] },
    ]);
    let (mut client, socket) = connect(&router, &json!({ "user": "ann", "allow": allow })).await;
    assert_eq!(socket.user(), Some(&UserId::new("ann").unwrap()));
    let denied = Some(Code::PermissionDenied);
    for (method, expected) in [
        ("chat.send", None),
        ("chat.other", None),
        ("admin.stop", denied),
        ("no.such.method", denied),
        ("rooms/join/user:ann", None),
        ("rooms/members/user:ann", None),
        ("rooms/join/user:bob", denied),
        ("rooms/publish/user:ann/said", denied),
        ("rooms/publish/news/said", None),
        ("rooms/join/news", denied),
        ("rooms/members/news", denied),
        ("rooms/leave/news", None),
        ("rooms/other/news", Some(Code::NotFound)),
        ("auth/other", Some(Code::NotFound)),
    ] {
        assert_eq!(code_of(&mut client, method).await, expected, "{method}");
    }
    assert_eq!(socket.rooms(), [RoomName::new("user:ann").unwrap()]);
    let error = client.call("rooms/join/user:bob", ()).await.unwrap_err();
    assert_eq!(error.message, r#"the right join on room "user:bob" is missing"#);
    assert_eq!(error.details(), Some(&json!({ "right": "join", "room": "user:bob" })));
}

#[tokio::test]
async fn a_notification_needs_the_right_to_call() {
    let (seen, mut notified) = mpsc::unbounded_channel();
    let router = router()
        .with_state(seen)
        .notify_fallback(async |State(seen): State<UnboundedSender<Name>>, name: Name| drop(seen.send(name)));
    let (mut client, _) =
        connect(&router, &json!({ "user": "ann", "allow": [{ "calls": ["chat.*"], "do": ["call"] }] })).await;
    client.notify("admin.stop", ()).await;
    client.notify("chat.typing", ()).await;
    assert_eq!(notified.recv().await.as_deref(), Some("chat.typing"));
    assert!(notified.try_recv().is_err());
}

#[tokio::test]
async fn a_handler_for_rooms_decides_in_addition_to_grants() {
    let router = router().client_rooms(async |action: RoomAction, room: RoomName| {
        match action == RoomAction::Join && room.ends_with("closed") {
            true => Err(CallError::new(Code::FailedPrecondition, "closed")),
            false => Ok(()),
        }
    });
    let (mut client, _) = connect(&router, &token(&json!(["team:*"]))).await;
    assert_eq!(code_of(&mut client, "rooms/join/team:open").await, None);
    assert_eq!(code_of(&mut client, "rooms/join/team:closed").await, Some(Code::FailedPrecondition));
    assert_eq!(code_of(&mut client, "rooms/join/other").await, Some(Code::PermissionDenied));
}

#[tokio::test]
async fn a_client_without_a_valid_token_gets_no_connection() {
    let router = router();
    let refused = testing::connect(&router).await.unwrap_err();
    let ConnectError::Refused { status, body } = refused else { panic!("{refused}") };
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body.contains("send a token"), "{body}");
    assert_eq!(router.node().connection_count(), 0);
}

#[tokio::test]
async fn a_rejected_request_is_answered_as_http_prescribes() {
    let url = common::serve(router()).await;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        roomcast::SUBPROTOCOL
    );
    let address = url.trim_start_matches("ws://").trim_end_matches("/socket").to_owned();
    let response = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let lines = BufReader::new(stream).lines().map(|line| line.unwrap().to_lowercase());
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>()
    });
    let response = response.await.unwrap();
    assert!(response[0].starts_with("http/1.1 401 "), "{response:?}");
    assert!(response.contains(&format!("{WWW_AUTHENTICATE}: bearer")), "{response:?}");
}

#[tokio::test(start_paused = true)]
async fn an_authorizer_that_takes_too_long_keeps_nobody_waiting() {
    struct Slow;
    impl Authorizer for Slow {
        async fn authorize(&self, _request: &Parts) -> Result<Identity, CallError> {
            std::future::pending().await
        }
    }
    let router = Router::new(Node::embedded(Options::default())).authorizer(Slow);
    let refused = testing::connect(&router).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. }), "{refused}");
}

#[tokio::test]
async fn the_node_joins_the_rooms_of_an_identity_before_the_connect_handler_runs() {
    let router = router().on_connect(async |socket: Socket| {
        let rooms: Vec<_> = socket.rooms().iter().map(ToString::to_string).collect();
        socket.notify("rooms", rooms.join(" "))
    });
    let (mut client, _) = connect(&router, &json!({ "user": "ann", "allow": [], "join": ["a", "b"] })).await;
    assert_eq!(client.event().await.payload, "a b");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_reminded_and_then_closed_when_its_credential_expires() {
    let (router, token) = (without_pings(), token(&json!(["team:*"])));
    let (mut client, _) = connect(&router, &token).await;
    sleep(Duration::from_secs(3570)).await;
    let reminder = client.event().await;
    assert_eq!(reminder.name, "auth/expiring");
    let in_ms = reminder.json::<Value>()["in_ms"].as_u64().unwrap();
    assert!((29_000..=60_000).contains(&in_ms), "{in_ms}");
    sleep(Duration::from_secs(30) + GRACE - Duration::from_secs(2)).await;
    assert_eq!(client.call("chat.send", ()).await.unwrap_err().code, Code::PermissionDenied, "the connection is open");
    assert_eq!(client.closed().await.code, CloseCode::TOKEN_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn a_refreshed_connection_outlasts_its_first_credential() {
    let (mut client, socket) = connect(&without_pings(), &token(&json!(["team:*"]))).await;
    let mut longer = token(&json!(["team:*"]));
    (longer["issued"], longer["expires_in"]) = (json!(1), json!(7200));
    client.call("auth/refresh", longer.to_string()).await.unwrap();
    let credential = socket.identity().unwrap().credential.clone().unwrap();
    assert_eq!(credential.expires_at, credential.issued_at + Duration::from_secs(7199));
    sleep(Duration::from_secs(7170)).await;
    assert_eq!(client.event().await.name, "auth/expiring", "and nothing before");
}

#[tokio::test]
async fn a_refused_refresh_leaves_the_connection_as_it_was() {
    let mut first = token(&json!(["team:*"]));
    first["issued"] = json!(10);
    let (mut client, socket) = connect(&router(), &first).await;
    let changed = |key: &str, value: Value| {
        let mut token = token(&json!(["**"]));
        token["issued"] = json!(20);
        token[key] = value;
        token.to_string()
    };
    for (credential, message) in [
        (changed("user", json!("bob")), "the new credential belongs to another user"),
        (changed("issued", json!(9)), "the new credential is older than the current one"),
        (changed("expires_in", Value::Null), "the connection has no credential that can be refreshed"),
        ("nonsense".to_owned(), "expected ident at line 1 column 2"),
    ] {
        let error = client.call("auth/refresh", credential).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Unauthenticated, message));
    }
    assert_eq!(code_of(&mut client, "rooms/join/team:a").await, None);
    assert_eq!(code_of(&mut client, "rooms/join/other").await, Some(Code::PermissionDenied));
    assert_eq!(socket.rooms().len(), 1);
}

#[tokio::test]
async fn a_connection_leaves_the_rooms_that_a_refresh_takes_away_and_no_others() {
    let (mut client, socket) = connect(&router(), &token(&json!(["team:*", "news"]))).await;
    for room in ["team:a", "team:b", "news"] {
        client.call(&format!("rooms/join/{room}"), ()).await.unwrap();
    }
    // Rooms that the server joins for its own reasons are not the token's.
    socket.join("internal").await.unwrap();
    client.call("auth/refresh", token(&json!(["team:b", "news"])).to_string()).await.unwrap();
    let left = client.event().await;
    assert_eq!((left.name.as_str(), left.json::<Value>()), ("auth/left", json!({ "room": "team:a" })));
    let mut rooms: Vec<_> = socket.rooms().iter().map(ToString::to_string).collect();
    rooms.sort();
    assert_eq!(rooms, ["internal", "news", "team:b"]);
    // No event of the lost room arrives any more.
    for room in ["team:a", "team:b"] {
        socket.node().room(room).publish("said", room).await.unwrap();
    }
    assert_eq!(client.event().await.payload, "team:b");
}

#[tokio::test]
async fn a_join_that_a_refresh_overtakes_fails() {
    let broker = Arc::new(TestBroker::new());
    let router = router_of(Node::new(Arc::clone(&broker) as _, Options::default()));
    let (mut client, socket) = connect(&router, &token(&json!(["team:*"]))).await;
    broker.subscribes.send_replace(false);
    let join = client.start("rooms/join/team:a", ()).await;
    wait_until("the join waits for its subscription", || socket.rooms().len() == 1).await;
    client.call("auth/refresh", token(&json!(["team:b"])).to_string()).await.unwrap();
    broker.subscribes.send_replace(true);
    assert!(client.response(join).await.is_err());
    assert_eq!(socket.rooms(), []);
}

#[tokio::test]
async fn a_right_that_is_lost_while_a_handler_for_rooms_waits_is_lost() {
    let (entered, mut waits) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let router = router().with_state((entered, Arc::clone(&go_on))).client_rooms(
        async |State((entered, go_on)): State<(UnboundedSender<()>, Arc<Notify>)>| {
            let _ = entered.send(());
            go_on.notified().await;
            Ok::<(), CallError>(())
        },
    );
    let (mut client, socket) = connect(&router, &token(&json!(["team:*"]))).await;
    let join = client.start("rooms/join/team:a", ()).await;
    waits.recv().await.unwrap();
    client.call("auth/refresh", token(&json!(["team:b"])).to_string()).await.unwrap();
    go_on.notify_one();
    assert_eq!(client.response(join).await.unwrap_err().code, Code::PermissionDenied);
    assert_eq!(socket.rooms(), []);
}

#[tokio::test(start_paused = true)]
async fn refreshes_are_limited_and_useless_ones_cost_nothing() {
    let (mut client, _) = connect(&without_pings(), &token(&json!(["team:*"]))).await;
    let mut codes = Vec::new();
    for _ in 0..12 {
        codes.push(client.call("auth/refresh", "nonsense").await.unwrap_err().code);
    }
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10..], [Code::ResourceExhausted; 2]);
    sleep(Duration::from_secs(1)).await;
    client.call("auth/refresh", token(&json!(["team:*"])).to_string()).await.unwrap();

    // Without a credential, nothing is verified.
    let (mut client, _) = connect(&router(), &json!({ "user": "ann", "allow": [] })).await;
    let error = client.call("auth/refresh", "nonsense").await.unwrap_err();
    assert_eq!(error.message, "the connection has no credential that can be refreshed");
}

#[tokio::test]
async fn denials_and_refused_upgrades_are_counted() {
    let router = router();
    let registry = Registry::new();
    router.node().register_metrics(&registry).unwrap();
    let (mut client, _) = connect(&router, &token(&json!(["team:*"]))).await;
    let _ = client.call("admin.stop", ()).await;
    let _ = client.call("rooms/join/other", ()).await;
    let _ = testing::connect(&router).await;
    assert_eq!(counted(&registry, "roomcast_denials_total"), ["not_granted call", "not_granted join"]);
    assert_eq!(counted(&registry, "roomcast_upgrades_refused_total"), ["UNAUTHENTICATED"]);
}

/// The labels of the series of a counter that are 1. The others are 0.
fn counted(registry: &Registry, name: &str) -> Vec<String> {
    let families = registry.gather();
    let metrics = families.iter().find(|family| family.name() == name).unwrap().get_metric();
    let (once, rest): (Vec<_>, Vec<_>) = metrics.iter().partition(|metric| metric.get_counter().get_value() == 1.0);
    assert!(rest.iter().all(|metric| metric.get_counter().get_value() == 0.0), "{rest:?}");
    let mut labels: Vec<_> = once
        .iter()
        .map(|metric| metric.get_label().iter().map(|label| label.value()).collect::<Vec<_>>().join(" "))
        .collect();
    labels.sort();
    labels
}

#[tokio::test]
async fn only_members_may_publish_where_the_router_says_so() {
    let allow = json!([{ "rooms": ["game:*", "news"], "do": ["join", "publish"] }]);
    let granted = router().members_only("game:*".parse().unwrap());
    let (mut ann, _) = connect(&granted, &json!({ "user": "ann", "allow": allow })).await;
    let open = Router::new(Node::embedded(Options::default())).open_rooms().members_only("game:*".parse().unwrap());
    let (mut anyone, _) = testing::connect(&open).await.unwrap();
    for client in [&mut ann, &mut anyone] {
        assert_eq!(code_of(client, "rooms/publish/news/said").await, None);
        let error = client.call("rooms/publish/game:7/said", ()).await.unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
        assert_eq!(error.details(), Some(&json!({ "members_only": true, "room": "game:7" })));
        assert_eq!(code_of(client, "rooms/join/game:7").await, None);
        assert_eq!(code_of(client, "rooms/publish/game:7/said").await, None);
        assert_eq!(code_of(client, "rooms/leave/game:7").await, None);
        assert_eq!(code_of(client, "rooms/publish/game:7/said").await, Some(Code::PermissionDenied));
    }
}

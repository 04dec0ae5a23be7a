//! The router: extractors, errors, rooms, users, the order of notifications, bounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Extension, Json};
use common::{serve, wait_until, within_deadline};
use parking_lot::Mutex;
use roomcast::{
    CallError, CallPattern, Cancel, CloseCode, Code, Disconnected, Name, Node, Options, RoomAction, RoomName, Router,
    SUBPROTOCOL, Socket, SocketIoUpgrade, Text, UserId, testing,
};
use roomcast_testkit::Client;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

fn router() -> (Router, Node) {
    let node = Node::embedded(Options::default());
    (Router::new(node.clone()), node)
}

#[tokio::test]
async fn handlers_get_what_they_ask_for_and_answer_what_they_return() {
    let (router, _) = router();
    let router = router
        .call("double", async |Json(order): Json<Order>| Json(Order { count: order.count * 2, ..order }))
        .call("who", async |socket: Socket, method: Name| format!("{method} {}", socket.rooms().len()))
        .call("refuse", async || Err::<(), _>(CallError::new(Code::FailedPrecondition, "not \"now\"")))
        .call("text", async |Text(text): Text, _: Cancel| text)
        .call("nothing", async || ());
    let mut client = Client::connect(&serve(router).await).await.unwrap();
    let doubled = client.call_text("double", r#"{"item":"cup","count":4}"#).await.unwrap();
    assert_eq!(doubled, r#"{"item":"cup","count":8}"#);
    assert_eq!(client.call_text("who", "").await.unwrap(), "who 0");
    assert_eq!(
        client.call_text("refuse", "").await.unwrap(),
        r#"{"error":{"code":"FAILED_PRECONDITION","message":"not \"now\""}}"#
    );
    assert!(client.call_text("double", "{").await.unwrap().contains("INVALID_ARGUMENT"));
    assert!(client.call_text("text", [0xFF]).await.unwrap().contains("INVALID_ARGUMENT"));
    assert_eq!(client.call_text("nothing", "").await.unwrap(), "");
    assert!(client.call_text("no such", "").await.unwrap().contains("NOT_FOUND"));
}

/// What the application learns from a request to upgrade.
#[derive(Clone)]
struct Tenant(String);

#[tokio::test]
async fn a_connection_carries_its_user_and_data_of_the_application() {
    let (router, _) = router();
    let router = router
        .call("tenant", async |Extension(Tenant(tenant)): Extension<Tenant>| tenant)
        .call("number", async |Extension(number): Extension<u32>| number.to_string())
        .call("me", async |user: UserId| user.to_string())
        .on_connect(async |socket: Socket| match socket.get::<Tenant>() {
            Some(Tenant(tenant)) if tenant == "closed" => Err(CallError::new(Code::PermissionDenied, "no such tenant")),
            _ => Ok(()),
        });
    let serve = async |tenant: &'static str, user: Option<UserId>| {
        let router = router.clone();
        let upgrade = async move |upgrade: SocketIoUpgrade| {
            let upgrade = match user {
                Some(user) => upgrade.user(user),
                None => upgrade,
            };
            upgrade.with(Tenant("overwritten".to_owned())).with(Tenant(tenant.to_owned())).route(&router).await
        };
        common::listen(axum::Router::new().route("/socket", get(upgrade))).await
    };
    let mut ann = Client::connect(&serve("acme", Some(UserId::new("ann").unwrap())).await).await.unwrap();
    assert_eq!(ann.call_text("tenant", "").await.unwrap(), "acme");
    assert_eq!(ann.call_text("me", "").await.unwrap(), "ann");
    assert!(ann.call_text("number", "").await.unwrap().contains("INTERNAL"), "no upgrade gives a number");
    let mut nobody = Client::connect(&serve("acme", None).await).await.unwrap();
    assert!(nobody.call_text("me", "").await.unwrap().contains("UNAUTHENTICATED"));
    let mut refused = Client::connect(&serve("closed", None).await).await.unwrap();
    assert_eq!(refused.closed().await.unwrap(), (1008, "no such tenant".to_owned()));
}

#[tokio::test]
async fn notifications_are_handled_in_order_though_some_wait() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (slow, quick) = (Arc::clone(&seen), Arc::clone(&seen));
    let (router, _) = router();
    let router = router
        .notify("slow", move |Text(text): Text| {
            let seen = Arc::clone(&slow);
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                seen.lock().push(text);
            }
        })
        .quick_notify("quick", move |Text(text): Text| {
            quick.lock().push(text);
            std::future::ready(())
        })
        .notify("panic", async || -> () { panic!("a handler's panic, part of the test") });
    let mut client = Client::connect(&serve(router).await).await.unwrap();
    let expected: Vec<_> = (0..40).map(|number| number.to_string()).collect();
    for (index, text) in expected.iter().enumerate() {
        client.notify(["quick", "slow", "quick"][index % 3], text).await.unwrap();
        client.notify("panic", "").await.unwrap();
    }
    // Also those that are still waiting when the client closes are handled.
    client.close().await.unwrap();
    wait_until("all are handled", || seen.lock().len() == expected.len()).await;
    assert_eq!(*seen.lock(), expected);
}

#[tokio::test]
async fn connect_and_disconnect_handlers_frame_a_connection() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (connected, disconnected) = (Arc::clone(&log), Arc::clone(&log));
    let (router, node) = router();
    let router = router
        .on_connect(move |socket: Socket| {
            connected.lock().push("connected".to_owned());
            async move { socket.join("lobby").await }
        })
        .on_disconnect(move |socket: Socket, why: Disconnected| {
            let mut log = disconnected.lock();
            log.push(format!("left {} rooms with {}", socket.rooms().len(), why.code));
            std::future::ready(())
        })
        .call("rooms", async |socket: Socket| socket.rooms().len().to_string());
    let mut client = Client::connect(&serve(router).await).await.unwrap();
    assert_eq!(client.call_text("rooms", "").await.unwrap(), "1");
    node.room("lobby").publish("hello", "all").await.unwrap();
    assert_eq!(client.event().await.unwrap().payload, "all");
    client.close().await.unwrap();
    wait_until("both are logged", || log.lock().len() == 2).await;
    assert_eq!(*log.lock(), ["connected", "left 0 rooms with 1005"]);
    assert_eq!(node.room("lobby").members().await.unwrap().count, 0);
}

#[test]
fn a_close_reason_is_displayed_in_one_line() {
    let why = Disconnected::new(CloseCode(4000), "bye\n\u{1b}[31m".to_owned());
    assert_eq!(why.to_string(), r#"the connection has ended: 4000 "bye\n\u{1b}[31m""#);
}

#[tokio::test]
async fn a_connect_handler_that_refuses_closes_with_its_reason() {
    let (router, _) = router();
    let router = router
        .on_connect(async |_: Socket| Err::<(), _>(CallError::new(Code::PermissionDenied, "members only")))
        .on_disconnect(async |_: Socket| -> () { unreachable!("it never was connected") });
    let mut client = Client::connect(&serve(router).await).await.unwrap();
    assert_eq!(client.closed().await.unwrap(), (1008, "members only".to_owned()));
}

#[tokio::test]
async fn rooms_are_denied_to_clients_unless_they_are_opened() {
    let (router, _) = router();
    let closed = serve(router.clone()).await;
    let mut client = Client::connect(&closed).await.unwrap();
    assert!(client.call_text("rooms/join/a", "").await.unwrap().contains("PERMISSION_DENIED"));

    let open = router.client_rooms(async |action: RoomAction, room: RoomName| {
        tokio::task::yield_now().await;
        match action {
            RoomAction::Join if room.starts_with("public-") => Ok(()),
            RoomAction::Join => Err(CallError::new(Code::Unauthenticated, "log in first")),
            _ => Err(CallError::new(Code::PermissionDenied, "only to join")),
        }
    });
    let mut client = Client::connect(&serve(open).await).await.unwrap();
    assert_eq!(client.call("rooms/join/public-a", "").await.unwrap(), "");
    assert!(client.call_text("rooms/join/private", "").await.unwrap().contains("UNAUTHENTICATED"));
    assert!(client.call_text("rooms/publish/public-a/event", "").await.unwrap().contains("only to join"));
}

#[tokio::test]
async fn a_user_is_reached_on_all_their_connections_and_nobody_else_is() {
    let (router, node) = router();
    let router = router.call("ready", async || ());
    let upgrade = async move |axum::extract::Path(user): axum::extract::Path<String>, upgrade: SocketIoUpgrade| {
        upgrade.user(UserId::new(&user).unwrap()).route(&router).await
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/{user}", get(upgrade))).await });
    let mut clients = Vec::new();
    for user in ["ann", "ann", "bob"] {
        let mut client = Client::connect(&format!("ws://{address}/{user}")).await.unwrap();
        client.call("ready", "").await.unwrap();
        clients.push(client);
    }
    assert_eq!(node.user("ann").notify("mail", "for ann").await.unwrap().connections, 2);
    node.user("bob").publish("mail", "for bob").await.unwrap();
    assert_eq!(node.user("eve").notify("mail", "for eve").await.unwrap_err().code, Code::NotFound);
    for (client, expected) in clients.iter_mut().zip(["for ann", "for ann", "for bob"]) {
        assert_eq!(client.event().await.unwrap().payload, expected);
    }
}

#[tokio::test]
async fn what_a_client_makes_wait_is_bounded() {
    let options = Options::default().with(|options| {
        options.max_inbound = 10_000;
        options.max_waiting_notifications = 10;
    });
    let router = Router::new(Node::embedded(options))
        .call("endless", async || std::future::pending::<()>().await)
        .notify("endless", async || std::future::pending::<()>().await);
    let url = serve(router).await;

    let mut client = Client::connect(&url).await.unwrap();
    client.start("endless", [0; 9000]).await.unwrap();
    assert!(client.call_text("endless", [0; 2000]).await.unwrap().contains("RESOURCE_EXHAUSTED"));

    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..20 {
        client.notify("endless", "").await.unwrap();
    }
    assert_eq!(client.closed().await.unwrap().0, 1013);
}

#[tokio::test]
async fn what_waits_counts_with_its_name_and_overhead() {
    // Names of 255 bytes, and 256 bytes for a notification and 1,024 for a call.
    const NOTIFICATIONS: usize = 10_000 / (255 + 256);
    const CALLS: usize = 10_000 / (255 + 1024);
    let endless = "n".repeat(255);
    let options = Options::default().with(|options| options.max_inbound = 10_000);
    let router = Router::new(Node::embedded(options))
        .call(&endless, async || std::future::pending::<()>().await)
        .notify(&endless, async || std::future::pending::<()>().await)
        .quick_call("quick", async || ());
    let url = serve(router).await;

    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..CALLS {
        client.start(&endless, "").await.unwrap();
    }
    assert!(client.call_text(&endless, "").await.unwrap().contains("RESOURCE_EXHAUSTED"));

    let mut client = Client::connect(&url).await.unwrap();
    // What is handled at once takes nothing.
    for _ in 0..2 * CALLS {
        assert_eq!(client.call("quick", "").await.unwrap(), "");
    }
    // The first is being handled and keeps its share.
    for _ in 0..=NOTIFICATIONS {
        client.notify(&endless, "").await.unwrap();
    }
    assert_eq!(client.closed().await.unwrap().0, 1013);
}

#[tokio::test]
async fn connections_over_the_limit_are_told_to_come_back_later() {
    let node = Node::embedded(Options::default().with(|options| options.max_connections = 1));
    let url = serve(Router::new(node).call("ready", async || ())).await;
    let mut first = Client::connect(&url).await.unwrap();
    first.call("ready", "").await.unwrap();
    let refused = Client::connect(&url).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    assert_eq!(first.call("ready", "").await.unwrap(), "");
}

/// A handshake, but for its last bytes.
async fn half_a_handshake(url: &str) -> TcpStream {
    let address = url.trim_start_matches("ws://").trim_end_matches("/socket");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn however_many_clients_come_at_once_there_are_never_more_than_may_be() {
    const PLACES: usize = 5;
    let node = Node::embedded(Options::default().with(|options| options.max_connections = PLACES));
    let url = serve(Router::new(node.clone())).await;
    let mut clients = Vec::new();
    for _ in 0..20 * PLACES {
        clients.push(half_a_handshake(&url).await);
    }
    // The server's tasks run on this thread, so they find all handshakes complete.
    for client in &clients {
        assert_eq!(client.try_write(b"\r\n").unwrap(), 2);
    }
    let mut accepted = Vec::new();
    for mut client in clients {
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        match &status[9..] {
            b"101" => accepted.push(client),
            refused => assert_eq!(refused, b"503"),
        }
    }
    assert_eq!(accepted.len(), PLACES);
    wait_until("they are connected", || node.connection_count() == PLACES).await;
    drop(accepted);
    let started = Instant::now();
    let mut again = Vec::new();
    while again.len() < PLACES {
        within_deadline(started, "all places are free again");
        again.extend(Client::connect(&url).await);
    }
}

#[tokio::test]
async fn a_client_that_leaves_during_its_handshake_takes_no_place() {
    let node = Node::embedded(Options::default().with(|options| options.max_connections = 1));
    let url = serve(Router::new(node)).await;
    for _ in 0..20 {
        let leaves = half_a_handshake(&url).await;
        assert_eq!(leaves.try_write(b"\r\n").unwrap(), 2);
        leaves.set_zero_linger().unwrap();
    }
    let started = Instant::now();
    while Client::connect(&url).await.is_err() {
        within_deadline(started, "the place is free");
    }
}

#[tokio::test]
async fn the_most_specific_pattern_handles_a_call_and_a_name_of_its_own_precedes_patterns() {
    let pattern = |text: &str| [text.parse::<CallPattern>().unwrap()];
    let router = Router::new(Node::embedded(Options::default()))
        .calls("all", pattern("**"), async || "all")
        .calls("chat", pattern("chat.*"), async |name: Name| name.to_string())
        .call("chat.send", async || "send");
    let (mut client, _) = testing::connect(&router).await.unwrap();
    for (method, handled) in [("chat.send", "send"), ("chat.read", "chat.read"), ("chat/read", "all")] {
        assert_eq!(client.call(method, "").await.unwrap(), handled, "{method}");
    }
    for reserved in ["rooms/nothing/x", "auth/refresh"] {
        assert_eq!(client.call(reserved, "").await.unwrap_err().code, Code::NotFound, "{reserved}");
    }
}

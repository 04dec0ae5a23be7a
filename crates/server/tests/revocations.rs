//! Revocations and added grants, on several nodes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode};
use common::broker::TestBroker;
use common::tokens::{connect, router_of};
use roomcast::testing::{Client, ClientBuilder, ConnectError};
use roomcast::{
    Broker, CloseCode, Code, Exchange, LedgerRecord, MemoryBus, Node, Options, Revocation, Revoked, Router, Rule,
    UserId,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// Pings would end connections whose time passes at once.
fn options() -> Options {
    Options::default().with(|options| options.ping_interval = Duration::from_secs(86_400))
}

/// Nodes that have found each other.
async fn cluster(brokers: &[Arc<TestBroker>]) -> Vec<Node> {
    let nodes: Vec<_> =
        brokers.iter().map(|broker| Node::new(Arc::clone(broker) as Arc<dyn Broker>, options())).collect();
    while nodes.iter().any(|node| node.nodes().len() < nodes.len()) {
        tokio::task::yield_now().await;
    }
    nodes
}

fn brokers(count: usize) -> Vec<Arc<TestBroker>> {
    let bus = MemoryBus::new();
    (0..count).map(|_| Arc::new(TestBroker::over(bus.attach()))).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn until_tomorrow(revoked: Revoked) -> Revocation {
    Revocation::new(revoked, now() + 86_400).unwrap()
}

fn of_ann() -> Revocation {
    until_tomorrow(Revoked::User { user: user("ann"), issued_until: None })
}

fn token(user: &str, more: &Value) -> Value {
    let mut token = json!({ "user": user, "allow": [], "expires_in": 3600 });
    token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token
}

async fn rejected(router: &Router, token: &Value) -> Option<StatusCode> {
    let request = Request::get("/socket").header(AUTHORIZATION, token.to_string()).body(()).unwrap();
    match ClientBuilder::default().request(request).connect(router).await {
        Ok(_) => None,
        Err(ConnectError::Refused { status, .. }) => Some(status),
        Err(error) => panic!("{error}"),
    }
}

async fn assert_revoked(client: &mut Client) {
    assert_eq!(client.closed().await.code, CloseCode::TOKEN_EXPIRED);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_user_is_disconnected_from_all_nodes_and_cannot_return() {
    let nodes = cluster(&brokers(3)).await;
    let routers: Vec<_> = nodes.iter().cloned().map(router_of).collect();
    let (ann, bob) = (token("ann", &json!({})), token("bob", &json!({})));
    let mut revoked = Vec::new();
    for router in &routers {
        revoked.push(connect(router, &ann).await.0);
    }
    let (mut other, _) = connect(&routers[0], &bob).await;
    let reached = nodes[1].revoke(of_ann()).await.unwrap();
    assert_eq!((reached.connections, reached.unresponsive_nodes.len()), (3, 0));
    for (client, router) in revoked.iter_mut().zip(&routers) {
        assert_revoked(client).await;
        assert_eq!(rejected(router, &ann).await, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(rejected(router, &bob).await, None);
    }
    assert!(other.call("chat.send", ()).await.is_err_and(|error| error.code == Code::PermissionDenied));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_ends_and_spares_later_credentials() {
    let nodes = cluster(&brokers(1)).await;
    let router = router_of(nodes[0].clone());
    let issued_until = Some(now() + 100);
    let until = Revocation::new(Revoked::User { user: user("ann"), issued_until }, now() + 1000).unwrap();
    nodes[0].revoke(until).await.unwrap();
    assert_eq!(rejected(&router, &token("ann", &json!({ "issued": 90 }))).await, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(rejected(&router, &token("ann", &json!({ "issued": 110 }))).await, None);
    nodes[0].revoke(until_tomorrow(Revoked::Credential { id: "t1".to_owned() })).await.unwrap();
    assert_eq!(rejected(&router, &token("bob", &json!({ "id": "t1" }))).await, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(rejected(&router, &token("bob", &json!({ "id": "t2" }))).await, None);
    nodes[0].revoke(until_tomorrow(Revoked::IssuedUntil { time: now() + 120 })).await.unwrap();
    assert_eq!(rejected(&router, &token("bob", &json!({ "issued": 90 }))).await, Some(StatusCode::UNAUTHORIZED));
    assert_eq!(rejected(&router, &token("bob", &json!({ "issued": 130 }))).await, None);
    let expired = Revocation::new(Revoked::User { user: user("eve"), issued_until: None }, now()).unwrap();
    nodes[0].revoke(expired).await.unwrap();
    assert_eq!(rejected(&router, &token("eve", &json!({ "issued": 130 }))).await, None);
}

/// Revocations reach a node that gets no requests within a second.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_enforces_what_it_has_missed() {
    let of_token = until_tomorrow(Revoked::Credential { id: "t1".to_owned() });
    let of_all = until_tomorrow(Revoked::IssuedUntil { time: now() + 50 });
    for missed in [vec![of_ann()], vec![of_token.clone()], vec![of_all.clone()], vec![of_ann(), of_token, of_all]] {
        let brokers = brokers(2);
        let nodes = cluster(&brokers).await;
        let router = router_of(nodes[1].clone());
        let (ann, bob) = (token("ann", &json!({ "id": "t1" })), token("bob", &json!({ "id": "t2", "issued": 100 })));
        let (mut client, mut other) = (connect(&router, &ann).await.0, connect(&router, &bob).await.0);
        brokers[1].has_ledger.store(false, Ordering::Release);
        brokers[1].subscribes.send_replace(false);
        sleep(Duration::from_secs(1)).await;
        // Stored, but without a request to the other node.
        let records = missed.iter().map(record).collect();
        brokers[0].inner().exchange(Exchange::new(None, records)).await.unwrap();
        sleep(Duration::from_secs(8)).await;
        assert_eq!(rejected(&router, &ann).await, None, "the node enforces what it knows");
        sleep(Duration::from_secs(3)).await;
        assert_eq!(rejected(&router, &bob).await, Some(StatusCode::SERVICE_UNAVAILABLE));
        let (reachable, began) = (&brokers[1].has_ledger, Instant::now());
        reachable.store(true, Ordering::Release);
        assert_revoked(&mut client).await;
        assert!(began.elapsed() <= Duration::from_secs(1), "in virtual time");
        assert_eq!(rejected(&router, &ann).await, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(rejected(&router, &bob).await, None);
        assert!(other.call("chat.send", ()).await.is_err_and(|error| error.code == Code::PermissionDenied));
    }
}

fn record(revocation: &Revocation) -> LedgerRecord {
    LedgerRecord::new(revocation.until(), serde_json::to_vec(revocation).unwrap().into())
}

/// Whatever the order of the two, the connection ends.
#[tokio::test(start_paused = true)]
async fn a_refresh_never_overtakes_a_revocation() {
    let nodes = cluster(&brokers(1)).await;
    let router = router_of(nodes[0].clone());
    let first = token("ann", &json!({ "id": "t1" }));
    for second in ["t2", "t3"] {
        let (mut client, _) = connect(&router, &first).await;
        let next = token("ann", &json!({ "id": second }));
        let call = client.start("auth/refresh", next.to_string()).await;
        nodes[0].revoke(until_tomorrow(Revoked::Credential { id: second.to_owned() })).await.unwrap();
        let refreshed = client.response(call).await;
        match refreshed {
            Ok(_) => assert_revoked(&mut client).await,
            Err(error) => assert_eq!(error.code, Code::Unauthenticated),
        }
        let (mut client, _) = connect(&router, &first).await;
        let refused = client.call("auth/refresh", next.to_string()).await.unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated);
        assert!(client.call("auth/refresh", first.to_string()).await.is_ok(), "it keeps its old rights");
    }
}

#[tokio::test(start_paused = true)]
async fn added_grants_apply_to_open_connections_of_the_user() {
    let nodes = cluster(&brokers(2)).await;
    let routers: Vec<_> = nodes.iter().cloned().map(router_of).collect();
    let (mut client, socket) = connect(&routers[1], &token("ann", &json!({}))).await;
    let rules =
        |rooms: &[&str]| -> Vec<Rule> { serde_json::from_value(json!([{ "rooms": rooms, "do": ["join"] }])).unwrap() };
    assert_eq!(client.call("rooms/join/team:7:chat", ()).await.unwrap_err().code, Code::PermissionDenied);
    let set = nodes[0].user("ann").set_grants(rules(&["team:7:*", "user:{user}"])).await.unwrap();
    assert_eq!(set.connections, 1);
    for room in ["team:7:chat", "team:7:news", "user:ann"] {
        client.call(&format!("rooms/join/{room}"), ()).await.unwrap();
    }
    // A refresh replaces the identity, and keeps what was added.
    client.call("auth/refresh", token("ann", &json!({ "issued": 1 })).to_string()).await.unwrap();
    assert_eq!(socket.rooms().len(), 3);
    nodes[0].user("ann").set_grants(rules(&["team:7:chat"])).await.unwrap();
    let left: Vec<String> = [client.event().await, client.event().await]
        .iter()
        .map(|event| {
            assert_eq!(&*event.name, "auth/left");
            event.json::<Value>()["room"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(left.contains(&"team:7:news".to_owned()) && left.contains(&"user:ann".to_owned()), "{left:?}");
    assert_eq!(socket.rooms().iter().map(|room| &**room).collect::<Vec<_>>(), ["team:7:chat"]);
    let nobody = nodes[0].user("bob").set_grants(Vec::new()).await.unwrap_err();
    assert_eq!(nobody.code, Code::NotFound);
}

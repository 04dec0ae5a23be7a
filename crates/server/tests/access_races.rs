//! Revocations and refreshes that meet an opening, a join, a refresh or a reconnect.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::request::Parts;
use axum::routing::get;
use common::broker::{Stream, TestBroker};
use common::one::One;
use common::tokens::{Tokens, connect, router_of};
use common::{DEADLINE, serve, wait_until};
use roomcast::{
    Authorizer, CallError, CloseCode, Code, Identity, MemoryBus, Node, Options, Revocation, Revoked, Router,
    SocketIoUpgrade, UserId,
};
use roomcast_protocol::SUBPROTOCOL;
use roomcast_testkit::ClientError;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Semaphore, oneshot};

/// Less than the head of a response.
const PIPE: usize = 32;

/// So many refreshes meet their revocation in all orders.
const ATTEMPTS: usize = 1000;

const TOKEN_EXPIRED: u16 = CloseCode::TOKEN_EXPIRED.0;

fn token(more: &Value) -> Value {
    let mut token = json!({ "user": "ann", "allow": [{ "rooms": ["team:*"], "do": ["join"] }], "expires_in": 3600 });
    token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token
}

fn until_tomorrow(revoked: Revoked) -> Revocation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Revocation::new(revoked, now + 86_400).unwrap()
}

fn of_ann() -> Revocation {
    until_tomorrow(Revoked::User { user: UserId::new("ann").unwrap(), issued_until: None })
}

/// Only open connections are found by a revocation, so this connection must find the revocation.
#[tokio::test]
async fn a_revocation_during_the_handshake_ends_the_connection() {
    let revoked = [
        Revoked::User { user: UserId::new("ann").unwrap(), issued_until: None },
        Revoked::Credential { id: "t1".to_owned() },
    ];
    for revoked in revoked {
        let node = Node::embedded(Options::default());
        let router = router_of(node.clone());
        let (mut client, server) = tokio::io::duplex(PIPE);
        let app = axum::Router::new()
            .route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await));
        tokio::spawn(axum::serve(One(Some(server)), app).into_future());
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nAuthorization: {}\r\n\r\n",
            token(&json!({ "id": "t1" }))
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut received = vec![0; 12];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, b"HTTP/1.1 101", "the token was accepted");
        let reached = node.revoke(until_tomorrow(revoked)).await.unwrap();
        assert_eq!(reached.connections, 0, "the connection is not open yet");
        // A Close from the server, with the code after a header of two bytes.
        let code = CloseCode::TOKEN_EXPIRED.0.to_be_bytes();
        let is_closed = |received: &[u8]| {
            let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            end.and_then(|end| received.get(end + 4..end + 8))
                .is_some_and(|frame| frame[0] == 0x88 && frame[2..] == code)
        };
        while !is_closed(&received) {
            let read = tokio::time::timeout(DEADLINE, client.read_buf(&mut received)).await;
            let read = read.unwrap_or_else(|_| panic!("the connection stays open: {}", received.escape_ascii()));
            assert!(read.unwrap() > 0, "{}", received.escape_ascii());
        }
    }
}

#[tokio::test]
async fn a_revocation_during_a_join_leaves_no_member() {
    let broker = Arc::new(TestBroker::new());
    let node = Node::new(Arc::clone(&broker) as _, Options::default());
    let (mut client, socket) = connect(&router_of(node.clone()), &token(&json!({}))).await;
    broker.subscribes.send_replace(false);
    client.start("rooms/join/team:a", ()).await;
    wait_until("the join waits for its subscription", || socket.rooms().len() == 1).await;
    node.revoke(of_ann()).await.unwrap();
    assert_eq!(client.closed().await.code, CloseCode::TOKEN_EXPIRED);
    broker.subscribes.send_replace(true);
    wait_until("the connection has ended", || node.connection_count() == 0).await;
    assert_eq!(socket.rooms(), []);
    assert_eq!(node.room("team:a").members().await.unwrap().members.len(), 0);
}

/// The node has read the publishes, but 256 others of the connection are under way.
#[tokio::test]
async fn publishes_that_wait_when_their_client_is_revoked_are_not_made() {
    const PUBLISHES: usize = 300;
    const UNDER_WAY: usize = 256;
    let broker = Arc::new(TestBroker::new());
    let node = Node::new(Arc::clone(&broker) as _, Options::default());
    let router = router_of(node.clone());
    let (mut reader, _) = connect(&router, &token(&json!({ "user": "bob" }))).await;
    reader.call("rooms/join/team:a", ()).await.unwrap();
    let rights = json!([{ "rooms": ["team:a"], "do": ["publish"] }, { "calls": ["chat.send"], "do": ["call"] }]);
    let (mut client, _) = connect(&router, &token(&json!({ "allow": rights }))).await;
    broker.holds.store(true, Ordering::Release);
    for number in 0..PUBLISHES {
        client.notify("rooms/publish/team:a/said", number.to_string()).await;
    }
    client.call("chat.send", ()).await.unwrap();
    wait_until("publishes are under way", || broker.under_way("team:a").0 == UNDER_WAY).await;
    node.revoke(of_ann()).await.unwrap();
    assert_eq!(client.closed().await.code, CloseCode::TOKEN_EXPIRED);
    broker.holds.store(false, Ordering::Release);
    (0..UNDER_WAY).for_each(|_| broker.answer("team:a"));
    wait_until("the connection has ended", || node.connection_count() == 1).await;
    node.room("team:a").publish("end", "").await.unwrap();
    let mut published = 0;
    while reader.event().await.name != "end" {
        published += 1;
    }
    assert!(
        (UNDER_WAY..=UNDER_WAY + 1).contains(&published),
        "{published} events; one was next when the client was revoked"
    );
}

/// The call waits, because 256 other publishes of the connection are under way.
#[tokio::test]
async fn a_right_that_is_lost_while_a_publish_waits_is_lost() {
    let broker = Arc::new(TestBroker::new());
    let node = Node::new(Arc::clone(&broker) as _, Options::default());
    let rights = json!([{ "rooms": ["team:*"], "do": ["publish"] }]);
    let (mut client, _) = connect(&router_of(node), &token(&json!({ "allow": rights }))).await;
    broker.holds.store(true, Ordering::Release);
    for number in 0..256 {
        client.start("rooms/publish/team:a/said", number.to_string()).await;
    }
    let waiting = client.start("rooms/publish/team:b/said", "waits").await;
    wait_until("publishes are under way", || broker.under_way("team:a").0 == 256).await;
    client.call("auth/refresh", token(&json!({})).to_string()).await.unwrap();
    broker.answer("team:a");
    assert_eq!(client.response(waiting).await.unwrap_err().code, Code::PermissionDenied);
    assert_eq!(broker.under_way("team:b").0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_lost_while_other_nodes_list_their_members_is_lost() {
    let bus = MemoryBus::new();
    let brokers = [bus.attach(), bus.attach()].map(|broker| Arc::new(TestBroker::over(broker)));
    let nodes = brokers.each_ref().map(|broker| Node::new(Arc::clone(broker) as _, Options::default()));
    while nodes.iter().any(|node| node.nodes().len() < nodes.len()) {
        tokio::task::yield_now().await;
    }
    let may = |right: &str| token(&json!({ "allow": [{ "rooms": ["team:*"], "do": [right] }] })).to_string();
    let (mut client, _) = connect(&router_of(nodes[0].clone()), &token(&json!({}))).await;
    client.call("auth/refresh", may("members")).await.unwrap();
    // The other node does not respond.
    brokers[1].stream.send_replace(Stream::Ends);
    let list = client.start("rooms/members/team:a", ()).await;
    client.call("auth/refresh", may("join")).await.unwrap();
    assert_eq!(client.response(list).await.unwrap_err().code, Code::PermissionDenied);
}

/// An authorizer whose refreshes wait, and the test's end of it.
struct Slow {
    tokens: Tokens,
    entered: UnboundedSender<oneshot::Receiver<()>>,
    goes_on: Arc<Semaphore>,
}

impl Authorizer for Slow {
    async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
        self.tokens.authorize(request).await
    }

    async fn refresh(&self, current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        let (_alive, dropped) = oneshot::channel();
        let _ = self.entered.send(dropped);
        self.goes_on.acquire().await.unwrap().forget();
        self.tokens.refresh(current, credential).await
    }
}

/// For each refresh that begins, the receiver gets another one, which ends with the refresh.
fn slow(node: Node) -> (Router, UnboundedReceiver<oneshot::Receiver<()>>, Arc<Semaphore>) {
    let (entered, begun) = mpsc::unbounded_channel();
    let goes_on = Arc::new(Semaphore::new(0));
    let authorizer = Slow { tokens: Tokens::starting_now(), entered, goes_on: Arc::clone(&goes_on) };
    (Router::new(node).authorizer(authorizer), begun, goes_on)
}

#[tokio::test]
async fn a_refresh_to_a_credential_that_is_revoked_meanwhile_is_refused() {
    let node = Node::embedded(Options::default());
    let (router, mut begun, goes_on) = slow(node.clone());
    let (mut client, _) = connect(&router, &token(&json!({ "id": "t1" }))).await;
    let everything = json!([{ "rooms": ["**"], "do": ["join"] }]);
    let refresh = token(&json!({ "id": "t2", "issued": 10, "allow": everything }));
    let refresh = client.start("auth/refresh", refresh.to_string()).await;
    begun.recv().await.unwrap();
    node.revoke(until_tomorrow(Revoked::Credential { id: "t2".to_owned() })).await.unwrap();
    goes_on.add_permits(1);
    assert_eq!(client.response(refresh).await.unwrap_err().code, Code::Unauthenticated);
    assert!(client.call("rooms/join/team:a", ()).await.is_ok(), "it keeps its old rights");
    assert_eq!(client.call("rooms/join/other", ()).await.unwrap_err().code, Code::PermissionDenied);
}

/// The provider's response to a refresh of an earlier connection changes no later connection.
#[tokio::test]
async fn a_refresh_that_ends_after_the_client_has_reconnected_has_no_effect() {
    let node = Node::embedded(Options::default());
    let (router, mut begun, goes_on) = slow(node.clone());
    let (mut client, earlier) = connect(&router, &token(&json!({ "id": "t1" }))).await;
    let everything = json!([{ "rooms": ["**"], "do": ["join"] }]);
    let refresh = token(&json!({ "id": "t2", "issued": 10, "allow": everything })).to_string();
    client.start("auth/refresh", refresh.as_str()).await;
    let dropped = begun.recv().await.unwrap();
    drop(client);
    let (mut client, socket) = connect(&router, &token(&json!({ "id": "t3" }))).await;
    goes_on.add_permits(1);
    // The refresh is dropped with its connection, or ends without effect.
    let _ = tokio::time::timeout(Duration::from_secs(10), dropped).await.expect("the refresh ends");
    wait_until("the earlier connection has ended", || node.connection_count() == 1).await;
    let id = |socket: &roomcast::Socket| socket.identity().unwrap().credential.clone().unwrap().id;
    assert_eq!((id(&earlier).as_deref(), id(&socket).as_deref()), (Some("t1"), Some("t3")));
    assert!(client.call("rooms/join/team:a", ()).await.is_ok());
    assert_eq!(client.call("rooms/join/other", ()).await.unwrap_err().code, Code::PermissionDenied);
    // An older token does not replace the current one either.
    goes_on.add_permits(1);
    client.call("auth/refresh", token(&json!({ "id": "t4", "issued": 20 })).to_string()).await.unwrap();
    goes_on.add_permits(1);
    assert_eq!(client.call("auth/refresh", refresh).await.unwrap_err().code, Code::Unauthenticated);
    assert_eq!(id(&socket).as_deref(), Some("t4"));
}

/// An authorizer whose refreshes end at the moment that the test chooses.
struct Punctual {
    tokens: Tokens,
    waits: Arc<AtomicBool>,
    spins: Arc<AtomicUsize>,
}

impl Authorizer for Punctual {
    async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
        self.tokens.authorize(request).await
    }

    async fn refresh(&self, current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        let next = self.tokens.refresh(current, credential).await;
        self.waits.store(true, Ordering::Release);
        while self.waits.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        (0..self.spins.load(Ordering::Acquire)).for_each(|_| std::hint::spin_loop());
        next
    }
}

/// The check of a credential and its entry at the connection are two steps. A revocation can come between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_at_the_moment_of_a_refresh_is_never_overtaken() {
    let node = Node::embedded(Options::default());
    let (waits, spins) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let authorizer = Punctual { tokens: Tokens::starting_now(), waits: Arc::clone(&waits), spins: Arc::clone(&spins) };
    let url = serve(Router::new(node.clone()).authorizer(authorizer)).await;
    for attempt in 0..ATTEMPTS {
        let first = token(&json!({ "id": "first" })).to_string();
        let mut client = roomcast_testkit::Client::connect_with(&url, &[("authorization", &first)]).await.unwrap();
        let next = format!("next-{attempt}");
        spins.store(attempt % 100 * 20, Ordering::Release);
        let refresh = client.start("auth/refresh", token(&json!({ "id": next })).to_string()).await.unwrap();
        while !waits.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        let revocation = until_tomorrow(Revoked::Credential { id: next });
        waits.store(false, Ordering::Release);
        node.revoke(revocation).await.unwrap();
        match client.answer(refresh).await {
            // The close can overtake the response.
            Err(ClientError::Closed(close)) => assert_eq!(close.map(|close| close.0), Some(TOKEN_EXPIRED)),
            Ok(response) if response.is_empty() => assert_eq!(client.closed().await.unwrap().0, TOKEN_EXPIRED),
            refused => assert!(String::from_utf8_lossy(&refused.unwrap()).contains("UNAUTHENTICATED")),
        }
    }
}

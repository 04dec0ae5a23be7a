//! Which lifecycle events the connections of a router cause.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use bytes::Bytes;
use common::tokens::Tokens;
use common::wait_until;
use parking_lot::Mutex;
use roomcast::testing::{ClientBuilder, PATIENCE, connect};
use roomcast::{
    Authorizer, BoxFuture, CallContext, CallError, CloseCode, Code, DrainPlan, EventBatch, EventKind, EventOptions,
    EventRules, EventSink, Grace, Handler, Identity, MemoryEvents, Node, Options, Router, Socket, UserId,
};
use serde_json::{Value, json};

/// A backend that accepts everything.
#[derive(Debug, Default)]
struct Backend(Mutex<Vec<Value>>);

impl EventSink for Backend {
    fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
        self.0.lock().extend(serde_json::from_slice::<Vec<Value>>(&batch.body).unwrap());
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Backend {
    /// Returns what has happened, each as the last part of the type, the user, and the room or the
    /// cause.
    fn happened(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let describe = |event: &Value| {
            let data = &event["data"];
            let kind = event["type"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
            let rest = ["user", "room", "method", "outcome", "cause", "code"].iter().filter_map(|key| data.get(key));
            std::iter::once(kind).chain(rest.map(text)).collect::<Vec<_>>().join(" ")
        };
        self.0.lock().iter().map(describe).collect()
    }

    async fn expect(&self, expected: &[&str]) {
        wait_until(&format!("{expected:?} has happened"), || self.happened().len() >= expected.len()).await;
        assert_eq!(self.happened(), expected);
    }
}

fn node() -> (Node, Arc<Backend>) {
    let (node, backend) = (Node::embedded(Options::default()), Arc::new(Backend::default()));
    let mut rules = EventRules::default();
    rules.return_time = Duration::from_millis(200);
    let (store, sink) = (Arc::new(MemoryEvents::new(rules)), Arc::clone(&backend) as Arc<dyn EventSink>);
    let mut options = EventOptions::new(EventKind::ALL.into_iter().collect(), store, sink);
    options.occupancy = "game:*".parse().unwrap();
    node.report_events(options);
    (node, backend)
}

fn ann() -> ClientBuilder {
    ClientBuilder::default().user(UserId::new("ann").unwrap())
}

#[tokio::test]
async fn what_a_connection_does_is_reported_in_order() {
    let (node, backend) = node();
    let router = Router::new(node).open_rooms().on_connect(async |socket: Socket| socket.join("lobby").await);
    let (mut client, _socket) = ann().connect(&router).await.unwrap();
    client.call("rooms/join/game:1", ()).await.unwrap();
    client.call("rooms/join/game:1", ()).await.unwrap();
    let mut expected = vec!["connected ann", "joined ann lobby", "joined ann game:1", "occupied game:1"];
    backend.expect(&expected).await;
    client.call("rooms/leave/game:1", ()).await.unwrap();
    expected.extend(["left ann game:1", "vacated game:1"]);
    wait_until("both have happened", || backend.happened().len() == expected.len()).await;
    assert!(expected.iter().all(|event| backend.happened().iter().any(|happened| happened == event)));
    backend.0.lock().clear();
    client.close().await;
    backend.expect(&["disconnected ann client 1000", "left ann lobby"]).await;
}

#[tokio::test]
async fn anonymous_clients_leave_at_once_and_refused_ones_never_come() {
    let (node, backend) = node();
    let refuse = Router::new(node.clone())
        .on_connect(async || Err::<(), _>(CallError::new(Code::PermissionDenied, "not today")));
    assert!(connect(&refuse).await.is_err());
    let router = Router::new(node).open_rooms();
    let (mut client, socket) = connect(&router).await.unwrap();
    client.call("rooms/join/lobby", ()).await.unwrap();
    socket.close(CloseCode::DISCONNECTED, "enough").unwrap();
    assert_eq!(client.closed().await.code, CloseCode::DISCONNECTED);
    backend.expect(&["connected null", "joined null lobby", "left null lobby", "disconnected null server 4409"]).await;
}

#[tokio::test]
async fn each_call_of_a_handler_ends_with_its_outcome() {
    let (node, backend) = node();
    let router = Router::new(node)
        .open_rooms()
        .call("fine", async || "")
        .call("wrong", async || Err::<(), _>(CallError::new(Code::NotFound, "there is none")))
        .quick_call("quick", async || "")
        .call("endless", async || std::future::pending::<()>().await);
    let (mut client, _socket) = ann().connect(&router).await.unwrap();
    client.call("rooms/leave/lobby", ()).await.unwrap();
    client.call("fine", ()).await.unwrap();
    client.call("wrong", ()).await.unwrap_err();
    client.call("quick", ()).await.unwrap();
    client.call("unknown", ()).await.unwrap_err();
    let endless = client.start("endless", ()).await;
    client.cancel(endless).await;
    client.start("endless", ()).await;
    wait_until("the calls have ended", || backend.happened().len() == 5).await;
    drop(client);
    backend
        .expect(&[
            "connected ann",
            "ended ann fine ok null",
            "ended ann wrong NOT_FOUND null",
            "ended ann quick ok null",
            "ended ann endless cancelled reset",
            "ended ann endless cancelled lost",
            "disconnected ann lost 1006",
        ])
        .await;
}

/// A method whose calls never end, and whose grace the test takes.
#[derive(Clone, Default)]
struct Graceful(Arc<Mutex<Option<Grace>>>);

impl<S> Handler<CallContext, (), S> for Graceful {
    fn handle(self: Arc<Self>, call: CallContext, _: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>> {
        *self.0.lock() = Some(call.grace());
        Box::pin(std::future::pending())
    }
}

impl Graceful {
    async fn take(&self) -> Grace {
        wait_until("the call has begun", || self.0.lock().is_some()).await;
        self.0.lock().take().unwrap()
    }
}

#[tokio::test]
async fn a_call_is_reported_after_its_grace_even_if_its_connection_has_ended() {
    let ((node, backend), graceful) = (node(), Graceful::default());
    let router = Router::new(node.clone()).call("slow", graceful.clone());
    let (mut client, _socket) = ann().connect(&router).await.unwrap();
    client.start("slow", ()).await;
    let grace = graceful.take().await;
    grace.item_received(); // the call still runs
    drop(client);
    backend.expect(&["connected ann", "disconnected ann lost 1006"]).await;
    grace.item_received();
    grace.item_received();

    drop(grace);
    backend.expect(&["connected ann", "disconnected ann lost 1006", "ended ann slow cancelled lost"]).await;
    assert_eq!(backend.0.lock()[2]["data"]["late_items"], 2);
}

#[tokio::test]
async fn a_drain_waits_for_the_grace_of_cancelled_calls_within_its_time() {
    let (node, graceful) = (Node::embedded(Options::default()), Graceful::default());
    let router = Router::new(node.clone()).call("slow", graceful.clone());
    let (mut client, _socket) = connect(&router).await.unwrap();
    client.start("slow", ()).await;
    let grace = graceful.take().await;
    drop(client);
    let drain = |timeout| {
        let node = node.clone();
        tokio::spawn(async move { node.drain(DrainPlan::new(Duration::ZERO, timeout)).await })
    };
    let (waits, gives_up) = (drain(PATIENCE), drain(Duration::ZERO));
    gives_up.await.unwrap();
    assert!(!waits.is_finished());
    drop(grace);
    waits.await.unwrap();
}

/// Accepts clients that send their credential later.
struct Late(Tokens);

impl Authorizer for Late {
    async fn authorize(&self, _request: &Parts) -> Result<Identity, CallError> {
        Ok(Identity::pending(Duration::from_secs(60)))
    }

    async fn refresh(&self, current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        self.0.refresh(current, credential).await
    }
}

#[tokio::test]
async fn a_client_that_sends_its_credential_late_connects_with_it() {
    let (node, backend) = node();
    let router = Router::new(node).authorizer(Late(Tokens::starting_now()));
    let (without, _socket) = connect(&router).await.unwrap();
    without.close().await;
    let (mut client, _socket) = connect(&router).await.unwrap();
    let token = json!({ "user": "ann", "allow": [], "expires_in": 3600 });
    client.call("auth/refresh", token.to_string()).await.unwrap();
    drop(client);
    backend.expect(&["connected ann", "disconnected ann lost 1006"]).await;
}

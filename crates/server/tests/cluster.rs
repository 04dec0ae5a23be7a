//! Two nodes of one cluster with real clients: each reaches, lists and closes those of the other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{serve, wait_until};
use roomcast::{
    CallError, CloseCode, Code, ConnectionId, DrainPlan, MAX_PAYLOAD, MemoryBus, Node, Options, Router, Socket,
};
use roomcast_testkit::Client;
use serde_json::{Value, json};

/// Two nodes that know each other, and where they listen.
async fn two_nodes() -> [(Node, String); 2] {
    let bus = MemoryBus::new();
    let nodes = [(); 2].map(|()| Node::new(Arc::new(bus.attach()), Options::default()));
    wait_until("they know each other", || nodes.iter().all(|node| node.nodes().len() == 2)).await;
    let [a, b] = nodes;
    [(a.clone(), listen(a).await), (b.clone(), listen(b).await)]
}

async fn listen(node: Node) -> String {
    let router = Router::new(node).open_rooms().call("id", async |socket: Socket| socket.id().to_string());
    serve(router).await
}

async fn connect(url: &str) -> (Client, ConnectionId) {
    let mut client = Client::connect(url).await.unwrap();
    let id = client.call_text("id", "").await.unwrap().parse().unwrap();
    (client, id)
}

async fn members(client: &mut Client) -> Value {
    let members = client.call_text("rooms/members/lobby", "").await.unwrap();
    serde_json::from_str(&members).unwrap()
}

#[tokio::test]
async fn clients_see_the_members_of_all_nodes() {
    let [(_a, url_a), (_b, url_b)] = two_nodes().await;
    let ((mut on_a, _), (mut on_b, id)) = (connect(&url_a).await, connect(&url_b).await);
    on_b.call("rooms/join/lobby", "").await.unwrap();
    let member = json!({ "connection": id.to_string(), "user": null });
    assert_eq!(members(&mut on_a).await, json!({ "count": 1, "members": [member], "unresponsive_nodes": [] }));
    on_b.call("rooms/leave/lobby", "").await.unwrap();
    assert_eq!(members(&mut on_a).await, json!({ "count": 0, "members": [], "unresponsive_nodes": [] }));
}

#[tokio::test]
async fn a_payload_that_is_too_large_for_brokers_is_the_callers_mistake() {
    let [(a, _), _b] = two_nodes().await;
    let payload = vec![0; MAX_PAYLOAD + 1];
    let published = a.room("lobby").publish("large", payload.clone()).await;
    assert_eq!(published.unwrap_err().code, Code::InvalidArgument);
    let notified = a.user("ann").notify("large", payload).await;
    assert_eq!(notified.unwrap_err().code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_connection_is_addressed_from_another_node_and_the_answers_are_true() {
    let [(a, _), (_b, url_b)] = two_nodes().await;
    let (mut client, id) = connect(&url_b).await;
    a.connection(id).notify("hello", "you").await.unwrap();
    assert_eq!(client.event().await.unwrap().payload, "you");
    a.connection(id).join("lobby").await.unwrap();
    a.room("lobby").publish("hello", "all").await.unwrap();
    assert_eq!(client.event().await.unwrap().payload, "all");
    assert_eq!(a.rooms(Default::default()).await.unwrap().rooms[0].members, 1);
    a.connection(id).leave("lobby").await.unwrap();
    assert_eq!(a.room("lobby").members().await.unwrap().count, 0);

    let code = |result: Result<(), CallError>| result.unwrap_err().code;
    assert_eq!(code(a.connection(id).join("no/room").await), Code::InvalidArgument);
    assert_eq!(code(a.connection(id).close(CloseCode(1006), "").await), Code::InvalidArgument);
    assert_eq!(code(a.connection(id).close(CloseCode::NORMAL, &"x".repeat(124)).await), Code::InvalidArgument);
    a.connection(id).close(CloseCode::DISCONNECTED, "out").await.unwrap();
    assert_eq!(client.closed().await.unwrap(), (4409, "out".to_owned()));
    assert_eq!(code(a.connection(id).notify("hello", "you").await), Code::NotFound);
    assert_eq!(code(a.connection(id).join("lobby").await), Code::NotFound);
}

#[tokio::test]
async fn a_node_that_has_drained_is_gone_at_once() {
    let [(a, _), (b, url_b)] = two_nodes().await;
    let (mut client, id) = connect(&url_b).await;
    let plan = DrainPlan::new(Duration::ZERO, Duration::from_secs(5));
    let (closed, ()) = tokio::join!(client.closed(), b.drain(plan));
    assert_eq!(closed.unwrap().0, 1001);
    wait_until("it is gone", || a.nodes().len() == 1).await;
    assert_eq!(a.connection(id).notify("hello", "you").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_drain_waits_for_the_disconnect_handlers_of_clients_that_do_not_answer_its_close() {
    let node = Node::embedded(Options::default());
    let (handled, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let router = Router::new(node.clone()).on_disconnect({
        let (handled, ended) = (Arc::clone(&handled), Arc::clone(&ended));
        move || {
            handled.fetch_add(1, Ordering::SeqCst);
            let ended = Arc::clone(&ended);
            async move {
                tokio::task::yield_now().await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let url = serve(router).await;
    // It reads nothing, so it does not answer a Close.
    let _silent = Client::connect(&url).await.unwrap();
    wait_until("it is connected", || node.connection_count() == 1).await;
    node.drain(DrainPlan::new(Duration::ZERO, Duration::from_millis(100))).await;
    assert_eq!((handled.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 1));
}

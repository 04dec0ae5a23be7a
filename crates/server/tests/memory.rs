//! A node whose connections hold more memory than they may.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::broker::{Stream, TestBroker};
use common::{serve, wait_until, within_deadline};
use roomcast::{Node, Options, Router};
use roomcast_testkit::{Client, ClientError};

/// Less than one read brings, so that messages are whole when they are counted.
const INBOUND_MEMORY: usize = 1000;

/// Notifications of `waits` are never done.
fn router(node: &Node) -> Router {
    Router::new(node.clone()).notify("waits", async || std::future::pending::<()>().await)
}

fn is_refused(connected: &Result<Client, ClientError>) -> bool {
    matches!(connected, Err(error) if error.to_string().contains("503"))
}

#[tokio::test]
async fn nobody_new_is_accepted_until_what_is_held_fits_again() {
    let broker = Arc::new(TestBroker::new());
    let node =
        Node::new(Arc::clone(&broker) as _, Options::default().with(|options| options.inbound_memory = INBOUND_MEMORY));
    let url = serve(router(&node)).await;
    // A node that has failed closes nobody for memory, so there is time to look.
    broker.stream.send_replace(Stream::Ends);
    node.failed().await;
    let mut client = Client::connect(&url).await.unwrap();
    client.notify("waits", vec![b'x'; INBOUND_MEMORY + 1]).await.unwrap();
    let connect = async || Client::connect(&url).await;
    let started = Instant::now();
    while !is_refused(&connect().await) {
        within_deadline(started, "connections are refused");
    }
    drop(client);
    while is_refused(&connect().await) {
        within_deadline(started, "connections are accepted again");
    }
}

#[tokio::test]
async fn notifications_that_wait_on_a_connection_closed_for_memory_are_given_up() {
    let node = Node::embedded(Options::default().with(|options| options.inbound_memory = INBOUND_MEMORY));
    let url = serve(router(&node)).await;
    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..2 {
        client.notify("waits", vec![b'x'; INBOUND_MEMORY]).await.unwrap();
    }
    assert_eq!(client.closed().await.unwrap().0, 1013);
    // Long before the time that they would have had to finish.
    wait_until("the connection has ended", || node.connection_count() == 0).await;
    Client::connect(&url).await.unwrap();
}

#[tokio::test]
async fn notifications_without_payload_count_towards_the_memory_of_the_node() {
    let node = Node::embedded(Options::default().with(|options| options.inbound_memory = INBOUND_MEMORY));
    let url = serve(router(&node)).await;
    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..10 {
        client.notify("waits", "").await.unwrap();
    }
    assert_eq!(client.closed().await.unwrap().0, 1013);
}

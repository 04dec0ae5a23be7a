//! A node whose core has failed reports it, so that its process can end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::DEADLINE;
use common::broker::{Stream, TestBroker};
use futures_util::FutureExt;
use roomcast::{DrainPlan, Node, NodeFailure, Options};

async fn failure_when_the_stream(fate: Stream) -> NodeFailure {
    let broker = Arc::new(TestBroker::new());
    let node = Node::new(Arc::clone(&broker) as _, Options::default());
    tokio::task::yield_now().await;
    assert_eq!(node.failed().now_or_never(), None);
    broker.stream.send_replace(fate);
    tokio::time::timeout(DEADLINE, node.failed()).await.unwrap()
}

#[tokio::test]
async fn a_panic_in_the_core_is_a_failure() {
    assert_eq!(failure_when_the_stream(Stream::Panics).await, NodeFailure::Panicked);
}

#[tokio::test]
async fn the_end_of_the_brokers_events_is_a_failure() {
    assert_eq!(failure_when_the_stream(Stream::Ends).await, NodeFailure::EventsEnded);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drains_has_not_failed() {
    let node = Node::embedded(Options::default());
    node.drain(DrainPlan::new(Duration::ZERO, DEADLINE)).await;
    assert!(tokio::time::timeout(DEADLINE, node.failed()).await.is_err());
}

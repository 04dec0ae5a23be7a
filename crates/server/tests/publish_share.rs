//! A connection that floods rooms while the broker is slow: it waits, and nobody else does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::broker::TestBroker;
use common::{serve, wait_until};
use roomcast::{Node, Options, Router};
use roomcast_testkit::Client;

/// What one connection may have under way.
const MAX_PUBLISHES: usize = 256;
const MAX_BYTES: usize = 1024 * 1024;

/// A node whose broker takes no publish until it is told to.
async fn slow_node() -> (Arc<TestBroker>, String) {
    let broker = Arc::new(TestBroker::new());
    let node = Node::new(Arc::clone(&broker) as _, Options::default());
    let router = Router::new(node).open_rooms().quick_call("echo", async || "");
    broker.holds.store(true, Ordering::Release);
    (broker, serve(router).await)
}

/// Waits until everything that a client sent has been read.
async fn all_is_read(client: &mut Client) {
    client.call("echo", "").await.unwrap();
}

#[tokio::test]
async fn notified_publishes_have_256_under_way_and_wait_in_their_order() {
    const EVENTS: usize = 3 * MAX_PUBLISHES;
    let (broker, url) = slow_node().await;
    let mut member = Client::connect(&url).await.unwrap();
    member.call("rooms/join/flooded", "").await.unwrap();
    let mut flooder = Client::connect(&url).await.unwrap();
    for number in 0..EVENTS {
        flooder.notify("rooms/publish/flooded/item", number.to_string()).await.unwrap();
    }
    all_is_read(&mut flooder).await;
    assert_eq!(broker.under_way("flooded").0, MAX_PUBLISHES);

    // Another's publish goes through meanwhile.
    let mut other = Client::connect(&url).await.unwrap();
    let call = other.start("rooms/publish/calm/item", "at once").await.unwrap();
    wait_until("it is at the broker", || broker.under_way("calm").0 == 1).await;
    broker.answer("calm");
    assert_eq!(other.answer(call).await.unwrap(), "");

    for answered in 1..=EVENTS {
        broker.answer("flooded");
        let left = EVENTS - answered;
        wait_until("the next has its place", || broker.under_way("flooded").0 == left.min(MAX_PUBLISHES)).await;
    }
    for number in 0..EVENTS {
        assert_eq!(member.event().await.unwrap().payload, number.to_string());
    }
}

#[tokio::test]
async fn called_publishes_wait_in_the_order_in_which_they_were_called() {
    const CALLS: usize = 2 * MAX_PUBLISHES;
    let (broker, url) = slow_node().await;
    let mut member = Client::connect(&url).await.unwrap();
    member.call("rooms/join/flooded", "").await.unwrap();
    let mut flooder = Client::connect(&url).await.unwrap();
    let mut calls = Vec::new();
    for number in 0..CALLS {
        calls.push(flooder.start("rooms/publish/flooded/item", number.to_string()).await.unwrap());
    }
    all_is_read(&mut flooder).await;
    assert_eq!(broker.under_way("flooded").0, MAX_PUBLISHES);
    for answered in 1..=CALLS {
        broker.answer("flooded");
        let left = CALLS - answered;
        wait_until("the next has its place", || broker.under_way("flooded").0 == left.min(MAX_PUBLISHES)).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(flooder.answer(call).await.unwrap(), "");
        assert_eq!(member.event().await.unwrap().payload, number.to_string());
    }
}

#[tokio::test]
async fn cancelled_publishes_count_until_the_broker_has_taken_them_and_those_that_wait_are_never_made() {
    let (broker, url) = slow_node().await;
    let mut flooder = Client::connect(&url).await.unwrap();
    for _ in 0..2 * MAX_PUBLISHES {
        let call = flooder.start("rooms/publish/flooded/item", "").await.unwrap();
        all_is_read(&mut flooder).await;
        flooder.reset(call).await.unwrap();
    }
    all_is_read(&mut flooder).await;
    assert!(broker.under_way("flooded").0 <= MAX_PUBLISHES, "{:?}", broker.under_way("flooded"));
    let last = flooder.start("rooms/publish/flooded/last", "").await.unwrap();
    while broker.under_way("flooded").0 > 0 {
        broker.answer("flooded");
        all_is_read(&mut flooder).await;
    }
    assert_eq!(flooder.answer(last).await.unwrap(), "");
}

#[tokio::test]
async fn large_publishes_have_a_mebibyte_under_way_and_a_larger_one_goes_alone() {
    const SIZE: usize = 300 * 1024;
    let (broker, url) = slow_node().await;
    let mut flooder = Client::connect(&url).await.unwrap();
    for _ in 0..5 {
        flooder.notify("rooms/publish/flooded/item", vec![0; SIZE]).await.unwrap();
    }
    all_is_read(&mut flooder).await;
    assert_eq!(broker.under_way("flooded"), (3, 3 * SIZE));
    flooder.notify("rooms/publish/flooded/item", vec![0; MAX_BYTES]).await.unwrap();
    for _ in 0..5 {
        wait_until("one is under way", || broker.under_way("flooded").0 > 0).await;
        broker.answer("flooded");
    }
    wait_until("the largest is under way", || broker.under_way("flooded") == (1, MAX_BYTES)).await;
}

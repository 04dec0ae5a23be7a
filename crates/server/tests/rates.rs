//! Clients at the limits of their rates, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use roomcast::prometheus::{Registry, TextEncoder};
use roomcast::testing::{Client, connect};
use roomcast::{CallError, CloseCode, Code, Node, Options, RateLimit, RateLimits, Router};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// One of something per second, and three at once.
const LIMIT: RateLimit = RateLimit::per_second(1).burst(3);

/// The client of a node with these limits, and none besides.
async fn client(set: impl FnOnce(&mut RateLimits)) -> (Client, Router) {
    let mut rates = RateLimits::default();
    for rate in [&mut rates.frames, &mut rates.calls, &mut rates.joins, &mut rates.publishes, &mut rates.new_rooms] {
        *rate = RateLimit::UNLIMITED;
    }
    set(&mut rates);
    let node = Node::embedded(Options::default().with(|options| options.rates = rates));
    let router = Router::new(node)
        .open_rooms()
        .quick_call("echo", async |payload: bytes::Bytes| payload)
        .call("long", std::future::pending::<()>)
        .notify("ignored", async || {});
    (connect(&router).await.unwrap().0, router)
}

fn refused(router: &Router, limit: &str) -> u64 {
    let registry = Registry::new();
    router.node().register_metrics(&registry).unwrap();
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = format!("roomcast_limits_reached_total{{limit=\"{limit}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[track_caller]
fn assert_too_often(result: Result<bytes::Bytes, CallError>, limit: &str, retry_after_ms: u64) {
    let error = result.unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted, "{error}");
    assert_eq!(error.details(), Some(&json!({ "limit": limit, "retry_after_ms": retry_after_ms })));
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_rate_fail_with_the_time_after_which_one_succeeds() {
    let (mut client, router) = client(|rates| rates.calls = LIMIT).await;
    for _ in 0..3 {
        client.call("echo", "").await.unwrap();
    }
    tokio::time::sleep(SECOND / 4).await;
    assert_too_often(client.call("echo", "").await, "calls", 750);
    assert_too_often(client.call("no such method", "").await, "calls", 750);
    assert_eq!(refused(&router, "calls"), 2);
    tokio::time::sleep(SECOND * 3 / 4).await;
    client.call("echo", "").await.unwrap();
    client.call("echo", "").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn joins_and_publishes_have_rates_of_their_own() {
    let (mut client, router) = client(|rates| (rates.joins, rates.publishes) = (LIMIT, LIMIT)).await;
    for room in ["a", "b", "c"] {
        client.call(&format!("rooms/join/{room}"), "").await.unwrap();
        client.call(&format!("rooms/publish/{room}/event"), "").await.unwrap();
    }
    assert_too_often(client.call("rooms/join/d", "").await, "joins", 1000);
    assert_too_often(client.call("rooms/publish/a/event", "").await, "publishes", 1000);
    client.call("rooms/leave/a", "").await.unwrap();
    client.call("rooms/members/b", "").await.unwrap();
    assert_eq!((refused(&router, "joins"), refused(&router, "publishes")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn only_joins_of_rooms_without_members_count_as_new_rooms() {
    let (mut client, router) = client(|rates| rates.new_rooms = LIMIT).await;
    let (mut other, _) = connect(&router).await.unwrap();
    for room in ["a", "b", "c"] {
        client.call(&format!("rooms/join/{room}"), "").await.unwrap();
    }
    assert_too_often(client.call("rooms/join/d", "").await, "new_rooms", 1000);
    other.call("rooms/join/d", "").await.unwrap();
    client.call("rooms/join/d", "").await.unwrap();
    client.notify("rooms/join/e", "").await;
    assert_eq!(client.closed().await.code, CloseCode::POLICY_VIOLATION);
    assert_eq!(refused(&router, "new_rooms"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_notification_beyond_a_rate_closes_with_1008() {
    for (set, name, limit) in [
        ((|rates| rates.joins = LIMIT) as fn(&mut RateLimits), "rooms/join/a", "joins"),
        (|rates| rates.publishes = LIMIT, "rooms/publish/a/event", "publishes"),
        (|rates| rates.frames = LIMIT, "ignored", "frames"),
    ] {
        let (mut client, router) = client(set).await;
        for _ in 0..4 {
            client.notify(name, "").await;
        }
        let closed = client.closed().await;
        assert_eq!(closed.code, CloseCode::POLICY_VIOLATION);
        assert_eq!(closed.reason, format!("rate limit reached ({limit}: 1/s burst 3); try again in 1000 ms"));
        assert_eq!(refused(&router, limit), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancellation_is_free_while_its_call_is_in_flight_and_else_counts_as_a_frame() {
    let (mut client, router) = client(|rates| rates.frames = RateLimit::per_second(1).burst(10)).await;
    for _ in 0..9 {
        let call = client.start("long", "").await;
        client.cancel(call).await;
    }
    let call = client.start("echo", "").await;
    tokio::time::sleep(SECOND / 10).await; // The node responds, but the client does not read.
    assert_eq!(refused(&router, "frames"), 0);
    client.cancel(call).await;
    assert_eq!(client.closed().await.code, CloseCode::POLICY_VIOLATION);
    assert_eq!(refused(&router, "frames"), 1);
}

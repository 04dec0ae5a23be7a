//! Traces, as a collector receives them.

mod backends;
mod collector;
mod handshakes;
mod sampling;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::io;
use std::process::Command;

use collector::{Collector, attribute};
use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use support::{BINARY, http, in_time, start_node, wait_until, without_options};
use tokio::net::TcpListener;

/// A span whose trace is sampled, and the ids in it.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1234567812345678-01";

const TRACE_ID: [u8; 16] = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
const SPAN_ID: [u8; 8] = 0x1234_5678_1234_5678_u64.to_be_bytes();

async fn connect(node: &Node) -> Client {
    Client::connect(&node.url()).await.expect("the node accepts it")
}

#[tokio::test]
async fn a_call_is_traced_with_its_outcome_and_the_cause_of_its_cancellation() {
    let (collector, url) = Collector::grpc().await;
    let node = start_node(&["--demo", "--trace-endpoint", &url, "--trace-ratio=1"]).await;
    let mut client = connect(&node).await;
    assert_eq!(client.call_text("uppercase", "x").await.expect("an answer"), "X");
    client.call_text("uppercase", [0xFF]).await.expect("an answer");
    let long = client.start("long", "").await.expect("the connection is open");
    wait_until("the call is in flight", async || node.metric("roomcast_calls_in_flight").await == 1.0).await;
    client.reset(long).await.expect("the connection is open");

    let cancelled = collector.wait_for("long", 1).await.remove(0);
    assert_eq!(attribute(&cancelled, "rpc.response.status_code"), "CANCELLED");
    assert_eq!(attribute(&cancelled, "roomcast.cancel.cause"), "reset");
    let outcome = |span| attribute(span, "rpc.response.status_code");
    let mut outcomes: Vec<_> = collector.wait_for("uppercase", 2).await.iter().map(outcome).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["INVALID_ARGUMENT", "OK"]);
    let connected = collector.wait_for("connect", 1).await.remove(0);
    let id = attribute(&connected, "roomcast.connection.id");
    assert_eq!(attribute(&cancelled, "roomcast.connection.id"), id);
    assert!(!id.is_empty() && cancelled.trace_id != connected.trace_id, "a call has a trace of its own");
    client.close().await.expect("an orderly close");
    let disconnected = collector.wait_for("disconnect", 1).await.remove(0);
    assert_eq!(disconnected.parent_span_id, connected.span_id);
    assert_eq!(collector.resources("service.name")[0], "roomcast");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_and_its_deliveries_on_two_nodes_are_one_trace() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let (collector, url) = Collector::http().await;
    let start = async |ratio: &str| {
        let secret = "--cluster-secret=secret-of-this-cluster";
        let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio", ratio];
        start_node(&[&["--demo", "--redis", &redis.url(), secret], &traces[..]].concat()).await
    };
    // The second node samples nothing, but continues what the first one has sampled.
    let nodes = [start("1").await, start("0").await];
    let (mut ann, mut bob) = (connect(&nodes[0]).await, connect(&nodes[1]).await);
    for client in [&mut ann, &mut bob] {
        client.call("rooms/join/lobby", b"").await.expect("it joins");
    }
    ann.call("rooms/publish/lobby/said", b"hello").await.expect("the broker accepts it");
    let event = in_time("the event arrives", bob.event()).await.expect("the connection is open");
    assert_eq!(&*event.payload, b"hello");

    let deliveries = collector.wait_for("deliver", 2).await;
    let publish = collector.wait_for("publish", 1).await.remove(0);
    let call = collector.wait_for("rooms/publish", 1).await.remove(0);
    let batch = collector.wait_for("redis publish", 1).await.remove(0);
    assert_eq!((&publish.trace_id, &publish.parent_span_id), (&call.trace_id, &call.span_id));
    for span in deliveries.iter().chain([&batch]) {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&publish.trace_id, &publish.span_id));
    }
    assert_eq!(attribute(&publish, "messaging.destination.name"), "lobby");
    let mut at: Vec<_> = deliveries.iter().map(|span| attribute(span, "roomcast.node.id")).collect();
    at.dedup();
    assert_eq!(at.len(), 2, "each node delivers it once: {at:?}");
    assert!(deliveries.iter().all(|span| attribute(span, "roomcast.members") == "1"));

    let request = format!("traceparent: {TRACEPARENT}\r\n");
    let answer = http(&nodes[1].internal, "POST", "/v1/rooms/lobby/events/told", &request, b"hello").await;
    assert_eq!(answer.status, 200);
    let request = collector.wait_for("POST /v1/rooms/{room}/events/{event}", 1).await.remove(0);
    assert_eq!((request.trace_id, request.parent_span_id), (TRACE_ID.to_vec(), SPAN_ID.to_vec()), "of the backend");
    let deliveries = collector.wait_for("deliver", 4).await;
    assert_eq!(deliveries.iter().filter(|span| span.trace_id == TRACE_ID).count(), 2);

    bob.call("rooms/publish/lobby/said", b"hello").await.expect("the broker accepts it");
    for _ in ["its own", "of the API", "of bob"] {
        in_time("the event arrives", ann.event()).await.expect("the connection is open");
    }
    nodes[1].signal("TERM"); // it exports its last spans before it ends
    let [_, mut second] = nodes;
    drop(bob);
    in_time("the node ends", second.exit()).await;
    assert_eq!(collector.spans("publish").len(), 2, "what is not sampled is not sent");
}

#[tokio::test]
async fn a_client_decides_that_its_handshake_is_traced_only_if_the_operator_permits_it() {
    let (collector, url) = Collector::grpc().await;
    for (clients, expected) in [("--trace-clients=false", 0), ("--trace-clients=true", 1)] {
        let mut node = start_node(&["--demo", "--trace-endpoint", &url, "--trace-ratio=0", clients]).await;
        let client = Client::connect_with(&node.url(), &[("traceparent", TRACEPARENT)]).await.expect("it connects");
        client.close().await.expect("an orderly close");
        node.signal("INT");
        in_time("the node ends", node.exit()).await;
        let spans = collector.spans("connect");
        assert_eq!(spans.len(), expected, "{clients}");
        for span in spans {
            assert_eq!((span.trace_id, span.parent_span_id), (TRACE_ID.to_vec(), SPAN_ID.to_vec()));
        }
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_delays_neither_calls_nor_the_end_of_the_node() -> io::Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let options = ["--demo", "--log=error", "--trace-ratio=1", "--trace-protocol=http", "--trace-endpoint", &endpoint];
    let rates = ["--rates-calls=1000000/s burst 1000000", "--rates-frames=1000000/s burst 1000000"];
    let mut node = in_time("the node is ready", Node::start_by(command, &[&options[..], &rates].concat())).await;
    let mut client = connect(&node).await;
    let dropped = "roomcast_trace_spans_dropped_total{reason=\"queue\"}";
    while node.metric(dropped).await == 0.0 {
        for _ in 0..500 {
            client.call("echo", "x").await.expect("the node answers");
        }
    }
    node.signal("INT");
    assert!(in_time("the node ends", node.exit()).await.success());
    Ok(())
}

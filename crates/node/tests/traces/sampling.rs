//! Which traces are sampled: the decision is made once for each trace, when it begins.

use std::collections::{HashMap, HashSet};

use roomcast_testkit::{Client, RedisOptions, RedisServer};

use crate::collector::{Collector, attribute};
use crate::support::{http, in_time, start_node};
use crate::{TRACEPARENT, connect};

/// How many events are published in each way.
const PUBLISHES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_sampled_as_a_whole_or_not_at_all() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let (collector, url) = Collector::http().await;
    let start = async || {
        let secret = "--cluster-secret=secret-of-this-cluster";
        let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio=0.5"];
        start_node(&[&["--demo", "--redis", &redis.url(), secret], &traces[..]].concat()).await
    };
    let mut nodes = [start().await, start().await];
    let (mut ann, mut bob) = (connect(&nodes[0]).await, connect(&nodes[1]).await);
    for client in [&mut ann, &mut bob] {
        client.call("rooms/join/lobby", b"").await.expect("it joins");
    }
    for _ in 0..PUBLISHES {
        ann.call("rooms/publish/lobby/called", b"hello").await.expect("the broker accepts it");
        ann.notify("rooms/publish/lobby/notified", b"hello").await.expect("the connection is open");
        http(&nodes[1].internal, "POST", "/v1/rooms/lobby/events/posted", "", b"hello").await;
    }
    for client in [&mut ann, &mut bob] {
        for _ in 0..3 * PUBLISHES {
            in_time("the event arrives", client.event()).await.expect("the connection is open");
        }
    }
    drop((ann, bob));
    for node in &mut nodes {
        node.signal("INT"); // it exports its last spans before it ends
        in_time("the node ends", node.exit()).await;
    }

    let spans = collector.all();
    let ids: HashSet<_> = spans.iter().map(|span| &span.span_id).collect();
    let (roots, inner): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.parent_span_id.is_empty());
    for span in inner {
        assert!(ids.contains(&span.parent_span_id), "{span:?} has lost its parent");
    }
    let traces: HashSet<_> = spans.iter().map(|span| &span.trace_id).collect();
    assert_eq!(roots.len(), traces.len(), "each trace has one root");
    let mut published: HashMap<_, usize> = HashMap::new();
    for publish in spans.iter().filter(|span| span.name == "publish") {
        assert!(!publish.parent_span_id.is_empty(), "{publish:?} belongs to an operation that is not sampled");
        let deliveries = spans.iter().filter(|span| span.name == "deliver" && span.parent_span_id == publish.span_id);
        assert_eq!(deliveries.count(), 2, "each node delivers it: {publish:?}");
        *published.entry(attribute(publish, "roomcast.event")).or_default() += 1;
    }
    for (event, root) in
        [("called", "rooms/publish"), ("notified", "notification"), ("posted", "POST /v1/rooms/{room}/events/{event}")]
    {
        let sampled = roots.iter().filter(|span| span.name == root).count();
        assert_eq!(published.get(event), Some(&sampled), "{event}");
        assert!((1..PUBLISHES).contains(&sampled), "half of {PUBLISHES} are sampled, not {sampled}: {event}");
    }
}

#[tokio::test]
async fn a_request_of_a_trace_that_is_not_sampled_is_not_traced() {
    let (collector, url) = Collector::http().await;
    let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio=1", "--trace-clients"];
    let mut node = start_node(&[&["--demo"], &traces[..]].concat()).await;
    let not_sampled = TRACEPARENT.replace("-01", "-00");
    let client = Client::connect_with(&node.url(), &[("traceparent", &not_sampled)]).await;
    client.expect("it connects").close().await.expect("an orderly close");
    let request = format!("traceparent: {not_sampled}\r\n");
    let answer = http(&node.internal, "POST", "/v1/rooms/lobby/events/told", &request, b"hello").await;
    assert_eq!(answer.status, 200);
    http(&node.internal, "GET", "/v1/nodes", "", b"").await;
    node.signal("INT");
    in_time("the node ends", node.exit()).await;
    let names: Vec<_> = collector.all().into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["GET /v1/nodes"]);
}

//! The traces of handshakes, those that the node refuses included.

use roomcast_testkit::Client;
use serde_json::json;

use crate::collector::{Collector, attribute};
use crate::support::tokens::{SECRET, issuer, token};
use crate::support::{in_time, start_node, write_file};

#[tokio::test]
async fn a_handshake_is_traced_with_its_outcome() {
    let (collector, url) = Collector::http().await;
    let file = write_file("traced-handshakes.toml", &issuer("traced-handshakes"));
    let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio=1"];
    let mut node = start_node(&[&["--config", &file, "--max-connections=1"], &traces[..]].concat()).await;
    let connect = async |secret: &str| {
        let bearer = format!("Bearer {}", token(secret, &json!({})));
        Client::connect_with(&node.url(), &[("authorization", &bearer)]).await
    };
    connect("another-secret-0123456789abcdef").await.expect_err("the token is forged");
    let client = connect(SECRET).await.expect("the token is valid");
    connect(SECRET).await.expect_err("the node is full");
    client.close().await.expect("an orderly close");
    node.signal("INT");
    in_time("the node ends", node.exit()).await;

    let handshakes = collector.spans("connect");
    let mut outcomes: Vec<_> = handshakes.iter().map(|span| attribute(span, "roomcast.connect.outcome")).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["UNAUTHENTICATED", "accepted", "max_connections"]);
    assert!(handshakes.iter().all(|span| attribute(span, "client.address") == "127.0.0.1"));
    for handshake in &handshakes {
        let decisions = collector.spans("authorize");
        let decisions: Vec<_> = decisions.iter().filter(|span| span.parent_span_id == handshake.span_id).collect();
        let [decision] = decisions[..] else { panic!("{handshake:?} has the decisions {decisions:?}") };
        assert!(decision.start_time_unix_nano >= handshake.start_time_unix_nano, "the handshake began before it");
    }
}

//! Clients of one address at its limits, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::http::request::Parts;
use roomcast::prometheus::{Registry, TextEncoder};
use roomcast::testing::{Client, ClientBuilder, ConnectError};
use roomcast::{Authorizer, CallError, Code, Identity, Node, Options, RateLimit, Router};

const SECOND: Duration = Duration::from_secs(1);

fn node(max: usize, rate: RateLimit) -> Node {
    Node::embedded(Options::default().with(|options| {
        options.max_connections_per_address = max;
        options.rates.connections = rate;
    }))
}

async fn connect(router: &Router, address: &str) -> Result<Client, ConnectError> {
    let mut request = Request::new(());
    let address: SocketAddr = address.parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(address));
    ClientBuilder::default().request(request).connect(router).await.map(|(client, _)| client)
}

/// Returns the status of the response to an upgrade.
fn status(connected: Result<Client, ConnectError>) -> u16 {
    match connected {
        Err(ConnectError::Refused { status, .. }) => status.as_u16(),
        other => panic!("{other:?}"),
    }
}

fn refused(router: &Router, limit: &str) -> u64 {
    let registry = Registry::new();
    router.node().register_metrics(&registry).unwrap();
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let series = format!("roomcast_limits_reached_total{{limit=\"{limit}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_has_so_many_connections_at_once_and_others_are_not_affected() {
    let router = Router::new(node(2, RateLimit::UNLIMITED));
    let first = connect(&router, "[2001:db8::1]:1").await.unwrap();
    let _second = connect(&router, "[2001:db8::2]:2").await.unwrap();
    assert_eq!(status(connect(&router, "[2001:db8::3]:3").await), 429);
    assert_eq!(refused(&router, "max_connections_per_address"), 1);
    let _other = connect(&router, "[2001:db8:0:1::1]:1").await.unwrap();
    let mut inside = Vec::new();
    for port in 1..10 {
        inside.push(connect(&router, &format!("10.0.0.1:{port}")).await.unwrap());
    }

    first.close().await;
    let makes_room = async {
        while connect(&router, "[2001:db8::3]:3").await.is_err() {
            tokio::time::sleep(SECOND / 100).await;
        }
    };
    tokio::time::timeout(10 * SECOND, makes_room).await.expect("a closed connection makes room");
}

/// Rejects everybody.
struct Rejects;

impl Authorizer for Rejects {
    async fn authorize(&self, _: &Parts) -> Result<Identity, CallError> {
        Err(CallError::new(Code::Unauthenticated, "no"))
    }

    async fn refresh(&self, _: &Identity, _: &[u8]) -> Result<Identity, CallError> {
        Err(CallError::new(Code::Unauthenticated, "no"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_opens_so_many_connections_in_a_second_and_rejected_ones_count() {
    let router = Router::new(node(1000, RateLimit::per_second(1).burst(3))).authorizer(Rejects);
    for _ in 0..3 {
        assert_eq!(status(connect(&router, "203.0.113.9:1").await), 401);
    }
    assert_eq!(status(connect(&router, "203.0.113.9:1").await), 429);
    assert_eq!(refused(&router, "connections"), 1);
    assert_eq!(status(connect(&router, "203.0.113.10:1").await), 401);
    tokio::time::sleep(SECOND).await;
    assert_eq!(status(connect(&router, "203.0.113.9:1").await), 401);
    assert_eq!(status(connect(&router, "203.0.113.9:1").await), 429);
}

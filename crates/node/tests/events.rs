//! Lifecycle events of a cluster over Redis with Sentinel, while a node is killed, the master fails and
//! the backend is down.
//!
//! `ROOMCAST_EVENTS_CLIENTS` clients take part, 60 by default, and the backend is down for
//! `ROOMCAST_EVENTS_DOWN_SECONDS`, 3 by default.

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use roomcast_testkit::{Client, Node, Sentinels, http_get};
use serde_json::{Value, json};
use support::event_backend::EventBackend;
use support::tokens::{SECRET, issuer, token};
use support::{BINARY, http, wait_until, write_file};

/// How many clients share a room.
const MEMBERS: usize = 10;

/// How many clients connect at the same time.
const CONNECTING: usize = 50;

/// Who returns to another node within this time after the node's death does not leave: it is the time
/// for which a silent node counts as alive.
const RETURN_TIME: Duration = Duration::from_secs(10);

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Longer than a node counts as alive after its death, a failover, and the longest pause between
/// deliveries to a backend that was down.
fn deadline(down: Duration) -> Duration {
    Duration::from_secs(120) + down * 2
}

async fn start_node(config: &str, redis: &str) -> Node {
    let mut command = Command::new(BINARY);
    support::without_options(&mut command);
    // The clients read nothing, so they answer no pings.
    let arguments = ["--log", "error", "--ping-interval", "1h", "--config", config, "--redis", redis];
    Node::start_by(command, &arguments).await
}

async fn connect(node: &Node, client: usize) -> Client {
    let authorization = format!("Bearer {}", token(SECRET, &json!({ "sub": format!("user{client}") })));
    let connected = Client::connect_with(&node.url(), &[("authorization", &authorization)]).await;
    let mut connected = connected.unwrap_or_else(|error| panic!("client {client}: {error}"));
    let joined = connected.call(&format!("rooms/join/hall:{}", client / MEMBERS), "").await;
    joined.unwrap_or_else(|error| panic!("client {client}: {error}"));
    connected
}

async fn connect_all(node: &Node, clients: impl Iterator<Item = usize>) -> Vec<(usize, Client)> {
    let connecting = clients.map(async |client| (client, connect(node, client).await));
    futures_util::stream::iter(connecting).buffer_unordered(CONNECTING).collect().await
}

fn count(backend: &EventBackend, kind: &str) -> usize {
    backend.ids(kind).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_ends_once_through_a_kill_a_failover_and_an_outage_of_the_backend() {
    let clients = number("ROOMCAST_EVENTS_CLIENTS", 60);
    let down = Duration::from_secs(number("ROOMCAST_EVENTS_DOWN_SECONDS", 3) as u64);
    let deadline = deadline(down);
    let (mut redis, backend) = (Sentinels::start().await, EventBackend::start().await);
    let role = "\n[[role]]\nname = \"member\"\nallow = [{ rooms = [\"hall:*\"], do = [\"join\"] }]\n";
    let config = format!("{}{role}{}", issuer("events"), backend.config("events", "hall:*"));
    let config = write_file("events.toml", &config);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(start_node(&config, &redis.url()).await);
    }
    let mut connected = BTreeMap::new();
    for (of, node) in nodes.iter().enumerate() {
        connected.extend(connect_all(node, (of..clients).step_by(3)).await);
    }
    backend.wait("all have joined", deadline, |backend| count(backend, "joined") == clients).await;
    assert_eq!(count(&backend, "occupied"), clients.div_ceil(MEMBERS));

    backend.set_down(true);
    let down_since = Instant::now();
    drop(nodes.remove(0)); // kills it
    // Clients of the killed node, and as many others, go to the last node.
    let moving = (0..clients).filter(|client| client % 3 != 2);
    let returned = connect_all(&nodes[1], moving).await;
    let connections = clients + returned.len();
    connected.extend(returned);
    assert!(
        down_since.elapsed() < RETURN_TIME,
        "this machine is too slow: reconnecting took {:?}",
        down_since.elapsed()
    );
    let old = redis.kill_master().await;
    redis.wait_for_another_master_than(old).await;
    wait_until("a request has come in vain", async || backend.refused() > 0).await;
    tokio::time::sleep(down.saturating_sub(down_since.elapsed())).await;
    backend.set_down(false);
    let ended = connections - clients;
    backend.wait("the first ends", deadline, |backend| count(backend, "disconnected") == ended).await;
    let lost = backend.ids("disconnected").iter().filter(|id| cause(&backend, id) == "node_lost").count();
    assert_eq!(lost, clients.div_ceil(3), "the killed node's");
    assert_eq!((count(&backend, "joined"), count(&backend, "left")), (clients, 0), "all have returned in time");

    drop(connected);
    backend.wait("all ends", deadline, |backend| count(backend, "disconnected") == connections).await;
    backend.wait("all have left", deadline, |backend| count(backend, "left") == clients).await;
    let rooms = clients.div_ceil(MEMBERS);
    backend.wait("all rooms are vacated", deadline, |backend| count(backend, "vacated") == rooms).await;
    assert_eq!((count(&backend, "connected"), count(&backend, "occupied")), (connections, rooms));
    let mut of_user = BTreeMap::<_, usize>::new();
    for id in backend.ids("connected") {
        assert!(backend.place(&format!("{id}.connected")) < backend.place(&format!("{id}.disconnected")), "{id}");
        *of_user.entry(backend.event(&format!("{id}.connected"))["data"]["user"].to_string()).or_default() += 1;
    }
    assert_eq!(of_user.len(), clients);

    let (_, dead) = http_get(&nodes[0].internal, "/v1/events/dead").await.expect("it responds");
    assert_eq!(serde_json::from_str::<Value>(&dead).expect("JSON"), json!({ "events": [] }));
    let replayed = http(&nodes[0].internal, "POST", "/v1/events/dead/replay", "", b"").await;
    assert_eq!((replayed.status, &*replayed.body), (200, r#"{"replayed":0}"#));
}

fn cause(backend: &EventBackend, id: &str) -> String {
    backend.event(&format!("{id}.disconnected"))["data"]["cause"].as_str().expect("a cause").to_owned()
}

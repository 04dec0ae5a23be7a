//! Many rooms and memberships on one node of a cluster: what each costs, and how fast they come and go.
//!
//! `ROOMCAST_SCALE_CONNECTIONS` connections are in `ROOMCAST_SCALE_ROOMS` rooms each: 50 in 200 by default.

mod support;

use std::time::Instant;

use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use support::{Scrape, start_node, wait_for_values};
use tokio::task::JoinSet;

/// Each room has so many members.
const MEMBERS: usize = 10;

/// A connection has so many calls under way.
const UNDER_WAY: usize = 16;

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// The room of a connection: rooms are shared by `MEMBERS` neighbours.
fn room(connection: usize, number: usize) -> String {
    format!("scale-{}-{number}", connection / MEMBERS)
}

/// Every connection makes its calls, so many at a time.
async fn all_call(clients: Vec<Client>, rooms: usize, method: &'static str) -> Vec<Client> {
    let mut calling = JoinSet::new();
    for (connection, mut client) in clients.into_iter().enumerate() {
        calling.spawn(async move {
            let names: Vec<_> = (0..rooms).map(|number| format!("{method}/{}", room(connection, number))).collect();
            for names in names.chunks(UNDER_WAY) {
                let mut calls = Vec::with_capacity(names.len());
                for name in names {
                    calls.push(client.start(name, b"").await.expect("the call is sent"));
                }
                for call in calls {
                    let answer = client.answer(call).await.expect("an answer");
                    assert!(answer.is_empty(), "{method}: {}", String::from_utf8_lossy(&answer));
                }
            }
            (connection, client)
        });
    }
    let mut clients = calling.join_all().await;
    clients.sort_by_key(|(connection, _)| *connection);
    clients.into_iter().map(|(_, client)| client).collect()
}

async fn memory(node: &Node) -> f64 {
    Scrape::of(node).await.value("process_resident_memory_bytes").expect("the metric is there")
}

async fn used_by_redis(server: &RedisServer) -> f64 {
    let info = server.command(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.trim().strip_prefix("used_memory:"));
    used.and_then(|bytes| bytes.parse().ok()).expect("the line is there")
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures are a result too")]
async fn rooms_and_memberships_come_and_go_by_the_hundred_thousand() {
    let (connections, rooms) = (size("ROOMCAST_SCALE_CONNECTIONS", 50), size("ROOMCAST_SCALE_ROOMS", 200));
    let memberships = connections * rooms;
    let distinct = connections.div_ceil(MEMBERS) * rooms;
    let server = RedisServer::start(RedisOptions::default()).await;
    let node = start_node(&[
        "--demo",
        "--redis",
        &server.url(),
        "--redis-unsubscribe-delay",
        "0s",
        "--max-rooms",
        "5000",
        "--ping-interval",
        "1h",
    ])
    .await;
    let mut connecting = JoinSet::new();
    for connection in 0..connections {
        let url = node.url();
        connecting.spawn(async move { (connection, Client::connect(&url).await.expect("the node accepts")) });
    }
    let mut clients = connecting.join_all().await;
    clients.sort_by_key(|(connection, _)| *connection);
    let mut clients: Vec<_> = clients.into_iter().map(|(_, client)| client).collect();
    let (before, before_redis) = (memory(&node).await, used_by_redis(&server).await);

    let started = Instant::now();
    clients = all_call(clients, rooms, "rooms/join").await;
    let joining = started.elapsed();
    // All connections are in the demo's room, too.
    let (all_rooms, all_memberships) = ((distinct + 1) as f64, (memberships + connections) as f64);
    wait_for_values(&node, &[("roomcast_rooms", all_rooms), ("roomcast_memberships", all_memberships)]).await;
    let (after, after_redis) = (memory(&node).await, used_by_redis(&server).await);
    let channels = server.command(&["PUBSUB", "SHARDCHANNELS", "*:c0:scale-*"]).await.lines().count();
    assert_eq!(channels, distinct, "each room is subscribed to once");

    let started = Instant::now();
    clients = all_call(clients, rooms, "rooms/leave").await;
    let leaving = started.elapsed();
    wait_for_values(&node, &[("roomcast_rooms", 1.0), ("roomcast_memberships", connections as f64)]).await;
    let channels = async || server.command(&["PUBSUB", "SHARDCHANNELS", "*:c0:scale-*"]).await.trim().is_empty();
    node.wait_until("all rooms are unsubscribed", channels).await;
    drop(clients);

    eprintln!(
        "{distinct} rooms, {memberships} memberships: node {:.0} B each room with its {MEMBERS} members, Redis {:.0} B \
         each room; {:.0} joins/s, {:.0} leaves/s",
        (after - before) / distinct as f64,
        (after_redis - before_redis) / distinct as f64,
        memberships as f64 / joining.as_secs_f64(),
        memberships as f64 / leaving.as_secs_f64(),
    );
}

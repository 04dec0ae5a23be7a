//! Many clients behind a load balancer.

use std::sync::Arc;
use std::time::Instant;

use roomcast_testkit::{Client, HaProxy, RedisOptions, RedisServer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actors::{be_member, join};
use crate::board::Board;
use crate::burst::publish_all;
use crate::judge::{Verdict, judge};
use crate::support::{CONNECTIONS, Scrape, wait_until};
use crate::{size, start_node, turn};

const PUBLISHERS: usize = 30;

/// Events that each publisher sends to each room.
const EVENTS: usize = 1;

/// So many clients connect at once.
const CONNECTING: usize = 8;

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures are a result too")]
async fn every_member_gets_every_event_of_its_room_once_and_in_one_order() {
    let _turn = turn().await;
    let clients = size("ROOMCAST_CLUSTER_CLIENTS", 600);
    let rooms = size("ROOMCAST_CLUSTER_ROOMS", 40);
    let redis = RedisServer::start(RedisOptions::default()).await;
    let nodes = [start_node(&redis.url()).await, start_node(&redis.url()).await, start_node(&redis.url()).await];
    let balancer = HaProxy::start(&nodes.each_ref()).await;

    // The balancer chooses the node; whose it is does not matter here.
    let board = Arc::new(Board::new(PUBLISHERS, (0..clients).map(|member| (0, member % rooms))));
    let members = connect_members(&balancer, clients, rooms).await;
    let stop = watch::Sender::new(false);
    let mut listening = JoinSet::new();
    for (member, client) in members {
        listening.spawn(be_member(board.clone(), member, client, stop.subscribe()));
    }
    for node in &nodes {
        let connections = Scrape::of(node).await.value(CONNECTIONS).unwrap_or_default() as usize;
        assert!(connections > clients / nodes.len() / 2, "a node has {connections} of {clients} clients");
    }

    let started = Instant::now();
    let mut publishing = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let client = Client::connect(&balancer.url()).await.expect("a node serves");
        let targets = (0..EVENTS * rooms).map(|event| (publisher + event) % rooms).collect();
        publishing.spawn(publish_all(board.clone(), publisher, client, targets));
    }
    publishing.join_all().await;
    let acked = started.elapsed();
    let due = clients * PUBLISHERS * EVENTS;
    wait_until("all events have come", async || board.delivered() >= due || board.present() < clients).await;
    let took = started.elapsed();
    stop.send_replace(true);
    listening.join_all().await;

    let verdict = judge(&board.published(), &board.logs());
    eprintln!("{clients} clients, {rooms} rooms: acked after {acked:.2?}, delivered after {took:.2?}; {verdict:?}\n");
    assert_eq!(board.present(), clients, "members lost their connections");
    let published = PUBLISHERS * EVENTS * rooms;
    assert_eq!(verdict, Verdict { published, acked: published, delivered: due, ..Verdict::default() });
}

async fn connect_members(balancer: &HaProxy, clients: usize, rooms: usize) -> Vec<(usize, Client)> {
    let mut connecting = JoinSet::new();
    for task in 0..CONNECTING {
        let url = balancer.url();
        connecting.spawn(async move {
            let mut members = Vec::new();
            for member in (task..clients).step_by(CONNECTING) {
                members.push((member, join(&url, member % rooms).await));
            }
            members
        });
    }
    connecting.join_all().await.into_iter().flatten().collect()
}

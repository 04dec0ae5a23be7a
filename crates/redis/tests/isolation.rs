//! Who shares a Redis shares nothing else; and what one room, or somebody who may publish to Redis, can do to others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast_core::{Broker, BrokerError, BrokerStatus, NodeId, Publish, RoomName, check_event};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::{RedisOptions as ServerOptions, RedisServer};
use tokio::time::timeout;

/// No step waits longer.
const DEADLINE: Duration = Duration::from_secs(20);

const SECRET: &str = "a secret of the cluster";

async fn start(options: RedisOptions) -> Arc<RedisBroker> {
    let broker = RedisBroker::start(options).expect("valid options");
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    timeout(DEADLINE, up).await.expect("Redis is there").expect("the broker lives");
    Arc::new(broker)
}

fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a valid name")
}

async fn publish(broker: &RedisBroker, to: &RoomName, payload: impl Into<Bytes>) -> Result<(), BrokerError> {
    let (origin, published_at) = (NodeId::from_u64(1), Instant::now());
    let event = check_event("event").expect("a valid name");
    let published =
        broker.publish(Publish { origin, room: to.clone(), event, payload: payload.into(), published_at, trace: None });
    timeout(DEADLINE, published).await.expect("an answer").map(drop)
}

/// The payloads of the next events.
async fn next(broker: &RedisBroker) -> Vec<String> {
    let mut events = Vec::new();
    assert!(timeout(DEADLINE, broker.next_publications(&mut events)).await.expect("an event"), "the broker is open");
    events.into_iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_of_one_server_share_nothing() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let lobby = room("lobby");
    let start_in = |database| start(RedisOptions::new(format!("{}/{database}", server.url())));
    let brokers = [start_in(0).await, start_in(1).await, start_in(11).await];
    for broker in &brokers {
        broker.subscribe(&lobby).await.expect("Redis confirms it");
    }
    for (number, broker) in brokers.iter().enumerate() {
        publish(broker, &lobby, number.to_string()).await.expect("Redis takes it");
    }
    for (number, broker) in brokers.iter().enumerate() {
        assert_eq!(next(broker).await, [number.to_string()], "the first event is its own");
    }
}

/// A message that is forged by someone who may publish to Redis, but has no secret. No node has its origin.
fn forged(header: &str) -> Vec<u8> {
    let event = [&1_u64.to_be_bytes()[..], &0_u64.to_be_bytes(), &[5], b"event", &6_u32.to_be_bytes(), b"forged"];
    let (version, origin, no_mac, no_extension) = ([3], 99_u64.to_be_bytes(), [0], [0, 0]);
    [header.as_bytes(), &version, &origin, &no_mac, &no_extension, &event.concat()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_cluster_secret_nobody_else_can_send_events() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let lobby = room("lobby");
    let with = |secrets: &[&str]| {
        let mut options = RedisOptions::new(server.url());
        options.cluster_secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        start(options)
    };
    let (member, stranger, renewed) = (with(&[SECRET]).await, with(&[]).await, with(&["a newer secret", SECRET]).await);
    for broker in [&member, &stranger, &renewed] {
        broker.subscribe(&lobby).await.expect("Redis confirms it");
    }
    let channels = server.command(&["PUBSUB", "SHARDCHANNELS", "*:lobby"]).await;
    let raw = fred_client(&server).await;
    let sent: i64 = spublish(&raw, channels.trim(), forged("5 1 1 1\n")).await;
    assert_eq!(sent, 3);
    publish(&stranger, &lobby, "by a stranger").await.expect("Redis takes it");
    publish(&member, &lobby, "by a member").await.expect("Redis takes it");
    assert_eq!(next(&member).await, ["by a member"]);
    assert_eq!(next(&renewed).await, ["by a member"], "the secret that is being replaced is accepted");
    assert_eq!(next(&stranger).await[0], "forged", "without a secret, whoever may publish is believed");
    assert!(member.metrics().decode_errors.get() >= 2, "both are counted, one again when it comes from the history");
}

async fn fred_client(server: &RedisServer) -> fred::clients::Client {
    use fred::interfaces::ClientLike;
    let config = fred::types::config::Config::from_url(&server.url()).expect("a valid URL");
    let client = fred::types::Builder::from_config(config).build().expect("a client");
    client.init().await.expect("Redis is there");
    client
}

async fn spublish(client: &fred::clients::Client, channel: &str, message: Vec<u8>) -> i64 {
    use fred::interfaces::PubsubInterface;
    client.spublish(channel, Bytes::from(message)).await.expect("published")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_redis_refuses_fails_alone() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = start(RedisOptions::new(server.url())).await;
    let (good, bad) = (room("good"), room("bad"));
    for room in [&good, &bad] {
        publish(&broker, room, "first").await.expect("Redis takes it");
    }
    let history = server.command(&["KEYS", "*:h:bad"]).await;
    server.command(&["SET", history.trim(), "something else"]).await;
    let publishes = (0..500).map(|number| {
        let (broker, room) = (&broker, if number % 50 == 0 { &bad } else { &good });
        async move { (room.clone(), publish(broker, room, "x").await) }
    });
    for (room, published) in join_all(publishes).await {
        match (room == bad, published) {
            (false, published) => assert_eq!(published, Ok(())),
            (true, Err(BrokerError::Unavailable { reason })) => assert!(reason.contains("WRONGTYPE"), "{reason}"),
            (true, published) => panic!("{published:?}"),
        }
    }
    assert_eq!(broker.status().borrow().clone(), BrokerStatus::Up);
}

/// As after an eviction.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_event_and_small_ones_after_it_are_taken_though_the_position_is_missing() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = start(RedisOptions::new(server.url())).await;
    let lobby = room("lobby");
    for _ in 0..3 {
        publish(&broker, &lobby, "x").await.expect("Redis takes it");
    }
    server.command(&["DEL", server.command(&["KEYS", "*:p:lobby"]).await.trim()]).await;
    for payload in [vec![0; 200 * 1024], vec![0; 1], vec![0; 1]] {
        publish(&broker, &lobby, payload).await.expect("Redis takes it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_rooms_that_nobody_reads_cost_redis_little_and_not_for_long() {
    const ROOMS: u64 = 2000;
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = start(RedisOptions::new(server.url())).await;
    let used = async || {
        let info = server.command(&["INFO", "memory"]).await;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("Redis tells it");
        used.trim().parse::<u64>().expect("a number")
    };
    let read = room("read");
    broker.subscribe(&read).await.expect("Redis confirms it");
    publish(&broker, &read, "x").await.expect("Redis takes it");
    let before = used().await;
    let names: Vec<_> = (0..ROOMS).map(|number| room(&format!("made-up-{number}"))).collect();
    for published in join_all(names.iter().map(|name| publish(&broker, name, "x"))).await {
        published.expect("Redis takes it");
    }
    let each = (used().await - before) / ROOMS;
    assert!(each < 2048, "{each} bytes for each name");
    for name in ["made-up-0", "made-up-1999"] {
        let lives_for = async |kind| {
            let key = server.command(&["KEYS", &format!("*:{kind}:{name}")]).await;
            server.command(&["PTTL", key.trim()]).await.parse::<u64>().expect("it expires")
        };
        assert!(lives_for("h").await <= 30_000);
        assert!(lives_for("p").await <= 300_000);
    }
    let position = server.command(&["KEYS", "*:p:read"]).await;
    let lives_for: u64 = server.command(&["PTTL", position.trim()]).await.parse().expect("it expires");
    assert!(lives_for > 3_600_000, "a room that is read is remembered for hours: {lives_for} ms");
}

//! A node that has missed more than a room's history may contain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_core::{Broker, BrokerStatus, NodeId, Publish, RoomName, check_event};
use roomcast_redis::{MAX_HISTORY_BYTES, MIN_HISTORY_BYTES, RedisBroker, RedisOptions};
use roomcast_testkit::{RedisOptions as ServerOptions, RedisServer};
use tokio::time::timeout;

/// No step waits longer.
const DEADLINE: Duration = Duration::from_secs(20);

const EVENT_BYTES: usize = 60 * 1024;

/// How many events the history has room for, because each of them has a name and a header, too.
const KEPT: usize = MIN_HISTORY_BYTES / (EVENT_BYTES + 1024);

async fn start(options: RedisOptions) -> Arc<RedisBroker> {
    let broker = RedisBroker::start(options).expect("valid options");
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    timeout(DEADLINE, up).await.expect("Redis is there").expect("the broker is open");
    Arc::new(broker)
}

/// Publishes an event that consists of copies of one byte.
async fn publish(broker: &RedisBroker, room: &RoomName, byte: u8) {
    let (origin, published_at) = (NodeId::from_u64(1), Instant::now());
    let event = check_event("event").expect("a valid name");
    let payload = Bytes::from(vec![byte; EVENT_BYTES]);
    let published = broker.publish(Publish { origin, room: room.clone(), event, payload, published_at, trace: None });
    timeout(DEADLINE, published).await.expect("an outcome").expect("Redis accepts it");
}

/// Returns the first bytes of the next `count` events.
async fn next(broker: &RedisBroker, count: usize) -> Vec<u8> {
    let mut events = Vec::new();
    while events.len() < count {
        let more = timeout(DEADLINE, broker.next_publications(&mut events));
        assert!(more.await.expect("an event"), "the broker is open");
    }
    events.iter().map(|event| event.payload[0]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_exceed_the_bytes_of_a_history_are_counted_as_lost_by_a_node_that_missed_them() {
    const MISSED: u8 = 20;
    let server = RedisServer::start(ServerOptions::default()).await;
    let mut options = RedisOptions::new(server.url());
    options.history_bytes = MIN_HISTORY_BYTES;
    let (publisher, reader) = (start(options.clone()).await, start(options).await);
    let lobby = RoomName::new("lobby").expect("a valid name");
    reader.subscribe(&lobby).await.expect("Redis confirms it");
    publish(&publisher, &lobby, 0).await;
    assert_eq!(next(&reader, 1).await, [0]);

    server.command(&["ACL", "SETUSER", "default", "-ssubscribe"]).await;
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for byte in 1..=MISSED {
        publish(&publisher, &lobby, byte).await;
    }
    let history = server.command(&["KEYS", "*:h:lobby"]).await;
    let memory = server.command(&["MEMORY", "USAGE", history.trim(), "SAMPLES", "0"]).await;
    let memory: usize = memory.trim().parse().expect("a number");
    assert!((MIN_HISTORY_BYTES / 2..MIN_HISTORY_BYTES * 5 / 4).contains(&memory), "the history takes {memory} bytes");
    server.command(&["ACL", "SETUSER", "default", "+ssubscribe"]).await;

    let kept: Vec<u8> = (1..=MISSED).skip(usize::from(MISSED) - KEPT).collect();
    assert_eq!(next(&reader, KEPT).await, kept, "the newest events");
    let missing = u64::from(MISSED) - KEPT as u64;
    assert_eq!((reader.metrics().repaired.get(), reader.metrics().lost.get()), (KEPT as u64, missing));
    assert_eq!(publisher.metrics().history_dropped.get(), 1 + missing, "the event before the interruption, too");
}

#[tokio::test]
async fn a_limit_that_no_history_can_have_is_rejected() {
    for bytes in [0, MIN_HISTORY_BYTES - 1, MAX_HISTORY_BYTES + 1] {
        let mut options = RedisOptions::new("redis://127.0.0.1:1");
        options.history_bytes = bytes;
        let error = RedisBroker::start(options).expect_err("it is out of range").to_string();
        assert_eq!(error, format!("history_bytes is {bytes}; it must be from 262144 to 16777216"));
    }
}

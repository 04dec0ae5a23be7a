//! A slot moves to another master while a room in it is read: why the subscriber connections are our own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::Builder;
use fred::types::config::Config;
use roomcast_core::{Broker, BrokerStatus, NodeId, Publish, RoomName, check_event};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::RedisCluster;
use tokio::time::timeout;

/// No step waits longer, and no event that was lost is waited for longer.
const DEADLINE: Duration = Duration::from_secs(15);

async fn start(cluster: &RedisCluster) -> Arc<RedisBroker> {
    let broker = RedisBroker::start(RedisOptions::new(cluster.url())).expect("valid options");
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    timeout(DEADLINE, up).await.expect("Redis is there").expect("the broker lives");
    Arc::new(broker)
}

fn publish(room: &RoomName, number: usize) -> Publish {
    let event = check_event("numbered").expect("a valid name");
    let payload = number.to_string().into();
    Publish {
        origin: NodeId::from_u64(1),
        room: room.clone(),
        event,
        payload,
        published_at: Instant::now(),
        trace: None,
    }
}

async fn next(broker: &RedisBroker) -> Vec<String> {
    let mut events = Vec::new();
    assert!(timeout(DEADLINE, broker.next_publications(&mut events)).await.expect("an event"), "the broker is open");
    events.into_iter().map(|event| String::from_utf8_lossy(&event.payload).into_owned()).collect()
}

/// Slot by slot through all masters, with an event before and after each move, and one while it moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_read_on_wherever_its_slot_goes_and_misses_nothing() {
    let cluster = RedisCluster::start(3, 0).await;
    let (reader, publisher) = (start(&cluster).await, start(&cluster).await);
    let room = RoomName::new("moving").expect("a valid name");
    reader.subscribe(&room).await.expect("Redis confirms it");
    let mut expected = Vec::new();
    let mut came = Vec::new();
    for round in 0..6 {
        let slot = slot_of(&cluster, "moving").await;
        let from = cluster.owner_of_slot(slot).await;
        let during = tokio::spawn({
            let (publisher, room) = (Arc::clone(&publisher), room.clone());
            async move { publisher.publish(publish(&room, round * 2)).await }
        });
        cluster.migrate_slot(slot, cluster.next_master(from).await).await;
        during.await.expect("no panic").expect("the publish is taken");
        publisher.publish(publish(&room, round * 2 + 1)).await.expect("the publish is taken");
        expected.extend([(round * 2).to_string(), (round * 2 + 1).to_string()]);
        while came.len() < expected.len() {
            came.extend(next(&reader).await);
        }
        assert_eq!(came, expected, "after move {round}");
    }
    assert_eq!(reader.metrics().lost.get(), 0);
    assert!(reader.metrics().resubscriptions.get() >= 6, "each move ends the subscription");
}

/// fred's own subscriber, for comparison: it stays connected, and silent. When this fails, fred has learnt
/// it, and our connections may be given up.
#[tokio::test(flavor = "multi_thread")]
async fn freds_subscriber_is_silent_for_good_after_its_slot_has_moved() {
    const SILENCE: Duration = Duration::from_secs(5);
    let cluster = RedisCluster::start(3, 0).await;
    let config = Config::from_url(&cluster.url()).expect("a valid URL");
    let subscriber: SubscriberClient =
        Builder::from_config(config.clone()).build_subscriber_client().expect("a client");
    let publisher = Builder::from_config(config).build().expect("a client");
    let _tasks = (subscriber.init().await.expect("Redis is there"), publisher.init().await.expect("Redis is there"));
    let mut messages = subscriber.message_rx();
    subscriber.ssubscribe("moving").await.expect("subscribed");
    let _: i64 = publisher.spublish("moving", "before").await.expect("published");
    let before = timeout(DEADLINE, messages.recv()).await.expect("it comes").expect("no lag");
    assert_eq!(before.value.into_bytes(), Some(Bytes::from_static(b"before")));

    let slot = cluster.slot_of("moving").await;
    let from = cluster.owner_of_slot(slot).await;
    cluster.migrate_slot(slot, cluster.next_master(from).await).await;
    let published = Instant::now();
    let mut receivers = 0;
    while published.elapsed() < SILENCE {
        receivers += publisher.spublish::<i64, _, _>("moving", "after").await.expect("published");
        if let Ok(message) = timeout(Duration::from_millis(100), messages.recv()).await {
            panic!("fred brought {message:?}");
        }
    }
    assert_eq!(receivers, 0, "Redis knows of no subscriber");
}

/// The slot of a room's channel, as the server that has its subscriber knows it.
async fn slot_of(cluster: &RedisCluster, room: &str) -> u16 {
    for server in cluster.servers() {
        let channels = server.command(&["PUBSUB", "SHARDCHANNELS"]).await;
        if let Some(channel) = channels.lines().find(|channel| channel.ends_with(&format!(":c0:{room}"))) {
            return cluster.slot_of(channel.trim()).await;
        }
    }
    panic!("no server has a subscriber of {room}");
}

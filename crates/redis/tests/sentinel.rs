//! After a failover nobody stays with the former master, though that goes on as if it were one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_core::{Broker, BrokerStatus, NodeId, Publish, RoomName, check_event};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::{RedisServer, Sentinels};
use tokio::time::timeout;

/// No step waits longer.
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(url: String) -> Arc<RedisBroker> {
    let broker = RedisBroker::start(RedisOptions::new(url)).expect("valid options");
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    timeout(DEADLINE, up).await.expect("Redis is there").expect("the broker lives");
    Arc::new(broker)
}

/// The connections of brokers to a server. The tests' own come over a socket of another kind, and sentinels have names.
async fn connections(server: &RedisServer) -> Vec<String> {
    let clients = server.command(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let subscribers = server.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
    let all = clients.lines().chain(subscribers.lines());
    all.filter(|client| client.contains(" laddr=127.0.0.1:") && !client.contains(" name=sentinel-"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_stays_with_a_former_master_that_does_not_step_down() {
    let sentinels = Sentinels::start().await;
    let brokers = [start(sentinels.url()).await, start(sentinels.url()).await];
    let lobby = RoomName::new("lobby").expect("a valid name");
    for broker in &brokers {
        broker.subscribe(&lobby).await.expect("Redis confirms it");
    }
    let old = sentinels.master().await;
    let former = &sentinels.servers()[old];
    assert!(connections(former).await.len() >= 4, "both subscribe and publish there");
    // It refuses the sentinels' commands, so it stays a master.
    former.command(&["ACL", "SETUSER", "default", "-slaveof", "-replicaof"]).await;
    sentinels.failover().await;
    assert_eq!(former.command(&["ROLE"]).await.lines().next(), Some("master"));

    let started = Instant::now();
    while !connections(former).await.is_empty() {
        assert!(started.elapsed() < DEADLINE, "still there: {:?}", connections(former).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (broker, node) in brokers.iter().zip(1..) {
        let mut status = broker.status();
        let up = status.wait_for(|status| *status == BrokerStatus::Up);
        timeout(DEADLINE, up).await.expect("the new master works").expect("the broker lives");
        let event = check_event("event").expect("a valid name");
        let (origin, published_at) = (NodeId::from_u64(node), Instant::now());
        let publish = Publish { origin, room: lobby.clone(), event, payload: "x".into(), published_at, trace: None };
        broker.publish(publish).await.expect("the new master takes it");
    }
    for broker in &brokers {
        let mut events = Vec::new();
        while events.len() < brokers.len() {
            assert!(timeout(DEADLINE, broker.next_publications(&mut events)).await.expect("all events come"));
        }
    }
}

//! Other Redis servers take over: by sentinels, and in Redis Cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast_testkit::{RedisCluster, Sentinels};

use crate::board::room_name;
use crate::scene::{ROOMS, Scene};
use crate::turn;

async fn three_nodes(url: String) -> Scene {
    Scene::start(&[url.clone(), url.clone(), url]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_make_a_replica_the_master_as_planned() {
    let _turn = turn().await;
    let sentinels = Sentinels::start().await;
    let scene = three_nodes(sentinels.url()).await;
    scene.go_through("Sentinel: planned failover", async |_| sentinels.failover().await).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_replace_a_master_that_dies() {
    let _turn = turn().await;
    let mut sentinels = Sentinels::start().await;
    let scene = three_nodes(sentinels.url()).await;
    let kill = async |_: &mut Scene| {
        let old = sentinels.kill_master().await;
        sentinels.wait_for_another_master_than(old).await;
    };
    scene.go_through("Sentinel: SIGKILL of the master", kill).await.assert_lost_at_most_what_died();
}

/// The slots of everything in Redis whose name has the room's in it: channels, and keys.
async fn slots_of_room(cluster: &RedisCluster, room: usize) -> BTreeSet<u16> {
    let (mut slots, mut all) = (BTreeSet::new(), Vec::new());
    for server in cluster.servers().iter().filter(|server| server.is_running()) {
        for look in [&["PUBSUB", "SHARDCHANNELS"][..], &["PUBSUB", "CHANNELS"], &["KEYS", "*"]] {
            for name in server.command(look).await.lines() {
                if name.ends_with(&room_name(room)) || name.contains(&format!("{}}}", room_name(room))) {
                    slots.insert(cluster.slot_of(name).await);
                }
                all.push(name.to_owned());
            }
        }
    }
    assert!(!slots.is_empty(), "nothing in Redis has the name of {}: {all:?}", room_name(room));
    slots
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_one_cluster_on_redis_cluster() {
    let _turn = turn().await;
    let cluster = RedisCluster::start(3, 1).await;
    three_nodes(cluster.url()).await.go_through("Cluster: no fault", async |_| {}).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_with_their_rooms_while_events_pass() {
    let _turn = turn().await;
    let cluster = RedisCluster::start(3, 1).await;
    let scene = three_nodes(cluster.url()).await;
    let migrate = async |scene: &mut Scene| {
        // There and on again: the second move finds what the first has left behind.
        for _ in 0..2 {
            let mut slots = BTreeSet::new();
            for room in 0..ROOMS {
                slots.extend(slots_of_room(&cluster, room).await);
            }
            cluster.migrate_slots(slots).await;
            scene.wait_for_events(3).await;
        }
    };
    scene.go_through("Cluster: the rooms' slots move twice", migrate).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_slowly_loses_nothing() {
    const MOVE: Duration = Duration::from_secs(2);
    let _turn = turn().await;
    let cluster = RedisCluster::start(3, 1).await;
    let scene = three_nodes(cluster.url()).await;
    let migrate = async |_: &mut Scene| {
        let slot = *slots_of_room(&cluster, 0).await.first().expect("there is one");
        let to = cluster.next_master(cluster.owner_of_slot(slot).await).await;
        cluster.migrate_keys(slot, to).await;
        tokio::time::sleep(MOVE).await;
        cluster.finish_migration(slot, to).await;
    };
    scene.go_through("Cluster: a room's slot moves for 2 s", migrate).await.assert_complete();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_a_rooms_slot_over_as_planned() {
    let _turn = turn().await;
    let cluster = RedisCluster::start(3, 1).await;
    let scene = three_nodes(cluster.url()).await;
    let failover = async |_: &mut Scene| {
        let slot = *slots_of_room(&cluster, 0).await.first().expect("there is one");
        cluster.failover(slot).await;
    };
    scene.go_through("Cluster: planned failover", failover).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_replaces_a_rooms_master_that_dies() {
    let _turn = turn().await;
    let mut cluster = RedisCluster::start(3, 1).await;
    let scene = three_nodes(cluster.url()).await;
    let kill = async |_: &mut Scene| {
        let slot = *slots_of_room(&cluster, 0).await.first().expect("there is one");
        let old = cluster.kill_owner(slot).await;
        cluster.wait_for_another_owner_than(old, slot).await;
    };
    scene.go_through("Cluster: SIGKILL of a master", kill).await.assert_lost_at_most_what_died();
}

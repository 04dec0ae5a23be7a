//! Faults of one Redis, of the way to it, and of nodes.

use std::time::Duration;

use roomcast_testkit::{AfterCut, FaultyLink, Node, RedisOptions, RedisServer};

use crate::scene::{RATE, Scene};
use crate::support::{get, start_node, wait_until};
use crate::{size, turn};

/// So many events of a room may be missed and still be had from Redis, with a reserve.
const REPAIRABLE: f64 = 80.0;

async fn three_nodes(redis: &RedisServer) -> Scene {
    Scene::start(&[redis.url(), redis.url(), redis.url()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_needs_no_redis_for_its_rooms() {
    let _turn = turn().await;
    let scene = Scene::of(vec![start_node(&["--demo"]).await], RATE, false).await;
    scene.go_through("no fault, no Redis", async |_| {}).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_one_cluster() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    three_nodes(&redis).await.go_through("no fault", async |_| {}).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_node_is_nothing_to_the_others() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let kill = async |scene: &mut Scene| scene.kill_node(2);
    three_nodes(&redis).await.go_through("SIGKILL of a node", kill).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_takes_only_what_was_in_flight_with_it() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    let scene = three_nodes(&redis).await;
    let report = scene.go_through("SIGKILL of Redis, restart empty", async |_| redis.restart().await).await;
    report.assert_lost_at_most_what_died();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_with_its_log_takes_only_what_was_in_flight_with_it() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions { append_only: true, ..RedisOptions::default() }).await;
    let scene = three_nodes(&redis).await;
    let report = scene.go_through("SIGKILL of Redis, restart with its log", async |_| redis.restart().await).await;
    report.assert_lost_at_most_what_died();
}

async fn readiness(node: &Node) -> u16 {
    get(&node.internal, "/readyz").await.status
}

async fn wait_for_readiness(node: &Node, status: u16) {
    wait_until(&format!("/readyz says {status}"), async || readiness(node).await == status).await;
}

/// Long enough that nodes notice, whatever they do to notice.
const OUTAGE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn nodes_serve_without_redis_until_it_is_back() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    let scene = three_nodes(&redis).await;
    let outage = async |scene: &mut Scene| {
        redis.kill();
        for node in &scene.nodes {
            wait_for_readiness(node, 503).await;
        }
        tokio::time::sleep(OUTAGE).await;
        redis.restart().await;
        scene.fault_is_over();
        for node in &scene.nodes {
            wait_for_readiness(node, 200).await;
        }
    };
    let report = scene.go_through("SIGKILL of Redis, away for seconds, restart empty", outage).await;
    report.assert_lost_at_most_what_died();
    assert!(report.verdict.refused > 0, "publishes are refused meanwhile: {report}");
}

async fn kill_subscriptions(redis: &RedisServer, scene: &Scene) {
    for _ in 0..3 {
        let killed = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_ne!(killed, "0", "nodes subscribe to something");
        scene.wait_for_events(3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_redis_ends_come_back_without_loss() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let scene = three_nodes(&redis).await;
    let kill = async |scene: &mut Scene| kill_subscriptions(&redis, scene).await;
    scene.go_through("CLIENT KILL TYPE pubsub, three times", kill).await.assert_unnoticed();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_history_repairs_is_announced() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(start_node(&["--demo", "--redis", &redis.url(), "--redis-history", "off"]).await);
    }
    let scene = Scene::of(nodes, RATE, true).await;
    let kill = async |scene: &mut Scene| kill_subscriptions(&redis, scene).await;
    let report = scene.go_through("CLIENT KILL TYPE pubsub, three times, no history", kill).await;
    report.assert_every_loss_announced();
    assert!(report.verdict.lost() > 0, "nothing was lost, so nothing was shown: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_redis_ends_come_back_without_loss() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let scene = three_nodes(&redis).await;
    let kill = async |_: &mut Scene| {
        for kind in ["pubsub", "normal"] {
            redis.command(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    };
    scene.go_through("CLIENT KILL of all connections", kill).await.assert_unnoticed();
}

/// How long Redis is stopped.
const PAUSE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_pauses_gets_nothing_twice() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let scene = three_nodes(&redis).await;
    let pause = async |_: &mut Scene| {
        redis.pause();
        tokio::time::sleep(PAUSE).await;
        redis.resume();
    };
    scene.go_through("SIGSTOP of Redis for 6 s", pause).await.assert_complete();
}

async fn cut_one_node_off(title: &str, after: AfterCut) {
    let _turn = turn().await;
    let seconds = size("ROOMCAST_CLUSTER_CUT_SECONDS", 6_u32);
    let redis = RedisServer::start(RedisOptions::default()).await;
    let link = FaultyLink::start(&redis.address()).await;
    let urls = [redis.url_at(link.address()), redis.url(), redis.url()];
    let rate = (REPAIRABLE / f64::from(seconds)).min(RATE);
    let cut = async |scene: &mut Scene| {
        link.cut();
        let rest = tokio::time::sleep(Duration::from_secs(u64::from(seconds)));
        wait_for_readiness(&scene.nodes[0], 503).await;
        for other in &scene.nodes[1..] {
            assert_eq!(readiness(other).await, 200, "the others are not cut off");
        }
        rest.await;
        assert_eq!(readiness(&scene.nodes[0]).await, 503);
        link.heal(after);
        scene.fault_is_over();
        wait_for_readiness(&scene.nodes[0], 200).await;
    };
    let scene = Scene::start_at_rate(&urls, rate).await;
    let report = scene.go_through(&format!("{title} for {seconds} s"), cut).await;
    report.assert_complete();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_serves_calls_and_gets_what_it_missed() {
    cut_one_node_off("one node cut off", AfterCut::GoOn).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_connections_were_forgotten_meanwhile_gets_what_it_missed() {
    cut_one_node_off("one node cut off, its connections reset,", AfterCut::Reset).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_way_to_redis_loses_nothing() {
    const LATENCY: Duration = Duration::from_millis(200);
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let link = FaultyLink::start(&redis.address()).await;
    let scene = Scene::start(&[redis.url_at(link.address()), redis.url(), redis.url()]).await;
    let slow = async |scene: &mut Scene| {
        link.set_latency(LATENCY, LATENCY);
        scene.wait_for_events(30).await;
        link.set_latency(Duration::ZERO, Duration::ZERO);
    };
    scene.go_through("200 ms more each way for one node", slow).await.assert_unnoticed();
}

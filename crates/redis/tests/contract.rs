//! The contract of every broker, on real Redis servers.

use std::sync::Arc;
use std::time::Duration;

use roomcast_core::{Broker, BrokerStatus};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::{RedisCluster, RedisOptions as ServerOptions, RedisServer, Sentinels, broker_contract};

/// No test waits longer for a broker.
const DEADLINE: Duration = Duration::from_secs(30);

/// All rights of a node in Redis, as in docs/guides/redis.md.
const RIGHTS: &str = "~roomcast:* &roomcast:* -@all +hello +auth +client|setname +client|id +select +ping +echo \
    +quit +role +info +time +eval +evalsha +get +set +del +rpush +ltrim +lrange +pexpire +spublish +ssubscribe +sunsubscribe \
    +cluster|slots +asking";

async fn nodes(options: RedisOptions, count: usize) -> Vec<Arc<dyn Broker>> {
    let mut nodes: Vec<Arc<dyn Broker>> = Vec::new();
    for _ in 0..count {
        let broker = RedisBroker::start(options.clone()).expect("valid options");
        let mut status = broker.status();
        let up = status.wait_for(|status| *status == BrokerStatus::Up);
        tokio::time::timeout(DEADLINE, up).await.expect("Redis is there").expect("the broker lives");
        nodes.push(Arc::new(broker));
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server() {
    let server = RedisServer::start(ServerOptions::default()).await;
    broker_contract::check(async |count| nodes(RedisOptions::new(server.url()), count).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_password_over_tls() {
    let options =
        ServerOptions { user: Some(("app", "secret")), rights: Some(RIGHTS), tls: true, ..ServerOptions::default() };
    let server = RedisServer::start(options).await;
    let mut options = RedisOptions::new(server.url());
    options.ca_certificates = Some(std::fs::read(server.ca_certificate()).expect("the fixture wrote it"));
    broker_contract::check(async |count| nodes(options.clone(), count).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster() {
    let cluster = RedisCluster::start(3, 1).await;
    broker_contract::check(async |count| nodes(RedisOptions::new(cluster.url()), count).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_sentinels_watch() {
    let sentinels = Sentinels::start().await;
    broker_contract::check(async |count| nodes(RedisOptions::new(sentinels.url()), count).await).await;
}

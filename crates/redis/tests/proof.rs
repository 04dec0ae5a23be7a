//! A Redis counts as working when everything that a node needs of it has worked, and not before.

use std::time::Duration;

use futures_util::future::join_all;
use roomcast_core::{Broker, BrokerStatus};
use roomcast_redis::{RedisBroker, RedisOptions, check};
use roomcast_testkit::{RedisOptions as ServerOptions, RedisServer};

/// No step waits longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// For so long a broker must not say that it works: several probes long.
const NEVER: Duration = Duration::from_secs(2);

/// What a node needs, and the part of it that a row takes away.
const COMMANDS: &str = "+hello +auth +client|setname +client|id +select +ping +echo +quit +role +info +time +eval \
    +evalsha +get +set +del +rpush +ltrim +lrange +pexpire +spublish +ssubscribe +sunsubscribe";

/// Whether an error of Redis is about the user's rights: it words them differently in a script.
fn is_of_rights(error: &str) -> bool {
    error.contains("NOPERM") || error.contains("The user executing the script can't")
}

/// Tries a server that lacks something. The error of `check`, while a broker stays down with the same problem.
async fn problem(options: &RedisOptions) -> String {
    let broker = RedisBroker::start(options.clone()).expect("valid options");
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    assert!(tokio::time::timeout(NEVER, up).await.is_err(), "a node would be ready");
    let error = check(options).await.expect_err("it can't be used").to_string();
    assert!(!broker.problem().is_empty());
    error
}

async fn server(rights: String, configuration: &[&str]) -> RedisServer {
    let options = ServerOptions {
        user: Some(("app", "s3cret")),
        rights: Some(Box::leak(rights.into_boxed_str())),
        configuration: configuration.iter().map(|line| (*line).to_owned()).collect(),
        ..ServerOptions::default()
    };
    RedisServer::start(options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_right_that_nodes_need_is_noticed() {
    let commands = ["+eval ", "+spublish", "+ssubscribe ", "+rpush", "+lrange", "+pexpire", "+set", "+info"];
    join_all(commands.map(async |command| {
        let granted = COMMANDS.replace(command, "").replace("+evalsha", "+evalsha ");
        let server = server(format!("~roomcast:* &roomcast:* -@all {granted}"), &[]).await;
        let error = problem(&RedisOptions::new(server.url())).await;
        assert!(is_of_rights(&error), "without {command}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_for_another_prefix_are_noticed() {
    join_all(["~roomcast:* &roomcast:*", "~acme:* &roomcast:*", "~roomcast:* &acme:*"].map(async |rights| {
        let server = server(format!("{rights} -@all {COMMANDS}"), &[]).await;
        let mut options = RedisOptions::new(server.url());
        options.prefix = "acme".into();
        let error = problem(&options).await;
        assert!(is_of_rights(&error), "{rights}: {error}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_master() {
    let master = RedisServer::start(ServerOptions::default()).await;
    let configuration = vec![format!("replicaof 127.0.0.1 {}", master.port())];
    let replica = RedisServer::start(ServerOptions { configuration, ..ServerOptions::default() }).await;
    let error = problem(&RedisOptions::new(replica.url())).await;
    assert!(error.contains("not a master"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_keys_is_noticed() {
    let all = || format!("~roomcast:* &roomcast:* -@all {COMMANDS}");
    let evicting = server(all(), &["maxmemory 100mb", "maxmemory-policy allkeys-lru"]).await;
    let error = problem(&RedisOptions::new(evicting.url())).await;
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
    for harmless in
        [&["maxmemory 0", "maxmemory-policy allkeys-lru"], &["maxmemory 100mb", "maxmemory-policy noeviction"]]
    {
        let server = server(all(), harmless).await;
        check(&RedisOptions::new(server.url())).await.expect("it evicts nothing");
    }
}

/// What a broker has relied on so far it goes on relying on, with a warning: a setting must not stop a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_begins_to_evict_keys_goes_on_to_work() {
    let mut server = RedisServer::start(ServerOptions::default()).await;
    let broker = RedisBroker::start(RedisOptions::new(server.url())).expect("valid options");
    let mut status = broker.status();
    let up = async |status: &mut tokio::sync::watch::Receiver<BrokerStatus>, wanted| {
        let changed = status.wait_for(|status| *status == wanted);
        tokio::time::timeout(DEADLINE, changed).await.expect("in time").expect("the broker lives");
    };
    up(&mut status, BrokerStatus::Up).await;
    server.kill();
    up(&mut status, BrokerStatus::Down).await;
    assert!(!broker.problem().is_empty());
    server.restart().await;
    server.command(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await;
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    up(&mut status, BrokerStatus::Up).await;
    assert_eq!(broker.problem(), "");
}

//! The fixtures do what the tests that use them rely on.

use std::path::Path;

use roomcast_testkit::{RedisCluster, RedisOptions, RedisServer, Sentinels};

#[tokio::test]
async fn a_server_loses_its_data_at_a_restart_unless_it_keeps_a_log() {
    for append_only in [false, true] {
        let options = RedisOptions { append_only, ..RedisOptions::default() };
        let mut redis = RedisServer::start(options).await;
        redis.command(&["SET", "a", "1"]).await;
        let url = redis.url();
        redis.kill();
        assert!(redis.try_command(&["PING"]).await.is_err());
        redis.restart().await;
        assert_eq!(redis.command(&["GET", "a"]).await, if append_only { "1" } else { "" });
        assert_eq!(redis.url(), url);
    }
}

#[tokio::test]
async fn a_paused_server_answers_when_it_goes_on() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    redis.pause();
    let mut answer = std::pin::pin!(redis.command(&["PING"]));
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), &mut answer).await.is_err());
    redis.resume();
    assert_eq!(answer.await, "PONG");
}

#[tokio::test]
async fn a_server_can_ask_for_a_password_and_tls() {
    let options = RedisOptions { user: Some(("ann", "secret")), tls: true, ..RedisOptions::default() };
    let redis = RedisServer::start(options).await;
    assert_eq!(redis.url(), format!("rediss://ann:secret@127.0.0.1:{}", redis.port()));
    let whoami = |url: &str, ca_certificate: Option<&Path>| {
        let mut command = std::process::Command::new("redis-cli");
        command.args(["--tls", "-u", url]);
        if let Some(ca_certificate) = ca_certificate {
            command.arg("--cacert").arg(ca_certificate);
        }
        let output = command.args(["ACL", "WHOAMI"]).output().expect("redis-cli is there");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(whoami(&redis.url(), Some(&redis.ca_certificate())), "ann");
    assert_eq!(whoami(&redis.url(), None), "", "nobody else signed the certificate");
    let wrong = redis.url().replace("secret", "guess");
    assert_ne!(whoami(&wrong, Some(&redis.ca_certificate())), "ann");
}

#[tokio::test]
async fn what_a_user_may_do_can_be_limited() {
    let options =
        RedisOptions { user: Some(("ann", "secret")), rights: Some("~* &* +@read"), ..RedisOptions::default() };
    let redis = RedisServer::start(options).await;
    let output = std::process::Command::new("redis-cli").args(["-u", &redis.url(), "SET", "a", "1"]).output();
    assert!(String::from_utf8_lossy(&output.expect("redis-cli is there").stdout).contains("NOPERM"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_a_kill_a_failover_and_the_move_of_a_slot_with_its_keys() {
    let mut cluster = RedisCluster::start(3, 1).await;
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 6);
    let slot = cluster.slot_of("{room}").await;
    let first = cluster.owner_of_slot(slot).await;
    for key in 0..250 {
        cluster.servers()[first].command(&["SET", &format!("{{room}}{key}"), "1"]).await;
    }

    let second = cluster.next_master(first).await;
    cluster.migrate_slot(slot, second).await;
    assert_eq!(cluster.owner_of_slot(slot).await, second);
    let count = |server: usize, slot: u16| {
        let server = &cluster.servers()[server];
        async move { server.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await }
    };
    assert_eq!((count(first, slot).await, count(second, slot).await), ("0".to_owned(), "250".to_owned()));
    assert_eq!(cluster.migrate_slots(100..110).await, 10);

    cluster.failover(slot).await;
    let third = cluster.owner_of_slot(slot).await;
    assert_ne!(third, second);
    assert_eq!(cluster.servers()[third].command(&["GET", "{room}7"]).await, "1");

    assert_eq!(cluster.kill_owner(slot).await, third);
    cluster.wait_for_another_owner_than(third, slot).await;
    let fourth = cluster.owner_of_slot(slot).await;
    assert_eq!(cluster.servers()[fourth].command(&["GET", "{room}7"]).await, "1");
    cluster.restart(third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_choose_another_master_when_they_are_told_to_and_when_it_dies() {
    let mut sentinels = Sentinels::start().await;
    assert!(sentinels.url().ends_with("&sentinelServiceName=mymaster"));
    let first = sentinels.master().await;
    sentinels.failover().await;
    let second = sentinels.master().await;
    assert_ne!(second, first);
    assert_eq!(sentinels.kill_master().await, second);
    sentinels.wait_for_another_master_than(second).await;
    sentinels.restart(second).await;
}

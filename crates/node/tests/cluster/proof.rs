//! A node is ready when Redis has proven to work, and tells why not.

use std::process::Command;

use roomcast_testkit::{Node, RedisOptions, RedisServer};

use crate::support::{BINARY, get, run, wait_until, without_options};
use crate::turn;

/// Everything that a node needs, but for subscriptions.
const RIGHTS: &str = "~roomcast:* &roomcast:* -@all +hello +auth +client|setname +client|id +select +ping +echo +quit +role \
    +info +time +eval +evalsha +get +set +del +rpush +ltrim +lrange +pexpire +spublish +sunsubscribe";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_redis_user_lacks_a_right_is_not_ready_and_tells_why() {
    let _turn = turn().await;
    let options = RedisOptions { user: Some(("app", "s3cret")), rights: Some(RIGHTS), ..RedisOptions::default() };
    let redis = RedisServer::start(options).await;
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let arguments = ["--demo", "--log", "error", "--redis", &redis.url()];
    let node = Node::start_until(command, &arguments, "/healthz").await;
    wait_until("the reason is known", async || {
        let ready = get(&node.internal, "/readyz").await;
        ready.status == 503 && ready.body.contains("cut off from Redis") && ready.body.contains("ssubscribe")
    })
    .await;
    assert_eq!(node.metric("roomcast_broker_up").await, 0.0);

    let checked = run(&["check", "--redis", &redis.url()], &[]);
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{error}");
    assert!(error.contains("ssubscribe") && !error.contains("s3cret"), "{error}");

    redis.command(&["ACL", "SETUSER", "app", "+ssubscribe"]).await;
    wait_until("it is ready", async || get(&node.internal, "/readyz").await.status == 200).await;
}

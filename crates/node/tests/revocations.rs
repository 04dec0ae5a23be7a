//! Revocations over Redis, while nodes and Redis come and go.

mod support;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use serde_json::{Value, json};
use support::tokens::{SECRET, issuer, token};
use support::{BINARY, http, in_time, wait_until, write_file};

/// Writes a configuration into a file of this name.
fn config(name: &str) -> String {
    write_file(&format!("{name}.toml"), &issuer(name))
}

async fn start_node(redis: &RedisServer, config: &str) -> Node {
    let mut command = Command::new(BINARY);
    support::without_options(&mut command);
    Node::start_by(command, &["--config", config, "--redis", &redis.url()]).await
}

async fn connect(node: &Node, user: &str) -> Client {
    try_connect(node, user).await.unwrap_or_else(|status| panic!("{user} is rejected with {status:?}"))
}

/// Returns the status of the response if the node rejects the user.
async fn try_connect(node: &Node, user: &str) -> Result<Client, Option<u16>> {
    let authorization = format!("Bearer {}", token(SECRET, &json!({ "sub": user })));
    let connected = Client::connect_with(&node.url(), &[("authorization", &authorization)]).await;
    connected.map_err(|error| error.status())
}

fn in_an_hour() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 3600
}

async fn revoke(node: &Node, user: &str) -> (u16, Value) {
    let body = json!({ "user": user, "until": in_an_hour() }).to_string();
    let answer = http(&node.internal, "POST", "/v1/revocations", "", body.as_bytes()).await;
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

async fn assert_revoked(client: &mut Client) {
    let (code, _) = in_time("the close of a revoked connection", client.closed()).await.expect("a Close");
    assert_eq!(code, 4401);
}

async fn nodes_of(redis: &RedisServer, config: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(start_node(redis, config).await);
    }
    for node in &nodes {
        wait_until("all nodes have found each other", async || node.metric("roomcast_nodes").await == 3.0).await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_user_is_disconnected_while_a_node_is_killed_and_redis_restarts() {
    let (mut redis, config) = (RedisServer::start(RedisOptions::default()).await, config("revocations"));
    let mut nodes = nodes_of(&redis, &config).await;
    let (mut anns, mut bobs) = (Vec::new(), Vec::new());
    for node in &nodes {
        anns.push(connect(node, "ann").await);
        bobs.push(connect(node, "bob").await);
    }
    let killed = nodes.pop().expect("there are three");
    killed.signal("KILL");
    let (status, body) = revoke(&nodes[0], "ann").await;
    assert_eq!((status, &body["connections"]), (200, &json!(2)), "{body}");
    assert_eq!(body["unresponsive_nodes"].as_array().map(Vec::len), Some(1), "the killed node: {body}");
    for client in &mut anns[..2] {
        assert_revoked(client).await;
    }
    let newcomer = start_node(&redis, &config).await;
    assert_eq!(try_connect(&newcomer, "ann").await.err(), Some(Some(401)), "a node knows them when it is ready");
    nodes.push(newcomer);

    redis.kill();
    assert_eq!(revoke(&nodes[0], "bob").await.0, 503);
    assert_eq!(try_connect(&nodes[1], "ann").await.err(), Some(Some(401)), "a node enforces what it knows");
    redis.restart().await;
    wait_until("a revocation is accepted again", async || revoke(&nodes[1], "bob").await.0 == 200).await;
    for client in &mut bobs[..2] {
        assert_revoked(client).await;
    }
    // Redis has lost its data, so the nodes add what they know.
    wait_until("Redis has the lost revocation again", async || {
        let newcomer = start_node(&redis, &config).await;
        let rejected = try_connect(&newcomer, "ann").await.is_err_and(|status| status == Some(401));
        rejected && try_connect(&newcomer, "bob").await.is_err_and(|status| status == Some(401))
    })
    .await;
    for node in &nodes {
        assert_eq!(try_connect(node, "ann").await.err(), Some(Some(401)));
        drop(connect(node, "eve").await);
    }
    let listed = http(&nodes[0].internal, "GET", "/v1/revocations", "", b"").await;
    let listed: Value = serde_json::from_str(&listed.body).expect("JSON");
    let users: Vec<_> =
        listed["revocations"].as_array().expect("a list").iter().map(|one| one["user"].as_str()).collect();
    assert!(users.contains(&Some("ann")) && users.contains(&Some("bob")), "{users:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn added_rights_reach_a_user_on_another_node() {
    let (redis, config) = (RedisServer::start(RedisOptions::default()).await, config("added-rights"));
    let nodes = nodes_of(&redis, &config).await;
    let mut ann = connect(&nodes[0], "ann").await;
    let denied = ann.call_text("rooms/join/team:red", b"").await.expect("the connection is open");
    assert!(denied.contains("PERMISSION_DENIED"), "{denied}");
    let patch = async |user: &str, body: Value| {
        let path = format!("/v1/users/{user}/grants");
        http(&nodes[1].internal, "PATCH", &path, "", body.to_string().as_bytes()).await
    };
    let allow = json!({ "allow": [{ "rooms": ["team:*"], "do": ["join"] }] });
    assert_eq!(patch("ann", allow.clone()).await.status, 200);
    assert_eq!(ann.call_text("rooms/join/team:red", b"").await.expect("the connection is open"), "");
    assert_eq!(patch("ann", json!({ "allow": [] })).await.status, 200);
    let event = ann.event().await.expect("an event");
    assert_eq!((&*event.name, &*event.payload), ("auth/left", &br#"{"room":"team:red"}"#[..]));
    assert_eq!(patch("nobody", allow).await.status, 404);
    let wrong = patch("ann", json!({ "allow": [{ "rooms": ["team-*"], "do": ["join"] }] })).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("team-*"));
}

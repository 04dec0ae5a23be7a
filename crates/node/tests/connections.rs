//! Finding connections on all nodes, and what the API shows of them.

mod support;

use std::process::Command;
use std::time::Duration;

use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use serde_json::{Value, json};
use support::tokens::{SECRET, issuer, token};
use support::{BINARY, http, wait_until, write_file};

async fn cluster(name: &str, redis: &RedisServer) -> [Node; 2] {
    let config = format!(
        r#"{}
[[role]]
name = "member"
allow = [
    {{ rooms = ["user:{{user}}", "lobby"], do = ["join", "publish"] }},
    {{ calls = ["**"], do = ["call"] }},
]
"#,
        issuer(name)
    );
    let config = write_file(&format!("{name}.toml"), &config);
    let start = async || {
        let mut command = Command::new(BINARY);
        support::without_options(&mut command);
        Node::start_by(command, &["--config", &config, "--redis", &redis.url(), "--demo"]).await
    };
    let nodes = [start().await, start().await];
    for node in &nodes {
        wait_until("both nodes have found each other", async || node.metric("roomcast_nodes").await == 2.0).await;
    }
    nodes
}

async fn connect(node: &Node, user: &str) -> Client {
    let authorization = format!("Bearer {}", token(SECRET, &json!({ "sub": user, "jti": format!("token-of-{user}") })));
    Client::connect_with(&node.url(), &[("authorization", &authorization)]).await.expect("the token is valid")
}

async fn get(node: &Node, path: &str) -> (u16, Value) {
    let answer = http(&node.internal, "GET", path, "", b"").await;
    (answer.status, serde_json::from_str(&answer.body).expect("JSON"))
}

async fn list(node: &Node, query: &str) -> Vec<Value> {
    let (status, body) = get(node, &format!("/v1/connections?{query}")).await;
    assert_eq!((status, &body["unresponsive_nodes"]), (200, &json!([])), "{query}: {body}");
    body["connections"].as_array().expect("a list").clone()
}

async fn users(node: &Node, query: &str) -> Vec<String> {
    list(node, query).await.iter().map(|one| one["user"].as_str().expect("a user").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_finds_a_connection_on_any_node() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let [one, two] = cluster("connections", &redis).await;
    let mut clients = Vec::new();
    for (node, user) in [(&one, "ann"), (&two, "bob"), (&one, "eve"), (&two, "ann")] {
        clients.push(connect(node, user).await);
    }
    let [_, bob, eve, ann] = &mut clients[..] else { unreachable!("four clients") };
    ann.call("rooms/join/lobby", b"").await.expect("the connection is open");
    eve.call("rooms/join/user:bob", b"").await.expect("the connection is open");
    let running = bob.start("long", b"").await.expect("the connection is open");

    assert_eq!(users(&one, "").await, ["ann", "bob", "eve", "ann"], "the oldest first");
    assert_eq!(users(&two, "user=ann").await, ["ann", "ann"]);
    assert_eq!(users(&one, "room=lobby").await, ["ann"]);
    assert_eq!(users(&one, "room=lobby&user=bob").await, [""; 0]);
    assert_eq!(users(&one, "address=127.0.0.1").await.len(), 4);
    assert_eq!(users(&one, "address=10.0.0.1").await.len(), 0);
    wait_until("the call is in flight", async || users(&one, "sort=calls&limit=1").await == ["bob"]).await;
    let listed = list(&one, "sort=calls&limit=1").await;
    assert_eq!(listed[0]["calls"], 1, "{listed:?}");
    let node_of_bob = listed[0]["node"].as_str().expect("a node");
    assert_eq!(users(&one, &format!("node={node_of_bob}")).await, ["bob", "ann"]);
    bob.reset(running).await.expect("the connection is open");

    // Page by page.
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let (_, page) = get(&two, &format!("/v1/connections?limit=3{after}")).await;
        found.extend(page["connections"].as_array().expect("a list").clone());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found, list(&one, "").await, "each once");

    let noisy = tokio::spawn({
        let mut eve = clients.remove(2);
        // Half of the calls that a client may make per second.
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        async move {
            while eve.call("echo", b"").await.is_ok() {
                pace.tick().await;
            }
        }
    });
    let noisiest = list(&two, "sort=message_rate&limit=1").await;
    assert!(noisiest[0]["user"] == "eve" && noisiest[0]["message_rate"].as_u64() > Some(0), "{noisiest:?}");

    let id = noisiest[0]["connection"].as_str().expect("an id");
    let (status, eve) = get(&two, &format!("/v1/connections/{id}")).await;
    assert_eq!((status, &eve["summary"]["user"]), (200, &json!("eve")));
    let access = &eve["access"];
    assert_eq!(access["jti"], "token-of-eve");
    assert!(access["expires_ms"].as_u64().is_some());
    assert!(
        access["grants"]
            .as_array()
            .expect("a list")
            .contains(&json!({ "names": "rooms", "pattern": "user:eve", "do": ["join", "publish"] })),
        "{access}"
    );
    let denials = access["denials"].as_array().expect("a list");
    assert_eq!((&denials[0]["right"], &denials[0]["name"]), (&json!("join"), &json!("user:bob")), "{access}");
    assert_eq!(http(&two.internal, "DELETE", &format!("/v1/connections/{id}"), "", b"").await.status, 204);
    noisy.await.expect("the client ends");
    wait_until("it is gone", async || get(&two, &format!("/v1/connections/{id}")).await.0 == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_query_is_explained() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let [one, _two] = cluster("wrong-query", &redis).await;
    for (query, expected) in [
        ("limit=0", "limit must be from 1 to 1000"),
        ("limit=1001", "not 1001"),
        ("sort=noise", "noise"),
        ("address=here", "address"),
        ("user=a/b", "invalid user id"),
        ("node=x", "\"x\""),
        ("after=x", "the next of a page"),
        ("after=1.0123456789abcdef-1&sort=calls", "after needs sort=age"),
        ("users=ann", "users"),
    ] {
        let (status, body) = get(&one, &format!("/v1/connections?{query}")).await;
        let message = body["error"]["message"].as_str().expect("a message");
        assert!(status == 400 && message.contains(expected), "{query}: {status} {message}");
    }
}

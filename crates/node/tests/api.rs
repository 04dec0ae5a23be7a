//! The HTTP API over real sockets: what it does, and what it answers.

mod support;

use std::collections::BTreeSet;

use roomcast_testkit::{Client, Node};
use serde_json::{Value, json};
use support::{Answer, get, http, in_time, start_node};

/// A node whose clients may do everything.
async fn start(arguments: &[&str]) -> Node {
    start_node(&[&["--demo"], arguments].concat()).await
}

/// A client that is in this room, and its id.
async fn member(node: &Node, room: &str) -> (Client, String) {
    let mut client = Client::connect(&node.url()).await.expect("the node serves");
    client.call(&format!("rooms/join/{room}"), "").await.expect("everybody may join");
    let members = body(&get(&node.internal, &format!("/v1/rooms/{room}")).await);
    let id = members["members"][0]["connection"].as_str().expect("it is the only member").to_owned();
    (client, id)
}

fn body(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

async fn event(client: &mut Client) -> (String, Vec<u8>) {
    let event = in_time("an event comes", client.event()).await.expect("the connection is open");
    (event.name.to_string(), event.payload.to_vec())
}

// === what it does ===

#[tokio::test]
async fn a_backend_publishes_and_clients_get_it() {
    let node = start(&[]).await;
    let (mut client, id) = member(&node, "lobby").await;
    let payload = b"any\n\xff\x00bytes";
    let path = format!("/v1/connections/{id}/events/said");
    let answer = http(&node.internal, "POST", &path, "", payload).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(event(&mut client).await, ("said".to_owned(), payload.to_vec()));
    let mut epochs = BTreeSet::new();
    for offset in 1..=2 {
        let answer = http(&node.internal, "POST", "/v1/rooms/lobby/events/said", "", payload).await;
        let position = body(&answer);
        assert_eq!((answer.status, &position["offset"]), (200, &json!(offset)), "{answer:?}");
        epochs.insert(u64::from_str_radix(position["epoch"].as_str().expect("a text"), 16).expect("a number"));
        assert_eq!(event(&mut client).await, ("said".to_owned(), payload.to_vec()));
    }
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    let answer = http(&node.internal, "POST", "/v1/rooms/caf%C3%A9/events/said", "", b"").await;
    let nowhere = json!({ "epoch": "", "offset": 0 });
    assert_eq!((answer.status, body(&answer)), (200, nowhere), "names are UTF-8, and nobody is there: {answer:?}");
}

#[tokio::test]
async fn a_backend_joins_and_removes_connections_and_sees_the_rooms() {
    let node = start(&[]).await;
    let (mut client, id) = member(&node, "lobby").await;
    let membership = format!("/v1/rooms/hall/members/{id}");
    for method in ["PUT", "PUT", "DELETE", "DELETE", "PUT"] {
        assert_eq!(http(&node.internal, method, &membership, "", b"").await.status, 204);
    }
    assert_eq!(http(&node.internal, "POST", "/v1/rooms/hall/events/said", "", b"hi").await.status, 200);
    assert_eq!(event(&mut client).await, ("said".to_owned(), b"hi".to_vec()));

    let hall = body(&get(&node.internal, "/v1/rooms/hall").await);
    let member = json!({ "connection": id, "user": null });
    assert_eq!(hall, json!({ "count": 1, "members": [member], "unresponsive_nodes": [] }));
    let empty = body(&get(&node.internal, "/v1/rooms/nobody").await);
    assert_eq!(empty, json!({ "count": 0, "members": [], "unresponsive_nodes": [] }));

    // The demo puts everybody into the room main.
    let room = |name: &str| json!({ "room": name, "members": 1 });
    let pages = [
        ("", vec![room("hall"), room("lobby"), room("main")], Value::Null),
        ("?limit=2", vec![room("hall"), room("lobby")], json!("lobby")),
        ("?limit=2&after=lobby", vec![room("main")], Value::Null),
        ("?prefix=lo", vec![room("lobby")], Value::Null),
    ];
    for (query, rooms, next) in pages {
        let page = body(&get(&node.internal, &format!("/v1/rooms{query}")).await);
        assert_eq!(page, json!({ "rooms": rooms, "next": next, "unresponsive_nodes": [] }), "{query}");
    }

    let nodes = body(&get(&node.internal, "/v1/nodes").await);
    let nodes = nodes["nodes"].as_array().expect("a list");
    assert_eq!((nodes.len(), &nodes[0]["connections"]), (1, &json!(1)));
    assert_eq!(nodes[0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(id.starts_with(nodes[0]["node"].as_str().expect("an id")), "a connection's id begins with its node's");
}

#[tokio::test]
async fn a_backend_disconnects_with_a_code_and_a_reason() {
    let node = start(&[]).await;
    for (query, code, reason) in
        [("", 4409, "disconnected by an operator"), ("?code=4000&reason=see%20you", 4000, "see you")]
    {
        let (mut client, id) = member(&node, "lobby").await;
        let path = format!("/v1/connections/{id}{query}");
        assert_eq!(http(&node.internal, "DELETE", &path, "", b"").await.status, 204);
        let closed = in_time("the connection is closed", client.closed()).await.expect("it is closed in order");
        assert_eq!(closed, (code, reason.to_owned()));
        node.wait_until("it is gone", async || body(&get(&node.internal, "/v1/rooms/lobby").await)["count"] == 0).await;
        assert_eq!(http(&node.internal, "DELETE", &path, "", b"").await.status, 404);
    }
}

// === what it refuses ===

#[tokio::test]
async fn what_fails_is_told_as_json_with_a_status_and_a_code() {
    let node = start(&["--max-payload=1KiB", "--max-rooms=2"]).await;
    let (_client, id) = member(&node, "lobby").await;
    let gone = format!("{id}0");
    let (big, long) = ([0; 1025], "x".repeat(201));
    let cases: &[(&str, &str, &[u8], u16, &str)] = &[
        ("GET", "/v1", b"", 404, "NOT_FOUND"),
        ("GET", "/v1/nothing", b"", 404, "NOT_FOUND"),
        ("GET", "/nothing", b"", 404, "NOT_FOUND"),
        ("POST", "/v1/rooms", b"", 405, "UNIMPLEMENTED"),
        ("GET", "/v1/users/ann", b"", 405, "UNIMPLEMENTED"),
        ("DELETE", "/metrics", b"", 405, "UNIMPLEMENTED"),
        ("GET", "/v1/rooms/a%2Fb", b"", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/rooms/%FF", b"", 400, "INVALID_ARGUMENT"),
        ("GET", &format!("/v1/rooms/{long}"), b"", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/rooms?limit=0", b"", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/rooms?limit=1001", b"", 400, "INVALID_ARGUMENT"),
        ("GET", "/v1/rooms?limt=1", b"", 400, "INVALID_ARGUMENT"),
        ("POST", "/v1/rooms/lobby/events/a%20b", b"", 400, "INVALID_ARGUMENT"),
        ("POST", "/v1/rooms/lobby/events/said", &big, 413, "RESOURCE_EXHAUSTED"),
        ("PUT", "/v1/rooms/lobby/members/me", b"", 400, "INVALID_ARGUMENT"),
        ("PUT", &format!("/v1/rooms/lobby/members/{gone}"), b"", 404, "NOT_FOUND"),
        ("PUT", "/v1/rooms/lobby/members/0123456789abcdef-1", b"", 404, "NOT_FOUND"),
        ("PUT", &format!("/v1/rooms/third/members/{id}"), b"", 429, "RESOURCE_EXHAUSTED"),
        ("POST", "/v1/users/nobody/events/said", b"", 404, "NOT_FOUND"),
        ("DELETE", "/v1/users/nobody", b"", 404, "NOT_FOUND"),
        ("DELETE", "/v1/users/nobody?code=1006", b"", 400, "INVALID_ARGUMENT"),
        ("DELETE", "/v1/users/nobody?code=x", b"", 400, "INVALID_ARGUMENT"),
        ("DELETE", &format!("/v1/users/nobody?reason={long}"), b"", 400, "INVALID_ARGUMENT"),
        ("POST", &format!("/v1/connections/{gone}/events/said"), b"", 404, "NOT_FOUND"),
        ("DELETE", "/v1/connections/1-1", b"", 400, "INVALID_ARGUMENT"),
    ];
    for (method, path, sent, status, code) in cases {
        let answer = http(&node.internal, method, path, "", sent).await;
        assert_eq!(answer.status, *status, "{method} {path}: {answer:?}");
        let error = body(&answer);
        assert_eq!(error["error"]["code"], *code, "{method} {path}: {answer:?}");
        assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer:?}");
        assert_eq!(answer.header("allow").is_some(), *status == 405, "{answer:?}");
    }
    let largest = http(&node.internal, "POST", "/v1/rooms/lobby/events/said", "", &big[1..]).await;
    assert_eq!(largest.status, 200);
}

// === what it says of itself ===

/// The API as it is promised: paths, methods, and the scopes that they require.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("/v1/connections", "get", "read"),
    ("/v1/connections/{id}", "delete", "admin"),
    ("/v1/connections/{id}", "get", "read"),
    ("/v1/connections/{id}/events/{event}", "post", "publish"),
    ("/v1/events/dead", "get", "read"),
    ("/v1/events/dead/replay", "post", "admin"),
    ("/v1/explain", "post", "read"),
    ("/v1/nodes", "get", "read"),
    ("/v1/openapi.json", "get", "read"),
    ("/v1/revocations", "get", "read"),
    ("/v1/revocations", "post", "admin"),
    ("/v1/rooms", "get", "read"),
    ("/v1/rooms/{room}", "get", "read"),
    ("/v1/rooms/{room}/events/{event}", "post", "publish"),
    ("/v1/rooms/{room}/members/{connection}", "delete", "admin"),
    ("/v1/rooms/{room}/members/{connection}", "put", "admin"),
    ("/v1/users/{user}", "delete", "admin"),
    ("/v1/users/{user}/events/{event}", "post", "publish"),
    ("/v1/users/{user}/grants", "patch", "admin"),
];

#[tokio::test]
async fn the_description_is_whole() {
    let node = start(&[]).await;
    let description = body(&get(&node.internal, "/v1/openapi.json").await);
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));

    let mut operations = Vec::new();
    let mut names = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("operations") {
            let scope = operation["security"][1]["api_key"][0].as_str().expect("a scope");
            operations.push((path.as_str(), method.as_str(), scope));
            assert!(names.insert(operation["operationId"].as_str().expect("a name")), "{operation}");
            assert!(operation["summary"].is_string(), "{operation}");
            check_parameters(path, operation);
            check_responses(operation);
        }
    }
    assert_eq!(operations, OPERATIONS);
    check_references(&description, &description);
}

fn check_parameters(path: &str, operation: &Value) {
    let in_path: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    let mut found = BTreeSet::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{path}: {parameter}");
        if parameter["in"] == "path" {
            assert_eq!(parameter["required"], true, "{path}: {parameter}");
            found.insert(parameter["name"].as_str().expect("a name"));
        }
    }
    assert_eq!(found, in_path, "{path}");
}

fn check_responses(operation: &Value) {
    let responses = operation["responses"].as_object().expect("responses");
    assert!(responses.keys().any(|status| status.starts_with('2')), "{operation}");
    for status in ["401", "403", "429", "500"] {
        assert!(responses.contains_key(status), "{status} is not in {operation}");
    }
    for (status, response) in responses {
        assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{status}: {operation}");
        assert_eq!(response["content"]["application/json"]["schema"].is_object(), status != "204", "{operation}");
    }
}

/// Every reference leads to something.
fn check_references(description: &Value, part: &Value) {
    match part {
        Value::Object(entries) => {
            if let Some(target) = part["$ref"].as_str() {
                let target = target.strip_prefix('#').expect("a reference into the document");
                assert!(description.pointer(target).is_some(), "{target} is not there");
            }
            entries.values().for_each(|entry| check_references(description, entry));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| check_references(description, entry)),
        _ => {}
    }
}

//! How many rooms a node has, and how many members one response lists.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use roomcast::testing::{Client, ConnectError, connect};
use roomcast::{CloseCode, Code, Node, Options, Router, Socket};
use serde_json::{Value, json};

async fn join(client: &mut Client, room: &str) -> Result<(), Code> {
    client.call(&format!("rooms/join/{room}"), "").await.map(|_| ()).map_err(|error| error.code)
}

#[tokio::test]
async fn a_node_has_so_many_rooms_and_an_empty_one_makes_room_for_another() {
    let node = Node::embedded(Options::default().with(|options| options.max_node_rooms = 2));
    let router = Router::new(node).open_rooms();
    let (mut one, mut other) = (connect(&router).await.unwrap().0, connect(&router).await.unwrap().0);
    join(&mut one, "a").await.unwrap();
    join(&mut other, "b").await.unwrap();
    assert_eq!(join(&mut one, "c").await, Err(Code::ResourceExhausted));
    join(&mut one, "b").await.unwrap();
    one.call("rooms/leave/a", "").await.unwrap();
    join(&mut one, "c").await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_to_be_in_a_room_for_which_the_node_has_no_place_may_try_again() {
    let node = Node::embedded(Options::default().with(|options| options.max_node_rooms = 1));
    let router = Router::new(node).open_rooms().on_connect(async |socket: Socket| socket.join("hall").await);
    let (mut first, _) = connect(&router).await.unwrap();
    join(&mut first, "hall").await.unwrap();
    first.call("rooms/leave/hall", "").await.unwrap();
    join(&mut first, "attic").await.unwrap();
    let refused = connect(&router).await.unwrap_err();
    let ConnectError::Closed(closed) = refused else { panic!("{refused}") };
    assert_eq!(closed.code, CloseCode::TRY_AGAIN_LATER, "{}", closed.reason);
}

async fn members(client: &mut Client, payload: &str) -> Value {
    serde_json::from_slice(&client.call("rooms/members/hall", payload).await.unwrap()).unwrap()
}

fn ids(page: &Value) -> Vec<String> {
    page["members"].as_array().unwrap().iter().map(|member| member["connection"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn members_are_listed_in_pages_of_100_that_contain_each_member_once() {
    let router = Router::new(Node::embedded(Options::default())).open_rooms();
    let (mut clients, mut joined) = (Vec::new(), BTreeSet::new());
    for _ in 0..250 {
        let (mut client, socket) = connect(&router).await.unwrap();
        join(&mut client, "hall").await.unwrap();
        joined.insert(socket.id().to_string());
        clients.push(client);
    }
    let client = &mut clients[0];
    let mut page = members(client, "").await;
    let mut listed = ids(&page);
    let mut sizes = vec![listed.len()];
    while let Some(next) = page.get("next") {
        assert_eq!(page["count"], 250);
        page = members(client, &json!({ "after": next }).to_string()).await;
        sizes.push(ids(&page).len());
        listed.extend(ids(&page));
    }
    assert_eq!(sizes, [100, 100, 50]);
    assert_eq!(listed.len(), 250);
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), joined);
}

#[tokio::test]
async fn a_page_that_no_client_can_mean_is_an_invalid_argument() {
    let router = Router::new(Node::embedded(Options::default())).open_rooms();
    let (mut client, _) = connect(&router).await.unwrap();
    for payload in ["x", "[]", r#"{"after":"x"}"#, r#"{"before":"00000000000000ff-1"}"#] {
        let error = client.call("rooms/members/hall", payload).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{payload}: {error}");
    }
    let nobody = client.call("rooms/members/hall", r#"{"after":"ffffffffffffffff-1"}"#).await.unwrap();
    assert_eq!(nobody, r#"{"count":0,"members":[],"unresponsive_nodes":[]}"#);
}

//! Rooms that a node keeps after their last member has left count towards its limit.

use roomcast_testkit::{Client, RedisOptions, RedisServer};

use crate::support::{start_node, wait_until};
use crate::turn;

async fn join(client: &mut Client, room: &str) -> bool {
    let answer = client.call_text(&format!("rooms/join/{room}"), "").await.expect("the node serves");
    assert!(answer.is_empty() || answer.contains("RESOURCE_EXHAUSTED"), "{answer}");
    answer.is_empty()
}

#[tokio::test]
async fn a_room_counts_until_its_node_has_unsubscribed_from_it() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let url = redis.url();
    let options = ["--demo", "--redis", &url, "--redis-unsubscribe-delay=2s", "--max-node-rooms=10"];
    let node = start_node(&options).await;
    let mut client = Client::connect(&node.url()).await.expect("the node serves");
    // The node has rooms of its own, which count, too.
    let mut joined = 0;
    while join(&mut client, &format!("room{joined}")).await {
        joined += 1;
    }
    assert!((1..10).contains(&joined), "{joined}");
    for room in 0..joined {
        client.call(&format!("rooms/leave/room{room}"), "").await.expect("the node serves");
    }
    assert!(!join(&mut client, "another").await, "the node still keeps the rooms");
    let client = tokio::sync::Mutex::new(client);
    wait_until("the node has unsubscribed", async || join(&mut *client.lock().await, "another").await).await;
}

//! What Redis took and whose answer was lost is sent again; what has failed is not done later.

use std::time::Duration;

use roomcast_testkit::{AfterCut, Client, FaultyLink, Node, RedisOptions, RedisServer};
use tokio::time::Instant;

use crate::support::{http, in_time, start_node, wait_until};
use crate::turn;

/// How late Redis' answers reach the node behind the faulty link: longer than all that happens meanwhile, and shorter
/// than a publish is tried.
const LATE: Duration = Duration::from_millis(2500);

/// In what time a publish is answered, whatever happens: as documented, with a reserve for a slow machine.
const ANSWERED: Duration = Duration::from_millis(3500);

async fn node(redis: &str) -> Node {
    // Rooms are forgotten as soon as their last member has left.
    start_node(&["--demo", "--redis", redis, "--redis-unsubscribe-delay", "0s"]).await
}

async fn connect(node: &Node) -> Client {
    Client::connect(&node.url()).await.expect("the node serves")
}

async fn call(client: &mut Client, method: &str, payload: &str) {
    assert_eq!(client.call_text(method, payload).await.expect("an answer"), "", "{method}");
}

/// The next events of a member, until the last one.
async fn events_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut events = Vec::new();
    while events.last().is_none_or(|event| event != last) {
        let event = client.event().await.expect("the last event comes");
        events.push(String::from_utf8(event.payload.to_vec()).expect("text"));
    }
    events
}

/// How many rooms a node reads from Redis with this in their names.
async fn subscribed(redis: &RedisServer, room: &str) -> usize {
    let channels = redis.command(&["PUBSUB", "SHARDCHANNELS", &format!("*:{room}")]).await;
    let numbers = redis.command(&["PUBSUB", "SHARDNUMSUB", channels.trim()]).await;
    numbers.lines().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_that_is_tried_again_is_seen_once_and_in_one_order_by_all() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let link = FaultyLink::start(&redis.address()).await;
    let (behind, direct, late) =
        (node(&redis.url_at(link.address())).await, node(&redis.url()).await, node(&redis.url()).await);
    let (mut publisher, mut member, mut other) =
        (connect(&behind).await, connect(&direct).await, connect(&direct).await);
    let (mut newcomer, mut leaver) = (connect(&late).await, connect(&late).await);
    call(&mut member, "rooms/join/lobby", "").await;
    call(&mut leaver, "rooms/join/lobby", "").await;
    call(&mut publisher, "rooms/publish/lobby/said", "1").await;
    assert_eq!(events_until(&mut leaver, "1").await, ["1"]);

    // Redis takes it at once. The answer is late, and then lost.
    link.set_latency(Duration::ZERO, LATE);
    let unanswered = publisher.start("rooms/publish/lobby/said", "2").await.expect("the node serves");
    assert_eq!(events_until(&mut leaver, "2").await, ["2"]);
    // A member of the one node that reads the room on leaves and comes back; the node has forgotten the room meanwhile.
    call(&mut leaver, "rooms/leave/lobby", "").await;
    wait_until("the room is forgotten", async || subscribed(&redis, "lobby").await == 1).await;
    call(&mut newcomer, "rooms/join/lobby", "").await;
    call(&mut leaver, "rooms/join/lobby", "").await;
    call(&mut other, "rooms/publish/lobby/said", "3").await;
    link.set_latency(Duration::ZERO, Duration::ZERO);
    link.heal(AfterCut::Reset);

    assert_eq!(publisher.answer(unanswered).await.expect("an answer"), "", "the second try finds it published");
    call(&mut publisher, "rooms/publish/lobby/said", "4").await;
    assert_eq!(events_until(&mut member, "4").await, ["1", "2", "3", "4"]);
    assert_eq!(events_until(&mut newcomer, "4").await, ["3", "4"]);
    assert_eq!(events_until(&mut leaver, "4").await, ["3", "4"], "2 was seen before");
}

/// The id of a client's connection, as the room's list of members has it.
async fn id_of(node: &Node, client: &mut Client) -> String {
    call(client, "rooms/join/alone", "").await;
    let members: serde_json::Value =
        serde_json::from_str(&http(&node.internal, "GET", "/v1/rooms/alone", "", b"").await.body).expect("JSON");
    call(client, "rooms/leave/alone", "").await;
    members["members"][0]["connection"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_that_was_refused_does_not_come_about_later() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let link = FaultyLink::start(&redis.address()).await;
    let (cut, owner) = (node(&redis.url_at(link.address())).await, node(&redis.url()).await);
    let mut client = connect(&owner).await;
    let id = id_of(&owner, &mut client).await;
    let path = format!("/v1/rooms/hall/members/{id}");
    let ask = async |node: &Node, method: &str| http(&node.internal, method, &path, "", b"").await.status;
    in_time("the nodes know each other", async { while ask(&cut, "PUT").await != 204 {} }).await;
    assert_eq!(ask(&cut, "DELETE").await, 204);

    link.cut();
    let refused = ask(&cut, "PUT").await;
    assert!([503, 504].contains(&refused), "{refused}");
    assert_eq!(ask(&owner, "DELETE").await, 204, "a newer request, by a way that works");
    link.heal(AfterCut::GoOn);
    // What was held on the way has come by when what is asked later has.
    let other = format!("/v1/rooms/other/members/{id}");
    wait_until("the cut node reaches the other again", async || {
        http(&cut.internal, "PUT", &other, "", b"").await.status == 204
    })
    .await;
    let rooms = http(&owner.internal, "GET", "/v1/rooms", "", b"").await.body;
    assert!(rooms.contains("\"other\"") && !rooms.contains("\"hall\""), "{rooms}");
}

/// Redis has lost its scripts, as after a restart, and answers late; then it does not answer at all.
#[tokio::test(flavor = "multi_thread")]
async fn no_publish_takes_longer_than_is_documented() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let link = FaultyLink::start(&redis.address()).await;
    let node = node(&redis.url_at(link.address())).await;
    let mut client = connect(&node).await;
    call(&mut client, "rooms/publish/lobby/said", "1").await;
    redis.command(&["SCRIPT", "FLUSH"]).await;
    link.set_latency(Duration::ZERO, LATE);
    let started = Instant::now();
    let slow = client.start("rooms/publish/lobby/said", "2").await.expect("the node serves");
    tokio::time::sleep(LATE + Duration::from_millis(100)).await;
    link.cut();
    let answer = client.answer(slow).await.expect("an answer");
    let took = started.elapsed();
    assert!(String::from_utf8_lossy(&answer).contains("UNAVAILABLE"), "{answer:?}");
    assert!(took < ANSWERED, "{took:?}");
}

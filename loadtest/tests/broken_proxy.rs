//! The proxy that breaks what a node sends does just that: otherwise tests with it would prove nothing.

mod support;

use std::time::{Duration, Instant};

use roomcast_testkit::{Client, Node};
use support::broken_proxy::{BrokenProxy, Fault};
use support::node_binary::start_node;

const EVENTS: usize = 20;

/// What came through the proxy when the events 0 to 19 were published to a room.
struct Seen {
    /// How often the fault was applied.
    applied: u64,
    /// By a member.
    events: Vec<String>,
    /// By a connection that is no member.
    astray: Vec<String>,
    member: Client,
    _still_there: (Node, BrokenProxy),
}

async fn publish_through(fault: Fault, one_in: u64) -> Seen {
    let node = start_node(&[]).await;
    let proxy = BrokenProxy::start(&node.address, fault, one_in).await;
    let mut member = Client::connect(&proxy.url()).await.expect("the proxy serves");
    let mut stranger = Client::connect(&proxy.url()).await.expect("the proxy serves");
    assert_eq!(member.call_text("rooms/join/here", "").await.expect("an answer"), "");
    let mut publisher = Client::connect(&node.url()).await.expect("the node serves");
    for event in 0..EVENTS {
        publisher.call(&format!("rooms/publish/here/{event}"), vec![b'.'; 40 * event]).await.expect("an answer");
    }
    // The demo's own events are let alone, and come last.
    publisher.notify("broadcast", "end").await.expect("the node serves");
    let (events, astray) = (events_until_end(&mut member).await, events_until_end(&mut stranger).await);
    Seen { applied: proxy.applied(), events, astray, member, _still_there: (node, proxy) }
}

async fn events_until_end(client: &mut Client) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let event = client.event().await.expect("events come");
        if event.name == "message" {
            return events;
        }
        let intact = event.payload.iter().all(|byte| *byte == b'.');
        events.push(if intact { event.name } else { format!("{}, broken", event.name) });
    }
}

/// The events as they were published, with one place changed.
fn with(place: usize, instead: &[&str]) -> Vec<String> {
    let mut events: Vec<_> = (0..EVENTS).map(|event| event.to_string()).collect();
    events.splice(place..place + 1, instead.iter().map(|event| (*event).to_owned()));
    events
}

#[tokio::test]
async fn one_event_in_so_many_is_broken_in_the_way_that_was_asked_for() {
    let cases = [
        (Fault::Drop, with(14, &[])),
        (Fault::DropAtTheNearest(Duration::from_millis(10)), with(14, &[])),
        (Fault::Duplicate, with(14, &["14", "14"])),
        (Fault::Corrupt, with(14, &["14, broken"])),
        (Fault::Misroute, with(14, &["14"])),
        (Fault::Swap, [with(14, &["15"])[..15].to_vec(), with(15, &["14"])[15..].to_vec()].concat()),
    ];
    for (fault, expected) in cases {
        let seen = publish_through(fault, 15).await;
        assert_eq!((seen.applied, seen.events), (1, expected), "{fault:?}");
        let astray = if fault == Fault::Misroute { vec!["14"] } else { vec![] };
        assert_eq!(seen.astray, astray, "{fault:?}");
    }
}

#[tokio::test]
async fn an_event_that_no_other_one_follows_is_not_held_for_ever() {
    let mut seen = publish_through(Fault::Swap, 20).await;
    assert_eq!((seen.applied, seen.events), (0, with(19, &[])));
    assert_eq!(seen.member.event().await.expect("it comes").name, "19");
}

#[tokio::test]
async fn a_delayed_event_keeps_its_place() {
    let time = Duration::from_millis(200);
    let started = Instant::now();
    let seen = publish_through(Fault::Delay(time), 15).await;
    assert_eq!((seen.applied, seen.events), (1, with(14, &["14"])));
    assert!(started.elapsed() >= time);
}

#[tokio::test]
async fn answers_and_resets_are_broken_too() {
    let node = start_node(&[]).await;
    let proxy = BrokenProxy::start(&node.address, Fault::AnswerAgain, 2).await;
    let mut client = Client::connect(&proxy.url()).await.expect("the proxy serves");
    for call in ["1", "2", "3"] {
        assert_eq!(client.call_text("echo", call).await.expect("an answer"), call);
    }
    assert_eq!((proxy.applied(), client.stray_answers()), (1, 1));

    let proxy = BrokenProxy::start(&node.address, Fault::CorruptAnswer, 2).await;
    let mut client = Client::connect(&proxy.url()).await.expect("the proxy serves");
    assert_eq!(client.call_text("echo", "a").await.expect("an answer"), "a");
    assert_eq!(client.call_text("echo", "a").await.expect("an answer"), "`");

    let proxy = BrokenProxy::start(&node.address, Fault::LoseReset, 2).await;
    let mut client = Client::connect(&proxy.url()).await.expect("the proxy serves");
    for _ in 0..2 {
        let call = client.start("long", "").await.expect("the proxy serves");
        client.reset(call).await.expect("the proxy serves");
    }
    let cancelled = async || node.metric("roomcast_calls_total{method=\"long\",outcome=\"cancelled\"}").await;
    node.wait_until("a call is cancelled", async || cancelled().await > 0.0).await;
    assert_eq!(client.call_text("running", "").await.expect("an answer"), "1");
    assert_eq!(proxy.applied(), 1);
}

//! A burst in a room, as after an outage: members that read get all of it, and nobody waits long for one
//! that does not.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Client, event, options, publish, room, within};
use futures_util::FutureExt;
use roomcast_core::{Broker, Command, Hub, HubOptions, MemoryBroker, NodeId, Publish, RoomName};
use roomcast_protocol::CloseCode;
use tokio::time::Instant;

const MAX_OUTBOUND: usize = 256 * 1024;

/// Several times what a member may have queued.
const EVENTS: usize = 60;
const EVENT_SIZE: usize = 30 * 1024;

/// How long a room waits for a member that takes nothing.
const MAX_WAIT: Duration = Duration::from_secs(1);

fn hub() -> (Arc<MemoryBroker>, Arc<Hub>) {
    hub_with(HubOptions::default())
}

fn hub_with(mut options: HubOptions) -> (Arc<MemoryBroker>, Arc<Hub>) {
    let broker = Arc::new(MemoryBroker::single());
    options.max_outbound = MAX_OUTBOUND;
    (Arc::clone(&broker), Hub::new(broker, options))
}

/// Publishes a burst while the hub does not run, as the broker of a node that was stopped for seconds has it.
fn publish_late(broker: &MemoryBroker, to: &RoomName) {
    publish_burst(
        broker,
        to,
        std::time::Instant::now().checked_sub(Duration::from_secs(5)).expect("the machine is up"),
    );
}

fn publish_burst(broker: &MemoryBroker, to: &RoomName, published_at: std::time::Instant) {
    for number in 0..EVENTS {
        let (room, event, payload) = (to.clone(), event("event"), payload(number).into());
        let publish = Publish { origin: NodeId::from_u64(1), room, event, payload, published_at, trace: None };
        broker.publish(publish).now_or_never().expect("a memory broker answers at once").expect("it has place");
    }
}

fn payload(number: usize) -> String {
    format!("{number:0EVENT_SIZE$}")
}

fn run(hub: &Arc<Hub>) {
    let hub = Arc::clone(hub);
    tokio::spawn(async move { hub.run().await });
}

/// Receives the whole burst, in order.
async fn receive_burst(client: &mut Client) {
    for number in 0..EVENTS {
        assert!(client.payload().await == payload(number), "event {number} is another");
    }
}

fn close_code(client: &Client) -> Option<CloseCode> {
    match client.connection.outbox.take_command() {
        Some(Command::Close(close)) => Some(close.code),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_read_get_a_burst_of_many_times_their_limit_in_order() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let mut members = [Client::member(&hub, &lobby).await, Client::member(&hub, &lobby).await];
    publish_late(&broker, &lobby);
    run(&hub);
    // Both have what their outboxes may hold of it, and wait.
    tokio::time::sleep(MAX_WAIT / 2).await;
    let [first, second] = &mut members;
    tokio::join!(receive_burst(first), receive_burst(second));
    assert_eq!((close_code(first), close_code(second)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_takes_nothing_is_closed_and_delays_the_others_for_a_second_only() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let (mut reads, sleeps) = (Client::member(&hub, &lobby).await, Client::member(&hub, &lobby).await);
    publish_late(&broker, &lobby);
    let started = Instant::now();
    run(&hub);
    receive_burst(&mut reads).await;
    let took = started.elapsed();
    assert!((MAX_WAIT..MAX_WAIT * 2).contains(&took), "it took {took:?}");
    assert_eq!((close_code(&reads), close_code(&sleeps)), (None, Some(CloseCode::SLOW_CONSUMER)));
}

#[tokio::test(start_paused = true)]
async fn other_rooms_go_on_while_one_waits_for_a_member() {
    let (broker, hub) = hub();
    let (lobby, other) = (room("lobby"), room("other"));
    let _sleeps = Client::member(&hub, &lobby).await;
    let mut bystander = Client::member(&hub, &other).await;
    publish_late(&broker, &lobby);
    let started = Instant::now();
    run(&hub);
    tokio::time::sleep(MAX_WAIT / 4).await;
    publish(&hub, &other, "goes on").await;
    assert_eq!(bystander.payload().await, "goes on");
    assert!(started.elapsed() < MAX_WAIT / 2, "it came only after {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn later_events_of_a_room_come_behind_what_it_holds_back() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let mut member = Client::member(&hub, &lobby).await;
    publish_late(&broker, &lobby);
    run(&hub);
    tokio::time::sleep(MAX_WAIT / 4).await;
    publish(&hub, &lobby, "last").await;
    receive_burst(&mut member).await;
    assert_eq!(member.payload().await, "last");
}

#[tokio::test(start_paused = true)]
async fn when_leave_returns_nothing_that_was_held_back_is_queued_any_more() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let (mut leaves, mut stays) = (Client::member(&hub, &lobby).await, Client::member(&hub, &lobby).await);
    publish_late(&broker, &lobby);
    run(&hub);
    tokio::time::sleep(MAX_WAIT / 4).await;
    hub.local().leave(leaves.peer(), &lobby);
    let before = leaves.queued().len();
    assert!((1..EVENTS).contains(&before), "{before} were queued");
    receive_burst(&mut stays).await;
    assert_eq!(leaves.queued(), <[String; 0]>::default());
    assert_eq!(close_code(&leaves), None);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_closes_gives_out_what_it_holds_back() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let mut member = Client::member(&hub, &lobby).await;
    publish_late(&broker, &lobby);
    hub.close();
    within("the hub's end", hub.run()).await;
    // Nothing was taken meanwhile, so it is too much.
    assert_eq!(close_code(&member), Some(CloseCode::SLOW_CONSUMER));
    let queued = member.queued();
    assert!(!queued.is_empty() && queued.iter().enumerate().all(|(number, event)| *event == payload(number)));
}

/// A member that does not read can't hold up a room whose events are on time, however large they are.
#[tokio::test(start_paused = true)]
async fn a_burst_that_is_on_time_waits_for_nobody() {
    let (broker, hub) = hub();
    let lobby = room("lobby");
    let sleeps = Client::member(&hub, &lobby).await;
    publish_burst(&broker, &lobby, std::time::Instant::now());
    let started = Instant::now();
    run(&hub);
    while close_code(&sleeps).is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(started.elapsed() < MAX_WAIT / 4, "it was waited for");
    }
}

/// What is held back belongs to no connection: closing some would not give it back.
#[tokio::test(start_paused = true)]
async fn what_is_held_back_leaves_memory_for_other_connections() {
    let outbound_memory = EVENTS * EVENT_SIZE / 2;
    let (broker, hub) = hub_with(options(|options| options.outbound_memory = outbound_memory));
    let (lobby, other) = (room("lobby"), room("other"));
    let _sleeps = Client::member(&hub, &lobby).await;
    let bystander = Client::member(&hub, &other).await;
    publish(&hub, &other, payload(0)).await;
    publish_late(&broker, &lobby);
    run(&hub);
    tokio::time::sleep(MAX_WAIT / 2).await;
    assert_eq!(close_code(&bystander), None, "it is closed for memory that others hold");
    let held = hub.metrics().outbound_memory.get() as usize;
    assert!(held <= outbound_memory / 4 + 2 * MAX_OUTBOUND, "{held} bytes are held");
}

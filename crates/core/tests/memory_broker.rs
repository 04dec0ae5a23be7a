//! The embedded broker: the contract of all brokers, and its own bounds.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::{
    Broker, BrokerError, MemoryBroker, MemoryBus, NodeId, Publication, Publish, RoomName, check_event,
};
use roomcast_testkit::broker_contract;

/// How many events may wait for one node, and how many bytes.
const MAX_EVENTS: usize = 65_536;
const MAX_BYTES: usize = 64 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_broker_keeps_the_contract_of_all_brokers() {
    broker_contract::check(async |count| {
        let bus = MemoryBus::new();
        (0..count).map(|_| Arc::new(bus.attach()) as Arc<dyn Broker>).collect()
    })
    .await;
}

#[test]
fn an_event_that_one_node_has_no_place_for_reaches_none() {
    let bus = MemoryBus::new();
    let (slow, quick) = (bus.attach(), bus.attach());
    subscribe(&slow, "room");
    subscribe(&quick, "room");
    for _ in 0..MAX_EVENTS {
        assert_eq!(publish(&quick, "room", Bytes::new()), Ok(()));
    }
    assert_eq!(read(&quick).len(), MAX_EVENTS);
    assert_eq!(publish(&quick, "room", Bytes::new()), Err(BrokerError::Overloaded { waiting: MAX_EVENTS }));
    assert_eq!(read(&quick).len(), 0);
    // Rooms that the slow node has no part in are not held up.
    subscribe(&quick, "other");
    assert_eq!(publish(&slow, "other", Bytes::new()), Ok(()));
    assert_eq!(read(&quick).len(), 1);
    // Once it has read, there is place again.
    assert_eq!(read(&slow).len(), MAX_EVENTS);
    assert_eq!(publish(&quick, "room", Bytes::new()), Ok(()));
    assert_eq!((read(&quick).len(), read(&slow).len()), (1, 1));
}

#[test]
fn a_closed_node_holds_nobody_up() {
    let bus = MemoryBus::new();
    let (closed, open) = (bus.attach(), bus.attach());
    subscribe(&closed, "room");
    for _ in 0..MAX_EVENTS {
        assert_eq!(publish(&open, "room", Bytes::new()), Ok(()));
    }
    assert_eq!(publish(&open, "room", Bytes::new()), Err(BrokerError::Overloaded { waiting: MAX_EVENTS }));
    closed.close();
    assert_eq!(publish(&open, "room", Bytes::new()), Ok(()));
}

#[test]
fn waiting_events_are_bounded_in_bytes_but_one_may_always_wait() {
    let node = MemoryBroker::single();
    subscribe(&node, "r");
    let names = "r".len() + "event".len();
    let too_large = Bytes::from(vec![0; MAX_BYTES + 1]);
    assert_eq!(publish(&node, "r", too_large.clone()), Ok(()));
    assert_eq!(publish(&node, "r", Bytes::new()), Err(BrokerError::Overloaded { waiting: 1 }));
    assert_eq!(read(&node).len(), 1);
    assert_eq!(publish(&node, "r", too_large.slice(..MAX_BYTES - 2 * names)), Ok(()));
    assert_eq!(publish(&node, "r", Bytes::new()), Ok(()));
    assert_eq!(publish(&node, "r", Bytes::new()), Err(BrokerError::Overloaded { waiting: 2 }));
}

// === what they use ===

fn subscribe(node: &MemoryBroker, room: &str) {
    let room = RoomName::new(room).expect("a valid name");
    assert_eq!(node.subscribe(&room).now_or_never(), Some(Ok(())));
}

fn publish(node: &MemoryBroker, room: &str, payload: Bytes) -> Result<(), BrokerError> {
    let room = RoomName::new(room).expect("a valid name");
    let event = check_event("event").expect("a valid name");
    let publish = Publish { origin: NodeId::random(), room, event, payload, published_at: Instant::now(), trace: None };
    node.publish(publish).now_or_never().expect("a memory broker accepts or refuses at once").map(drop)
}

/// What waits for the node's hub now.
fn read(node: &MemoryBroker) -> Vec<Publication> {
    let mut events = Vec::new();
    assert_ne!(node.next_publications(&mut events).now_or_never(), Some(false), "nobody closed");
    events
}

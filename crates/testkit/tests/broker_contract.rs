//! The contract suite finds the brokers that break a promise, and names the promise.

use std::sync::Arc;

use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, MemoryBroker, MemoryBus, Position, Publication, Publish, RoomName,
};
use roomcast_testkit::broker_contract;
use tokio::sync::watch;

#[tokio::test]
#[should_panic(expected = "events are numbered: event 0 has another position on node 1 than on node 0")]
async fn positions_that_differ_between_nodes_are_found() {
    check_with_positions(|node, at| Position { offset: at.offset + node, ..at }).await;
}

#[tokio::test]
#[should_panic(expected = "events are numbered: offsets grow by one, but not from event 0 to the next")]
async fn offsets_that_count_down_are_found() {
    check_with_positions(|_, at| Position { offset: u64::MAX - at.offset, ..at }).await;
}

#[tokio::test]
#[should_panic(expected = "a room that comes back is numbered on")]
async fn an_epoch_that_stays_the_same_when_offsets_start_anew_is_found() {
    check_with_positions(|_, at| Position { epoch: 1, ..at }).await;
}

#[tokio::test]
#[should_panic(expected = "a room that comes back is numbered on")]
async fn epochs_that_count_down_are_found() {
    check_with_positions(|_, at| Position { epoch: u64::MAX - at.epoch, ..at }).await;
}

#[tokio::test]
#[should_panic(expected = "a publish returns its event's position")]
async fn a_publish_that_returns_another_event_s_position_is_found() {
    check(|_, at| at, |at| Position { offset: at.offset / 2 * 2, ..at }).await;
}

#[tokio::test]
#[should_panic(expected = "a publish that nobody receives returns a position")]
async fn a_position_that_no_event_can_have_is_found() {
    check(|_, at| at, |at| if at == Position::NONE { Position { epoch: 1, offset: 1 } } else { at }).await;
}

/// Runs the suite on memory brokers whose positions are replaced: by the node's number and the right position.
async fn check_with_positions(replace: fn(u64, Position) -> Position) {
    check(replace, |at| at).await;
}

async fn check(replace: fn(u64, Position) -> Position, returned: fn(Position) -> Position) {
    broker_contract::check(async |count| {
        let bus = MemoryBus::new();
        let broker = |node| Arc::new(Misnumbering { right: bus.attach(), node, replace, returned }) as Arc<dyn Broker>;
        (0..count as u64).map(broker).collect()
    })
    .await;
}

/// A memory broker that gives events wrong positions.
#[derive(Debug)]
struct Misnumbering {
    right: MemoryBroker,
    node: u64,
    replace: fn(u64, Position) -> Position,
    returned: fn(Position) -> Position,
}

impl Broker for Misnumbering {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let (published, returned) = (self.right.publish(publish), self.returned);
        Box::pin(async move { published.await.map(returned) })
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.right.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.right.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let taken = publications.len();
            let open = self.right.next_publications(publications).await;
            for publication in &mut publications[taken..] {
                publication.position = (self.replace)(self.node, publication.position);
            }
            open
        })
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.right.status()
    }

    fn close(&self) {
        self.right.close();
    }
}

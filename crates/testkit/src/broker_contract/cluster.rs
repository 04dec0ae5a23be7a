//! The nodes of a step of the contract.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_core::{BoxFuture, Broker, BrokerError, NodeId, Position, Publication, Publish, RoomName, check_event};

/// No step waits longer than this for one thing.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How many events one publisher publishes in the steps about order.
pub(super) const EVENTS: usize = 200;

/// The nodes of one step.
pub(super) struct Cluster {
    pub(super) step: &'static str,
    pub(super) nodes: Vec<Node>,
}

impl Cluster {
    pub(super) fn new(step: &'static str, brokers: Vec<Arc<dyn Broker>>) -> Self {
        let handle = |broker| Handle { step, origin: NodeId::random(), broker };
        let node = |broker| Node { handle: handle(broker), waiting: VecDeque::new() };
        Self { step, nodes: brokers.into_iter().map(node).collect() }
    }

    pub(super) async fn subscribe_all(&self, room: &RoomName) {
        for node in &self.nodes {
            node.subscribe(room).await;
        }
    }

    pub(super) fn close(self) {
        for node in self.nodes {
            node.broker.close();
        }
    }
}

/// A node for its publishers.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) step: &'static str,
    origin: NodeId,
    pub(super) broker: Arc<dyn Broker>,
}

impl Handle {
    pub(super) fn start_publish(
        &self,
        room: &RoomName,
        event: &str,
        payload: impl Into<Bytes>,
    ) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.broker.publish(self.event(room, event, payload.into()))
    }

    pub(super) fn event(&self, room: &RoomName, event: &str, payload: Bytes) -> Publish {
        let (room, event) = (room.clone(), check_event(event).expect("a valid event name"));
        Publish { origin: self.origin, room, event, payload, published_at: Instant::now(), trace: None }
    }

    pub(super) async fn publish(&self, room: &RoomName, event: &str, payload: impl Into<Bytes>) -> Position {
        let accepted = self.start_publish(room, event, payload);
        let accepted = self.within("the outcome of a publish", accepted).await;
        accepted.unwrap_or_else(|error| panic!("{}: publishing to {room} failed: {error}", self.step))
    }

    pub(super) async fn subscribe(&self, room: &RoomName) {
        let subscribed = self.within("the confirmation of a subscription", self.broker.subscribe(room)).await;
        subscribed.unwrap_or_else(|error| panic!("{}: subscribing to {room} failed: {error}", self.step));
    }

    pub(super) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        // The deadline is polled first, because a future that becomes ready only after the deadline
        // is too late.
        tokio::select! {
            biased;
            () = tokio::time::sleep(DEADLINE) => panic!("{}: waited in vain for {what}", self.step),
            result = future => result,
        }
    }
}

/// A node with the stream of its events.
pub(super) struct Node {
    pub(super) handle: Handle,
    waiting: VecDeque<Publication>,
}

impl Deref for Node {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Node {
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(super) async fn next(&mut self) -> Publication {
        while self.waiting.is_empty() {
            let open = self.read("an event").await;
            assert!(open, "{}: waited for an event, but the broker is closed", self.step);
        }
        self.waiting.pop_front().expect("an event waits")
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Publication> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    pub(super) async fn expect(&mut self, room: &RoomName, payload: &str) {
        let event = self.next().await;
        assert_eq!((&event.room, text(&event).as_str()), (room, payload), "{}", self.step);
    }

    pub(super) async fn expect_end_after(&mut self, may_come: &[&str]) {
        while !self.waiting.is_empty() || self.read("the end of the events").await {
            for event in self.waiting.drain(..) {
                let step = self.handle.step;
                assert!(may_come.contains(&text(&event).as_str()), "{step}: after close came {event:?}");
            }
        }
    }

    async fn read(&mut self, what: &str) -> bool {
        let mut events = Vec::new();
        let open = self.within(what, self.broker.next_publications(&mut events)).await;
        self.waiting.extend(events);
        open
    }
}

pub(super) fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a valid room name")
}

pub(super) fn text(event: &Publication) -> String {
    String::from_utf8_lossy(&event.payload).into_owned()
}

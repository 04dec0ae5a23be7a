//! The embedded broker: the nodes of one process, without a network.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;

use futures_util::future::ready;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::{BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::envelope::Envelope;
use crate::event_queue::EventQueue;
use crate::id::RoomName;

/// Connects the nodes of one process. One lock over all of them is what makes the order one.
#[derive(Debug, Default, Clone)]
pub struct MemoryBus {
    nodes: Arc<Mutex<Vec<Node>>>,
}

#[derive(Debug, Default)]
struct Node {
    rooms: HashSet<RoomName>,
    events: EventQueue,
}

impl MemoryBus {
    /// A bus with no node on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more node.
    pub fn attach(&self) -> MemoryBroker {
        let mut nodes = self.nodes.lock();
        nodes.push(Node::default());
        MemoryBroker { bus: self.clone(), node: nodes.len() - 1 }
    }
}

/// One node's place on a [`MemoryBus`]. Holds at most 65,536 events or 64 MiB until the hub takes them.
#[derive(Debug)]
pub struct MemoryBroker {
    bus: MemoryBus,
    node: usize,
}

impl MemoryBroker {
    /// The broker of a node that is alone.
    pub fn single() -> Self {
        MemoryBus::new().attach()
    }

    fn publish_now(&self, envelope: &Envelope) -> Result<(), BrokerError> {
        let mut nodes = self.bus.nodes.lock();
        if nodes[self.node].events.is_closed() {
            return Err(BrokerError::Closed);
        }
        let wants = |node: &Node| !node.events.is_closed() && node.rooms.contains(&envelope.room);
        // All or none: an event that only some nodes get would be a silent loss.
        if let Some(full) = nodes.iter().find(|node| wants(node) && node.events.is_full(envelope.size())) {
            return Err(BrokerError::Overloaded { waiting: full.events.len() });
        }
        for node in nodes.iter_mut().filter(|node| wants(node)) {
            node.events.push(envelope.clone());
        }
        Ok(())
    }
}

impl Drop for MemoryBroker {
    /// A node that has gone must not fill up and hold the others back.
    fn drop(&mut self) {
        self.bus.nodes.lock()[self.node] = Node { events: EventQueue::closed(), ..Node::default() };
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<(), BrokerError>> {
        Box::pin(ready(self.publish_now(&envelope)))
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.bus.nodes.lock()[self.node].rooms.insert(room.clone());
        Box::pin(ready(Ok(())))
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.bus.nodes.lock()[self.node].rooms.remove(room);
    }

    fn next_events<'a>(&'a self, events: &'a mut Vec<Envelope>) -> BoxFuture<'a, bool> {
        Box::pin(poll_fn(|cx| self.bus.nodes.lock()[self.node].events.poll_events(cx, events)))
    }

    /// Always up.
    fn status(&self) -> watch::Receiver<BrokerStatus> {
        watch::channel(BrokerStatus::Up).1
    }

    fn close(&self) {
        self.bus.nodes.lock()[self.node].events.close();
    }
}

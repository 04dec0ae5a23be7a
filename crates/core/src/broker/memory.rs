//! The embedded broker: the nodes of one process, without a network.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::ready;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::contract::{BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::broker::publication::{Position, Publication, Publish};
use crate::broker::publication_queue::PublicationQueue;
use crate::id::RoomName;

/// Connects the nodes of one process. One lock over all of them makes the order of events one.
///
/// ```
/// use std::sync::Arc;
/// use roomcast_core::{Hub, HubOptions, MemoryBus};
///
/// let bus = MemoryBus::new();
/// let hubs = [(); 2].map(|()| Hub::new(Arc::new(bus.attach()), HubOptions::default()));
/// # drop(hubs);
/// ```
#[derive(Debug, Default, Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<Bus>>,
}

#[derive(Debug, Default)]
struct Bus {
    /// The publications that wait for each node.
    queues: Vec<PublicationQueue>,
    /// The rooms that a node is subscribed to.
    rooms: HashMap<RoomName, Room>,
    last_epoch: u64,
}

#[derive(Debug)]
struct Room {
    /// Of the last event.
    position: Position,
    /// The nodes that are subscribed; never empty.
    nodes: Vec<usize>,
}

impl MemoryBus {
    /// A bus with no node on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more node.
    pub fn attach(&self) -> MemoryBroker {
        let mut bus = self.state.lock();
        bus.queues.push(PublicationQueue::default());
        MemoryBroker { bus: self.clone(), node: bus.queues.len() - 1 }
    }
}

impl Bus {
    /// Epochs grow, also from one run of the process to the next. A room without subscribers is removed, so it
    /// gets a new one.
    fn next_epoch(&mut self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_epoch = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(self.last_epoch + 1);
        self.last_epoch
    }

    fn subscribe(&mut self, node: usize, name: &RoomName) {
        match self.rooms.get_mut(name) {
            Some(room) if room.nodes.contains(&node) => {}
            Some(room) => room.nodes.push(node),
            None => {
                let position = Position { epoch: self.next_epoch(), offset: 0 };
                self.rooms.insert(name.clone(), Room { position, nodes: vec![node] });
            }
        }
    }

    fn unsubscribe(&mut self, node: usize, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.nodes.retain(|subscribed| *subscribed != node);
            if room.nodes.is_empty() {
                self.rooms.remove(name);
            }
        }
    }

    fn publish(&mut self, from: usize, publish: Publish) -> Result<(), BrokerError> {
        if self.queues[from].is_closed() {
            return Err(BrokerError::Closed);
        }
        let Some(room) = self.rooms.get_mut(&publish.room) else { return Ok(()) };
        let size = publish.size();
        // All or none: an event that only some nodes get would be a silent loss.
        for node in &room.nodes {
            let queue = &mut self.queues[*node];
            if !queue.is_closed() && queue.reserve(size).is_none() {
                return Err(BrokerError::Overloaded { waiting: queue.len() });
            }
        }
        room.position.offset += 1;
        let publication = publish.accepted(room.position);
        for node in &room.nodes {
            if let Some(place) = self.queues[*node].reserve(size) {
                place.fill(publication.clone());
            }
        }
        Ok(())
    }
}

/// One node's place on a [`MemoryBus`]. Holds at most [`MAX_WAITING_EVENTS`](crate::MAX_WAITING_EVENTS) events or
/// [`MAX_WAITING_BYTES`](crate::MAX_WAITING_BYTES) until the hub takes them.
///
/// ```
/// use std::sync::Arc;
/// use roomcast_core::{Hub, HubOptions, MemoryBroker};
///
/// let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
/// # drop(hub);
/// ```
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
}

impl Drop for MemoryBroker {
    /// A node that has gone must not fill up and hold the others back.
    fn drop(&mut self) {
        let mut bus = self.bus.state.lock();
        bus.queues[self.node] = PublicationQueue::closed();
        bus.rooms.retain(|_, room| {
            room.nodes.retain(|node| *node != self.node);
            !room.nodes.is_empty()
        });
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<(), BrokerError>> {
        Box::pin(ready(self.bus.state.lock().publish(self.node, publish)))
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.bus.state.lock().subscribe(self.node, room);
        Box::pin(ready(Ok(())))
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.bus.state.lock().unsubscribe(self.node, room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        Box::pin(poll_fn(|cx| self.bus.state.lock().queues[self.node].poll_publications(cx, publications)))
    }

    /// Always up.
    fn status(&self) -> watch::Receiver<BrokerStatus> {
        watch::channel(BrokerStatus::Up).1
    }

    fn close(&self) {
        self.bus.state.lock().queues[self.node].close();
    }
}

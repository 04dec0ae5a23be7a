//! The broker in memory, which connects the nodes of one process without a network.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::ready;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::contract::{BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::broker::ledger::{Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS};
use crate::broker::publication::{Position, Publication, Publish};
use crate::broker::publication_queue::PublicationQueue;
use crate::id::RoomName;
use crate::unix_time::seconds;

/// Connects the nodes of one process. One lock over all of them gives all events one order.
///
/// Create as many nodes as you need, for example in a test:
///
/// ```
/// # mod roomcast { pub use roomcast_core::{Hub as Node, HubOptions as Options, MemoryBus}; }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::sync::Arc;
/// use roomcast::{MemoryBus, Node, Options};
///
/// let bus = MemoryBus::new();
/// let one = Node::new(Arc::new(bus.attach()), Options::default());
/// let two = Node::new(Arc::new(bus.attach()), Options::default());
/// # drop((one, two)); }
/// ```
#[derive(Debug, Default, Clone)]
pub struct MemoryBus {
    state: Arc<Mutex<Bus>>,
}

#[derive(Debug, Default)]
struct Bus {
    /// For each node, the publications that wait for it.
    queues: Vec<PublicationQueue>,
    /// The rooms that at least one node is subscribed to.
    rooms: HashMap<RoomName, Room>,
    last_epoch: u64,
    ledger: Ledger,
}

/// The records that all nodes must get.
#[derive(Debug, Default)]
struct Ledger {
    epoch: u64,
    records: Vec<LedgerRecord>,
}

impl Ledger {
    fn exchange(&mut self, exchange: Exchange, now: u64) -> Result<LedgerPage, BrokerError> {
        if self.records.len() + exchange.add.len() > MAX_LEDGER_RECORDS {
            let mut kept = HashSet::new();
            self.records.retain(|record| record.until > now && kept.insert(record.clone()));
            self.epoch += 1; // the records have other places now
            if self.records.len() + exchange.add.len() > MAX_LEDGER_RECORDS {
                return Err(BrokerError::LedgerFull);
            }
        }
        self.records.extend(exchange.add);
        let epoch = self.epoch.to_string();
        let after = exchange.after.filter(|after| after.epoch == epoch);
        let from = after.as_ref().map_or(0, |after| usize::try_from(after.read).unwrap_or(usize::MAX));
        let from = from.min(self.records.len());
        let to = self.records.len().min(from.saturating_add(MAX_LEDGER_PAGE));
        let position = LedgerPosition::new(epoch, to as u64);
        Ok(LedgerPage::new(after.is_none(), position, self.records[from..to].to_vec(), to < self.records.len()))
    }
}

#[derive(Debug)]
struct Room {
    /// The position of the room's last event.
    position: Position,
    /// The subscribed nodes. There is at least one.
    nodes: Vec<usize>,
}

impl MemoryBus {
    /// Creates a bus without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, and returns its broker.
    pub fn attach(&self) -> MemoryBroker {
        let mut bus = self.state.lock();
        bus.queues.push(PublicationQueue::default());
        MemoryBroker { bus: self.clone(), node: bus.queues.len() - 1 }
    }
}

impl Bus {
    /// Returns a new epoch. Epochs increase, even from one run of the process to the next. A room
    /// without subscribers is removed, so it gets a new epoch when it is subscribed to again.
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

    fn publish(&mut self, from: usize, publish: Publish) -> Result<Position, BrokerError> {
        if self.queues[from].is_closed() {
            return Err(BrokerError::Closed);
        }
        let Some(room) = self.rooms.get_mut(&publish.room) else { return Ok(Position::NONE) };
        let size = publish.size();
        // Either all nodes receive the event or none does. If only some received it, the others
        // would lose it unnoticed.
        for node in &room.nodes {
            let queue = &mut self.queues[*node];
            if !queue.is_closed() && queue.reserve(size).is_none() {
                return Err(BrokerError::Overloaded { waiting: queue.len() });
            }
        }
        room.position.offset += 1;
        let position = room.position;
        let publication = publish.accepted(position);
        for node in &room.nodes {
            if let Some(place) = self.queues[*node].reserve(size) {
                place.fill(publication.clone());
            }
        }
        Ok(position)
    }
}

/// One node's connection to a [`MemoryBus`]. Up to
/// [`MAX_WAITING_EVENTS`](crate::MAX_WAITING_EVENTS) events, or
/// [`MAX_WAITING_BYTES`](crate::MAX_WAITING_BYTES) of them, wait here until the node takes them.
///
/// This is the broker of `Node::embedded`. The two nodes in this example are equivalent; each is
/// the only node of its cluster:
///
/// ```
/// # mod roomcast {
/// #     pub use roomcast_core::{HubOptions as Options, MemoryBroker};
/// #     pub struct Node;
/// #     impl Node {
/// #         pub fn new(broker: std::sync::Arc<dyn roomcast_core::Broker>, options: Options) -> Self {
/// #             roomcast_core::Hub::new(broker, options);
/// #             Self
/// #         }
/// #         pub fn embedded(options: Options) -> Self {
/// #             Self::new(std::sync::Arc::new(MemoryBroker::single()), options)
/// #         }
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::sync::Arc;
/// use roomcast::{MemoryBroker, Node, Options};
///
/// let node = Node::embedded(Options::default());
/// let equivalent = Node::new(Arc::new(MemoryBroker::single()), Options::default());
/// # drop((node, equivalent)); }
/// ```
#[derive(Debug)]
pub struct MemoryBroker {
    bus: MemoryBus,
    node: usize,
}

impl MemoryBroker {
    /// Creates the broker of a node that is the only one of its cluster.
    pub fn single() -> Self {
        MemoryBus::new().attach()
    }
}

impl Drop for MemoryBroker {
    /// The queue of a dropped node must not fill up and block the other nodes.
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
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
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

    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, Result<LedgerPage, BrokerError>> {
        let now = seconds(SystemTime::now());
        Box::pin(ready(self.bus.state.lock().ledger.exchange(exchange, now)))
    }

    /// Returns a status that is always `Up`.
    fn status(&self) -> watch::Receiver<BrokerStatus> {
        watch::channel(BrokerStatus::Up).1
    }

    fn close(&self) {
        self.bus.state.lock().queues[self.node].close();
    }
}

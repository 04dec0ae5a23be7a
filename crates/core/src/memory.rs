//! The embedded broker: the nodes of one process, without a network.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::ready;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::{BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::envelope::Envelope;
use crate::id::RoomName;

/// How many events may wait for one node's hub.
const MAX_WAITING_EVENTS: usize = 65_536;

/// How many bytes of events may wait for one node's hub; one event may always wait.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Connects the nodes of one process. One lock over all of them is what makes the order one.
#[derive(Debug, Default, Clone)]
pub struct MemoryBus {
    nodes: Arc<Mutex<Vec<Node>>>,
}

#[derive(Debug, Default)]
struct Node {
    rooms: HashSet<RoomName>,
    waiting: VecDeque<Envelope>,
    waiting_bytes: usize,
    closed: bool,
    waker: Option<Waker>,
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
        if nodes[self.node].closed {
            return Err(BrokerError::Closed);
        }
        let wants = |node: &Node| !node.closed && node.rooms.contains(&envelope.room);
        // All or none: an event that only some nodes get would be a silent loss.
        if let Some(full) = nodes.iter().find(|node| wants(node) && node.is_full(envelope.size())) {
            return Err(BrokerError::Overloaded { waiting: full.waiting.len() });
        }
        for node in nodes.iter_mut().filter(|node| wants(node)) {
            node.waiting_bytes += envelope.size();
            node.waiting.push_back(envelope.clone());
            if let Some(waker) = node.waker.take() {
                waker.wake();
            }
        }
        Ok(())
    }

    fn poll_events(&self, cx: &Context<'_>, events: &mut Vec<Envelope>) -> Poll<bool> {
        let node = &mut self.bus.nodes.lock()[self.node];
        if !node.waiting.is_empty() {
            node.waiting_bytes = 0;
            events.extend(node.waiting.drain(..));
            Poll::Ready(true)
        } else if node.closed {
            Poll::Ready(false)
        } else {
            node.waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}

impl Drop for MemoryBroker {
    /// A node that has gone must not fill up and hold the others back.
    fn drop(&mut self) {
        self.bus.nodes.lock()[self.node] = Node { closed: true, ..Node::default() };
    }
}

impl Node {
    fn is_full(&self, more: usize) -> bool {
        !self.waiting.is_empty()
            && (self.waiting.len() >= MAX_WAITING_EVENTS || self.waiting_bytes + more > MAX_WAITING_BYTES)
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
        Box::pin(poll_fn(|cx| self.poll_events(cx, events)))
    }

    /// Always up.
    fn status(&self) -> watch::Receiver<BrokerStatus> {
        watch::channel(BrokerStatus::Up).1
    }

    fn close(&self) {
        let node = &mut self.bus.nodes.lock()[self.node];
        node.closed = true;
        if let Some(waker) = node.waker.take() {
            waker.wake();
        }
    }
}

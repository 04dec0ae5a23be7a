//! A broker in memory that fails, or keeps its answers, on demand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use roomcast::{Broker, BrokerError, BrokerStatus, MemoryBroker, RoomName};
use roomcast_core::{BoxFuture, Exchange, LedgerPage, Position, Publication, Publish};
use tokio::sync::{oneshot, watch};

/// What becomes of the stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Flows,
    Ends,
    Panics,
}

#[derive(Debug)]
pub struct TestBroker {
    inner: MemoryBroker,
    pub stream: watch::Sender<Stream>,
    /// Whether publishes wait for [`TestBroker::answer`].
    pub holds: AtomicBool,
    held: Mutex<VecDeque<Held>>,
    /// Whether subscriptions go on; they wait while it is false.
    pub subscribes: watch::Sender<bool>,
    /// Whether the ledger can be read.
    pub has_ledger: AtomicBool,
}

/// A publish that was not answered.
#[derive(Debug)]
struct Held {
    room: String,
    len: usize,
    answered: oneshot::Sender<()>,
}

impl TestBroker {
    pub fn new() -> Self {
        Self::over(MemoryBroker::single())
    }

    pub fn over(inner: MemoryBroker) -> Self {
        Self {
            inner,
            stream: watch::Sender::new(Stream::Flows),
            holds: AtomicBool::new(false),
            held: Mutex::default(),
            subscribes: watch::Sender::new(true),
            has_ledger: AtomicBool::new(true),
        }
    }

    pub fn inner(&self) -> &MemoryBroker {
        &self.inner
    }

    /// How many publishes to a room wait for an answer, and how many bytes they have.
    pub fn under_way(&self, room: &str) -> (usize, usize) {
        let held = self.held.lock();
        let of_room = held.iter().filter(|held| held.room == room);
        of_room.fold((0, 0), |(count, bytes), held| (count + 1, bytes + held.len))
    }

    /// Answers the oldest publish to a room.
    pub fn answer(&self, room: &str) {
        let mut held = self.held.lock();
        let oldest = held.iter().position(|held| held.room == room).expect("one waits");
        let oldest = held.remove(oldest).expect("it is there");
        drop(held);
        // Who asked may have left.
        let _ = oldest.answered.send(());
    }
}

impl Broker for TestBroker {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        if !self.holds.load(Ordering::Acquire) || publish.room.starts_with("node") {
            return self.inner.publish(publish);
        }
        let (answered, answer) = oneshot::channel();
        let (room, len) = (publish.room.to_string(), publish.payload.len());
        self.held.lock().push_back(Held { room, len, answered });
        // It has its place in the room's order now.
        let published = self.inner.publish(publish);
        Box::pin(async {
            let _ = answer.await;
            published.await
        })
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (subscribed, mut subscribes) = (self.inner.subscribe(room), self.subscribes.subscribe());
        Box::pin(async move {
            let _ = subscribes.wait_for(|subscribes| *subscribes).await;
            subscribed.await
        })
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        let mut stream = self.stream.subscribe();
        Box::pin(async move {
            tokio::select! {
                more = self.inner.next_publications(publications) => more,
                fate = stream.wait_for(|fate| *fate != Stream::Flows) => match *fate.expect("the broker is there") {
                    Stream::Panics => panic!("as the test wants it"),
                    Stream::Flows | Stream::Ends => false,
                },
            }
        })
    }

    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, Result<LedgerPage, BrokerError>> {
        match self.has_ledger.load(Ordering::Acquire) {
            true => self.inner.exchange(exchange),
            false => Box::pin(async { Err(BrokerError::Unavailable { reason: "as the test wants it".to_owned() }) }),
        }
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.inner.status()
    }

    fn close(&self) {
        self.inner.close();
    }
}

//! A broker in memory that fails, or keeps its answers, on demand.

use roomcast::{Broker, BrokerError, BrokerStatus, MemoryBroker, RoomName};
use roomcast_core::{BoxFuture, Envelope};
use tokio::sync::watch;

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
}

impl TestBroker {
    pub fn new() -> Self {
        Self { inner: MemoryBroker::single(), stream: watch::Sender::new(Stream::Flows) }
    }
}

impl Broker for TestBroker {
    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.publish(envelope)
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    fn next_events<'a>(&'a self, events: &'a mut Vec<Envelope>) -> BoxFuture<'a, bool> {
        let mut stream = self.stream.subscribe();
        Box::pin(async move {
            tokio::select! {
                more = self.inner.next_events(events) => more,
                fate = stream.wait_for(|fate| *fate != Stream::Flows) => match *fate.expect("the broker is there") {
                    Stream::Panics => panic!("as the test wants it"),
                    Stream::Flows | Stream::Ends => false,
                },
            }
        })
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.inner.status()
    }

    fn close(&self) {
        self.inner.close();
    }
}

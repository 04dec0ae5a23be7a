//! Hubs with clients that read what was queued to them.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, Codec, ConnectionGuard, Hub, HubOptions, LocalConnection,
    MemoryBroker, MemoryBus, Outgoing, Position, Publication, Publish, RoomName, UserId, check_event,
};
use roomcast_protocol::{Frame, Name};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

/// No test waits longer for one thing.
const DEADLINE: Duration = Duration::from_secs(10);

pub fn room(name: &str) -> RoomName {
    RoomName::new(name).expect("a valid room name")
}

pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("a valid user id")
}

pub fn event(name: &str) -> Name {
    check_event(name).expect("a valid event name")
}

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    // The deadline first: what becomes ready only when it is polled after the deadline is too late.
    tokio::select! {
        biased;
        () = tokio::time::sleep(DEADLINE) => panic!("waited in vain for {what}"),
        result = future => result,
    }
}

/// The default options with a change.
pub fn options(change: impl FnOnce(&mut HubOptions)) -> HubOptions {
    let mut options = HubOptions::default();
    change(&mut options);
    options
}

/// A clock for hubs that run without a runtime, whose heartbeats need one. Nobody turns it.
pub fn clock() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("there is a clock")
}

/// Hubs on one bus, each running in a task of its own.
pub fn start_hubs<const N: usize>(options: HubOptions) -> [Arc<Hub>; N] {
    let bus = MemoryBus::new();
    std::array::from_fn(|_| start_hub(Arc::new(bus.attach()), options))
}

pub fn start_hub(broker: Arc<dyn Broker>, options: HubOptions) -> Arc<Hub> {
    let hub = Hub::new(broker, options);
    let running = Arc::clone(&hub);
    tokio::spawn(async move { running.run().await });
    hub
}

/// Publishes and waits for the broker to take it.
pub async fn publish(hub: &Arc<Hub>, to: &RoomName, payload: impl Into<Bytes>) {
    within("an answer to a publish", hub.publish(to.clone(), event("event"), payload.into()))
        .await
        .expect("the broker takes a few events");
}

// === clients ===

/// A connection whose driver takes everything at once and writes it nowhere.
#[derive(Debug)]
pub struct Client {
    pub connection: ConnectionGuard,
    received: VecDeque<(String, String)>,
}

impl Client {
    pub async fn connect(hub: &Arc<Hub>, user: Option<UserId>) -> Self {
        let connection = hub.local().connect(user, Codec::default());
        within("an answer to a connect", hub.local().join_user(connection.shared()))
            .await
            .expect("there is no reason not to");
        Self::of(connection)
    }

    pub fn of(connection: ConnectionGuard) -> Self {
        Self { connection, received: VecDeque::new() }
    }

    pub async fn member(hub: &Arc<Hub>, of: &RoomName) -> Self {
        let client = Self::connect(hub, None).await;
        within("an answer to a join", hub.local().join(client.peer(), of)).await.expect("there is no reason not to");
        client
    }

    pub fn peer(&self) -> &Arc<LocalConnection> {
        self.connection.shared()
    }

    /// The next event's name and payload.
    pub async fn next(&mut self) -> (String, String) {
        if self.received.is_empty() {
            let peer = Arc::clone(self.peer());
            let queued = within(
                "an event",
                poll_fn(|cx| {
                    let queued = take(&peer, cx);
                    if queued.is_empty() { Poll::Pending } else { Poll::Ready(queued) }
                }),
            );
            let queued = queued.await;
            self.received.extend(queued);
        }
        self.received.pop_front().expect("an event was received")
    }

    /// The payload of the next event.
    pub async fn payload(&mut self) -> String {
        self.next().await.1
    }

    /// The payloads of the next events.
    pub async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            payloads.push(self.payload().await);
        }
        payloads
    }

    /// The payloads of all that is queued now.
    pub fn queued(&mut self) -> Vec<String> {
        self.received.extend(take(self.connection.shared(), &Context::from_waker(Waker::noop())));
        self.received.drain(..).map(|(_, payload)| payload).collect()
    }

    /// The same, as the pieces that a driver would write.
    pub fn pieces(&mut self) -> Vec<Vec<String>> {
        let mut queue = VecDeque::new();
        self.connection.outbox.take_or_sleep(&mut queue, &Context::from_waker(Waker::noop()));
        let payloads = |outgoing| written(self.peer(), outgoing).into_iter().map(|(_, payload)| payload).collect();
        queue.into_iter().map(payloads).collect()
    }
}

fn take(peer: &LocalConnection, cx: &Context<'_>) -> Vec<(String, String)> {
    let mut queue = VecDeque::new();
    peer.outbox.awake();
    peer.outbox.take_or_sleep(&mut queue, cx);
    queue.into_iter().flat_map(|outgoing| written(peer, outgoing)).collect()
}

fn written(peer: &LocalConnection, outgoing: Outgoing) -> Vec<(String, String)> {
    peer.outbox.wrote(std::iter::once(&outgoing));
    let mut bytes = outgoing.bytes;
    let mut events = Vec::new();
    while !bytes.is_empty() {
        match Frame::decode(split_message(&mut bytes)).expect("a frame of the protocol") {
            Frame::Notify { name, payload } => {
                events.push((name.to_string(), String::from_utf8(payload.into()).expect("tests send text")));
            }
            other => panic!("a hub sends events only, not {other:?}"),
        }
    }
    events
}

/// Takes one unfragmented, unmasked binary message off the front (RFC 6455, section 5.2).
fn split_message(bytes: &mut Bytes) -> Bytes {
    assert_eq!(bytes.get_u8(), 0x82, "a final binary frame");
    let len = match bytes.get_u8() {
        126 => bytes.get_u16().into(),
        127 => bytes.get_u64(),
        len => len.into(),
    };
    bytes.split_to(len.try_into().expect("a length in memory"))
}

// === a broker to look into ===

/// A memory broker that shows what it is subscribed to, and that can hold subscriptions back until a test confirms
/// them.
#[derive(Debug)]
pub struct Spy {
    inner: MemoryBroker,
    state: Mutex<SpyState>,
    /// Which status it shows.
    pub status: watch::Sender<BrokerStatus>,
}

#[derive(Debug, Default)]
struct SpyState {
    /// How often each room is subscribed to.
    subscribed: BTreeMap<String, i32>,
    holds: bool,
    held: Held,
}

/// RoomSubscriptions that wait for an answer.
type Held = Vec<(RoomName, oneshot::Sender<Result<(), BrokerError>>)>;

impl Spy {
    pub fn new(inner: MemoryBroker) -> Arc<Self> {
        Arc::new(Self { inner, state: Mutex::default(), status: watch::Sender::new(BrokerStatus::Up) })
    }

    /// The rooms of connections that are subscribed to, each once.
    pub fn subscribed(&self) -> Vec<String> {
        let state = self.state.lock();
        let twice = state.subscribed.iter().find(|(_, times)| !(0..=1).contains(*times));
        assert_eq!(twice, None, "subscriptions and unsubscriptions take turns");
        let of_connections = state.subscribed.iter().filter(|(room, _)| !room.starts_with("node"));
        of_connections.filter(|(_, times)| **times == 1).map(|(room, _)| room.clone()).collect()
    }

    /// From now on, subscriptions wait for [`answer`](Self::answer).
    pub fn hold(&self) {
        self.state.lock().holds = true;
    }

    /// Confirms all subscriptions that wait, and returns how many.
    pub fn answer(&self, answer: &Result<(), BrokerError>) -> usize {
        let held = self.take_held();
        let count = held.len();
        for (room, answered) in held {
            if answer.is_ok() {
                drop(self.inner.subscribe(&room));
            }
            // The subscriber may no longer wait.
            let _ = answered.send(answer.clone());
        }
        count
    }

    /// Takes the subscriptions that wait: [`answer`](Self::answer) skips them. They fail when they are dropped.
    pub fn take_held(&self) -> Held {
        std::mem::take(&mut self.state.lock().held)
    }
}

impl Broker for Spy {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.inner.publish(publish)
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let mut state = self.state.lock();
        *state.subscribed.entry(room.to_string()).or_default() += 1;
        if !state.holds {
            return self.inner.subscribe(room);
        }
        let (answered, answer) = oneshot::channel();
        state.held.push((room.clone(), answered));
        Box::pin(async { answer.await.unwrap_or(Err(BrokerError::Closed)) })
    }

    fn unsubscribe(&self, room: &RoomName) {
        *self.state.lock().subscribed.entry(room.to_string()).or_default() -= 1;
        self.inner.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        self.inner.next_publications(publications)
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.status.subscribe()
    }

    fn close(&self) {
        self.inner.close();
    }
}

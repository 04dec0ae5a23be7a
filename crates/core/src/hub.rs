//! Joins, leaves, publishes and fan-out on one node.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, ready};
use parking_lot::Mutex;
use roomcast_protocol::Name;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::broker::{BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::budget::Budget;
use crate::envelope::Envelope;
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::load::NodeLoad;
use crate::membership::Membership;
use crate::metrics::HubMetrics;
use crate::neighbours::Neighbours;
use crate::options::HubOptions;
use crate::outbox::Outbox;
use crate::peer::{Connection, Entry, Peer, Place};
use crate::renewal;

/// Rooms are spread over so many locks.
const SHARDS: usize = 64;

/// Why a connection did not become a member.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JoinError {
    /// It is in as many rooms as it may be.
    #[error("this connection is in {max} rooms already, the most that it may")]
    TooManyRooms {
        /// The most.
        max: usize,
    },
    /// It has ended.
    #[error("the connection has ended")]
    Closed,
    /// The room's events could not be subscribed to.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker did not take it.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// One member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The connection.
    pub connection: ConnectionId,
    /// Whose it is.
    pub user: Option<UserId>,
}

/// The rooms whose names hash alike.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) membership: Membership<Arc<Peer>>,
    /// Subscriptions that the broker has not confirmed yet; each joiner waits for its room's.
    pub(crate) pending: HashMap<RoomName, Subscription>,
}

pub(crate) type Subscription = Shared<BoxFuture<'static, Result<(), BrokerError>>>;

/// The rooms and connections of one node.
#[derive(Debug)]
pub struct Hub {
    node: NodeId,
    pub(crate) options: HubOptions,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) neighbours: Neighbours,
    pub(crate) shards: Vec<Mutex<Shard>>,
    hasher: std::hash::RandomState,
    pub(crate) connections: Mutex<HashMap<u64, Arc<Peer>>>,
    next_connection: AtomicU64,
    next_join: AtomicU64,
    places_taken: AtomicUsize,
    draining: AtomicBool,
    closed: AtomicBool,
    pub(crate) load: Arc<NodeLoad>,
    metrics: HubMetrics,
}

impl Hub {
    /// A hub without connections. Events flow while [`run`](Self::run) does.
    pub fn new(broker: Arc<dyn Broker>, options: HubOptions) -> Arc<Self> {
        let metrics = HubMetrics::new(&options);
        Arc::new(Self {
            node: NodeId::random(),
            options,
            broker,
            neighbours: Neighbours::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: std::hash::RandomState::new(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            next_join: AtomicU64::new(1),
            places_taken: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            load: NodeLoad::new(
                Budget::new(metrics.inbound_memory.clone(), options.inbound_memory),
                Budget::new(metrics.outbound_memory.clone(), options.outbound_memory),
            ),
            metrics,
        })
    }

    /// This run of this node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What it counts.
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    // === connections ===

    /// Takes one of `max` places for connections. A connection holds its place from before its upgrade until its end,
    /// so there are never more, however many come at once. `None`: all are taken.
    pub fn take_place(self: &Arc<Self>, max: usize) -> Option<Place> {
        let take = |taken| (taken < max).then_some(taken + 1);
        self.places_taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Place(Arc::clone(self)))
    }

    pub(crate) fn give_place_back(&self) {
        self.places_taken.fetch_sub(1, Ordering::AcqRel);
    }

    /// A new connection, known until the result is dropped.
    pub fn connect(self: &Arc<Self>, user: Option<UserId>) -> Connection {
        let serial = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let outbox = Outbox::new(self.options.max_outbound, Arc::clone(&self.load));
        let peer = Peer::new(ConnectionId { node: self.node, serial }, user, outbox);
        self.connections.lock().insert(serial, Arc::clone(&peer));
        if self.draining.load(Ordering::Acquire) {
            peer.outbox.drain();
        }
        Connection { hub: Arc::clone(self), peer }
    }

    /// Makes a connection reachable through its user, if it has one; works like
    /// [`join_eventually`](Self::join_eventually).
    ///
    /// # Errors
    /// [`JoinError`] if the connection has ended.
    pub async fn join_user(&self, peer: &Arc<Peer>) -> Result<(), JoinError> {
        match &peer.user {
            Some(user) => self.join_eventually(peer, &RoomName::of_user(user)).await,
            None => Ok(()),
        }
    }

    pub(crate) fn leave_all(&self, peer: &Peer) {
        for Entry { room, slot, .. } in peer.rooms.lock().take().into_iter().flatten() {
            self.remove_member(&room, slot);
        }
    }

    pub(crate) fn disconnect(&self, peer: &Peer) {
        peer.outbox.seal();
        self.leave_all(peer);
        self.connections.lock().remove(&peer.id.serial);
    }

    /// From now on, connections are told to leave as soon as they come. Those that are here are the
    /// caller's to tell, in its time.
    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// A connection of this node.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Peer>> {
        if id.node != self.node {
            return None;
        }
        self.connections.lock().get(&id.serial).cloned()
    }

    /// All connections of this node, as they are now.
    pub fn connections(&self) -> Vec<Arc<Peer>> {
        self.connections.lock().values().cloned().collect()
    }

    /// How many connections this node has.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    // === rooms ===

    /// Makes a connection a member. When this returns, every event published later reaches it; joining
    /// again changes nothing.
    ///
    /// # Errors
    /// [`JoinError`]; the connection is then not a member, unless a later join made it one or it was one by
    /// [`join_eventually`](Self::join_eventually).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the membership in place; [`leave`](Self::leave) ends it.
    pub async fn join(&self, peer: &Arc<Peer>, room: &RoomName) -> Result<(), JoinError> {
        let join = NonZeroU64::new(self.next_join.fetch_add(1, Ordering::Relaxed));
        let Some(subscription) = self.add_member(peer, room, join)? else { return Ok(()) };
        if let Err(error) = subscription.clone().await {
            // It stays pending while the room has members, so that nobody takes the room for subscribed.
            self.leave_if(peer, |entry| entry.room == *room && entry.join == join);
            return Err(error.into());
        }
        let pending = &mut self.shard(room).lock().pending;
        // Unless the room was emptied meanwhile and is being subscribed to anew.
        if pending.get(room).is_some_and(|current| current.ptr_eq(&subscription)) {
            pending.remove(room);
        }
        Ok(())
    }

    /// Enters the membership, and returns the subscription to wait for, if it is not confirmed yet.
    ///
    /// `join` becomes the one whose failure ends the membership; `None`: none does.
    pub(crate) fn add_member(
        &self,
        peer: &Arc<Peer>,
        room: &RoomName,
        join: Option<NonZeroU64>,
    ) -> Result<Option<Subscription>, JoinError> {
        let mut rooms = peer.rooms.lock();
        let rooms = rooms.as_mut().ok_or(JoinError::Closed)?;
        // Under the shard's lock, so that the broker hears of first and last members in their order.
        let mut shard = self.shard(room).lock();
        let mut first = false;
        if let Some(entry) = rooms.iter_mut().find(|entry| entry.room == *room) {
            // Two joins may wait for one membership: the older must not end what the newer reports. One that
            // outlasts failures keeps doing so.
            entry.join = entry.join.and(join);
        } else {
            let own = usize::from(peer.user.is_some()); // the room of its user is not of its choice
            if !room.is_internal() && rooms.len() >= self.options.max_rooms + own {
                return Err(JoinError::TooManyRooms { max: self.options.max_rooms });
            }
            let joined = shard.membership.join(room, Arc::clone(peer));
            first = joined.first;
            if rooms.is_empty() {
                rooms.reserve_exact(1); // most connections are in one room
            }
            rooms.push(Entry { room: room.clone(), slot: joined.slot, join });
            self.metrics.memberships.inc();
            if first {
                self.metrics.rooms.inc();
            }
        }
        if first || shard.pending.get(room).is_some_and(renewal::has_failed) {
            let mut subscription = self.broker.subscribe(room);
            // An embedded broker answers at once.
            let unconfirmed = match (&mut subscription).now_or_never() {
                Some(Ok(())) => None,
                Some(refused) => Some(ready(refused).boxed()),
                None => Some(subscription),
            };
            match unconfirmed {
                Some(subscription) => drop(shard.pending.insert(room.clone(), subscription.shared())),
                None => drop(shard.pending.remove(room)),
            }
        }
        Ok(shard.pending.get(room).cloned())
    }

    /// Ends a membership. When this returns, no event of the room is queued to the connection any more.
    pub fn leave(&self, peer: &Peer, room: &RoomName) {
        self.leave_if(peer, |entry| entry.room == *room);
    }

    fn leave_if(&self, peer: &Peer, is_meant: impl Fn(&Entry) -> bool) {
        let mut rooms = peer.rooms.lock();
        let Some(rooms) = rooms.as_mut() else { return };
        if let Some(index) = rooms.iter().position(is_meant) {
            let Entry { room, slot, .. } = rooms.swap_remove(index);
            self.remove_member(&room, slot);
        }
    }

    fn remove_member(&self, room: &RoomName, slot: usize) {
        let mut shard = self.shard(room).lock();
        let Some(left) = shard.membership.leave(room, slot) else { return };
        self.metrics.memberships.dec();
        if left.last {
            self.metrics.rooms.dec();
            shard.pending.remove(room);
            self.broker.unsubscribe(room);
        }
    }

    /// A room's members on this node.
    pub fn members(&self, room: &RoomName) -> Vec<Member> {
        self.list_members(room, usize::MAX).1
    }

    /// How many members a room has on this node, and at most `max` of them.
    pub(crate) fn list_members(&self, room: &RoomName, max: usize) -> (usize, Vec<Member>) {
        let shard = self.shard(room).lock();
        let listed = shard.membership.members(room).take(max);
        let listed = listed.map(|peer| Member { connection: peer.id, user: peer.user.clone() }).collect();
        (shard.membership.count(room), listed)
    }

    /// This node's connections of a user.
    pub(crate) fn peers_of(&self, user: &UserId) -> Vec<Arc<Peer>> {
        let room = RoomName::of_user(user);
        let shard = self.shard(&room).lock();
        shard.membership.members(&room).cloned().collect()
    }

    /// Shows all rooms of this node with their numbers of members, in no order.
    pub(crate) fn each_room(&self, mut see: impl FnMut(&RoomName, usize)) {
        for shard in &self.shards {
            shard.lock().membership.counts().for_each(|(room, members)| see(room, members));
        }
    }

    // === events ===

    /// Publishes an event to a room, on all nodes. It takes its place in the room's order at the call,
    /// before the result is awaited.
    ///
    /// # Errors
    /// [`PublishError`] if the broker did not take it.
    pub fn publish(
        self: &Arc<Self>,
        room: RoomName,
        event: Name,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let accepted_at = Instant::now();
        let accepted = self.broker.publish(Envelope { origin: self.node, room, event, payload, accepted_at });
        let hub = Arc::clone(self);
        async move {
            let result = accepted.await;
            hub.metrics.broker_publish_duration.observe(accepted_at.elapsed().as_secs_f64());
            match &result {
                Ok(()) => hub.metrics.published.inc(),
                Err(_) => hub.metrics.publish_failed.inc(),
            }
            result.map_err(PublishError::from)
        }
    }

    /// Publishes to all connections of a user, on all nodes. One message to the nodes that have the user:
    /// cheaper than [`notify_user`](Self::notify_user), which tells how many it reached.
    ///
    /// # Errors
    /// [`PublishError`] if the broker did not take it.
    pub async fn publish_to_user(
        self: &Arc<Self>,
        user: &UserId,
        event: Name,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        self.publish(RoomName::of_user(user), event, payload).await
    }

    /// Delivers the broker's events to the members, and keeps in touch with the other nodes, until
    /// [`close`](Self::close). Run it in one task. If it returns although the hub [is not closed](Self::is_closed), the
    /// broker has failed.
    pub async fn run(self: &Arc<Self>) {
        tokio::select! {
            () = self.take_events() => {}
            () = self.watch_broker() => {}
            () = self.renew_subscriptions() => {}
            () = self.keep_in_touch() => {}
            () = self.watch_memory() => {}
        }
    }

    async fn watch_broker(&self) {
        let mut status = self.broker.status();
        loop {
            self.metrics.broker_up.set(i64::from(*status.borrow_and_update() == BrokerStatus::Up));
            if status.changed().await.is_err() {
                std::future::pending::<()>().await; // it stays so
            }
        }
    }

    /// Whether the broker works, now and from now on.
    pub fn broker_status(&self) -> watch::Receiver<BrokerStatus> {
        self.broker.status()
    }

    /// Ends [`run`](Self::run), after the events that the broker has accepted.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.start_goodbye());
        self.metrics.broker_up.set(0);
        self.broker.close();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn shard(&self, room: &RoomName) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(room) as usize % SHARDS]
    }
}

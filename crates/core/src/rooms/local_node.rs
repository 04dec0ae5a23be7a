//! The connections and rooms of one node.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use roomcast_protocol::Name;
use serde_json::json;
use thiserror::Error;
use tokio::sync::SetOnce;

use crate::access::connection::PermissionChange;
use crate::broker::contract::{Broker, BrokerError, BrokerStatus};
use crate::events::reporter::Events;
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::metrics::HubMetrics;
use crate::options::HubOptions;
use crate::rooms::batch::Batch;
use crate::rooms::budget::Budget;
use crate::rooms::codec::Codec;
use crate::rooms::load::NodeLoad;
use crate::rooms::local_connection::{LocalConnection, Membership, NewClient};
use crate::rooms::membership::RoomMembers;
use crate::rooms::outbox::{Outbox, Rejected};
use crate::rooms::subscription::{RoomSubscriptions, Subscription};

/// The number of locks that the rooms are distributed over.
const SHARDS: usize = 64;

/// How often failed subscriptions are retried while the broker works.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The event that a client gets for each room that it has lost the right to be in.
const LEFT: &str = "auth/left";

/// Why a connection did not become a member.
///
/// ```
/// use roomcast_core::JoinError;
///
/// fn may_succeed_later(error: &JoinError) -> bool {
///     matches!(error, JoinError::Broker(_))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is already in the maximum number of rooms.
    #[error("a connection can be in at most {max} rooms")]
    TooManyRooms {
        /// The maximum.
        max: usize,
    },
    /// The node already has the maximum number of rooms.
    #[error("the node has reached its limit of {max} rooms")]
    NodeFull {
        /// The maximum.
        max: usize,
    },
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// The node could not subscribe to the room's events.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// One member of a room.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Member;
///
/// fn name(member: &Member) -> String {
///     member.user.as_ref().map_or_else(|| member.connection.to_string(), |user| user.to_string())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The connection's id.
    pub connection: ConnectionId,
    /// The connection's user, if it has one.
    pub user: Option<UserId>,
}

/// The rooms whose names have the same hash, modulo the number of shards.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) rooms: RoomMembers<Arc<LocalConnection>>,
    subscriptions: RoomSubscriptions,
}

/// One node's connections, and the rooms that they are in.
#[derive(Debug)]
pub struct LocalNode {
    id: NodeId,
    options: HubOptions,
    broker: Arc<dyn Broker>,
    shards: Vec<Mutex<Shard>>,
    hasher: std::hash::RandomState,
    connections: Mutex<HashMap<u64, Arc<LocalConnection>>>,
    next_connection: AtomicU64,
    next_join: AtomicU64,
    places_taken: AtomicUsize,
    draining: AtomicBool,
    pub(crate) load: Arc<NodeLoad>,
    pub(crate) events: SetOnce<Events>,
    metrics: Arc<HubMetrics>,
}

impl LocalNode {
    pub(crate) fn new(broker: Arc<dyn Broker>, options: HubOptions, metrics: Arc<HubMetrics>) -> Arc<Self> {
        let shard = || Shard { rooms: RoomMembers::new(), subscriptions: RoomSubscriptions::new(Arc::clone(&broker)) };
        Arc::new(Self {
            id: NodeId::random(),
            options,
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            broker,
            hasher: std::hash::RandomState::new(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            next_join: AtomicU64::new(1),
            places_taken: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            load: NodeLoad::new(
                Budget::new(metrics.inbound_memory.clone(), options.inbound_memory),
                Budget::new(metrics.outbound_memory.clone(), options.outbound_memory),
            ),
            events: SetOnce::new(),
            metrics,
        })
    }

    /// Returns the id of the node's current run.
    pub fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn options(&self) -> &HubOptions {
        &self.options
    }

    /// Returns the hub's metrics.
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    // === connections ===

    /// Takes one of `max` places for connections. Returns whether there was one.
    pub(crate) fn claim_place(&self, max: usize) -> bool {
        let take = |taken| (taken < max).then_some(taken + 1);
        self.places_taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    pub(crate) fn add_connection(&self, client: NewClient, codec: Codec) -> Arc<LocalConnection> {
        let serial = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let outbox = Outbox::new(self.options.max_outbound, Arc::clone(&self.load));
        let now = tokio::time::Instant::now().into_std();
        let connection = LocalConnection::new(ConnectionId { node: self.id, serial }, client, codec, outbox, now);
        self.connections.lock().insert(serial, Arc::clone(&connection));
        if self.draining.load(Ordering::Acquire) {
            connection.outbox.drain();
        }
        connection
    }

    pub(crate) fn leave_all(&self, connection: &LocalConnection) {
        for Membership { room, slot, .. } in connection.rooms.lock().take().into_iter().flatten() {
            connection.log_left(&room);
            self.remove_member(&room, slot);
        }
    }

    pub(crate) fn release_place(&self) {
        self.places_taken.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn disconnect(&self, connection: &LocalConnection) {
        connection.outbox.seal();
        self.leave_all(connection);
        self.report_lost(connection);
        self.connections.lock().remove(&connection.id.serial);
    }

    /// Makes new connections drain at once. The caller must close the connections that are already
    /// open.
    pub fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Returns whether the open connections exceed a memory budget, so that the node rejects new
    /// ones.
    pub fn is_short_of_memory(&self) -> bool {
        self.load.inbound.is_exceeded() || self.load.outbound.is_exceeded()
    }

    /// Returns a connection of this node.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<LocalConnection>> {
        if id.node != self.id {
            return None;
        }
        self.connections.lock().get(&id.serial).cloned()
    }

    /// Returns all connections that this node has now.
    pub fn connections(&self) -> Vec<Arc<LocalConnection>> {
        self.connections.lock().values().cloned().collect()
    }

    /// Returns how many connections this node has.
    pub fn connection_count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Returns a user's connections on this node.
    pub(crate) fn connections_of(&self, user: &UserId) -> Vec<Arc<LocalConnection>> {
        self.connections_in(&RoomName::of_user(user))
    }

    /// Returns the members of a room on this node.
    pub(crate) fn connections_in(&self, room: &RoomName) -> Vec<Arc<LocalConnection>> {
        self.shard(room).lock().rooms.members(room).cloned().collect()
    }

    // === rooms ===

    /// Makes a connection a member of a room. When this returns, the connection receives every
    /// event published later. Joining again changes nothing.
    ///
    /// # Errors
    /// Returns [`JoinError`] if the connection did not become a member. It may be a member
    /// nevertheless, because of a later join or of [`join_eventually`](Self::join_eventually).
    ///
    /// # Cancel safety
    /// If you drop the future, the membership stays in place. [`leave`](Self::leave) ends it.
    pub async fn join(&self, connection: &Arc<LocalConnection>, room: &RoomName) -> Result<(), JoinError> {
        let join = NonZeroU64::new(self.next_join.fetch_add(1, Ordering::Relaxed));
        if let Some(subscription) = self.add_member(connection, room, join)? {
            if let Err(error) = subscription.answered().await {
                // The subscription stays pending while the room has members, so that the room does not
                // count as subscribed.
                self.leave_if(connection, |membership| membership.room == *room && membership.join == join);
                return Err(error.into());
            }
            self.shard(room).lock().subscriptions.confirm(room, &subscription);
        }
        self.report_joined(connection, room);
        Ok(())
    }

    /// Like [`join`](Self::join), but an unavailable broker is not an error. The connection becomes
    /// a member, and receives the room's events as soon as the broker is up again. This waits for
    /// the subscription only while the broker works.
    ///
    /// # Errors
    /// Returns [`JoinError`] if the connection did not become a member. An unavailable broker is
    /// not an error.
    ///
    /// # Cancel safety
    /// As for [`join`](Self::join).
    pub async fn join_eventually(&self, connection: &Arc<LocalConnection>, room: &RoomName) -> Result<(), JoinError> {
        let mut status = self.broker.status();
        let pending = self.add_member(connection, room, None)?;
        self.report_joined(connection, room);
        let Some(subscription) = pending else { return Ok(()) };
        // If the subscription failed or is still pending, `renew_subscriptions` continues with it.
        tokio::select! {
            _ = subscription.answered() => {}
            _ = status.wait_for(|status| *status == BrokerStatus::Down) => {}
        }
        Ok(())
    }

    /// Makes a connection reachable through its user, if it has one. This works like
    /// [`join_eventually`](Self::join_eventually).
    ///
    /// # Errors
    /// Returns [`JoinError`] if the connection has ended.
    ///
    /// # Cancel safety
    /// As for [`join`](Self::join).
    pub async fn join_user(&self, connection: &Arc<LocalConnection>) -> Result<(), JoinError> {
        match connection.user() {
            Some(user) => self.join_eventually(connection, &RoomName::of_user(user)).await,
            None => Ok(()),
        }
    }

    /// Adds the membership. Returns the subscription to wait for, or `None` if it is already
    /// confirmed.
    ///
    /// If the subscription fails, `join` ends the membership. If `join` is `None`, the membership
    /// outlasts failures.
    fn add_member(
        &self,
        connection: &Arc<LocalConnection>,
        room: &RoomName,
        join: Option<NonZeroU64>,
    ) -> Result<Option<Subscription>, JoinError> {
        let mut rooms = connection.rooms.lock();
        let rooms = rooms.as_mut().ok_or(JoinError::Closed)?;
        // The shard stays locked, so that the broker is called for first and last members in their
        // order.
        let mut shard = self.shard(room).lock();
        if let Some(membership) = rooms.iter_mut().find(|membership| membership.room == *room) {
            // Two joins may wait for one membership. The failure of the older one must not end the
            // membership that the newer one reports. A membership that outlasts failures continues
            // to do so.
            membership.join = membership.join.and(join);
            return Ok(shard.subscriptions.pending(room));
        }
        let own = usize::from(connection.user().is_some()); // the room of its user does not count
        if !room.is_internal() && rooms.len() >= self.options.max_rooms + own {
            return Err(JoinError::TooManyRooms { max: self.options.max_rooms });
        }
        let is_first = shard.rooms.count(room) == 0;
        if is_first && !room.is_internal() && self.room_count() >= self.options.max_node_rooms {
            return Err(JoinError::NodeFull { max: self.options.max_node_rooms });
        }
        let joined = shard.rooms.join(room, Arc::clone(connection));
        if rooms.is_empty() {
            rooms.reserve_exact(1); // most connections are in one room
        }
        rooms.push(Membership { room: room.clone(), slot: joined.slot, join });
        connection.log_joined(room);
        self.metrics.memberships.inc();
        if joined.first {
            self.metrics.rooms.inc();
            shard.subscriptions.start(room);
        }
        Ok(shard.subscriptions.pending(room))
    }

    /// Returns how many rooms the node or its broker holds in memory.
    fn room_count(&self) -> usize {
        let with_members = usize::try_from(self.metrics.rooms.get()).unwrap_or_default();
        with_members.max(self.broker.room_count())
    }

    /// Ends a membership. When this returns, no further event of the room is queued for the
    /// connection.
    pub fn leave(&self, connection: &LocalConnection, room: &RoomName) {
        self.leave_if(connection, |membership| membership.room == *room);
    }

    fn leave_if(&self, connection: &LocalConnection, is_meant: impl Fn(&Membership) -> bool) {
        let mut rooms = connection.rooms.lock();
        let Some(rooms) = rooms.as_mut() else { return };
        if let Some(index) = rooms.iter().position(is_meant) {
            let Membership { room, slot, .. } = rooms.swap_remove(index);
            self.remove_member(&room, slot);
            self.report_left(connection, &room);
        }
    }

    /// Ends the memberships that a change has taken away, and informs the client of each.
    pub fn apply(&self, connection: &LocalConnection, change: &PermissionChange) {
        for room in connection.rooms().into_iter().filter(|room| change.takes_away(room)) {
            self.leave(connection, &room);
            let event = Name::new(LEFT).expect("the name is short");
            // If the client reads too slowly, its connection is being closed, so it leaves all rooms.
            let _ = connection.notify(event, json!({ "room": &*room }).to_string().into());
        }
    }

    fn remove_member(&self, room: &RoomName, slot: usize) {
        let mut shard = self.shard(room).lock();
        let Some(left) = shard.rooms.leave(room, slot) else { return };
        self.metrics.memberships.dec();
        if left.last {
            self.metrics.rooms.dec();
            shard.subscriptions.end(room);
        }
    }

    /// Returns whether a room has members on this node.
    pub fn has_members(&self, room: &RoomName) -> bool {
        self.shard(room).lock().rooms.count(room) > 0
    }

    /// Returns a room's members on this node.
    pub fn members(&self, room: &RoomName) -> Vec<Member> {
        self.list_members(room, usize::MAX).1
    }

    /// Returns how many members a room has on this node, and lists at most `max` of them.
    pub(crate) fn list_members(&self, room: &RoomName, max: usize) -> (usize, Vec<Member>) {
        let shard = self.shard(room).lock();
        let listed = shard.rooms.members(room).take(max);
        let listed = listed.map(|member| Member { connection: member.id, user: member.user().cloned() }).collect();
        (shard.rooms.count(room), listed)
    }

    /// Lists the first `limit` rooms of this node, by name, that begin with `prefix` and come after
    /// `after`, with the number of members of each.
    pub(crate) fn list_rooms(&self, prefix: &str, after: &str, limit: usize) -> Vec<(RoomName, usize)> {
        let mut first = BTreeMap::new();
        for shard in &self.shards {
            for (room, members) in shard.lock().rooms.counts() {
                let wanted = room.starts_with(prefix) && **room > *after && !room.is_internal();
                let has_place = first.len() < limit || first.last_key_value().is_some_and(|(last, _)| room < last);
                if wanted && has_place {
                    first.insert(room.clone(), members);
                    if first.len() > limit {
                        first.pop_last();
                    }
                }
            }
        }
        first.into_iter().collect()
    }

    /// Renews the failed subscriptions of rooms that have members. Never returns.
    pub(crate) async fn renew_subscriptions(&self) {
        let mut status = self.broker.status();
        while status.wait_for(|status| *status == BrokerStatus::Up).await.is_ok() {
            for shard in &self.shards {
                shard.lock().subscriptions.renew_failed();
            }
            tokio::time::sleep(RENEWAL_INTERVAL).await;
        }
        std::future::pending().await // the broker has ended
    }

    pub(crate) fn shard(&self, room: &RoomName) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(room) as usize % SHARDS]
    }
}

impl Shard {
    /// Queues a batch to every member of its room, and returns how many accepted it. Because the
    /// caller holds the shard's lock, no event of the batch is queued after a leave has returned.
    pub(crate) fn queue_to_members(&self, batch: &Batch) -> u64 {
        let mut reached = 0;
        for member in self.rooms.members(&batch.room) {
            match member.push(batch) {
                Ok(()) => reached += 1,
                Err(Rejected::Full) => member.log_slow_consumer(Some(&batch.room)),
                Err(Rejected::Closed) => {}
            }
        }
        reached
    }
}

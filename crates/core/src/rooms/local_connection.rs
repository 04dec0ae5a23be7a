//! One connection of this node.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use roomcast_protocol::Name;

use crate::access::connection::Access;
use crate::access::identity::Identity;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::rooms::batch::Batch;
use crate::rooms::codec::Codec;
use crate::rooms::outbox::{Outbox, Outgoing, Rejected};
use crate::unix_time::millis;

/// A connection of this node: its identity, its outbox, and the rooms that it is in.
#[derive(Debug)]
pub struct LocalConnection {
    /// The connection's id, which is unique in the cluster.
    pub id: ConnectionId,
    /// The connection's user. It never changes once it is set.
    user: OnceLock<UserId>,
    /// What the client may do. `None` if clients are not authorized. Boxed, so that it costs other
    /// connections little.
    pub access: Option<Box<Access>>,
    /// The client's address, if the server provides it.
    pub peer_addr: Option<SocketAddr>,
    /// When the connection opened, in milliseconds since 1970.
    pub connected_ms: u64,
    /// The connection's output.
    pub outbox: Outbox,
    codec: Codec,
    /// Memory of the connection's unfinished message, and of its calls and notifications that
    /// handlers have not finished, in bytes.
    inbound: AtomicUsize,
    /// Messages received. Only the connection's own task writes this and the following.
    messages: AtomicU64,
    /// Bytes received and sent.
    received: AtomicU64,
    sent: AtomicU64,
    /// Calls in flight.
    calls: AtomicU32,
    /// The rooms that the connection is in. `None` after the connection has ended, so that a late
    /// join cannot add it to a room. This is a list, not a map, because most connections are in few
    /// rooms and their number is bounded.
    pub(crate) rooms: Mutex<Option<Vec<Membership>>>,
}

/// The client of a connection that opens.
#[derive(Debug, Default)]
pub struct NewClient {
    /// The user. `None` if the client is anonymous.
    pub user: Option<UserId>,
    /// What the client may do. `None` if clients are not authorized.
    pub identity: Option<Arc<Identity>>,
    /// The client's address, if the server provides it.
    pub peer_addr: Option<SocketAddr>,
}

/// A connection's membership in a room.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: RoomName,
    /// The connection's slot in the room.
    pub(crate) slot: usize,
    /// The latest join that waits for the room's subscription. If the subscription fails, this join
    /// ends the membership. `None` if the membership outlasts failed subscriptions.
    pub(crate) join: Option<NonZeroU64>,
}

impl LocalConnection {
    /// Creates a connection that is in no room and receives its events in `codec`. `now` is the time
    /// of the runtime's clock.
    pub fn new(id: ConnectionId, client: NewClient, codec: Codec, outbox: Outbox, now: Instant) -> Arc<Self> {
        let NewClient { user, identity, peer_addr } = client;
        let access = identity.map(|identity| Box::new(Access::new(identity, now, id.serial)));
        Arc::new(Self {
            id,
            user: user.map(OnceLock::from).unwrap_or_default(),
            access,
            peer_addr,
            connected_ms: millis(SystemTime::now()),
            outbox,
            codec,
            inbound: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            calls: AtomicU32::new(0),
            rooms: Mutex::new(Some(Vec::new())),
        })
    }

    /// Returns how long ago the connection opened, by the system's clock.
    pub fn age(&self) -> Duration {
        Duration::from_millis(millis(SystemTime::now()).saturating_sub(self.connected_ms))
    }

    /// Returns how the connection's events are encoded.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the names of the rooms that the connection is in.
    pub fn rooms(&self) -> Vec<RoomName> {
        let rooms = self.rooms.lock();
        rooms.iter().flatten().map(|membership| &membership.room).filter(|room| !room.is_internal()).cloned().collect()
    }

    /// Logs that the connection has become a member of a room.
    pub(crate) fn log_joined(&self, room: &RoomName) {
        if !room.is_internal() {
            tracing::debug!(connection = %self.id, user = self.user_str(), %room, "a connection has joined");
        }
    }

    /// Logs that the connection is no longer a member of a room.
    pub(crate) fn log_left(&self, room: &RoomName) {
        if !room.is_internal() {
            tracing::debug!(connection = %self.id, user = self.user_str(), %room, "a connection has left");
        }
    }

    /// Logs that an event, of a room or for the connection itself, has closed the connection, because
    /// its client reads too slowly.
    pub(crate) fn log_slow_consumer(&self, room: Option<&RoomName>) {
        let room = room.map(tracing::field::display);
        tracing::info!(connection = %self.id, user = self.user_str(), room, "slow consumer");
    }

    pub(crate) fn user_str(&self) -> Option<&str> {
        self.user().map(|user| &**user)
    }

    /// Returns the connection's user, if it has one.
    pub fn user(&self) -> Option<&UserId> {
        self.user.get()
    }

    /// Sets the user of a client that has sent its credential after it connected. A user that is
    /// already set stays.
    pub fn set_user(&self, user: UserId) {
        let _ = self.user.set(user);
    }

    /// Returns whether the connection is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.lock().iter().flatten().any(|membership| membership.room == *room)
    }

    // === activity ===

    /// Counts a received message. Only the connection's own task may call this.
    pub fn count_message(&self) {
        // There is only one writer, so this needs no atomic addition, which would cost more.
        self.messages.store(self.messages.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Returns how many messages were received.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Counts bytes that the connection has received. Only the connection's own task may call this.
    pub fn count_received(&self, bytes: usize) {
        self.received.store(self.received() + bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that the connection has sent. Only the connection's own task may call this.
    pub fn count_sent(&self, bytes: usize) {
        self.sent.store(self.sent() + bytes as u64, Ordering::Relaxed);
    }

    /// Returns how many bytes the connection has received, WebSocket frames included, but not TLS.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns how many bytes the connection has sent, WebSocket frames included, but not TLS.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sets the number of calls in flight.
    pub fn set_calls(&self, calls: usize) {
        self.calls.store(u32::try_from(calls).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns the number of calls in flight.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    // === output ===

    /// Queues an event for this connection alone.
    pub(crate) fn notify(&self, event: Name, payload: Bytes) -> Result<(), Rejected> {
        let mut bytes = BytesMut::new();
        self.codec.encode(&mut bytes, event, payload);
        self.outbox.push(Outgoing::own(bytes.freeze()))
    }

    /// Queues a room's events.
    pub(crate) fn push(&self, batch: &Batch) -> Result<(), Rejected> {
        self.outbox.push(batch.outgoing(self.codec, self.outbox.load()).clone())
    }

    /// Returns whether the outbox [has space](Outbox::has_space_for) for a batch.
    pub(crate) fn has_space_for(&self, batch: &Batch) -> bool {
        self.outbox.has_space_for(batch.outgoing(self.codec, self.outbox.load()))
    }

    // === inbound memory ===

    /// Returns the connection's inbound memory, in bytes.
    pub fn inbound(&self) -> usize {
        self.inbound.load(Ordering::Acquire)
    }

    /// Adds to the connection's inbound memory.
    pub fn charge_inbound(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.inbound.fetch_add(bytes, Ordering::AcqRel);
        self.outbox.load().inbound.charge(bytes);
    }

    /// Subtracts from the connection's inbound memory.
    pub fn release_inbound(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.inbound.fetch_sub(bytes, Ordering::AcqRel);
        self.outbox.load().inbound.release(bytes);
    }
}

impl Drop for LocalConnection {
    fn drop(&mut self) {
        let left = self.inbound();
        self.outbox.load().inbound.release(left);
    }
}

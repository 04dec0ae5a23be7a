//! A connection as the hub knows it.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::hub::Hub;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::outbox::Outbox;

/// One connection: who it is, how it is reached, where it is a member.
#[derive(Debug)]
pub struct Peer {
    /// Its address in the cluster.
    pub id: ConnectionId,
    /// Whose it is, if the application said so at the upgrade.
    pub user: Option<UserId>,
    /// Its output.
    pub outbox: Outbox,
    /// Memory of its unfinished message, and of its calls and notifications that handlers have not finished, in bytes.
    inbound: AtomicUsize,
    /// The rooms that it is in; `None` once it has ended, so that no late join leaves a member
    /// behind. A list, not a map: most connections are in few rooms, and the number is bounded.
    pub(crate) rooms: Mutex<Option<Vec<Entry>>>,
}

/// A connection's membership of a room.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) room: RoomName,
    /// Its slot in the room.
    pub(crate) slot: usize,
    /// The join that ends the membership if its subscription fails: the newest that waited for it. `None`: the
    /// membership outlasts failed subscriptions.
    pub(crate) join: Option<NonZeroU64>,
}

impl Peer {
    /// A connection that is in no room.
    pub fn new(id: ConnectionId, user: Option<UserId>, outbox: Outbox) -> Arc<Self> {
        Arc::new(Self { id, user, outbox, inbound: AtomicUsize::new(0), rooms: Mutex::new(Some(Vec::new())) })
    }

    // === inbound memory ===

    /// All inbound memory of the connection, in bytes.
    pub fn inbound(&self) -> usize {
        self.inbound.load(Ordering::Acquire)
    }

    /// The connection holds this much more.
    pub fn charge_inbound(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.inbound.fetch_add(bytes, Ordering::AcqRel);
        self.outbox.load().inbound.charge(bytes);
    }

    /// The connection has released this much.
    pub fn release_inbound(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.inbound.fetch_sub(bytes, Ordering::AcqRel);
        self.outbox.load().inbound.release(bytes);
    }

    /// The names of the rooms that it is in.
    pub fn rooms(&self) -> Vec<RoomName> {
        let rooms = self.rooms.lock();
        rooms.iter().flatten().map(|entry| &entry.room).filter(|room| !room.is_internal()).cloned().collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let left = self.inbound();
        self.outbox.load().inbound.release(left);
    }
}

/// One of the places that a node has for connections; given back when dropped.
#[derive(Debug)]
pub struct Place(pub(crate) Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_place_back();
    }
}

/// A connection's entry in its hub. Dropping it takes the connection out of its rooms and out of the
/// hub, whatever ended it.
pub struct Connection {
    pub(crate) hub: Arc<Hub>,
    pub(crate) peer: Arc<Peer>,
}

impl Connection {
    /// Takes the connection out of its rooms, for good; it stays known while its last output is written.
    pub fn leave_rooms(&self) {
        self.hub.leave_all(&self.peer);
    }

    /// The connection, to be shared.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

impl Deref for Connection {
    type Target = Peer;
    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.disconnect(&self.peer);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.peer.fmt(f)
    }
}

//! One connection of this node.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::id::{ConnectionId, RoomName, UserId};
use crate::rooms::batch::Batch;
use crate::rooms::codec::Codec;
use crate::rooms::outbox::{Outbox, Rejected};

/// A connection in its node: its identity, its outbox, and the rooms that it is a member of.
#[derive(Debug)]
pub struct LocalConnection {
    /// Its address in the cluster.
    pub id: ConnectionId,
    /// Its user, if the application named one at the upgrade.
    pub user: Option<UserId>,
    /// Its output.
    pub outbox: Outbox,
    codec: Codec,
    /// Memory of its unfinished message, and of its calls and notifications that handlers have not finished, in bytes.
    inbound: AtomicUsize,
    /// The rooms that it is in; `None` once it has ended, so that no late join leaves a member
    /// behind. A list, not a map: most connections are in few rooms, and the number is bounded.
    pub(crate) rooms: Mutex<Option<Vec<Membership>>>,
}

/// A connection's membership of a room.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) room: RoomName,
    /// Its slot in the room.
    pub(crate) slot: usize,
    /// The join that ends the membership if its subscription fails: the newest that waited for it. `None`: the
    /// membership outlasts failed subscriptions.
    pub(crate) join: Option<NonZeroU64>,
}

impl LocalConnection {
    /// A connection that is in no room and gets its events in `codec`.
    pub fn new(id: ConnectionId, user: Option<UserId>, codec: Codec, outbox: Outbox) -> Arc<Self> {
        let rooms = Mutex::new(Some(Vec::new()));
        Arc::new(Self { id, user, outbox, codec, inbound: AtomicUsize::new(0), rooms })
    }

    /// How its events are written.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The names of the rooms that it is in.
    pub fn rooms(&self) -> Vec<RoomName> {
        let rooms = self.rooms.lock();
        rooms.iter().flatten().map(|membership| &membership.room).filter(|room| !room.is_internal()).cloned().collect()
    }

    // === output ===

    /// Queues a room's events.
    pub(crate) fn push(&self, batch: &Batch) -> Result<(), Rejected> {
        self.outbox.push(batch.outgoing(self.codec, self.outbox.load()).clone())
    }

    /// As [`Outbox::has_space_for`].
    pub(crate) fn has_space_for(&self, batch: &Batch) -> bool {
        self.outbox.has_space_for(batch.outgoing(self.codec, self.outbox.load()))
    }

    // === inbound memory ===

    /// All inbound memory of the connection, in bytes.
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

    /// Takes from the connection's inbound memory.
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

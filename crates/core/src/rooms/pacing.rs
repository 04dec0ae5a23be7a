//! Paces rooms that catch up after an outage of the node or of Redis.
//!
//! The events that such a room missed arrive all at once. If they were queued immediately, they
//! would exceed every member's outbound limit, and close even the connections of clients that read
//! fast. Late events therefore wait here until all members have space for them. Other rooms
//! continue meanwhile. A room whose events are on time never waits for a member.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::limits::MAX_WAITING_BYTES;
use crate::id::RoomName;
use crate::rooms::batch::Batch;
use crate::rooms::local_connection::LocalConnection;

/// How long a member without space for the next batch may delay its room. After that, the room's
/// events are queued to the member without waiting, and its connection is closed if they exceed its
/// limit.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// How long a batch may be held, even if different members run out of space in turn.
const MAX_HOLD: Duration = Duration::from_secs(10);

/// How many bytes may be held for all rooms together: as many as may wait for the hub. Beyond that,
/// the largest room no longer waits.
const MAX_HELD_BYTES: usize = MAX_WAITING_BYTES;

/// The divisor of the node's outbound memory that gives the part that may be held. Held memory is
/// charged to no connection, so closing connections does not release it. The rest of the memory is
/// for the members that catch up.
const OUTBOUND_SHARE: usize = 4;

/// The rooms whose events are held back.
#[derive(Debug)]
pub(crate) struct HeldRooms {
    rooms: HashMap<RoomName, HeldRoom>,
    bytes: usize,
    max_bytes: usize,
}

/// The held events of a room, in their order. There is at least one.
#[derive(Debug, Default)]
struct HeldRoom {
    batches: VecDeque<(Instant, Batch)>,
    bytes: usize,
    /// Members that had no space for the first batch.
    blocked: Vec<Arc<LocalConnection>>,
    /// Since when the room has waited for these members.
    blocked_since: Option<Instant>,
    /// The connections that the room no longer waits for, by their serial numbers.
    given_up: HashSet<u64>,
}

/// Queues a batch to all members of a room, if all of them except those given up have space for it.
///
/// # Errors
/// Returns the members without space. Nothing is queued in that case.
pub(crate) type TryQueue<'a> = &'a dyn Fn(&Batch, &HashSet<u64>) -> Result<(), Vec<Arc<LocalConnection>>>;

impl HeldRooms {
    /// Creates an empty set of rooms, for a node whose connections may hold `outbound_memory` bytes
    /// of output.
    pub(crate) fn new(outbound_memory: usize) -> Self {
        Self { rooms: HashMap::new(), bytes: 0, max_bytes: MAX_HELD_BYTES.min(outbound_memory / OUTBOUND_SHARE) }
    }

    /// Returns whether events of a room wait here. If they do, later events of the room must wait,
    /// too.
    pub(crate) fn has(&self, room: &RoomName) -> bool {
        !self.rooms.is_empty() && self.rooms.contains_key(room)
    }

    /// Holds a batch back.
    pub(crate) fn push(&mut self, batch: Batch, now: Instant) {
        let bytes = batch.memory();
        let held = self.rooms.entry(batch.room.clone()).or_default();
        held.batches.push_back((now, batch));
        held.bytes += bytes;
        self.bytes += bytes;
    }

    /// Returns when to call [`release_one`](Self::release_one) even if no member has more space.
    /// Returns `None` if nothing is held.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.rooms.values().filter_map(HeldRoom::deadline).min()
    }

    /// Queues one batch that all members have space for, or that has waited long enough. Returns
    /// whether there was one.
    pub(crate) fn release_one(&mut self, now: Instant, try_queue: TryQueue<'_>) -> bool {
        let crowded = (self.bytes > self.max_bytes).then(|| self.largest()).flatten();
        let mut released = None;
        for (room, held) in &mut self.rooms {
            if let Some(bytes) = held.release_one(now, crowded.as_ref() == Some(room), try_queue) {
                self.bytes -= bytes;
                released = Some((room.clone(), held.batches.is_empty()));
                break;
            }
        }
        if let Some((room, true)) = &released {
            self.rooms.remove(room);
        }
        released.is_some()
    }

    /// Returns everything that is held, in each room's order.
    pub(crate) fn into_batches(self) -> impl Iterator<Item = Batch> {
        self.rooms.into_values().flat_map(|held| held.batches).map(|(_, batch)| batch)
    }

    fn largest(&self) -> Option<RoomName> {
        self.rooms.iter().max_by_key(|(_, held)| held.bytes).map(|(room, _)| room.clone())
    }
}

impl HeldRoom {
    fn deadline(&self) -> Option<Instant> {
        let (held_since, _) = self.batches.front()?;
        let hold_ends = *held_since + MAX_HOLD;
        Some(self.blocked_since.map_or(hold_ends, |since| hold_ends.min(since + MAX_WAIT)))
    }

    /// Queues the room's first batch if it may be queued. Returns its size in bytes.
    fn release_one(&mut self, now: Instant, waits_for_nobody: bool, try_queue: TryQueue<'_>) -> Option<usize> {
        let deadline = self.deadline()?;
        let (_, batch) = self.batches.front()?;
        loop {
            // Only the last blocked member is checked. The others are checked once it has space.
            while self.blocked.last().is_some_and(|member| member.has_space_for(batch)) {
                self.blocked.pop();
            }
            if !self.blocked.is_empty() {
                if now < deadline && !waits_for_nobody {
                    return None;
                }
                let still_blocked = self.blocked.drain(..).filter(|member| !member.has_space_for(batch));
                self.given_up.extend(still_blocked.map(|member| member.id.serial));
            }
            match try_queue(batch, &self.given_up) {
                Ok(()) => break,
                Err(blocked) => self.blocked = blocked,
            }
            self.blocked_since.get_or_insert(now);
        }
        self.blocked_since = None;
        let bytes = batch.memory();
        self.batches.pop_front();
        self.bytes -= bytes;
        Some(bytes)
    }
}

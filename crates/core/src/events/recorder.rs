//! What happens on one node, as records for the store. This module does no I/O, and time is an
//! argument.
//!
//! ```text
//!   records:  | applied, not delivered | in flight | not sent |
//!                      ▲ the store loses data: these are sent again
//! ```
//!
//! A node keeps its records until their events are delivered, so that it can send them again if the
//! store loses data. If the store has lost older ones, too, the node reports again what it has open.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::room_patterns::RoomPatterns;
use crate::events::event::{EventContent, EventKind, EventKinds};
use crate::events::store::{Change, Draft, MAX_REPORTED, Record, Report, Reported};
use crate::id::{ConnectionId, NodeId, RoomName, UserId};

/// How many records may wait until the store has applied them. Beyond it, what begins is not
/// recorded, nor is its end. The ends of what was recorded can exceed it. A record takes about 700
/// bytes.
pub const MAX_UNSENT: usize = 65_536;

/// How many of them may wait before a call is not recorded, so that connections always have space.
pub(crate) const MAX_UNSENT_WITH_CALLS: usize = MAX_UNSENT / 2;

/// How many applied records a node keeps until their events are delivered.
pub const MAX_KEPT: usize = 16_384;

/// Why a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ending {
    /// `client`, `server` or `lost`.
    pub cause: &'static str,
    /// The close code.
    pub code: u16,
}

impl Ending {
    /// Creates a value.
    pub fn new(cause: &'static str, code: u16) -> Self {
        Self { cause, code }
    }
}

/// A call that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedCall<'a> {
    /// The call's connection, which may have ended.
    pub connection: ConnectionId,
    /// The user of the connection.
    pub user: Option<&'a UserId>,
    /// The call's id on its connection.
    pub id: u32,
    /// The method.
    pub method: &'a str,
    /// `ok`, `cancelled`, or the code of the error.
    pub outcome: &'a str,
    /// Why the call was cancelled.
    pub cause: Option<&'a str>,
    /// How long the call took.
    pub duration: Duration,
    /// How many Items its handler received after the call was cancelled.
    pub late_items: u64,
}

impl<'a> EndedCall<'a> {
    /// Creates a value: a call that has succeeded, of an anonymous client.
    pub fn new(connection: ConnectionId, id: u32, method: &'a str) -> Self {
        Self { connection, user: None, id, method, outcome: "ok", cause: None, duration: Duration::ZERO, late_items: 0 }
    }
}

/// The `cause` of a connection whose node died.
const NODE_LOST: &str = "node_lost";

/// The key of calls, which have no beginning.
const CALL_KEY: &str = "call";

/// The records of one node.
#[derive(Debug)]
pub(crate) struct Recorder {
    node: NodeId,
    kinds: EventKinds,
    /// The rooms with events of the kinds `occupied` and `vacated`.
    occupancy: RoomPatterns,
    /// The records that may still be needed, in the order of their numbers, without gaps.
    records: VecDeque<Record>,
    /// The number of the next record.
    next: u64,
    applied: u64,
    is_back: bool,
    lost: Option<NodeId>,
    open: HashMap<u64, OpenConnection>,
    used: HashMap<RoomName, UsedRoom>,
    dropped: u64,
}

/// A connection whose beginning was recorded.
#[derive(Debug)]
struct OpenConnection {
    user: Option<UserId>,
    begun: u64,
    /// Its rooms, each with the number of the record of its beginning.
    rooms: Vec<(RoomName, u64)>,
}

/// A room with members on this node.
#[derive(Debug)]
struct UsedRoom {
    members: usize,
    begun: u64,
}

impl Recorder {
    pub(crate) fn new(node: NodeId, kinds: EventKinds, occupancy: RoomPatterns) -> Self {
        Self {
            node,
            kinds,
            occupancy,
            records: VecDeque::new(),
            next: 1,
            applied: 0,
            is_back: false,
            lost: None,
            open: HashMap::new(),
            used: HashMap::new(),
            dropped: 0,
        }
    }

    // === what happens ===

    /// Records that a connection has opened. Until then, its rooms are not recorded.
    pub(crate) fn connected(&mut self, connection: ConnectionId, user: Option<&UserId>, now: u64) {
        if !self.has_space() || self.open.contains_key(&connection.serial) {
            return;
        }
        let open = OpenConnection { user: user.cloned(), begun: self.next, rooms: Vec::new() };
        if self.kinds.contains_any([EventKind::Connected, EventKind::Disconnected]) {
            let event = self.draft(EventKind::Connected, &connection.to_string(), || of_connection(connection, user));
            let change = Change::Begin { event, end: self.end_of(connection, user) };
            self.push(connection_key(connection), None, change, now);
        }
        self.open.insert(connection.serial, open);
    }

    /// Records that a connection has ended, which ends its memberships. Ignores a connection that was
    /// not recorded.
    pub(crate) fn disconnected(&mut self, connection: ConnectionId, ending: &Ending, now: u64) {
        while let Some(room) = self.open.get(&connection.serial).and_then(|open| open.rooms.last().cloned()) {
            self.left(connection, &room.0, now);
        }
        let Some(open) = self.open.remove(&connection.serial) else { return };
        if self.kinds.contains_any([EventKind::Connected, EventKind::Disconnected]) {
            let event = self.draft(EventKind::Disconnected, &connection.to_string(), || {
                let mut data = of_connection(connection, open.user.as_ref());
                data["cause"] = ending.cause.into();
                data["code"] = ending.code.into();
                data
            });
            self.push(connection_key(connection), None, Change::End { event }, now);
        }
    }

    /// Records that a connection has joined a room.
    pub(crate) fn joined(&mut self, connection: ConnectionId, room: &RoomName, now: u64) {
        let (has_space, number) = (self.has_space(), self.next);
        let Some(open) = self.open.get_mut(&connection.serial) else { return };
        if !has_space || open.rooms.iter().any(|(joined, _)| joined == room) {
            return;
        }
        open.rooms.push((room.clone(), number));
        let user = open.user.clone();
        if self.kinds.contains_any([EventKind::Joined, EventKind::Left]) {
            let change = self.begin_membership(connection, user.as_ref(), room, number);
            self.push(membership_key(connection, room), membership_group(user.as_ref(), room), change, now);
        }
        if self.has_occupancy(room) {
            let number = self.next;
            let used = self.used.entry(room.clone()).or_insert(UsedRoom { members: 0, begun: number });
            used.members += 1;
            if used.members == 1 {
                let change = self.begin_use(room, number);
                self.push(room_key(room), Some(room_key(room)), change, now);
            }
        }
    }

    /// Records that a connection has left a room. Ignores a membership that was not recorded.
    pub(crate) fn left(&mut self, connection: ConnectionId, room: &RoomName, now: u64) {
        let Some(open) = self.open.get_mut(&connection.serial) else { return };
        let Some(index) = open.rooms.iter().position(|(joined, _)| joined == room) else { return };
        let (_, begun) = open.rooms.swap_remove(index);
        let user = open.user.clone();
        if self.kinds.contains_any([EventKind::Joined, EventKind::Left]) {
            let base = self.base(begun);
            let event = self.draft(EventKind::Left, &base, || of_membership(connection, user.as_ref(), room));
            let group = membership_group(user.as_ref(), room);
            self.push(membership_key(connection, room), group, Change::End { event }, now);
        }
        let Some(used) = self.used.get_mut(room) else { return };
        used.members -= 1;
        if used.members == 0 {
            let base = format!("{}-{}", self.node, used.begun);
            self.used.remove(room);
            let event = self.draft(EventKind::Vacated, &base, || json!({ "room": &**room }));
            self.push(room_key(room), Some(room_key(room)), Change::End { event }, now);
        }
    }

    /// Records that a call has ended. Its connection may have ended before.
    pub(crate) fn call_ended(&mut self, call: &EndedCall<'_>, now: u64) {
        if !self.kinds.contains(EventKind::CallEnded) {
            return;
        }
        if self.unsent() >= MAX_UNSENT_WITH_CALLS {
            self.dropped += 1;
            return;
        }
        let event = self.draft(EventKind::CallEnded, &self.base(self.next), || {
            let mut data = of_connection(call.connection, call.user);
            data["call"] = call.id.into();
            data["method"] = call.method.into();
            data["outcome"] = call.outcome.into();
            data["cause"] = call.cause.into();
            data["duration_ms"] = u64::try_from(call.duration.as_millis()).unwrap_or(u64::MAX).into();
            data["late_items"] = call.late_items.into();
            data
        });
        // Nothing that the store keeps ends with a call.
        self.push(CALL_KEY.to_owned(), None, Change::End { event }, now);
    }

    // === the store ===

    /// Returns the next report, even if it has no records.
    pub(crate) fn next_report(&self) -> Report {
        let records = self.records.iter().skip(self.applied_records()).take(MAX_REPORTED).cloned().collect();
        Report { node: self.node, is_back: self.is_back, applied: self.applied, records, lost: self.lost }
    }

    /// Takes the reply to a report. Returns the connections to close, because their end was reported
    /// while the node counted as lost.
    pub(crate) fn on_reported(&mut self, reported: &Reported, now: u64) -> Vec<ConnectionId> {
        self.lost = reported.lost;
        self.is_back = reported.is_lost;
        let has_lost_data = reported.applied < self.applied;
        self.applied = reported.applied.min(self.next - 1);
        self.forget(reported.delivered.min(self.applied));
        if reported.is_lost {
            return self.on_lost(now);
        }
        let first_kept = self.records.front().map_or(self.next, |record| record.number);
        if has_lost_data && first_kept > self.applied + 1 {
            self.begin_all_again(now);
        }
        Vec::new()
    }

    /// Returns whether the store has applied all records.
    pub(crate) fn is_applied(&self) -> bool {
        self.applied + 1 == self.next
    }

    /// Returns how many records the store has not applied.
    pub(crate) fn unsent(&self) -> usize {
        self.records.len() - self.applied_records()
    }

    /// Returns how many beginnings were not recorded, because the store was unreachable for too long.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns how many of the kept records are applied.
    fn applied_records(&self) -> usize {
        let first = self.records.front().map_or(self.next, |record| record.number);
        usize::try_from((self.applied + 1).saturating_sub(first)).unwrap_or(usize::MAX).min(self.records.len())
    }

    /// Removes the records up to a number, and applied ones beyond [`MAX_KEPT`].
    fn forget(&mut self, delivered: u64) {
        while self.records.front().is_some_and(|record| record.number <= delivered) {
            self.records.pop_front();
        }
        for _ in MAX_KEPT..self.applied_records() {
            self.records.pop_front();
        }
    }

    /// Handles that the store has reported the end of everything that it had applied.
    fn on_lost(&mut self, now: u64) -> Vec<ConnectionId> {
        let applied = self.applied;
        let mut ended: Vec<_> = self.open.iter_mut().filter(|(_, open)| open.begun <= applied).collect();
        ended.sort_by_key(|(serial, _)| **serial);
        for (_, open) in &mut ended {
            // The end of these memberships was reported, too.
            for (room, _) in open.rooms.extract_if(.., |(_, begun)| *begun <= applied) {
                if let Some(used) = self.used.get_mut(&room) {
                    used.members -= 1;
                }
            }
        }
        let ended = ended.into_iter().map(|(serial, _)| ConnectionId { node: self.node, serial: *serial }).collect();
        self.used.retain(|_, used| used.members > 0);
        let used: Vec<_> =
            self.used.iter().filter(|(_, used)| used.begun <= applied).map(|(room, _)| room.clone()).collect();
        for room in used {
            let number = self.next;
            let change = self.begin_use(&room, number);
            self.push(room_key(&room), Some(room_key(&room)), change, now);
            self.used.entry(room).and_modify(|used| used.begun = number);
        }
        ended
    }

    /// Records everything that is open again, because the store has lost it. The events themselves
    /// are not repeated.
    fn begin_all_again(&mut self, now: u64) {
        let open: Vec<_> =
            self.open.iter().map(|(serial, open)| (*serial, open.user.clone(), open.rooms.clone())).collect();
        for (serial, user, rooms) in open {
            let connection = ConnectionId { node: self.node, serial };
            if self.kinds.contains_any([EventKind::Connected, EventKind::Disconnected]) {
                let change = Change::Begin { event: None, end: self.end_of(connection, user.as_ref()) };
                self.push(connection_key(connection), None, change, now);
            }
            let has_memberships = self.kinds.contains_any([EventKind::Joined, EventKind::Left]);
            for (room, begun) in rooms.iter().filter(|_| has_memberships) {
                let change = without_event(self.begin_membership(connection, user.as_ref(), room, *begun));
                self.push(membership_key(connection, room), membership_group(user.as_ref(), room), change, now);
            }
        }
        let used: Vec<_> = self.used.iter().map(|(room, used)| (room.clone(), used.begun)).collect();
        for (room, begun) in used {
            let change = without_event(self.begin_use(&room, begun));
            self.push(room_key(&room), Some(room_key(&room)), change, now);
        }
    }

    // === records ===

    fn has_space(&mut self) -> bool {
        let has_space = self.unsent() < MAX_UNSENT;
        self.dropped += u64::from(!has_space);
        has_space
    }

    fn has_occupancy(&self, room: &RoomName) -> bool {
        self.kinds.contains_any([EventKind::Occupied, EventKind::Vacated]) && self.occupancy.match_room(room)
    }

    /// Returns the beginning of the ids of what a record begins.
    fn base(&self, begun: u64) -> String {
        format!("{}-{begun}", self.node)
    }

    fn push(&mut self, key: String, group: Option<String>, change: Change, now: u64) {
        self.records.push_back(Record { number: self.next, time: now, key, group, change });
        self.next += 1;
    }

    fn draft(&self, kind: EventKind, base: &str, data: impl FnOnce() -> Value) -> Option<Draft> {
        let draft = || Draft { id: format!("{base}.{kind}"), content: EventContent::new(kind, self.node, data()) };
        self.kinds.contains(kind).then(draft)
    }

    /// Returns the end of a connection, in case that the node dies.
    fn end_of(&self, connection: ConnectionId, user: Option<&UserId>) -> Option<Draft> {
        self.draft(EventKind::Disconnected, &connection.to_string(), || {
            let mut data = of_connection(connection, user);
            data["cause"] = NODE_LOST.into();
            data
        })
    }

    fn begin_membership(
        &self,
        connection: ConnectionId,
        user: Option<&UserId>,
        room: &RoomName,
        number: u64,
    ) -> Change {
        let base = self.base(number);
        let draft = |kind| self.draft(kind, &base, || of_membership(connection, user, room));
        Change::Begin { event: draft(EventKind::Joined), end: draft(EventKind::Left) }
    }

    fn begin_use(&self, room: &RoomName, number: u64) -> Change {
        let base = self.base(number);
        let draft = |kind| self.draft(kind, &base, || json!({ "room": &**room }));
        Change::Begin { event: draft(EventKind::Occupied), end: draft(EventKind::Vacated) }
    }
}

fn without_event(change: Change) -> Change {
    match change {
        Change::Begin { end, .. } => Change::Begin { event: None, end },
        end @ Change::End { .. } => end,
    }
}

fn connection_key(connection: ConnectionId) -> String {
    format!("c{}", connection.serial)
}

fn membership_key(connection: ConnectionId, room: &RoomName) -> String {
    format!("m{}:{}", connection.serial, &**room)
}

fn room_key(room: &RoomName) -> String {
    format!("r{}", &**room)
}

/// Returns the group of the memberships of a user in a room. Memberships of anonymous clients have
/// none. The length separates the user from the room.
fn membership_group(user: Option<&UserId>, room: &RoomName) -> Option<String> {
    user.map(|user| format!("u{}:{}{}", user.len(), &**user, &**room))
}

fn of_connection(connection: ConnectionId, user: Option<&UserId>) -> Value {
    json!({ "connection": connection, "user": user })
}

fn of_membership(connection: ConnectionId, user: Option<&UserId>, room: &RoomName) -> Value {
    json!({ "connection": connection, "user": user, "room": &**room })
}

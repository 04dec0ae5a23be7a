//! What the connections mean: who is in which room, which calls wait, and what is right or wrong with what comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use bytes::Bytes;
use roomcast_protocol::{CallId, Frame, FrameRef};

use crate::client::{End, Output};
use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::ledger::{EVENT, Membership};
use crate::results::Operation;
use crate::scenario::Scenario;

use super::calls::{Call, Pending, Purpose, error_code};
use super::recorder::Recorder;
use super::rooms::{Receipt, Rooms};

/// Deadlines are multiples of this: each of its own would wake the process for calls that were answered long ago.
const DEADLINE_GRAIN: Nanos = 100 * MILLISECOND;

/// How long a member that has left a room stays away. What it gets then is misrouted.
const ABSENCE: Nanos = 100 * MILLISECOND;

/// Who could not join tries again after this time.
const REJOIN_AFTER: Nanos = SECOND;

/// What one connection is for.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// The rooms that it joins, whenever it opens.
    pub(crate) rooms: Vec<u32>,
    memberships: Vec<(u32, Membership)>,
    calls: HashMap<CallId, Pending>,
    next_id: u32,
    /// Joins after opening that are not answered yet.
    joining: u32,
    pub(crate) opening_since: Nanos,
    /// When its last connection ended, until it is back in all rooms.
    lost_at: Option<Nanos>,
    /// It is open, and was in all its rooms since.
    pub(crate) is_settled: bool,
}

impl Client {
    pub(crate) fn calls_in_flight(&self) -> usize {
        self.calls.len()
    }

    /// A room that it is in and does not leave already.
    pub(crate) fn room_to_leave(&self) -> Option<u32> {
        let is_leaving = |room: u32| self.calls.values().any(|call| call.purpose == Purpose::Leave(room));
        self.memberships.iter().map(|(room, _)| *room).find(|room| !is_leaving(*room))
    }
}

/// All clients of a process.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) clients: Vec<Client>,
    pub(crate) rooms: Rooms,
    pub(crate) recorder: Recorder,
    /// What happened when, for the report.
    pub(crate) marks: Vec<(Nanos, String)>,
    /// Answers to gauges: connection, when it was asked, the answer.
    pub(crate) gauges: Vec<(u32, Nanos, u64)>,
    /// What calls of [`Purpose::Call`] send.
    pub(crate) call_payload: Bytes,
    /// How long a call may take.
    pub(crate) timeout: Nanos,
    /// When the calls' times are over: in order, as all get the same.
    pub(crate) deadlines: VecDeque<(Nanos, u32, CallId)>,
    /// Who joins which room when.
    pub(crate) rejoins: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    /// How many clients are settled.
    pub(crate) settled: u32,
    /// How many connections are open.
    pub(crate) open: u32,
}

impl Clients {
    /// So many clients, each in its rooms, none of them connected.
    pub(crate) fn new(count: u32, rooms: Rooms, scenario: &Scenario) -> Self {
        let mut clients: Vec<_> = (0..count).map(|_| Client::default()).collect();
        for (number, room) in (0..).zip(&rooms.all) {
            for member in &room.placed.members {
                clients[*member as usize].rooms.push(number);
            }
        }
        Self {
            clients,
            rooms,
            recorder: Recorder::default(),
            marks: Vec::new(),
            gauges: Vec::new(),
            call_payload: Bytes::from(vec![b'x'; scenario.call.payload]),
            timeout: clock::nanos(scenario.timeout),
            deadlines: VecDeque::new(),
            rejoins: BinaryHeap::new(),
            settled: 0,
            open: 0,
        }
    }

    /// Sends a call; it is given up when its time is over.
    pub(crate) fn call(&mut self, client: u32, call: Call, output: &mut Output, now: Nanos) -> CallId {
        let Call { purpose, planned, name, payload } = call;
        let state = &mut self.clients[client as usize];
        state.next_id = state.next_id.wrapping_add(1);
        let id = CallId(state.next_id);
        state.calls.insert(id, Pending { purpose, planned, is_late: false });
        if purpose != Purpose::Long {
            self.deadlines.push_back(((now + self.timeout).next_multiple_of(DEADLINE_GRAIN), client, id));
        }
        output.send(&Frame::Request { id, name, payload });
        self.recorder.counts.messages += 1;
        id
    }

    /// Joins a room.
    pub(crate) fn join(&mut self, client: u32, room: u32, output: &mut Output, now: Nanos) {
        let name = self.rooms.all[room as usize].join.clone();
        self.call(
            client,
            Call { purpose: Purpose::Join(room), planned: now, name, payload: Bytes::new() },
            output,
            now,
        );
    }

    /// The calls whose time is over have failed.
    pub(crate) fn expire(&mut self, now: Nanos) {
        while let Some((_, client, id)) = self.deadlines.pop_front_if(|(deadline, ..)| *deadline <= now) {
            if let Some(pending) = self.clients[client as usize].calls.get_mut(&id) {
                let in_time = std::mem::replace(pending, Pending { is_late: true, ..*pending });
                self.recorder.counts.no_response += 1;
                self.fail(client, in_time, "timed out", now);
            }
        }
    }

    /// A call that nobody waits for any more; none if it is answered already.
    pub(crate) fn give_up(&mut self, client: u32, id: CallId) -> Option<Pending> {
        self.clients[client as usize].calls.remove(&id)
    }

    fn fail(&mut self, client: u32, pending: Pending, why: &str, now: Nanos) {
        if pending.is_late {
            return;
        }
        self.recorder.error(&format!("{} {why}", pending.purpose.name()));
        self.after_failure(client, pending.purpose, now);
    }

    fn after_failure(&mut self, client: u32, purpose: Purpose, now: Nanos) {
        match purpose {
            Purpose::Publish { room, publisher, sequence } => {
                self.rooms.ledger(room).unsure(publisher, sequence);
            }
            Purpose::Join(room) => {
                self.rejoins.push(Reverse((now + REJOIN_AFTER, client, room)));
                self.on_join_ended(client, None);
            }
            Purpose::Leave(_) | Purpose::Call { .. } | Purpose::Long | Purpose::Gauge => {}
        }
    }

    /// The connection is open: its rooms are joined.
    pub(crate) fn on_opened(&mut self, client: u32, output: &mut Output, now: Nanos) {
        self.open += 1;
        self.recorder.counts.connections_opened += 1;
        let state = &mut self.clients[client as usize];
        self.recorder.record(Operation::Connect, state.opening_since, now);
        state.joining = state.rooms.len() as u32;
        let rooms = state.rooms.clone();
        if rooms.is_empty() {
            self.settle(client, Some(now));
        }
        for room in rooms {
            self.join(client, room, output, now);
        }
    }

    /// `now`: it succeeded.
    fn on_join_ended(&mut self, client: u32, now: Option<Nanos>) {
        let state = &mut self.clients[client as usize];
        if state.joining > 0 {
            state.joining -= 1;
            if state.joining == 0 {
                self.settle(client, now);
            }
        }
    }

    /// `now`: it is in all its rooms.
    fn settle(&mut self, client: u32, now: Option<Nanos>) {
        let state = &mut self.clients[client as usize];
        state.is_settled = true;
        self.settled += 1;
        if let (Some(lost_at), Some(now)) = (state.lost_at.take(), now) {
            self.recorder.record(Operation::Reconnect, lost_at, now);
        }
    }

    /// Whether a room is to be joined that was left, or could not be joined: nothing has changed since.
    pub(crate) fn is_absent(&self, client: u32, room: u32) -> bool {
        let state = &self.clients[client as usize];
        let is_joining = state.calls.values().any(|call| call.purpose == Purpose::Join(room));
        state.is_settled && !is_joining && !state.memberships.iter().any(|(joined, _)| *joined == room)
    }

    /// The connection is gone. `end`: by whom it was ended; none if by us.
    pub(crate) fn on_ended(&mut self, client: u32, end: Option<&End>, now: Nanos) {
        match end {
            Some(End::NotOpened(why)) => return self.recorder.error(&format!("connect {why}")),
            Some(End::Closed(close)) => {
                let code = close.as_ref().map_or("none".to_owned(), |close| close.code.0.to_string());
                self.recorder.closes.add(&code, 1);
                if code != "1001" {
                    self.recorder.error(&format!("closed {code}"));
                }
            }
            Some(End::Lost(why)) => {
                self.recorder.closes.add("lost", 1);
                self.recorder.counts.no_response += 1;
                self.recorder.error(&format!("lost {why}"));
            }
            None => {}
        }
        self.open -= 1;
        let state = &mut self.clients[client as usize];
        state.lost_at.get_or_insert(now);
        self.settled -= u32::from(std::mem::take(&mut state.is_settled));
        state.joining = 0;
        let (calls, memberships) = (std::mem::take(&mut state.calls), std::mem::take(&mut state.memberships));
        for pending in calls.into_values() {
            match end {
                Some(_) => self.fail(client, pending, "disconnected", now),
                None => self.after_failure(client, pending.purpose, now),
            }
        }
        for (room, membership) in memberships {
            self.rooms.ledger(room).leave(membership);
        }
    }

    /// A frame came.
    pub(crate) fn on_frame(&mut self, client: u32, frame: FrameRef<'_>, now: Nanos) {
        self.recorder.counts.messages += 1;
        match frame {
            FrameRef::Notify { name: EVENT, payload } => self.on_event(client, payload, now),
            FrameRef::Notify { .. } => self.recorder.counts.unexpected += 1,
            FrameRef::Response { id, payload } => match self.give_up(client, id) {
                Some(pending) => self.on_response(client, pending, payload, now),
                None => self.rooms.roomless.unmatched += 1,
            },
            FrameRef::Request { .. } | FrameRef::Reset { .. } => self.rooms.roomless.unmatched += 1,
        }
    }

    fn on_event(&mut self, client: u32, payload: &[u8], now: Nanos) {
        let state = &mut self.clients[client as usize];
        match self.rooms.receive(&mut state.memberships, payload) {
            Receipt::Delivery { planned } => {
                self.recorder.counts.delivered += 1;
                self.recorder.record(Operation::Delivery, planned, now);
            }
            Receipt::Misrouted(stamp) => {
                // Its join may be effective already, with the response still to come.
                let room = self.rooms.local(&stamp);
                let is_joining = |call: &Pending| room.is_some_and(|room| call.purpose == Purpose::Join(room));
                if !state.calls.values().any(is_joining) {
                    self.rooms.count_misrouted(&stamp);
                }
            }
            Receipt::Corrupt => {}
        }
    }

    fn on_response(&mut self, client: u32, pending: Pending, payload: &[u8], now: Nanos) {
        let is_expected_echo = pending.purpose == Purpose::Call { is_echo: true } && payload == self.call_payload;
        if !is_expected_echo && let Some(code) = error_code(payload) {
            return self.fail(client, pending, &code, now);
        }
        let Pending { purpose, planned, is_late } = pending;
        match purpose {
            Purpose::Join(room) => {
                let at_start = self.recorder.schedule.as_ref().is_none_or(|schedule| now < schedule.start);
                let membership = self.rooms.ledger(room).join(at_start);
                self.clients[client as usize].memberships.push((room, membership));
                self.recorder.record(Operation::Join, planned, now);
                if !is_late {
                    self.on_join_ended(client, Some(now));
                }
            }
            Purpose::Leave(room) => {
                let memberships = &mut self.clients[client as usize].memberships;
                if let Some(at) = memberships.iter().position(|(joined, _)| *joined == room) {
                    let (_, membership) = memberships.swap_remove(at);
                    self.rooms.ledger(room).leave(membership);
                }
                self.recorder.record(Operation::Leave, planned, now);
                self.rejoins.push(Reverse((now + ABSENCE, client, room)));
            }
            Purpose::Publish { .. } | Purpose::Call { .. } | Purpose::Gauge if is_late => {}
            Purpose::Publish { .. } => {
                self.recorder.counts.published += 1;
                self.recorder.record(Operation::Publish, planned, now);
            }
            Purpose::Call { is_echo } => {
                self.rooms.roomless.corrupted += u64::from(is_echo && !is_expected_echo);
                self.recorder.counts.called += 1;
                self.recorder.record(Operation::Call, planned, now);
            }
            Purpose::Long => self.recorder.error("call to cancel ended by itself"),
            Purpose::Gauge => match std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse().ok()) {
                Some(value) => self.gauges.push((client, planned, value)),
                None => self.recorder.error("gauge answered no number"),
            },
        }
    }

    /// Whether all publishes in rooms that span processes are answered, or have failed.
    pub(crate) fn has_published(&self) -> bool {
        let is_pending = |call: &Pending| !call.is_late && matches!(call.purpose, Purpose::Publish { .. });
        !self.rooms.span_processes() || !self.clients.iter().any(|client| client.calls.values().any(is_pending))
    }

    /// Whether nothing is under way any more.
    pub(crate) fn is_complete(&self) -> bool {
        let is_answered = |client: &Client| client.calls.values().all(|call| call.is_late);
        self.clients.iter().all(|client| is_answered(client) && self.rooms.missing(&client.memberships) == 0)
    }

    /// The run is over: what did not come is lost, and what was not answered has failed.
    pub(crate) fn settle_all(&mut self, now: Nanos) {
        for client in 0..self.clients.len() as u32 {
            for pending in std::mem::take(&mut self.clients[client as usize].calls).into_values() {
                self.fail(client, pending, "not answered", now);
            }
        }
        // Which events are unsure is known for all members now.
        for client in &mut self.clients {
            for (room, membership) in std::mem::take(&mut client.memberships) {
                self.rooms.ledger(room).settle(membership);
            }
        }
        for room in &mut self.rooms.all {
            room.ledger.settle_left();
        }
    }
}

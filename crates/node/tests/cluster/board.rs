//! Where publishers and members write down what they do and see, while they do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::judge::{EventId, MemberLog, Outcome, Published, Received, completed};

/// The event's name on the wire.
pub(crate) const EVENT: &str = "checked";

/// A room's name on the wire.
pub(crate) fn room_name(room: usize) -> String {
    format!("room-{room}")
}

/// The log of a whole run.
#[derive(Debug)]
pub(crate) struct Board {
    started: Instant,
    /// By publisher and number.
    published: Vec<Mutex<Vec<Published>>>,
    members: Vec<Mutex<MemberLog>>,
    /// How often publishes were refused with which answer.
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Board {
    /// A board for so many publishers, and members by their node and room.
    pub(crate) fn new(publishers: usize, members: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let log = |(node, room)| Mutex::new(MemberLog { node, room, throughout: true, received: Vec::new() });
        Self {
            started: Instant::now(),
            published: (0..publishers).map(|_| Mutex::default()).collect(),
            members: members.into_iter().map(log).collect(),
            refusals: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn members(&self) -> usize {
        self.members.len()
    }

    /// Notes an event about to be sent, and returns its number and payload.
    pub(crate) fn send(&self, publisher: usize, room: usize) -> (u64, String) {
        let mut published = self.published[publisher].lock();
        let (number, sent) = (published.len() as u64, self.now());
        published.push(Published { id: (publisher, number), room, sent, outcome: Outcome::Unknown });
        (number, format!("{publisher} {number} {room} {}", sent.as_micros()))
    }

    /// Notes the answer to an event: empty, or an error.
    pub(crate) fn answered(&self, (publisher, number): EventId, answer: &[u8]) {
        let outcome = if answer.is_empty() {
            Outcome::Acked(self.now())
        } else {
            *self.refusals.lock().entry(String::from_utf8_lossy(answer).into_owned()).or_default() += 1;
            Outcome::Refused
        };
        let number = usize::try_from(number).expect("it counts events");
        self.published[publisher].lock()[number].outcome = outcome;
    }

    /// Notes an event that a member got.
    pub(crate) fn receive(&self, member: usize, payload: &[u8]) {
        let text = std::str::from_utf8(payload).expect("payloads arrive unchanged");
        let numbers: Vec<u64> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
        let &[publisher, number, room, _sent] = &numbers[..] else { panic!("payloads arrive unchanged: {text:?}") };
        let place = |number| usize::try_from(number).expect("a small number");
        let received = Received { id: (place(publisher), number), room: place(room), at: self.now() };
        self.members[member].lock().received.push(received);
    }

    /// Notes that a member's connection has ended.
    pub(crate) fn left(&self, member: usize) {
        self.members[member].lock().throughout = false;
    }

    /// Notes that a node's members are about to lose their connections.
    pub(crate) fn node_ends(&self, node: usize) {
        for member in &self.members {
            let mut member = member.lock();
            member.throughout &= member.node != node;
        }
    }

    pub(crate) fn published(&self) -> Vec<Published> {
        self.published.iter().flat_map(|published| published.lock().clone()).collect()
    }

    pub(crate) fn logs(&self) -> Vec<MemberLog> {
        self.members.iter().map(|member| member.lock().clone()).collect()
    }

    /// How many events members got, all together.
    pub(crate) fn delivered(&self) -> usize {
        self.members.iter().map(|member| member.lock().received.len()).sum()
    }

    pub(crate) fn refusals(&self) -> BTreeMap<String, usize> {
        self.refusals.lock().clone()
    }

    /// How many members have been there all the time so far.
    pub(crate) fn present(&self) -> usize {
        self.members.iter().filter(|member| member.lock().throughout).count()
    }

    /// Whether in each room so many events that were sent since then were answered and arrived everywhere.
    pub(crate) fn has_completed(&self, rooms: usize, events: usize, since: Duration) -> bool {
        self.complete_in_rooms(rooms, since).into_iter().all(|complete| complete >= events)
    }

    fn complete_in_rooms(&self, rooms: usize, since: Duration) -> Vec<usize> {
        let logs = self.logs();
        let mut complete = vec![0; rooms];
        for event in self.published().into_iter().filter(|event| event.sent >= since) {
            complete[event.room] += usize::from(completed(&event, &logs).is_some());
        }
        complete
    }

    /// What happened to events that were sent since then, for a failure's message.
    pub(crate) fn describe(&self, rooms: usize, since: Duration) -> String {
        let complete = self.complete_in_rooms(rooms, since);
        let refusals = self.refusals();
        let mut text = format!("complete events in each room: {complete:?}; refused with {refusals:?}");
        let published = self.published();
        for member in self.logs().iter().filter(|member| member.throughout) {
            let got = member.received.iter().filter(|event| event.at >= since).count();
            let sent = published.iter().filter(|event| event.sent >= since && event.room == member.room);
            let acked = sent.clone().filter(|event| matches!(event.outcome, Outcome::Acked(_))).count();
            let refused = sent.clone().filter(|event| event.outcome == Outcome::Refused).count();
            let (node, room, sent) = (member.node, member.room, sent.count());
            write!(text, "\nnode {node} room {room}: {sent} sent, {acked} acked, {refused} refused, {got} got")
                .expect("a string takes all");
        }
        text
    }
}

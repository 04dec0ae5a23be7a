//! All connections of a process: opens them, reads, writes, and brings them back.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use mio::{Registry, Token};
use roomcast_protocol::{CallId, Frame, Name};
use rustls::ClientConfig;

use crate::client::{Connection, End, Event, Target, TokenSource};
use crate::clock::{MILLISECOND, Nanos, SECOND};
use crate::results::Operation;

use super::calls::{Call, Purpose};
use super::clients::{Client, Clients};
use super::placement::Share;

/// What is read at once, from one connection.
const READ_BUFFER: usize = 256 * 1024;

/// Who lost its connection comes back within this time, at random.
const RETURN_WITHIN: Nanos = 500 * MILLISECOND;

/// Who could not open one tries again after this time.
const RETRY_AFTER: Nanos = SECOND;

/// Calls in flight on one connection. Nodes allow 1,024.
const MAX_CALLS: usize = 1_000;

/// Connections, and what they mean.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) share: Share,
    registry: Registry,
    tls: Arc<ClientConfig>,
    targets: Vec<Target>,
    sources: Vec<IpAddr>,
    tokens: Option<TokenSource>,
    connections: Vec<Connection>,
    /// How often each was opened.
    attempts: Vec<u32>,
    pub(crate) clients: Clients,
    /// Openings and when they have taken too long: in order, as all get the same time.
    openings: VecDeque<(Nanos, u32, u32)>,
    /// Who opens when.
    returns: BinaryHeap<Reverse<(Nanos, u32)>>,
    /// Who has something to send.
    unflushed: Vec<u32>,
    buffer: Vec<u8>,
}

impl Fleet {
    pub(crate) fn new(
        registry: Registry,
        tls: Arc<ClientConfig>,
        (targets, sources): (Vec<Target>, Vec<IpAddr>),
        tokens: Option<TokenSource>,
        share: Share,
        clients: Clients,
    ) -> Self {
        let count = clients.clients.len();
        Self {
            share,
            registry,
            tls,
            targets,
            sources,
            tokens,
            connections: (0..count).map(|_| Connection::default()).collect(),
            attempts: vec![0; count],
            clients,
            openings: VecDeque::new(),
            returns: BinaryHeap::new(),
            unflushed: Vec::new(),
            buffer: vec![0; READ_BUFFER],
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.connections.len() as u32
    }

    /// It will be opened at a time.
    pub(crate) fn open_at(&mut self, client: u32, at: Nanos) {
        self.returns.push(Reverse((at, client)));
    }

    /// When [`Self::act`] has something to do next.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        let opening = self.openings.front().map(|(at, ..)| *at);
        let returning = self.returns.peek().map(|Reverse((at, _))| *at);
        let deadline = self.clients.deadlines.front().map(|(at, ..)| *at);
        let rejoin = self.clients.rejoins.peek().map(|Reverse((at, ..))| *at);
        [opening, returning, deadline, rejoin].into_iter().flatten().min()
    }

    /// What time brings: connections to open, openings and calls that take too long.
    pub(crate) fn act(&mut self, now: Nanos) {
        while let Some(Reverse((at, client))) = self.returns.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.returns.pop();
            if self.connections[client as usize].is_closed() {
                self.open(client, at, now);
            }
        }
        while let Some((_, client, attempt)) = self.openings.pop_front_if(|(deadline, ..)| *deadline <= now) {
            let connection = &mut self.connections[client as usize];
            if self.attempts[client as usize] == attempt && !connection.is_open() && !connection.is_closed() {
                connection.end(true);
                self.on_ended(client, &End::NotOpened("timed out".to_owned()), now);
            }
        }
        self.clients.expire(now);
        while let Some(Reverse((_, client, room))) =
            self.clients.rejoins.peek().copied().filter(|Reverse((at, ..))| *at <= now)
        {
            self.clients.rejoins.pop();
            if self.clients.is_absent(client, room) {
                self.unflushed.push(client);
                self.clients.join(client, room, &mut self.connections[client as usize].output, now);
            }
        }
    }

    /// `planned`: its opening counts from there.
    fn open(&mut self, client: u32, planned: Nanos, now: Nanos) {
        let at = client as usize;
        let number = at * self.share.of as usize + self.share.index as usize;
        let attempt = self.attempts[at] as usize;
        self.attempts[at] += 1;
        // Another try goes to another node.
        let target = &self.targets[(number + attempt) % self.targets.len()];
        let source = match self.sources.len() {
            0 => None,
            count => Some(self.sources[number / self.targets.len() % count]),
        };
        self.clients.clients[at].opening_since = planned;
        let address = target.addresses[(number / self.targets.len() + attempt) % target.addresses.len()];
        let token = self.tokens.as_ref().map(|tokens| tokens.token(number)).transpose();
        let opened = token.map_err(|error| End::NotOpened(error.to_string())).and_then(|token| {
            let way = (target, address);
            self.connections[at].open(&self.registry, Token(at), way, source, token.as_deref(), &self.tls)
        });
        match opened {
            Ok(()) => self.openings.push_back((now + self.clients.timeout, client, self.attempts[at])),
            Err(end) => self.on_ended(client, &end, now),
        }
    }

    /// A socket can be read or written. `is_ending`: the other side has ended.
    pub(crate) fn on_ready(&mut self, client: u32, is_ending: bool, now: Nanos) {
        let mut ended = None;
        let clients = &mut self.clients;
        self.connections[client as usize].on_ready(is_ending, &mut self.buffer, |event, output| match event {
            Event::Opened => clients.on_opened(client, output, now),
            Event::Frame(frame) => clients.on_frame(client, frame, now),
            Event::Ended(end) => ended = Some(end),
        });
        self.unflushed.push(client);
        if let Some(end) = ended {
            self.on_ended(client, &end, now);
        }
    }

    fn on_ended(&mut self, client: u32, end: &End, now: Nanos) {
        self.clients.on_ended(client, Some(end), now);
        let wait = match end {
            End::NotOpened(_) => RETRY_AFTER,
            End::Closed(_) | End::Lost(_) => 0,
        };
        self.open_at(client, now + wait + fastrand::u64(0..RETURN_WITHIN));
    }

    /// Ends a connection if it is open; it comes back at a time.
    pub(crate) fn end(&mut self, client: u32, abruptly: bool, back_at: Nanos, now: Nanos) {
        let connection = &mut self.connections[client as usize];
        if connection.is_open() {
            connection.end(abruptly);
            self.clients.on_ended(client, None, now);
            self.open_at(client, back_at);
        }
    }

    /// Ends all, for good.
    pub(crate) fn end_all(&mut self) {
        for connection in &mut self.connections {
            connection.end(false);
        }
    }

    /// Writes what the connections have to send.
    pub(crate) fn flush(&mut self, now: Nanos) {
        let mut unflushed = std::mem::take(&mut self.unflushed);
        for client in unflushed.drain(..) {
            if let Err(end) = self.connections[client as usize].flush() {
                self.on_ended(client, &end, now);
            }
        }
        self.unflushed = unflushed;
    }

    /// Whether something planned can be sent on a connection.
    pub(crate) fn is_usable(&self, client: u32) -> bool {
        let state = &self.clients.clients[client as usize];
        let is_stuck = self.connections[client as usize].output.is_stuck();
        state.is_settled && state.calls_in_flight() < MAX_CALLS && !is_stuck
    }

    /// A client that can be used, at random, and for something; none if many tries find none.
    pub(crate) fn any_usable<T>(&self, for_what: impl Fn(&Client) -> Option<T>) -> Option<(u32, T)> {
        const TRIES: usize = 64;
        let mut clients = (0..TRIES).map(|_| fastrand::u32(0..self.len())).filter(|client| self.is_usable(*client));
        clients.find_map(|client| Some((client, for_what(&self.clients.clients[client as usize])?)))
    }

    /// Sends a call.
    pub(crate) fn call(&mut self, client: u32, call: Call, now: Nanos) -> CallId {
        self.unflushed.push(client);
        self.clients.call(client, call, &mut self.connections[client as usize].output, now)
    }

    /// Gives up a call, and tells the node.
    pub(crate) fn cancel(&mut self, client: u32, id: CallId) {
        if self.clients.give_up(client, id).is_some() {
            self.unflushed.push(client);
            self.clients.recorder.counts.cancelled += 1;
            self.clients.recorder.counts.messages += 1;
            self.connections[client as usize].output.send(&Frame::Reset { id });
        }
    }

    /// Leaves a room; the answer brings it back in.
    pub(crate) fn leave(&mut self, client: u32, room: u32, planned: Nanos, now: Nanos) {
        let name = self.clients.rooms.all[room as usize].leave.clone();
        self.call(client, Call { purpose: Purpose::Leave(room), planned, name, payload: Bytes::new() }, now);
    }

    /// Publishes the next event of a publisher of this process.
    pub(crate) fn publish(
        &mut self,
        room: u32,
        (publisher, client): (u32, u32),
        len: usize,
        planned: Nanos,
        now: Nanos,
    ) {
        let (payload, sequence) = self.clients.rooms.next_event(room, publisher, len, planned);
        let name = self.clients.rooms.all[room as usize].publish.clone();
        let purpose = Purpose::Publish { room, publisher, sequence };
        self.call(client, Call { purpose, planned, name, payload }, now);
        self.clients.recorder.record(Operation::SendDelay, planned, now);
    }

    /// Calls a method.
    pub(crate) fn call_method(&mut self, client: u32, name: Name, planned: Nanos, now: Nanos) {
        let (purpose, payload) = (Purpose::Call { is_echo: &*name == "echo" }, self.clients.call_payload.clone());
        self.call(client, Call { purpose, planned, name, payload }, now);
        self.clients.recorder.record(Operation::SendDelay, planned, now);
    }
}

//! Both ends of a connection on a virtual wire and a virtual clock.
//!
//! A [`Pair`] does what a client, a server and its handlers would do, and only when a test calls it. It
//! writes down what became of every call, and checks on the way what must hold at every moment.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{
    CallId, CallKey, CallTable, ClientConnection, ClientEvent, CloseCode, CloseFrame, Event, Frame, KeepAlive,
    KeepAliveAction, Limits, Name, Opcode, ServerConnection, StartError, Violation, encode_close, encode_frame,
    encode_message,
};

use super::{BINARY, CLOSE, PING, PONG, fragments, message, take_server_frame};

pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(25);
pub(crate) const PONG_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const MAX_CALLS: usize = 8;
pub(crate) const MAX_PAYLOAD: usize = 1000;

/// One direction of the connection: bytes in flight and when each arrives.
#[derive(Default)]
struct Wire {
    in_flight: VecDeque<(Duration, u8)>,
}

impl Wire {
    fn send(&mut self, arrival: Duration, bytes: &[u8]) {
        self.in_flight.extend(bytes.iter().map(|byte| (arrival, *byte)));
    }

    /// One read: at most `max` bytes of those that have arrived.
    fn read(&mut self, now: Duration, max: usize) -> Vec<u8> {
        let arrived = self.in_flight.iter().take(max).take_while(|(arrival, _)| *arrival <= now).count();
        self.in_flight.drain(..arrived).map(|(_, byte)| byte).collect()
    }
}

/// What became of a call, as one end sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Cancelled,
    /// The connection ended first.
    Ended,
}

/// One call's story. Its number in [`Pair::calls`] is its payload, so that answers cannot be mixed up.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) at_client: Option<Outcome>,
    pub(crate) at_server: Option<Outcome>,
    /// How many Responses the wire carried.
    pub(crate) responses: usize,
}

/// How a connection ended for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    ClosedByClient,
    Violation(CloseCode),
    /// Nothing was heard for too long after a ping.
    Lost,
}

/// The task that works on a call. It may be done before it notices that the call was cancelled.
struct Handler {
    key: CallKey,
    number: usize,
}

struct Server {
    connection: ServerConnection,
    calls: CallTable<usize>,
    handlers: Vec<Handler>,
    keep_alive: KeepAlive,
    timer: Duration,
    heard_since_ping: bool,
}

struct Client {
    connection: ClientConnection,
    unread: Vec<u8>,
    /// It neither sends nor answers pings: it has closed, or its machine is gone.
    silent: bool,
}

/// Notifications in one direction; each one's payload is its number.
#[derive(Debug, Default)]
pub(crate) struct Notifications {
    pub(crate) sent: usize,
    pub(crate) received: usize,
}

impl Notifications {
    fn next(&mut self) -> Frame {
        self.sent += 1;
        Frame::Notify { name: name("event"), payload: self.sent.to_string().into() }
    }

    fn on_received(&mut self, payload: &Bytes) {
        self.received += 1;
        assert_eq!(payload, &self.received.to_string(), "notifications come in order, none twice and none left out");
    }
}

pub(crate) struct Pair {
    pub(crate) now: Duration,
    latency: Duration,
    /// The client cuts its messages into fragments of this many bytes.
    fragment: usize,
    to_server: Wire,
    to_client: Wire,
    server: Server,
    client: Client,
    pub(crate) calls: Vec<Call>,
    pub(crate) from_client: Notifications,
    pub(crate) from_server: Notifications,
    pub(crate) pings: Vec<Duration>,
    /// How the server saw the connection end.
    pub(crate) end: Option<End>,
    /// The close code that the client got.
    pub(crate) closed: Option<CloseCode>,
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a short name")
}

fn answer_to(number: usize) -> Bytes {
    format!("answer to {number}").into()
}

/// Writes down an outcome: each end gives a call exactly one.
#[track_caller]
fn finish(outcome: &mut Option<Outcome>, with: Outcome) {
    assert_eq!(*outcome, None, "a call ends once, this one again with {with:?}");
    *outcome = Some(with);
}

impl Pair {
    pub(crate) fn new(latency: Duration, fragment: usize) -> Self {
        Self {
            now: Duration::ZERO,
            latency,
            fragment,
            to_server: Wire::default(),
            to_client: Wire::default(),
            server: Server {
                connection: ServerConnection::new(Limits::new(MAX_PAYLOAD)),
                calls: CallTable::new(MAX_CALLS),
                handlers: Vec::new(),
                keep_alive: KeepAlive::new(PING_INTERVAL, PONG_TIMEOUT),
                timer: PING_INTERVAL,
                heard_since_ping: false,
            },
            client: Client { connection: ClientConnection::new(), unread: Vec::new(), silent: false },
            calls: Vec::new(),
            from_client: Notifications::default(),
            from_server: Notifications::default(),
            pings: Vec::new(),
            end: None,
            closed: None,
        }
    }

    // === the client ===

    /// Makes a call, if there is room for one more in the server's table.
    pub(crate) fn call(&mut self) {
        let unfinished = self.calls.iter().filter(|call| call.at_client.is_none() || call.at_server.is_none());
        if self.client.silent || unfinished.count() >= MAX_CALLS {
            return;
        }
        let number = self.calls.len().to_string();
        let (id, request) = self.client.connection.call(name("method"), number.into());
        self.calls.push(Call { id, at_client: None, at_server: None, responses: 0 });
        self.send_frame(&request);
    }

    /// Makes a call with an id of the test's choice, past the [`ClientConnection`], which would not.
    pub(crate) fn call_with_id(&mut self, id: u32) {
        let payload = self.calls.len().to_string().into();
        self.calls.push(Call { id: CallId(id), at_client: None, at_server: None, responses: 0 });
        self.send_frame(&Frame::Request { id: CallId(id), name: name("method"), payload });
    }

    /// Gives a call up. It does nothing if the call has ended.
    pub(crate) fn cancel(&mut self, number: usize) {
        let call = &mut self.calls[number];
        if self.client.silent {
            return;
        }
        let reset = self.client.connection.cancel(call.id);
        assert_eq!(reset.is_some(), call.at_client.is_none(), "what waits can be cancelled, and nothing else");
        if let Some(reset) = reset {
            finish(&mut call.at_client, Outcome::Cancelled);
            self.send_frame(&reset);
        }
    }

    pub(crate) fn notify_server(&mut self) {
        if !self.client.silent {
            let frame = self.from_client.next();
            self.send_frame(&frame);
        }
    }

    pub(crate) fn close(&mut self) {
        if !self.client.silent {
            self.send_bytes(&message(CLOSE, &CloseCode::NORMAL.0.to_be_bytes()));
            self.client.silent = true;
        }
    }

    /// From now on nothing comes from the client, as if its cable were cut.
    pub(crate) fn silence_client(&mut self) {
        self.client.silent = true;
    }

    /// Sends any frame, right or wrong at this moment.
    pub(crate) fn send_frame(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let pieces: Vec<&[u8]> = bytes.chunks(self.fragment).collect();
        self.send_bytes(&fragments(BINARY, &pieces).concat());
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.to_server.send(self.now + self.latency, bytes);
    }

    /// The client reads at most `max` bytes of what has arrived.
    pub(crate) fn client_reads(&mut self, max: usize) {
        let read = self.to_client.read(self.now, max);
        self.client.unread.extend(read);
        while let Some(frame) = take_server_frame(&mut self.client.unread) {
            assert_eq!(self.closed, None, "nothing comes after a Close");
            match frame.opcode {
                BINARY => self.on_client_message(frame.payload.into()),
                PING if self.client.silent => {}
                PING => self.send_bytes(&message(PONG, &frame.payload)),
                CLOSE => {
                    let code = *frame.payload.first_chunk().expect("a server's Close has a code");
                    self.closed = Some(CloseCode(u16::from_be_bytes(code)));
                    self.end_client();
                }
                other => panic!("a server does not send opcode {other}"),
            }
        }
    }

    fn on_client_message(&mut self, bytes: Bytes) {
        let frame = Frame::decode(bytes.clone()).expect("a server sends whole frames");
        if let Frame::Response { id, payload } = &frame {
            let answered = |(number, call): &(usize, &mut Call)| call.id == *id && answer_to(*number) == payload;
            let (_, call) =
                self.calls.iter_mut().enumerate().find(answered).expect("an answer carries its call's payload");
            call.responses += 1;
            assert_eq!(call.responses, 1, "a call has at most one Response");
            assert_eq!(call.at_server, Some(Outcome::Answered), "no Response is sent for a call that was not answered");
        }
        match self.client.connection.on_message(bytes).expect("a server sends what servers send") {
            Some(ClientEvent::Notify { payload, .. }) => self.from_server.on_received(&payload),
            Some(ClientEvent::Answer { id, .. }) => {
                let call = self.calls.iter_mut().find(|call| call.id == id).expect("a call that was made");
                finish(&mut call.at_client, Outcome::Answered);
            }
            None => {}
        }
    }

    fn end_client(&mut self) {
        self.client.silent = true;
        self.client.connection = ClientConnection::new();
        for call in self.calls.iter_mut().filter(|call| call.at_client.is_none()) {
            finish(&mut call.at_client, Outcome::Ended);
        }
    }

    // === the server ===

    /// The server reads at most `max` bytes of what has arrived.
    pub(crate) fn server_reads(&mut self, max: usize) {
        let read = self.to_server.read(self.now, max);
        if read.is_empty() {
            return;
        }
        self.server.keep_alive.on_heard();
        self.server.heard_since_ping = true;
        let mut input = read.as_slice();
        while self.end.is_none() {
            match self.server.connection.receive(&mut input) {
                Ok(Some(event)) => self.on_event(event),
                Ok(None) => return,
                Err(violation) => self.end_by_violation(&violation),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Notify { payload, .. } => self.from_client.on_received(&payload),
            Event::Request { id, payload, .. } => self.on_request(id, &payload),
            Event::Reset { id } => self.on_reset(id),
            Event::Ping(payload) => self.send_to_client(&encode_message(Opcode::Pong, &payload)),
            Event::Pong => {}
            Event::Close(_) => {
                self.send_to_client(&encode_close(&CloseFrame::new(CloseCode::NORMAL, "")));
                self.end_server(End::ClosedByClient);
            }
        }
    }

    fn on_request(&mut self, id: CallId, payload: &Bytes) {
        let number: usize =
            std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).expect("a call's number");
        match self.server.calls.start(id, number) {
            Ok(key) => self.server.handlers.push(Handler { key, number }),
            Err(StartError::Duplicate(id)) => self.end_by_violation(&Violation::DuplicateCallId(id)),
            Err(error) => panic!("the test makes too many calls: {error}"),
        }
    }

    fn on_reset(&mut self, id: CallId) {
        // The calls that the server knows of and has not finished, found without the table's help.
        let running = |handler: &&Handler| handler.key.id() == id && self.calls[handler.number].at_server.is_none();
        let expected = self.server.handlers.iter().find(running).map(|handler| handler.number);
        assert_eq!(
            self.server.calls.cancel(id),
            expected,
            "a Reset cancels the running call of its id and nothing else"
        );
        if let Some(number) = expected {
            finish(&mut self.calls[number].at_server, Outcome::Cancelled);
        }
    }

    /// How many handlers work, those of cancelled calls included.
    pub(crate) fn handlers(&self) -> usize {
        self.server.handlers.len()
    }

    /// The `nth` handler is done. If its call was cancelled meanwhile, its answer must not be sent.
    pub(crate) fn answer(&mut self, nth: usize) {
        let Handler { key, number } = self.server.handlers.remove(nth);
        let outcome = &mut self.calls[number].at_server;
        match self.server.calls.answer(key) {
            Some(started_as) => {
                assert_eq!(started_as, number, "an answer finishes its own call");
                finish(outcome, Outcome::Answered);
                self.send_frame_to_client(&Frame::Response { id: key.id(), payload: answer_to(number) });
            }
            None => assert!(outcome.is_some(), "only the answer to a call that has ended is dropped"),
        }
    }

    pub(crate) fn notify_client(&mut self) {
        if self.end.is_none() {
            let frame = self.from_server.next();
            self.send_frame_to_client(&frame);
        }
    }

    fn end_by_violation(&mut self, violation: &Violation) {
        self.send_to_client(&encode_close(&violation.close_frame()));
        self.end_server(End::Violation(violation.close_code()));
    }

    fn end_server(&mut self, end: End) {
        self.end = Some(end);
        for number in self.server.calls.cancel_all() {
            finish(&mut self.calls[number].at_server, Outcome::Ended);
        }
    }

    fn send_frame_to_client(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        encode_frame(&mut bytes, frame);
        self.send_to_client(&bytes);
    }

    fn send_to_client(&mut self, bytes: &[u8]) {
        self.to_client.send(self.now + self.latency, bytes);
    }

    // === time ===

    /// Time passes, and the server's timer goes off when it is due.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.end.is_none() && self.server.timer <= until {
            self.now = self.server.timer;
            self.on_timer();
        }
        self.now = until;
    }

    fn on_timer(&mut self) {
        match self.server.keep_alive.on_timeout() {
            KeepAliveAction::Ping(next) => {
                self.server.timer += next;
                self.server.heard_since_ping = false;
                self.pings.push(self.now);
                assert_eq!(self.now, PING_INTERVAL * self.pings.len() as u32, "a ping goes out every interval");
                self.send_to_client(&encode_message(Opcode::Ping, b""));
            }
            KeepAliveAction::Rest(next) => {
                self.server.timer += next;
                assert!(self.server.heard_since_ping, "a silent client is not kept");
            }
            KeepAliveAction::Lost => {
                assert!(!self.server.heard_since_ping, "a client that was heard is not lost");
                assert_eq!(
                    self.pings.last(),
                    Some(&(self.now - PONG_TIMEOUT)),
                    "a client is lost a timeout after a ping"
                );
                self.end_server(End::Lost);
            }
        }
    }

    /// Both ends read all that has arrived by now.
    pub(crate) fn deliver(&mut self) {
        self.pass(self.latency);
        self.server_reads(usize::MAX);
        self.client_reads(usize::MAX);
    }

    /// Every handler finishes, everything in flight arrives, and an end that one side saw reaches the other.
    pub(crate) fn settle(&mut self) {
        loop {
            self.deliver();
            while self.handlers() > 0 {
                self.answer(0);
            }
            if self.to_server.in_flight.is_empty() && self.to_client.in_flight.is_empty() {
                break;
            }
        }
        if self.end.is_some() {
            self.end_client();
        }
    }

    /// What must hold after [`settle`](Self::settle): every call has its outcomes, and nothing is left.
    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) {
        assert!(self.server.calls.is_empty(), "the server's table holds {:?}", self.server.calls);
        assert_eq!(self.client.connection.waiting(), 0, "calls wait for ever");
        assert_eq!(self.client.unread, b"", "half a frame is left");
        for call in &self.calls {
            let was_answered = call.at_server == Some(Outcome::Answered);
            assert_eq!(call.responses, usize::from(was_answered), "an answer travels once: {call:?}");
            match call.at_client {
                Some(Outcome::Answered) => assert!(was_answered, "{call:?}"),
                Some(Outcome::Cancelled) => {}
                Some(Outcome::Ended) => assert!(self.end.is_some() && !was_answered, "{call:?}"),
                None => panic!("the client never learns of the end of {call:?}"),
            }
            // After the end, a Request that was still in flight is never seen.
            assert!(call.at_server.is_some() || self.end.is_some(), "the server never ended {call:?}");
        }
        assert_eq!(self.from_server.received, self.from_server.sent, "notifications to the client are lost");
        if self.end != Some(End::Lost) {
            assert_eq!(self.from_client.received, self.from_client.sent, "notifications to the server are lost");
        }
    }
}

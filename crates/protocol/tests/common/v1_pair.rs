//! Both ends of a `roomcast.v1` connection on a virtual wire that can break at any byte.
//!
//! A [`Pair`] does what both applications would do, and only when a test calls it. It writes down what
//! became of every call, and checks on the way what must hold at every moment.

use std::collections::VecDeque;

use roomcast_protocol::v1::{
    Call, CallEvent, CallFlags, CallFrame, Calls, ClientConnection, ClientEvent, Code, Frame, ItemError, Reason,
    ServerConnection, ServerEvent, Side, Violation,
};
use roomcast_protocol::{CallKey, Limits, Name, Opcode, StartError, encode_message};

use super::described::encode;
use super::v1_rooms::RoomModel;
use super::v1_story::{Executed, Outcome, Story, result_of};
use super::{BINARY, fragments, take_server_frame};

pub(crate) const MAX_CALLS: usize = 4;
const MAX_PAYLOAD: usize = 1000;

/// The work of a call. It may end long after the call was cancelled.
#[derive(Debug, Clone, Copy)]
struct Work {
    key: CallKey,
    story: usize,
    is_cancelled: bool,
}

/// One end, and its bytes on the way to the other end.
struct End {
    calls: Calls<usize, usize>,
    works: Vec<Work>,
    /// Frames that the transport has not taken yet, with the call whose first frame it is.
    queue: VecDeque<(Frame, Option<usize>)>,
    wire: VecDeque<u8>,
    ignored: usize,
}

impl End {
    fn new(side: Side) -> Self {
        // A caller may start more calls than the callee accepts.
        let calls = Calls::new(side, MAX_CALLS, MAX_CALLS + 2);
        Self { calls, works: Vec::new(), queue: VecDeque::new(), wire: VecDeque::new(), ignored: 0 }
    }
}

pub(crate) struct Pair {
    /// The client cuts its messages into fragments of this many bytes.
    fragment: usize,
    client: End,
    server: End,
    decoder: ServerConnection,
    connection: ClientConnection,
    unread: Vec<u8>,
    pub(crate) stories: Vec<Story>,
    rooms: RoomModel,
    pub(crate) is_broken: bool,
    /// The violation that one side saw, and the side that saw it.
    pub(crate) violation: Option<(Side, Violation)>,
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a short name")
}

/// The number of a call's story.
fn number_of(call: &Call) -> usize {
    std::str::from_utf8(&call.payload).expect("UTF-8").parse().expect("a number")
}

impl Pair {
    pub(crate) fn new(fragment: usize) -> Self {
        let mut pair = Self {
            fragment,
            client: End::new(Side::Client),
            server: End::new(Side::Server),
            decoder: ServerConnection::new(Limits::new(MAX_PAYLOAD)),
            connection: ClientConnection::new(),
            unread: Vec::new(),
            stories: Vec::new(),
            rooms: RoomModel::default(),
            is_broken: false,
            violation: None,
        };
        pair.queue(Side::Server, Frame::Welcome { json: Reason::truncated("{}") });
        pair
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Sends a frame past the tables, as a broken peer does, or one that belongs to no call.
    pub(crate) fn queue(&mut self, side: Side, frame: Frame) {
        self.end(side).queue.push_back((frame, None));
    }

    pub(crate) fn has_queued(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.client.queue.is_empty(),
            Side::Server => !self.server.queue.is_empty(),
        }
    }

    /// How many frames of its peer a side has ignored.
    pub(crate) fn ignored(&mut self, side: Side) -> usize {
        self.end(side).ignored
    }

    // === the caller ===

    pub(crate) fn call(&mut self, caller: Side, mut call: Call) {
        if self.is_broken {
            return;
        }
        let number = self.stories.len();
        call.payload = number.to_string().into();
        let end = self.end(caller);
        let in_flight = end.calls.outgoing.len();
        let (key, frame) = match end.calls.outgoing.start(call.clone(), number) {
            Ok(started) => started,
            Err(error) => {
                assert_eq!((error, in_flight), (StartError::TooMany { max: MAX_CALLS + 2 }, MAX_CALLS + 2));
                return;
            }
        };
        assert!(caller.makes(key.id()) && !caller.peer().makes(key.id()), "each side has its own ids");
        end.queue.push_back((frame, Some(number)));
        self.stories.push(Story::new(caller, call, key));
    }

    pub(crate) fn reset(&mut self, number: usize) {
        let Story { caller, key, .. } = self.stories[number];
        let frame = self.end(caller).calls.outgoing.reset(key, Reason::truncated("enough"));
        let story = &mut self.stories[number];
        assert_eq!(frame.is_some(), story.outcome.is_none() && !story.is_cancelled, "{story:?}");
        let Some(frame) = frame else { return };
        story.is_cancelled = true;
        self.queue(caller, frame);
    }

    pub(crate) fn add_credit(&mut self, number: usize, items: u32) {
        let Story { caller, key, .. } = self.stories[number];
        let frame = self.end(caller).calls.outgoing.add_credit(key, items);
        let story = &mut self.stories[number];
        let is_wanted = story.outcome.is_none() && !story.is_cancelled && story.call.credit > 0;
        assert_eq!(frame.is_some(), is_wanted, "{story:?}");
        let Some(frame) = frame else { return };
        story.granted += u64::from(items);
        self.queue(caller, frame);
    }

    // === the callee ===

    /// How many handlers a side runs.
    pub(crate) fn works(&mut self, side: Side) -> usize {
        self.end(side).works.len()
    }

    pub(crate) fn item(&mut self, side: Side, nth: usize) {
        let end = self.end(side);
        let Work { key, story: number, is_cancelled } = end.works[nth];
        let credit = end.calls.incoming.credit(key);
        let sent = self.stories[number].items_sent;
        let item = self.end(side).calls.incoming.item(key, format!("{number}:{sent}").into());
        let story = &mut self.stories[number];
        match item {
            Ok(frame) => {
                assert!(credit > Some(0) && !is_cancelled && story.executed.is_none(), "{story:?}");
                story.items_sent += 1;
                assert!(!story.is_unlimited || credit == Some(u32::MAX), "unlimited credit shrinks: {story:?}");
                story.is_unlimited = credit == Some(u32::MAX);
                assert!(story.is_unlimited || story.items_sent <= story.heard, "an Item needs credit: {story:?}");
                self.queue(side, frame);
            }
            Err(ItemError::NoCredit) => assert_eq!((credit, story.items_sent), (Some(0), story.heard), "{story:?}"),
            Err(ItemError::Ended) => assert!(credit.is_none() && (is_cancelled || story.executed.is_some())),
        }
    }

    pub(crate) fn detach(&mut self, side: Side, nth: usize) {
        let Work { key, story: number, is_cancelled } = self.end(side).works[nth];
        let frame = self.end(side).calls.incoming.detach(key, name(&format!("stream {number}")));
        let story = &mut self.stories[number];
        let asks = story.call.flags.contains(CallFlags::DETACH);
        let is_first = !story.is_detached && story.items_sent == 0 && story.executed.is_none();
        assert_eq!(frame.is_some(), asks && is_first && !is_cancelled, "{story:?}");
        let Some(frame) = frame else { return };
        story.is_detached = true;
        self.queue(side, frame);
    }

    /// The work of a call ends, with an error if `fails`.
    pub(crate) fn finish(&mut self, side: Side, nth: usize, fails: bool) {
        let Work { key, story: number, is_cancelled } = self.end(side).works.remove(nth);
        let result = result_of(number, fails);
        let Some((frame, value)) = self.end(side).calls.incoming.finish(key, result.clone()) else {
            assert!(self.is_broken, "only the end of the connection ends a call before its work");
            return;
        };
        assert_eq!(value, number, "a call ends as itself");
        let story = &mut self.stories[number];
        assert_eq!(story.executed.replace(Executed::Finished { is_cancelled }), None, "a call ends once: {story:?}");
        match &frame {
            Frame::Error { error, .. } if is_cancelled => assert_eq!(error.code, Code::CANCELLED),
            Frame::Error { error, .. } => assert_eq!(result.as_ref(), Err(error)),
            Frame::Response { payload, .. } => assert!(!is_cancelled && result.as_ref() == Ok(payload)),
            other => panic!("{other:?} ends no call"),
        }
        self.queue(side, frame);
    }

    // === rooms ===

    /// The server sends a frame of a room, as `choice` decides.
    pub(crate) fn room(&mut self, choice: u64) {
        if !self.is_broken {
            let frame = self.rooms.next(choice);
            self.queue(Side::Server, frame);
        }
    }

    // === the wire ===

    /// The transport takes a side's oldest frame.
    pub(crate) fn send(&mut self, side: Side) {
        if self.is_broken {
            return;
        }
        let fragment = self.fragment;
        let Some((frame, starts)) = self.end(side).queue.pop_front() else { return };
        if let Some(number) = starts {
            self.stories[number].has_begun_to_leave = true;
            let key = self.stories[number].key;
            self.end(side).calls.outgoing.sent(key);
        }
        let message = encode(&frame);
        let bytes = match side {
            Side::Client => fragments(BINARY, &message.chunks(fragment).collect::<Vec<_>>()).concat(),
            Side::Server => encode_message(Opcode::Binary, &message).to_vec(),
        };
        self.end(side).wire.extend(bytes);
    }

    /// A side reads at most `max` bytes. Returns how many it read.
    pub(crate) fn read(&mut self, reader: Side, max: usize) -> usize {
        let wire = &mut self.end(reader.peer()).wire;
        let bytes: Vec<u8> = wire.drain(..max.min(wire.len())).collect();
        let read = match reader {
            Side::Server => self.server_reads(&bytes),
            Side::Client => self.client_reads(&bytes),
        };
        if let Err(violation) = read {
            self.violation = Some((reader, violation));
            self.break_wire(0, 0);
        }
        bytes.len()
    }

    fn server_reads(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while let Some(event) = self.decoder.receive(&mut bytes)? {
            match event {
                ServerEvent::Call(frame) => self.on_call_frame(Side::Server, frame)?,
                other => panic!("the client sends no {other:?}"),
            }
        }
        Ok(())
    }

    fn client_reads(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.unread.extend(bytes);
        while let Some(frame) = take_server_frame(&mut self.unread) {
            match self.connection.receive(frame.payload.into())? {
                ClientEvent::Welcome { .. } | ClientEvent::Tick | ClientEvent::Goaway { .. } => {}
                ClientEvent::Call(frame) => self.on_call_frame(Side::Client, frame)?,
                ClientEvent::Notify { .. } => panic!("the server sends no notifications"),
                event => self.rooms.on_received(&event, self.connection.rooms()),
            }
        }
        Ok(())
    }

    fn on_call_frame(&mut self, side: Side, frame: CallFrame) -> Result<(), Violation> {
        let (end, stories) = match side {
            Side::Client => (&mut self.client, &mut self.stories),
            Side::Server => (&mut self.server, &mut self.stories),
        };
        let added = if let CallFrame::Credit { items, .. } = frame { u64::from(items) } else { 0 };
        let started = if let CallFrame::Start { call, .. } = &frame { Some(number_of(call)) } else { None };
        let in_flight = end.calls.incoming.len();
        match end.calls.receive(frame)? {
            CallEvent::Start { id, call, headers } => {
                let number = number_of(&call);
                assert_eq!((&call, id), (&stories[number].call, stories[number].key.id()));
                assert_eq!(headers.iter().count(), 0);
                let key = end.calls.incoming.start(id, &call, number).expect("the call was admitted");
                end.works.push(Work { key, story: number, is_cancelled: false });
            }
            CallEvent::Refused(frame) => {
                let story = &mut stories[started.expect("only a call is refused")];
                let is_invalid = story.call.flags.has_unknown() || !story.call.headers.as_bytes().is_empty();
                assert!(is_invalid || in_flight == MAX_CALLS, "{story:?}");
                assert_eq!(story.executed.replace(Executed::Refused), None);
                end.queue.push_back((frame, None));
            }
            CallEvent::Reset { call: &mut number, reason } => {
                assert_eq!(&*reason, "enough");
                let work = end.works.iter_mut().find(|work| work.story == number).expect("the work is not done");
                assert!(!std::mem::replace(&mut work.is_cancelled, true), "a call is cancelled once");
            }
            CallEvent::Credit { call: &mut number } => stories[number].heard += added,
            CallEvent::Item { call: &mut number, payload } => {
                let story = &mut stories[number];
                assert_eq!(payload, format!("{number}:{}", story.items_received), "Items come in order, each once");
                story.items_received += 1;
                assert!(story.outcome.is_none() && !story.is_cancelled, "nobody wants an Item: {story:?}");
                assert!(story.items_received <= story.granted, "an Item without credit: {story:?}");
            }
            CallEvent::Detached { call: &mut number, stream } => {
                assert_eq!(*stream, format!("stream {number}"));
            }
            CallEvent::Final { call: number, result } => {
                let outcome = stories[number].outcome.replace(Outcome::Final(result));
                assert_eq!(outcome, None, "a call ends once: {:?}", stories[number]);
            }
            CallEvent::Ignored => end.ignored += 1,
        }
        Ok(())
    }

    // === the end ===

    /// The connection breaks. Each side still reads so many of the bytes on their way to it.
    pub(crate) fn break_wire(&mut self, to_client: usize, to_server: usize) {
        if std::mem::replace(&mut self.is_broken, true) {
            return;
        }
        for (side, max) in [(Side::Client, to_client), (Side::Server, to_server)] {
            self.read(side, max);
            let end = self.end(side);
            end.queue.clear();
            let (unfinished, ended): (Vec<_>, Vec<_>) =
                (end.calls.outgoing.end().collect(), end.calls.incoming.end().collect());
            for (number, unfinished) in unfinished {
                let outcome = self.stories[number].outcome.replace(Outcome::Unfinished(unfinished));
                assert_eq!(outcome, None, "a call ends once: {:?}", self.stories[number]);
            }
            for number in ended {
                assert_eq!(self.stories[number].executed.replace(Executed::Ended), None);
            }
        }
    }

    /// All work ends, and everything arrives.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            for side in [Side::Client, Side::Server] {
                while self.works(side) > 0 {
                    self.finish(side, 0, false);
                }
                while !self.is_broken && !self.end(side).queue.is_empty() {
                    self.send(side);
                }
            }
            for side in [Side::Client, Side::Server] {
                is_quiet &= self.read(side, usize::MAX) == 0;
            }
            if is_quiet {
                break;
            }
        }
    }

    #[track_caller]
    pub(crate) fn assert_no_call_is_in_flight(&self) {
        for end in [&self.client, &self.server] {
            assert!(end.calls.incoming.is_empty() && end.calls.outgoing.is_empty(), "{:?}", end.calls);
        }
    }

    /// What must hold after [`settle`](Self::settle): every call has its outcomes, and nothing is left.
    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) {
        self.assert_no_call_is_in_flight();
        for (number, story) in self.stories.iter().enumerate() {
            story.assert_outcome(number);
            assert!(self.is_broken || matches!(story.outcome, Some(Outcome::Final(_))), "{story:?}");
        }
        if !self.is_broken {
            self.rooms.assert_all_received();
        }
    }
}

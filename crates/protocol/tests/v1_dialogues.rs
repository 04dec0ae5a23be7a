//! The dialogues of `roomcast.v1` in `docs/reference/protocol-vectors.json`, which clients in other languages run
//! too.

mod common;

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use common::described::{described, encode, unhex};
use common::{BINARY, message};
use roomcast_protocol::v1::{
    Call, CallEvent, CallFrame, Calls, ClientConnection, ClientEvent, Frame, MAX_SERVER_CALLS, ServerConnection,
    ServerEvent, Side, Unfinished, Violation,
};
use roomcast_protocol::{CallId, CallKey, Limits};
use serde_json::{Value, json};

#[test]
fn both_ends_follow_the_dialogues() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../docs/reference/protocol-vectors.json")).expect("JSON");
    for dialogue in vectors["v1"]["dialogues"].as_array().expect("a list") {
        let mut end = End::new(dialogue);
        for step in dialogue["steps"].as_array().expect("a list") {
            end.follow(step);
        }
        end.assert_sent_all("the last step");
    }
}

/// The end under test.
struct End<'a> {
    name: &'a Value,
    side: Side,
    /// The values are the calls' ids, as the application knows them.
    calls: Calls<CallId, CallId>,
    keys: HashMap<CallId, CallKey>,
    server: ServerConnection,
    client: ClientConnection,
    /// What the end wants to send, and no step has mentioned yet.
    sends: VecDeque<Frame>,
    violation: Option<Violation>,
}

impl<'a> End<'a> {
    fn new(dialogue: &'a Value) -> Self {
        let max_calls = dialogue["max_calls"].as_u64().unwrap_or(1024) as usize;
        let (side, calls) = match dialogue["end"].as_str() {
            Some("client") => (Side::Client, Calls::new(Side::Client, MAX_SERVER_CALLS, max_calls)),
            Some("server") => (Side::Server, Calls::new(Side::Server, max_calls, MAX_SERVER_CALLS)),
            end => panic!("unknown end {end:?}"),
        };
        Self {
            name: &dialogue["name"],
            side,
            calls,
            keys: HashMap::new(),
            server: ServerConnection::new(Limits::default()),
            client: ClientConnection::new(),
            sends: VecDeque::new(),
            violation: None,
        }
    }

    fn follow(&mut self, step: &Value) {
        let (key, value) = step.as_object().expect("an object").iter().find(|(key, _)| *key != "seen").expect("a step");
        if !["send", "close", "break"].contains(&&**key) {
            self.assert_sent_all(step);
        }
        match key.as_str() {
            "receive" => self.receive(step, value),
            "do" => self.act(described(value)),
            "send" => self.send(step, value),
            "close" => {
                let violation =
                    self.violation.take().unwrap_or_else(|| panic!("{}: no violation at {step}", self.name));
                assert_eq!(
                    violation.close_code().0,
                    value.as_u64().expect("a code") as u16,
                    "{}: {violation}",
                    self.name
                );
            }
            "break" => self.break_connection(value),
            "positions" => {
                let rooms = self.client.rooms().iter();
                let rooms = rooms.map(|at| json!({"name": *at.name, "epoch": *at.epoch, "offset": at.offset}));
                assert_eq!(sorted(rooms), sorted(value.as_array().expect("a list").iter().cloned()), "{}", self.name);
            }
            step => panic!("{}: unknown step {step}", self.name),
        }
    }

    fn assert_sent_all(&self, step: impl std::fmt::Display) {
        assert!(self.sends.is_empty(), "{}: before {step}, the end sends {:?}", self.name, self.sends);
        assert!(self.violation.is_none(), "{}: before {step}: {:?}", self.name, self.violation);
    }

    // === what the end receives ===

    fn receive(&mut self, step: &Value, frame: &Value) {
        let bytes = frame.get("hex").map_or_else(|| encode(&described(frame)), unhex);
        let seen = match self.seen(bytes.clone()) {
            Ok(seen) => seen,
            Err(violation) => {
                self.violation = Some(violation);
                None
            }
        };
        if step.get("seen").is_some_and(|seen| seen == false) {
            assert_eq!(seen, None, "{}: {step}", self.name);
        } else {
            let received = Frame::decode(bytes, self.side.peer()).expect("a frame");
            assert_eq!(seen.map(shortest), Some(shortest(received)), "{}: {step}", self.name);
        }
    }

    /// Returns what the application sees, as the frame that it stands for.
    fn seen(&mut self, bytes: Bytes) -> Result<Option<Frame>, Violation> {
        if self.side == Side::Server {
            return match self.server.receive(&mut message(BINARY, &bytes).as_slice())?.expect("a whole message") {
                ServerEvent::Call(frame) => self.call_seen(frame),
                ServerEvent::Notify { name, payload } => Ok(Some(Frame::Notify { name, payload })),
                other => panic!("{}: {other:?} is no frame", self.name),
            };
        }
        let positions: BTreeMap<_, _> =
            (0..10).filter_map(|room| Some((room, self.client.rooms().get(room)?.clone()))).collect();
        Ok(Some(match self.client.receive(bytes)? {
            ClientEvent::Call(frame) => return self.call_seen(frame),
            ClientEvent::Welcome { json } => Frame::Welcome { json },
            ClientEvent::Notify { name, payload } => Frame::Notify { name, payload },
            ClientEvent::Room { room } => {
                let at = self.client.rooms().get(room).expect("it was announced").clone();
                Frame::Room { room, offset: at.offset, epoch: at.epoch, name: at.name }
            }
            ClientEvent::Event(event) => Frame::Event(event),
            ClientEvent::Gap { room, from, to } => Frame::Gap { room, from, to },
            ClientEvent::Left { room, reason } => {
                let number = positions.into_iter().find(|(_, at)| *at == room).expect("it was announced").0;
                Frame::Left { room: number, reason }
            }
            ClientEvent::Goaway { retry_after_ms, deadline_ms, reason } => {
                Frame::Goaway { retry_after_ms, deadline_ms, reason }
            }
            ClientEvent::Tick => Frame::Tick,
        }))
    }

    fn call_seen(&mut self, frame: CallFrame) -> Result<Option<Frame>, Violation> {
        let added = if let CallFrame::Credit { items, .. } = frame { items } else { 0 };
        Ok(Some(match self.calls.receive(frame)? {
            CallEvent::Start { id, call, .. } => {
                let key = self.calls.incoming.start(id, &call, id).expect("it was admitted");
                self.keys.insert(id, key);
                Frame::Call { id, call }
            }
            CallEvent::Refused(frame) => {
                self.sends.push_back(frame);
                return Ok(None);
            }
            CallEvent::Reset { call: &mut id, reason } => Frame::Reset { id, reason },
            CallEvent::Credit { call: &mut id } => Frame::Credit { id, items: added },
            CallEvent::Item { call: &mut id, payload } => Frame::Item { id, payload },
            CallEvent::Detached { call: &mut id, stream } => Frame::Detached { id, stream },
            CallEvent::Final { call: id, result: Ok(payload) } => Frame::Response { id, payload },
            CallEvent::Final { call: id, result: Err(error) } => Frame::Error { id, error },
            CallEvent::Ignored => return Ok(None),
        }))
    }

    // === what the end's application does ===

    fn act(&mut self, frame: Frame) {
        let key = |id: CallId| self.keys[&id];
        let Calls { incoming, outgoing, .. } = &mut self.calls;
        let frame = match frame {
            Frame::Request { id, name, payload } => return self.start(id, Call::new(name, payload)),
            Frame::Call { id, call } => return self.start(id, call),
            Frame::Reset { id, reason } => outgoing.reset(key(id), reason),
            Frame::Credit { id, items } => outgoing.add_credit(key(id), items),
            Frame::Item { id, payload } => incoming.item(key(id), payload).ok(),
            Frame::Detached { id, stream } => incoming.detach(key(id), stream),
            Frame::Response { id, payload } => incoming.finish(key(id), Ok(payload)).map(|(frame, _)| frame),
            Frame::Error { id, error } => incoming.finish(key(id), Err(error)).map(|(frame, _)| frame),
            other => Some(other),
        };
        self.sends.extend(frame);
    }

    fn start(&mut self, id: CallId, call: Call) {
        let (key, frame) = self.calls.outgoing.start(call, id).expect("few calls are in flight");
        assert_eq!(key.id(), id, "{}", self.name);
        self.keys.insert(id, key);
        self.sends.push_back(frame);
    }

    // === the wire ===

    fn send(&mut self, step: &Value, frame: &Value) {
        let sent = self.sends.pop_front().unwrap_or_else(|| panic!("{}: {step}, but the end sends nothing", self.name));
        let mut expected = shortest(described(frame));
        if let (Frame::Error { error: expected, .. }, Frame::Error { error, .. }) = (&mut expected, &sent)
            && &*expected.message == "…"
        {
            expected.message = error.message.clone();
        }
        assert_eq!(shortest(sent.clone()), expected, "{}: {step}", self.name);
        if let Frame::Request { id, .. } | Frame::Call { id, .. } = sent {
            self.calls.outgoing.sent(self.keys[&id]);
        }
    }

    fn break_connection(&mut self, outcomes: &Value) {
        self.sends.clear();
        let unfinished = self.calls.outgoing.end().map(|(id, unfinished)| match unfinished {
            Unfinished::NotSent => json!({"id": id.0, "outcome": "not_sent"}),
            Unfinished::MaybeExecuted => json!({"id": id.0, "outcome": "maybe_executed"}),
            Unfinished::Detached { stream, items } => {
                json!({"id": id.0, "outcome": "detached", "stream": *stream, "items": items})
            }
        });
        assert_eq!(sorted(unfinished), sorted(outcomes.as_array().expect("a list").iter().cloned()), "{}", self.name);
        self.calls.incoming.end().for_each(drop);
    }
}

/// A Request and a Call without options are the same.
fn shortest(frame: Frame) -> Frame {
    match frame {
        Frame::Call { id, call } => Frame::of_call(id, call),
        other => other,
    }
}

fn sorted(values: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut values: Vec<_> = values.collect();
    values.sort_by_key(Value::to_string);
    values
}

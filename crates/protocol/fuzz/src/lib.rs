//! An application of `roomcast.v1` for the fuzz targets of both ends: it acts as the fuzzer decides, and checks what
//! must hold whatever its peer sends.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomcast_protocol::v1::{Call, CallEvent, CallFlags, CallFrame, Calls, Error, Frame, Side, Text};
use roomcast_protocol::{CallKey, Name};

/// Small, so that the limits are within the fuzzer's reach.
pub const MAX_PAYLOAD: usize = 300;
const MAX_CALLS: usize = 3;

/// One end of a connection.
pub struct End {
    calls: Calls<u32, u32>,
    /// The calls in flight, by their numbers, in the order of their start.
    incoming: BTreeMap<u32, Incoming>,
    outgoing: BTreeMap<u32, Outgoing>,
    started: u32,
}

struct Incoming {
    key: CallKey,
    /// The Items that may still be sent.
    credit: u64,
    is_cancelled: bool,
}

struct Outgoing {
    key: CallKey,
    /// The Items that may still arrive.
    credit: u64,
    is_cancelled: bool,
}

impl End {
    /// Creates an end without calls.
    pub fn new(side: Side) -> Self {
        let calls = Calls::new(side, MAX_CALLS, MAX_CALLS);
        Self { calls, incoming: BTreeMap::new(), outgoing: BTreeMap::new(), started: 0 }
    }

    /// Receives a frame. Returns `None` after a violation.
    pub fn receive(&mut self, frame: CallFrame) -> Option<()> {
        let added = if let CallFrame::Credit { items, .. } = frame { u64::from(items) } else { 0 };
        match self.calls.receive(frame) {
            Ok(CallEvent::Start { id, call, .. }) => {
                self.started += 1;
                let key = self.calls.incoming.start(id, &call, self.started).expect("it was admitted");
                let credit = u64::from(call.credit);
                self.incoming.insert(self.started, Incoming { key, credit, is_cancelled: false });
                assert!(self.incoming.len() <= MAX_CALLS);
            }
            Ok(CallEvent::Refused(frame)) => assert!(matches!(frame, Frame::Error { .. })),
            Ok(CallEvent::Reset { call, .. }) => {
                let call = self.incoming.get_mut(call).expect("it is in flight");
                assert!(!std::mem::replace(&mut call.is_cancelled, true), "it is cancelled once");
            }
            Ok(CallEvent::Credit { call }) => {
                let call = self.incoming.get_mut(call).expect("it is in flight");
                call.credit += added;
                assert!(!call.is_cancelled);
            }
            Ok(CallEvent::Item { call, .. }) => {
                let call = self.outgoing.get_mut(call).expect("it is in flight");
                assert!(call.credit > 0 && !call.is_cancelled, "nobody wants the Item");
                call.credit -= 1;
            }
            Ok(CallEvent::Detached { call, .. }) => assert!(self.outgoing.contains_key(call)),
            Ok(CallEvent::Final { call, .. }) => assert!(self.outgoing.remove(&call).is_some(), "it ends once"),
            Ok(CallEvent::Ignored) => {}
            Err(violation) => {
                assert_eq!(violation.close_code().0, 1002, "{violation:?}");
                return None;
            }
        }
        Some(())
    }

    /// Does what the action stands for, with the call that it picks.
    pub fn act(&mut self, action: u8) {
        let pick = usize::from(action >> 4);
        match action & 7 {
            0 | 1 => self.call(action),
            2 => self.item(pick),
            3 => self.end_work(pick),
            4 => self.reset(pick),
            5 => self.add_credit(pick),
            6 => self.detach(pick),
            _ => {}
        }
    }

    fn call(&mut self, action: u8) {
        let credit = match action >> 4 & 3 {
            3 => u32::MAX,
            credit => u32::from(credit),
        };
        let flags = CallFlags(action >> 7);
        let call = Call { credit, flags, ..Call::new(Name::default(), Bytes::new()) };
        self.started += 1;
        let started = self.calls.outgoing.start(call, self.started);
        assert_eq!(started.is_ok(), self.outgoing.len() < MAX_CALLS);
        if let Ok((key, _)) = started {
            self.calls.outgoing.sent(key);
            let credit = if credit == u32::MAX { u64::MAX } else { credit.into() };
            self.outgoing.insert(self.started, Outgoing { key, credit, is_cancelled: false });
        }
    }

    fn item(&mut self, pick: usize) {
        let Some(call) = nth(&mut self.incoming, pick) else { return };
        let left = self.calls.incoming.credit(call.key);
        assert_eq!(left.is_none(), call.is_cancelled);
        if self.calls.incoming.item(call.key, Bytes::new()).is_ok() {
            assert!(!call.is_cancelled && left > Some(0));
            // Unlimited credit does not shrink.
            assert!(call.credit > 0 || left == Some(u32::MAX), "an Item beyond the credit");
            call.credit = call.credit.saturating_sub(1);
        }
    }

    fn end_work(&mut self, pick: usize) {
        let Some((&number, _)) = self.incoming.iter().nth(pick) else { return };
        let Incoming { key, is_cancelled, .. } = self.incoming.remove(&number).expect("it is in flight");
        let (frame, value) = self.calls.incoming.finish(key, Ok(Bytes::new())).expect("it has not ended");
        assert_eq!((matches!(frame, Frame::Error { error: Error { .. }, .. }), value), (is_cancelled, number));
        assert!(self.calls.incoming.finish(key, Ok(Bytes::new())).is_none(), "it ends once");
    }

    fn reset(&mut self, pick: usize) {
        let Some(call) = nth(&mut self.outgoing, pick) else { return };
        let frame = self.calls.outgoing.reset(call.key, Text::default());
        assert_eq!(frame.is_some(), !std::mem::replace(&mut call.is_cancelled, true));
    }

    fn add_credit(&mut self, pick: usize) {
        let Some(call) = nth(&mut self.outgoing, pick) else { return };
        if self.calls.outgoing.add_credit(call.key, 2).is_some() {
            call.credit = call.credit.saturating_add(2);
        }
    }

    fn detach(&mut self, pick: usize) {
        let Some(call) = nth(&mut self.incoming, pick) else { return };
        let is_first = self.calls.incoming.detach(call.key, Name::default()).is_some();
        assert!(!(is_first && call.is_cancelled));
        assert!(self.calls.incoming.detach(call.key, Name::default()).is_none(), "it is detached once");
    }

    /// The connection ends: each call in flight is known as ended.
    pub fn finish(mut self) {
        let mut unfinished: Vec<u32> = self.calls.outgoing.end().map(|(number, _)| number).collect();
        let mut ended: Vec<u32> = self.calls.incoming.end().collect();
        unfinished.sort_unstable();
        ended.sort_unstable();
        assert!(unfinished.iter().eq(self.outgoing.keys()) && ended.iter().eq(self.incoming.keys()));
        assert!(self.calls.outgoing.is_empty() && self.calls.incoming.is_empty());
    }
}

fn nth<C>(calls: &mut BTreeMap<u32, C>, pick: usize) -> Option<&mut C> {
    calls.values_mut().nth(pick)
}

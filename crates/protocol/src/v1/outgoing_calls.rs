//! The calls that this side makes: the peer executes them.

use crate::call_table::{CallId, CallKey, CallTable, StartError};
use crate::frame::Name;
use crate::v1::call::{Call, CallFlags};
use crate::v1::credit::Credit;
use crate::v1::frame::Frame;
use crate::v1::side::Side;
use crate::v1::text::Reason;
use crate::v1::violation::Violation;

/// The calls that this side has in flight. A call leaves the table with the peer's final frame, or at
/// the end of the connection. `C` is the value that the user of the table stores with a call, to report
/// its outcome.
#[derive(Debug)]
pub struct OutgoingCalls<C> {
    side: Side,
    started: u32,
    table: CallTable<Outgoing<C>>,
}

#[derive(Debug)]
struct Outgoing<C> {
    credit: Credit,
    is_sent: bool,
    is_cancelled: bool,
    /// Whether the peer may send a Detached frame: the call asks for it, and has no Item yet.
    may_detach: bool,
    stream: Option<Name>,
    /// How many Items have arrived.
    items: u64,
    value: C,
}

/// What is known about a call whose connection ended before its final frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// The call was not sent. It can be repeated.
    NotSent,
    /// The call may have been executed. Repeat it only if the application permits it.
    MaybeExecuted,
    /// The call continues. Attach to it from any node.
    Detached {
        /// The name of the stream.
        stream: Name,
        /// The number of Items that have arrived, which is the offset to attach at.
        items: u64,
    },
}

impl<C> OutgoingCalls<C> {
    /// Creates the table of one side, for at most `max` concurrent calls.
    pub(super) fn new(side: Side, max: usize) -> Self {
        Self { side, started: 0, table: CallTable::new(max) }
    }

    /// Starts a call, and returns the frame to send. Each id is one more than the previous one. Ids wrap
    /// around and skip those of calls in flight.
    ///
    /// # Errors
    /// Returns [`StartError::TooMany`] if too many calls are in flight.
    pub fn start(&mut self, call: Call, value: C) -> Result<(CallKey, Frame), StartError> {
        let id = loop {
            self.started = self.started.wrapping_add(1);
            let id = self.side.call_id(self.started);
            match self.table.admit(id) {
                Err(StartError::Duplicate(_)) => {}
                admitted => break admitted.map(|()| id)?,
            }
        };
        let outgoing = Outgoing {
            credit: Credit::new(call.credit),
            is_sent: false,
            is_cancelled: false,
            may_detach: call.flags.contains(CallFlags::DETACH),
            stream: None,
            items: 0,
            value,
        };
        let key = self.table.start(id, outgoing)?;
        Ok((key, Frame::of_call(id, call)))
    }

    /// Call this before the first byte of the call's frame is passed to the transport. From then on, the
    /// call may be executed even if the connection breaks.
    pub fn sent(&mut self, key: CallKey) {
        if let Some(call) = self.table.get_mut(key) {
            call.is_sent = true;
        }
    }

    /// Cancels a call. Send the Reset after the frame of the call itself. The call stays in flight until
    /// the peer's final frame arrives, and its Items are dropped. Returns `None` if the call has ended or
    /// is cancelled.
    pub fn reset(&mut self, key: CallKey, reason: Reason) -> Option<Frame> {
        let call = self.running(key)?;
        call.is_cancelled = true;
        Some(Frame::Reset { id: key.id(), reason })
    }

    /// Accepts more Items. Send the Credit after the frame of the call itself. Returns `None` if the call
    /// has ended, is cancelled, or began without credit.
    pub fn add_credit(&mut self, key: CallKey, items: u32) -> Option<Frame> {
        let call = self.running(key)?;
        call.credit.add(items).then_some(Frame::Credit { id: key.id(), items })
    }

    /// Counts an Item. Returns `None` if it has no effect: the call is not in flight or is cancelled.
    pub(super) fn on_item(&mut self, id: CallId) -> Result<Option<&mut C>, Violation> {
        let Some(call) = self.table.find_mut(id) else { return Ok(None) };
        if !call.credit.take() {
            return Err(Violation::ItemBeyondCredit(id));
        }
        call.may_detach = false;
        call.items += 1;
        Ok((!call.is_cancelled).then_some(&mut call.value))
    }

    /// Notes the name of a call's stream. Returns `None` if the call is not in flight.
    pub(super) fn on_detached(&mut self, id: CallId, stream: &Name) -> Result<Option<&mut C>, Violation> {
        let Some(call) = self.table.find_mut(id) else { return Ok(None) };
        if !std::mem::take(&mut call.may_detach) {
            return Err(Violation::UnexpectedDetached(id));
        }
        call.stream = Some(stream.unshared());
        Ok(Some(&mut call.value))
    }

    /// Ends a call with its final frame. Returns `None` if the call is not in flight.
    pub(super) fn on_final(&mut self, id: CallId) -> Option<C> {
        self.table.cancel(id).map(|call| call.value)
    }

    fn running(&mut self, key: CallKey) -> Option<&mut Outgoing<C>> {
        self.table.get_mut(key).filter(|call| !call.is_cancelled)
    }

    /// Removes all calls, at the end of the connection.
    pub fn end(&mut self) -> impl Iterator<Item = (C, Unfinished)> + use<C> {
        self.table.cancel_all().map(|call| {
            let unfinished = match call.stream {
                Some(stream) => Unfinished::Detached { stream, items: call.items },
                None if call.is_sent => Unfinished::MaybeExecuted,
                None => Unfinished::NotSent,
            };
            (call.value, unfinished)
        })
    }

    /// Returns the number of calls in flight.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns whether no call is in flight.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_wrap_around_and_skip_those_in_flight() {
        for (side, ids) in [(Side::Client, [0x7FFF_FFFF, 0, 2]), (Side::Server, [0xFFFF_FFFF, 1 << 31, 1 << 31 | 2])] {
            let mut calls = OutgoingCalls::new(side, 4);
            let first = calls.start(Call::default(), ()).unwrap().0;
            assert!(side.makes(first.id()));
            calls.started = 0x7FFF_FFFE;
            for id in ids {
                assert_eq!(calls.start(Call::default(), ()).unwrap().0.id(), CallId(id), "{first:?} is in flight");
            }
            assert_eq!(calls.start(Call::default(), ()), Err(StartError::TooMany { max: 4 }));
        }
    }
}

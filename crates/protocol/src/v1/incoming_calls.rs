//! The calls that the peer makes: this side executes them.

use bytes::Bytes;
use thiserror::Error as ThisError;

use crate::call_table::{CallId, CallKey, CallTable, StartError};
use crate::frame::Name;
use crate::v1::call::{Call, CallFlags};
use crate::v1::credit::Credit;
use crate::v1::failure::{Code, Error, ErrorFlags};
use crate::v1::frame::Frame;
use crate::v1::headers::Headers;
use crate::v1::violation::Violation;

/// The calls that the peer has in flight.
///
/// ```text
///                       item ─▶ Item, as long as there is credit
///            ┌──────────────────────┐
///   start ──▶│ Running              │── finish ──▶ Response or Error
///            └──────────┬───────────┘
///                     Reset
///            ┌──────────▼───────────┐
///            │ Cancelled: no Items  │── finish ──▶ Error CANCELLED, whatever the result is
///            └──────────────────────┘
/// ```
///
/// A call leaves the table with its final frame, so it has exactly one. A cancelled call stays until
/// its work has stopped, and counts as in flight. `C` is the value that the user of the table stores
/// with a call, to stop it.
#[derive(Debug)]
pub struct IncomingCalls<C> {
    table: CallTable<Incoming<C>>,
}

#[derive(Debug)]
struct Incoming<C> {
    credit: Credit,
    /// Whether a Detached frame may be sent: the call asks for it, and has no Item yet.
    may_detach: bool,
    is_cancelled: bool,
    value: C,
}

/// The error of an Item that must not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ThisError)]
pub enum ItemError {
    /// The caller has given no credit for it. Wait until it gives more.
    #[error("the caller accepts no further Item at the moment")]
    NoCredit,
    /// The call has ended or is cancelled.
    #[error("the call has ended")]
    Ended,
}

impl<C> IncomingCalls<C> {
    /// Creates a table for at most `max` concurrent calls.
    pub(super) fn new(max: usize) -> Self {
        Self { table: CallTable::new(max) }
    }

    /// Checks whether a call may start. The inner error is the call's final frame.
    pub(super) fn admit(&self, id: CallId, call: &Call) -> Result<Result<Headers, Error>, Violation> {
        match self.table.admit(id) {
            Err(StartError::Duplicate(id)) => Err(Violation::DuplicateCallId(id)),
            Err(error @ StartError::TooMany { .. }) => Ok(Err(Error {
                flags: ErrorFlags::RETRYABLE,
                ..Error::new(Code::RESOURCE_EXHAUSTED, &error.to_string())
            })),
            Ok(()) if call.flags.has_unknown() => {
                let message = format!("the call has unknown flags: {:#04x}", call.flags.0);
                Ok(Err(Error::new(Code::INVALID_ARGUMENT, &message)))
            }
            Ok(()) => {
                let headers = Headers::decode(&call.headers);
                Ok(headers.map_err(|error| Error::new(Code::INVALID_ARGUMENT, &error.to_string())))
            }
        }
    }

    /// Starts a call of the peer.
    ///
    /// # Errors
    /// Returns [`StartError`] if a call with this id is already in flight, or if too many calls are in
    /// flight. [`Calls::receive`](crate::v1::Calls::receive) has checked both.
    pub fn start(&mut self, id: CallId, call: &Call, value: C) -> Result<CallKey, StartError> {
        let may_detach = call.flags.contains(CallFlags::DETACH);
        self.table.start(id, Incoming { credit: Credit::new(call.credit), may_detach, is_cancelled: false, value })
    }

    /// Returns the frame after which the call continues as `stream` when the connection ends. Send it
    /// before the handler runs. Returns `None` if the call does not ask for it, or if it is too late:
    /// the call is detached, cancelled, has ended or has an Item.
    pub fn detach(&mut self, key: CallKey, stream: Name) -> Option<Frame> {
        let call = self.running(key)?;
        std::mem::take(&mut call.may_detach).then_some(Frame::Detached { id: key.id(), stream })
    }

    /// Returns how many Items the call may send at the moment. [`u32::MAX`] is unlimited. `None`: the
    /// call has ended or is cancelled.
    pub fn credit(&self, key: CallKey) -> Option<u32> {
        let call = self.table.get(key).filter(|call| !call.is_cancelled)?;
        Some(call.credit.items())
    }

    /// Returns the frame of one element of the call's result.
    ///
    /// # Errors
    /// Returns [`ItemError`] if the element must not be sent, or not yet.
    pub fn item(&mut self, key: CallKey, payload: Bytes) -> Result<Frame, ItemError> {
        let call = self.running(key).ok_or(ItemError::Ended)?;
        if !call.credit.take() {
            return Err(ItemError::NoCredit);
        }
        call.may_detach = false;
        Ok(Frame::Item { id: key.id(), payload })
    }

    /// Ends a call, when its work has stopped. Returns its final frame, which is `CANCELLED` after a
    /// Reset. Returns `None` if the call has ended before.
    pub fn finish(&mut self, key: CallKey, result: Result<Bytes, Error>) -> Option<(Frame, C)> {
        let (id, call) = (key.id(), self.table.answer(key)?);
        let frame = match result {
            _ if call.is_cancelled => {
                Frame::Error { id, error: Error::new(Code::CANCELLED, "the caller cancelled the call") }
            }
            Ok(payload) => Frame::Response { id, payload },
            Err(error) => Frame::Error { id, error },
        };
        Some((frame, call.value))
    }

    /// Cancels a call. Returns `None` if there is none, or if it is cancelled.
    pub(super) fn on_reset(&mut self, id: CallId) -> Option<&mut C> {
        let call = self.table.find_mut(id).filter(|call| !call.is_cancelled)?;
        call.is_cancelled = true;
        Some(&mut call.value)
    }

    /// Adds credit. Returns `None` if the call is not in flight, is cancelled or has no Items.
    pub(super) fn on_credit(&mut self, id: CallId, items: u32) -> Option<&mut C> {
        let call = self.table.find_mut(id).filter(|call| !call.is_cancelled)?;
        call.credit.add(items).then_some(&mut call.value)
    }

    fn running(&mut self, key: CallKey) -> Option<&mut Incoming<C>> {
        self.table.get_mut(key).filter(|call| !call.is_cancelled)
    }

    /// Removes all calls, at the end of the connection. No frame follows.
    pub fn end(&mut self) -> impl Iterator<Item = C> + use<C> {
        self.table.cancel_all().map(|call| call.value)
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

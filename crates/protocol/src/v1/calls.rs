//! The calls of one connection, in both directions.

use bytes::Bytes;

use crate::call_table::CallId;
use crate::frame::Name;
use crate::v1::call::Call;
use crate::v1::failure::Error;
use crate::v1::frame::Frame;
use crate::v1::headers::Headers;
use crate::v1::incoming_calls::IncomingCalls;
use crate::v1::outgoing_calls::OutgoingCalls;
use crate::v1::side::Side;
use crate::v1::text::Reason;
use crate::v1::violation::Violation;

/// A frame that belongs to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFrame {
    /// A frame like [`Frame::Request`] or [`Frame::Call`].
    Start {
        /// The call's id.
        id: CallId,
        /// The call.
        call: Call,
    },
    /// A frame like [`Frame::Reset`].
    Reset {
        /// The call's id.
        id: CallId,
        /// Why, for people.
        reason: Reason,
    },
    /// A frame like [`Frame::Credit`].
    Credit {
        /// The call's id.
        id: CallId,
        /// The number of Items.
        items: u32,
    },
    /// A frame like [`Frame::Item`].
    Item {
        /// The call's id.
        id: CallId,
        /// The element.
        payload: Bytes,
    },
    /// A frame like [`Frame::Detached`].
    Detached {
        /// The call's id.
        id: CallId,
        /// The name of the stream.
        stream: Name,
    },
    /// The final frame, [`Frame::Response`] or [`Frame::Error`].
    Final {
        /// The call's id.
        id: CallId,
        /// The result.
        result: Result<Bytes, Error>,
    },
}

impl CallFrame {
    /// Returns the frame itself as the error if it does not belong to a call.
    pub(super) fn from_frame(frame: Frame) -> Result<Self, Frame> {
        Ok(match frame {
            Frame::Request { id, name, payload } => Self::Start { id, call: Call::new(name, payload) },
            Frame::Call { id, call } => Self::Start { id, call },
            Frame::Reset { id, reason } => Self::Reset { id, reason },
            Frame::Credit { id, items } => Self::Credit { id, items },
            Frame::Item { id, payload } => Self::Item { id, payload },
            Frame::Detached { id, stream } => Self::Detached { id, stream },
            Frame::Response { id, payload } => Self::Final { id, result: Ok(payload) },
            Frame::Error { id, error } => Self::Final { id, result: Err(error) },
            other => return Err(other),
        })
    }
}

/// What a [`CallFrame`] means. `I` and `O` are the values of incoming and outgoing calls.
#[derive(Debug, PartialEq, Eq)]
pub enum CallEvent<'a, I, O> {
    /// The peer makes a call. Pass it to [`IncomingCalls::start`], or send an Error at once.
    Start {
        /// The call's id.
        id: CallId,
        /// The call.
        call: Call,
        /// The call's headers.
        headers: Headers,
    },
    /// The peer makes a call that fails: its flags or headers are invalid, or too many calls are in
    /// flight. Send this frame.
    Refused(Frame),
    /// The peer cancels a call. Stop its work, then pass any result to [`IncomingCalls::finish`].
    Reset {
        /// The value of the call.
        call: &'a mut I,
        /// Why, for people.
        reason: Reason,
    },
    /// The peer accepts more Items.
    Credit {
        /// The value of the call.
        call: &'a mut I,
    },
    /// The peer sends one element of a call's result.
    Item {
        /// The value of the call.
        call: &'a mut O,
        /// The element.
        payload: Bytes,
    },
    /// A call continues under this name if the connection ends.
    Detached {
        /// The value of the call.
        call: &'a mut O,
        /// The name of the stream.
        stream: Name,
    },
    /// The peer ends a call.
    Final {
        /// The value of the call.
        call: O,
        /// The result.
        result: Result<Bytes, Error>,
    },
    /// The frame has no effect: its call is not in flight or is cancelled. Count it, because a peer can
    /// send any number of such frames.
    Ignored,
}

/// The calls of one connection, in both directions. Both ends use it.
#[derive(Debug)]
pub struct Calls<I, O> {
    side: Side,
    /// The calls that the peer makes.
    pub incoming: IncomingCalls<I>,
    /// The calls that this side makes.
    pub outgoing: OutgoingCalls<O>,
}

impl<I, O> Calls<I, O> {
    /// Creates the calls of a connection for this side, with the maximum number of concurrent calls in
    /// each direction. For a client, they are [`MAX_SERVER_CALLS`](crate::v1::MAX_SERVER_CALLS) and the
    /// Welcome's `max_calls`; for a server, they are the reverse.
    pub fn new(side: Side, max_incoming: usize, max_outgoing: usize) -> Self {
        Self { side, incoming: IncomingCalls::new(max_incoming), outgoing: OutgoingCalls::new(side, max_outgoing) }
    }

    /// Applies a frame of the peer.
    ///
    /// # Errors
    /// Returns [`Violation`] if the peer violated the protocol. Close the connection, and pass no more
    /// frames.
    pub fn receive(&mut self, frame: CallFrame) -> Result<CallEvent<'_, I, O>, Violation> {
        let event = match frame {
            CallFrame::Start { id, call } => {
                if self.side.makes(id) {
                    return Err(Violation::ForeignCallId(id));
                }
                Some(match self.incoming.admit(id, &call)? {
                    Ok(headers) => CallEvent::Start { id, call, headers },
                    Err(error) => CallEvent::Refused(Frame::Error { id, error }),
                })
            }
            CallFrame::Reset { id, reason } => self.incoming.on_reset(id).map(|call| CallEvent::Reset { call, reason }),
            CallFrame::Credit { id, items } => {
                self.incoming.on_credit(id, items).map(|call| CallEvent::Credit { call })
            }
            CallFrame::Item { id, payload } => self.outgoing.on_item(id)?.map(|call| CallEvent::Item { call, payload }),
            CallFrame::Detached { id, stream } => {
                self.outgoing.on_detached(id, &stream)?.map(|call| CallEvent::Detached { call, stream })
            }
            CallFrame::Final { id, result } => self.outgoing.on_final(id).map(|call| CallEvent::Final { call, result }),
        };
        Ok(event.unwrap_or(CallEvent::Ignored))
    }
}

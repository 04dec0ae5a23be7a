//! The client's end of a connection: it sends calls, and receives responses and events.

use std::collections::HashSet;

use bytes::Bytes;

use crate::call_table::CallId;
use crate::error::MalformedFrame;
use crate::frame::{Frame, Name};

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// An event.
    Notify {
        /// The event's name.
        name: Name,
        /// The event's payload.
        payload: Bytes,
    },
    /// The Response to a pending call.
    Answer {
        /// The call's id.
        id: CallId,
        /// The Response's payload.
        payload: Bytes,
    },
}

/// Assigns call ids and matches responses to calls. The caller frames the messages for WebSocket.
#[derive(Debug, Default)]
pub struct ClientConnection {
    next_id: u32,
    waiting: HashSet<CallId>,
}

impl ClientConnection {
    /// Creates the state of a connection whose handshake is done.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a call. Each id is one more than the previous one. Ids wrap around and skip those of
    /// pending calls.
    pub fn call(&mut self, name: Name, payload: Bytes) -> (CallId, Frame) {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            let id = CallId(self.next_id);
            if self.waiting.insert(id) {
                return (id, Frame::Request { id, name, payload });
            }
        }
    }

    /// Cancels a call and returns the frame to send, or `None` if its Response has already arrived.
    pub fn cancel(&mut self, id: CallId) -> Option<Frame> {
        self.waiting.remove(&id).then_some(Frame::Reset { id })
    }

    /// Reads a binary message. Returns `None` if it is the Response to a call that is no longer
    /// pending.
    ///
    /// # Errors
    /// Returns [`MalformedFrame`] if the message is not a frame, or if servers do not send such
    /// frames.
    pub fn on_message(&mut self, message: Bytes) -> Result<Option<ClientEvent>, MalformedFrame> {
        match Frame::decode(message)? {
            Frame::Notify { name, payload } => Ok(Some(ClientEvent::Notify { name, payload })),
            Frame::Response { id, payload } => {
                Ok(self.waiting.remove(&id).then_some(ClientEvent::Answer { id, payload }))
            }
            Frame::Request { .. } => Err(MalformedFrame::FromServer { kind: "Request" }),
            Frame::Reset { .. } => Err(MalformedFrame::FromServer { kind: "Reset" }),
        }
    }

    /// Returns the number of pending calls.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

//! The calls of one connection, and the one rule about their end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use thiserror::Error;

/// A call's id, chosen by the client, unique among the calls it has in flight on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u32);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The calls that a connection has in flight.
///
/// ```text
///                      answer ──▶ Answered   (its Response may be sent, once)
///   start ──▶ Running ─┤
///                      cancel ──▶ Cancelled  (no Response is ever sent)
/// ```
/// A call leaves the table with its outcome, so each has exactly one; a second attempt gets `None`.
/// `C` is the value that the caller stores with a running call, to stop it with.
#[derive(Debug)]
pub struct CallTable<C> {
    running: HashMap<CallId, (u64, C)>,
    started: u64,
    max_running: usize,
}

/// A running call: its id, and which of the calls with that id, since a client may use an id again
/// as soon as the call before has its Response or is Reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKey {
    id: CallId,
    serial: u64,
}

impl CallKey {
    /// The id on the wire.
    pub fn id(self) -> CallId {
        self.id
    }
}

/// The error of a call that was not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The client broke the protocol: the id is in flight.
    #[error("call id {0} is already in flight")]
    Duplicate(CallId),
    /// The connection has as many calls in flight as it may.
    #[error("this connection already has {max} calls in flight")]
    TooMany {
        /// The most calls that the connection may have in flight.
        max: usize,
    },
}

impl<C> CallTable<C> {
    /// Creates a table for at most `max_running` calls at once.
    pub fn new(max_running: usize) -> Self {
        Self { running: HashMap::new(), started: 0, max_running }
    }

    /// Checks whether the call of a Request may start.
    ///
    /// # Errors
    /// Returns [`StartError`] if the id is already in flight, or if too many calls are.
    pub fn admit(&self, id: CallId) -> Result<(), StartError> {
        if self.running.contains_key(&id) {
            return Err(StartError::Duplicate(id));
        }
        if self.running.len() >= self.max_running {
            return Err(StartError::TooMany { max: self.max_running });
        }
        Ok(())
    }

    /// Starts a call.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn start(&mut self, id: CallId, call: C) -> Result<CallKey, StartError> {
        self.admit(id)?;
        self.started += 1;
        self.running.insert(id, (self.started, call));
        Ok(CallKey { id, serial: self.started })
    }

    /// Answers a call. `None` means that the call was cancelled, so the Response must not be sent.
    pub fn answer(&mut self, key: CallKey) -> Option<C> {
        match self.running.entry(key.id) {
            Entry::Occupied(entry) if entry.get().0 == key.serial => Some(entry.remove().1),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// Cancels a call on a Reset. `None` means that the call is unknown or finished, and there is nothing to do.
    pub fn cancel(&mut self, id: CallId) -> Option<C> {
        self.running.remove(&id).map(|(_, call)| call)
    }

    /// Cancels every running call, at the end of the connection.
    pub fn cancel_all(&mut self) -> impl Iterator<Item = C> + use<C> {
        std::mem::take(&mut self.running).into_values().map(|(_, call)| call)
    }

    /// The running calls, in no order.
    pub fn running(&self) -> impl Iterator<Item = (CallKey, &C)> {
        self.running.iter().map(|(id, (serial, call))| (CallKey { id: *id, serial: *serial }, call))
    }

    /// Returns the number of running calls.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether no call is running.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

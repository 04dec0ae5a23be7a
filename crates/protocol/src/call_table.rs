//! The calls of one connection. Each has exactly one outcome.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use thiserror::Error;

/// A call's id. The client chooses it, and it is unique among the calls in flight on one
/// connection.
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
///
/// A call leaves the table with its outcome, so it has exactly one. A second attempt to answer or
/// cancel it returns `None`. `C` is the value that the caller stores with a running call, to stop
/// it.
#[derive(Debug)]
pub struct CallTable<C> {
    running: HashMap<CallId, (u64, C)>,
    started: u64,
    max_running: usize,
}

/// Identifies one running call. An id alone is not enough, because a client may reuse it as soon as
/// the previous call with that id has received its Response or was Reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKey {
    id: CallId,
    serial: u64,
}

impl CallKey {
    /// Returns the id on the wire.
    pub fn id(self) -> CallId {
        self.id
    }
}

/// The error of a call that was not started.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The client violated the protocol: a call with this id is already in flight.
    #[error("call id {0} is already in flight")]
    Duplicate(CallId),
    /// The connection already has the maximum number of calls in flight.
    #[error("this connection already has {max} calls in flight")]
    TooMany {
        /// The maximum.
        max: usize,
    },
}

impl<C> CallTable<C> {
    /// Creates a table for at most `max_running` concurrent calls.
    pub fn new(max_running: usize) -> Self {
        Self { running: HashMap::new(), started: 0, max_running }
    }

    /// Checks whether a Request may start its call.
    ///
    /// # Errors
    /// Returns [`StartError`] if a call with this id is already in flight, or if too many calls are
    /// in flight.
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
    /// Returns the errors of [`admit`](Self::admit).
    pub fn start(&mut self, id: CallId, call: C) -> Result<CallKey, StartError> {
        self.admit(id)?;
        self.started += 1;
        self.running.insert(id, (self.started, call));
        Ok(CallKey { id, serial: self.started })
    }

    /// Answers a call. Returns `None` if the call was cancelled; its Response must not be sent.
    pub fn answer(&mut self, key: CallKey) -> Option<C> {
        match self.running.entry(key.id) {
            Entry::Occupied(entry) if entry.get().0 == key.serial => Some(entry.remove().1),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        }
    }

    /// Returns a running call by its key.
    pub(crate) fn get(&self, key: CallKey) -> Option<&C> {
        self.running.get(&key.id).filter(|(serial, _)| *serial == key.serial).map(|(_, call)| call)
    }

    /// Returns a running call by its key, to change it.
    pub(crate) fn get_mut(&mut self, key: CallKey) -> Option<&mut C> {
        self.running.get_mut(&key.id).filter(|(serial, _)| *serial == key.serial).map(|(_, call)| call)
    }

    /// Returns the running call that has this id, to change it.
    pub(crate) fn find_mut(&mut self, id: CallId) -> Option<&mut C> {
        self.running.get_mut(&id).map(|(_, call)| call)
    }

    /// Cancels a call because of a Reset. Returns `None` if the call is unknown or has finished;
    /// there is nothing to do.
    pub fn cancel(&mut self, id: CallId) -> Option<C> {
        self.running.remove(&id).map(|(_, call)| call)
    }

    /// Cancels all running calls, at the end of the connection.
    pub fn cancel_all(&mut self) -> impl Iterator<Item = C> + use<C> {
        std::mem::take(&mut self.running).into_values().map(|(_, call)| call)
    }

    /// Returns the running calls, in no particular order.
    pub fn running(&self) -> impl Iterator<Item = (CallKey, &C)> {
        self.running.iter().map(|(id, (serial, call))| (CallKey { id: *id, serial: *serial }, call))
    }

    /// Returns the number of running calls.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Returns whether no call is running.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

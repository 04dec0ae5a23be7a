//! A room that a node reads.

use std::time::Instant;

use roomcast_core::{BrokerError, RoomName};
use tokio::sync::oneshot;

use crate::state::keys::{Keys, PROBES};
use crate::state::position::Reader;

/// A caller that waits for a subscription.
pub(crate) type Waiter = oneshot::Sender<Result<(), BrokerError>>;

/// The index of a server's session among the node's sessions.
pub(crate) type SessionIndex = usize;

/// The state of a room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) slot: u16,
    /// Until when a room that was left is kept. `None` means that the hub is subscribed, and events
    /// are delivered to it.
    pub(crate) kept_until: Option<Instant>,
    pub(crate) stage: Stage,
    pub(crate) reader: Reader,
    /// The callers that wait for the subscription, and until when.
    waiters: Vec<(Instant, Waiter)>,
}

/// The stage of a room's subscription.
/// [`Subscriptions`](crate::state::subscriptions::Subscriptions) has a diagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The room waits for its server.
    Queued,
    /// The subscription was requested from the server. The server may have confirmed it, but has
    /// not sent the position yet.
    Requested { session: SessionIndex, confirmed: bool },
    /// The room is being read.
    Subscribed { session: SessionIndex },
}

impl Stage {
    /// Returns the session of the server from which the room is read or was requested.
    pub(crate) fn session(self) -> Option<SessionIndex> {
        match self {
            Self::Queued => None,
            Self::Requested { session, .. } | Self::Subscribed { session } => Some(session),
        }
    }
}

impl Room {
    /// Creates a room that the hub subscribes to now.
    pub(crate) fn new(name: &RoomName) -> Self {
        let mut reader = Reader::default();
        if name.starts_with(PROBES) {
            // A probe room is new and has no position yet. Setting one makes the node read the
            // room's history as well, which proves that it has the permission to do so.
            reader.on_subscribed(None);
        }
        Self { slot: Keys::slot(name), kept_until: None, stage: Stage::Queued, reader, waiters: Vec::new() }
    }

    /// Adds a caller that waits for the subscription.
    pub(crate) fn wait(&mut self, deadline: Instant, waiter: Waiter) {
        self.waiters.push((deadline, waiter));
    }

    /// Answers the callers whose deadline has come by this time. A caller may no longer wait.
    pub(crate) fn answer_until(&mut self, now: Instant, answer: &Result<(), BrokerError>) {
        for (_, waiter) in self.waiters.extract_if(.., |(deadline, _)| *deadline <= now) {
            let _ = waiter.send(answer.clone());
        }
    }

    /// Answers all callers that the room is being read. A caller may no longer wait.
    pub(crate) fn answer_all(&mut self) {
        for (_, waiter) in self.waiters.drain(..) {
            let _ = waiter.send(Ok(()));
        }
    }
}

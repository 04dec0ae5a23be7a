//! One room that a node reads.

use std::time::Instant;

use roomcast_core::{BrokerError, RoomName};
use tokio::sync::oneshot;

use crate::state::keys::{Keys, PROBES};
use crate::state::position::Reader;

/// Who waits for a subscription.
pub(crate) type Waiter = oneshot::Sender<Result<(), BrokerError>>;

/// The place of a server's session among all sessions of the node.
pub(crate) type SessionIndex = usize;

/// What is known of a room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) slot: u16,
    /// Until when it is kept although it was left. `None`: the hub is subscribed, and its events are delivered.
    pub(crate) kept_until: Option<Instant>,
    pub(crate) stage: Stage,
    pub(crate) reader: Reader,
    /// Who waits for the subscription, and until when.
    waiters: Vec<(Instant, Waiter)>,
}

/// How far its subscription is; the diagram is with [`Subscriptions`](crate::state::subscriptions::Subscriptions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its server.
    Queued,
    /// It was requested from its server, which may have confirmed the subscription, but has not sent the position.
    Requested { session: SessionIndex, confirmed: bool },
    /// It is read.
    Subscribed { session: SessionIndex },
}

impl Stage {
    /// The session of the server that it is read from, or was requested from.
    pub(crate) fn session(self) -> Option<SessionIndex> {
        match self {
            Self::Queued => None,
            Self::Requested { session, .. } | Self::Subscribed { session } => Some(session),
        }
    }
}

impl Room {
    /// One that the hub subscribes to now.
    pub(crate) fn new(name: &RoomName) -> Self {
        let mut reader = Reader::default();
        if name.starts_with(PROBES) {
            // A probe room is new, so it has no position yet. Setting one makes the node read its history, too,
            // which proves the right to do so.
            reader.on_subscribed(None);
        }
        Self { slot: Keys::slot(name), kept_until: None, stage: Stage::Queued, reader, waiters: Vec::new() }
    }

    /// Somebody waits for its subscription.
    pub(crate) fn wait(&mut self, deadline: Instant, waiter: Waiter) {
        self.waiters.push((deadline, waiter));
    }

    /// Answers those whose deadline is not after that time. Who waited may have lost interest.
    pub(crate) fn answer_until(&mut self, now: Instant, answer: &Result<(), BrokerError>) {
        for (_, waiter) in self.waiters.extract_if(.., |(deadline, _)| *deadline <= now) {
            let _ = waiter.send(answer.clone());
        }
    }

    /// Answers all that it is read. Who waited may have lost interest.
    pub(crate) fn answer_all(&mut self) {
        for (_, waiter) in self.waiters.drain(..) {
            let _ = waiter.send(Ok(()));
        }
    }
}

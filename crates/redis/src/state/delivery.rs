//! Processes the messages of a node's rooms: decodes them, counts missing events, and collects the
//! events for the hub.

use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_core::{Publication, RoomName};

use crate::metrics::RedisMetrics;
use crate::state::message::Message;
use crate::state::position::Progress;
use crate::state::seal::Seal;

/// How often dropped messages are logged. Whoever sends them must not be able to fill the log.
const DROPPED_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The events that wait for the hub.
#[derive(Debug)]
pub(crate) struct Delivery {
    seal: Seal,
    metrics: RedisMetrics,
    /// When a dropped message was last logged.
    dropped_logged_at: Option<Instant>,
    events: Vec<Publication>,
}

impl Delivery {
    pub(crate) fn new(seal: Seal, metrics: RedisMetrics) -> Self {
        Self { seal, metrics, dropped_logged_at: None, events: Vec::new() }
    }

    /// Decodes a message of a room. Returns `None` if the message was dropped and counted.
    pub(crate) fn decode(&mut self, room: &RoomName, channel: &[u8], message: Bytes, now: Instant) -> Option<Message> {
        let error = match Message::decode(message, channel, &self.seal) {
            Ok(message) => return Some(message),
            Err(error) => error,
        };
        self.metrics.decode_errors.inc();
        if self.dropped_logged_at.is_none_or(|at| now.duration_since(at) >= DROPPED_LOG_INTERVAL) {
            self.dropped_logged_at = Some(now);
            tracing::warn!(%room, %error, "dropped a message on a room's channel; for 10 s, others are only counted");
        }
        None
    }

    /// Counts the results of a reader's step. Keeps its events for the hub if the hub is
    /// subscribed.
    pub(crate) fn deliver(&mut self, room: &RoomName, progress: Progress, is_wanted: bool) {
        self.metrics.repaired.inc_by(progress.repaired);
        self.metrics.duplicates.inc_by(progress.duplicates);
        self.metrics.history_resets.inc_by(u64::from(progress.history_reset));
        // Messages that nodes missed from each other are of no use later.
        if progress.lost > 0 && !room.is_of_nodes() {
            self.metrics.lost.inc_by(progress.lost);
            tracing::warn!(%room, events = progress.lost, "events were missed and are no longer in the history");
        }
        if is_wanted {
            let events = progress.events.into_iter();
            self.events.extend(events.map(|(origin, event)| event.into_publication(origin, room.clone())));
        }
    }

    /// Takes the events, in order.
    pub(crate) fn take_events(&mut self) -> Vec<Publication> {
        mem::take(&mut self.events)
    }
}

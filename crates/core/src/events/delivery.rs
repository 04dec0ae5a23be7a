//! When a node takes events from the store, and when it delivers them again. This module does no
//! I/O, and time is an argument.

use std::time::{Duration, Instant};

use crate::events::store::{Accepted, MAX_BATCH_EVENTS, Take, WaitingEvent};
use crate::id::NodeId;

/// How long a backend may take to accept a batch.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an event may wait for delivery before it is dead.
pub const MAX_EVENT_AGE: Duration = Duration::from_secs(24 * 3600);

/// How long the deliverer stays the only one after it has taken events. Longer than a delivery and
/// the pause before the next, so that two nodes never deliver at the same time.
const LEASE: Duration = Duration::from_secs(15);

/// How long events are collected for a batch.
const COLLECTION_TIME: Duration = Duration::from_millis(50);

/// How often a node that is not the deliverer tries to become it.
const CANDIDACY_INTERVAL: Duration = Duration::from_secs(1);

/// The first and the longest pause after a batch was not accepted.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often the lease is renewed during a longer pause.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// The deliveries of one node.
#[derive(Debug)]
pub(crate) struct Delivery {
    node: NodeId,
    /// The events that the backend has accepted and the store may still have.
    accepted: Vec<Accepted>,
    /// How many times in a row the backend has not accepted a batch.
    failures: u32,
    retry_at: Option<Instant>,
}

impl Delivery {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, accepted: Vec::new(), failures: 0, retry_at: None }
    }

    /// Returns the next request for events. During a pause, it only keeps the lease.
    pub(crate) fn next_take(&self, now: Instant) -> Take {
        let limit = if self.retry_at.is_some_and(|at| at > now) { 0 } else { MAX_BATCH_EVENTS };
        Take { node: self.node, lease: LEASE, accepted: self.accepted.clone(), limit, max_age: MAX_EVENT_AGE }
    }

    /// Returns a request that lets another node deliver.
    pub(crate) fn resign(&self) -> Take {
        Take { lease: Duration::ZERO, limit: 0, ..self.next_take(Instant::now()) }
    }

    /// Records that the store did not reply. Returns how long to wait.
    pub(crate) fn on_unavailable(&self) -> Duration {
        CANDIDACY_INTERVAL
    }

    /// Records that another node delivers. Returns how long to wait.
    pub(crate) fn on_other_deliverer(&mut self) -> Duration {
        *self = Self::new(self.node);
        CANDIDACY_INTERVAL
    }

    /// Records that there was nothing to deliver, or that a pause continues. Returns how long to
    /// wait.
    pub(crate) fn on_nothing(&mut self, now: Instant) -> Duration {
        self.accepted.clear();
        match self.retry_at {
            Some(at) if at > now => at.duration_since(now).min(RENEWAL_INTERVAL),
            _ => COLLECTION_TIME,
        }
    }

    /// Records that the backend has accepted a batch. Returns how long to wait.
    pub(crate) fn on_accepted(&mut self, events: Vec<WaitingEvent>) -> Duration {
        (self.failures, self.retry_at) = (0, None);
        self.accepted = events.into_iter().map(WaitingEvent::accepted).collect();
        if self.accepted.len() < MAX_BATCH_EVENTS { COLLECTION_TIME } else { Duration::ZERO }
    }

    /// Records that the backend has not accepted a batch.
    pub(crate) fn on_refused(&mut self, now: Instant) -> Duration {
        self.accepted.clear();
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures += 1;
        self.retry_at = Some(now + pause);
        pause.min(RENEWAL_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::{EventContent, LifecycleEvent};

    #[test]
    fn a_batch_that_is_not_accepted_waits_longer_each_time_and_keeps_the_lease() {
        let (mut delivery, mut now) = (Delivery::new(NodeId::from_u64(1)), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(delivery.next_take(now).limit, MAX_BATCH_EVENTS);
            let refused_at = now;
            let mut wait = delivery.on_refused(now);
            loop {
                now += wait;
                if delivery.next_take(now).limit > 0 {
                    break;
                }
                assert!(wait <= RENEWAL_INTERVAL);
                wait = delivery.on_nothing(now);
            }
            pauses.push(now.duration_since(refused_at).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let event = LifecycleEvent::new("id", 0, EventContent(Default::default()));
        let full = vec![WaitingEvent::new("7".to_owned(), event); MAX_BATCH_EVENTS];
        assert_eq!(delivery.on_accepted(full), Duration::ZERO);
        assert_eq!(delivery.next_take(now).accepted.len(), MAX_BATCH_EVENTS);
        delivery.on_other_deliverer();
        assert_eq!(delivery.next_take(now).accepted, [], "another node delivers them");
    }

    #[test]
    fn no_other_node_delivers_while_a_batch_may_be_under_way() {
        assert!(LEASE >= DELIVERY_TIMEOUT + CANDIDACY_INTERVAL);
        assert!(LEASE >= RENEWAL_INTERVAL * 2);
    }
}

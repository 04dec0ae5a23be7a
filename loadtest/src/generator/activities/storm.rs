//! Everybody loses the connection at once and comes back.

use std::time::Duration;

use crate::clock::{self, Nanos};
use crate::generator::fleet::Fleet;
use crate::generator::pacer::every;
use crate::scenario::Scenario;

use super::activity::Activity;

#[derive(Debug)]
pub(crate) struct Storming {
    /// Still to come, the next one last.
    times: Vec<Nanos>,
    spread: Duration,
}

impl Storming {
    pub(crate) fn new(scenario: &Scenario, start: Nanos, end: Nanos) -> Self {
        let mut times: Vec<_> = every(scenario.storm.every, start, end).collect();
        times.reverse();
        Self { times, spread: scenario.storm.spread }
    }
}

impl Activity for Storming {
    fn next_at(&mut self) -> Option<Nanos> {
        self.times.last().copied()
    }

    fn act(&mut self, now: Nanos, fleet: &mut Fleet) {
        if self.times.pop_if(|at| *at <= now).is_none() {
            return;
        }
        let spread = clock::nanos(self.spread);
        let count = fleet.len();
        for client in 0..count {
            let back_at = now + spread * Nanos::from(client) / Nanos::from(count);
            fleet.end(client, true, back_at, now);
        }
        fleet.clients.marks.push((now, "storm".to_owned()));
    }
}

//! Members that leave and join again, and connections that close and come back.

use crate::clock::Nanos;
use crate::generator::clients::Client;
use crate::generator::fleet::Fleet;
use crate::generator::pacer::{Pacer, Schedule};
use crate::scenario::Scenario;

use super::activity::Activity;

#[derive(Debug)]
pub(crate) struct Churning {
    leaves: Pacer,
    reconnects: Pacer,
}

impl Churning {
    pub(crate) fn new(scenario: &Scenario, fleet: &Fleet, schedule: &Schedule) -> Self {
        let part = f64::from(fleet.len()) / f64::from(scenario.connections);
        let phase = fleet.share.phase();
        let pacer = |rate: f64| Pacer::new(schedule.clone(), rate * part, phase);
        Self { leaves: pacer(scenario.churn.leaves), reconnects: pacer(scenario.churn.reconnects) }
    }
}

impl Activity for Churning {
    fn next_at(&mut self) -> Option<Nanos> {
        self.leaves.next_at().into_iter().chain(self.reconnects.next_at()).min()
    }

    fn act(&mut self, now: Nanos, fleet: &mut Fleet) {
        while let Some(planned) = self.leaves.take_due(now) {
            match fleet.any_usable(Client::room_to_leave) {
                Some((client, room)) => fleet.leave(client, room, planned, now),
                None => fleet.clients.recorder.counts.unsent += 1,
            }
        }
        while self.reconnects.take_due(now).is_some() {
            match fleet.any_usable(|_| Some(())) {
                Some((client, ())) => fleet.end(client, false, now, now),
                None => fleet.clients.recorder.counts.unsent += 1,
            }
        }
    }
}

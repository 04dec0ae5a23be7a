//! Publishing: room after room, and in each room publisher after publisher.

use crate::clock::Nanos;
use crate::generator::fleet::Fleet;
use crate::generator::pacer::{Pacer, Schedule};
use crate::scenario::{Publish, Scenario};

use super::activity::Activity;

#[derive(Debug)]
pub(crate) struct Publishing {
    pacer: Pacer,
    payload: usize,
    /// Counts the events.
    turn: usize,
}

impl Publishing {
    /// None if this process has no publishers.
    pub(crate) fn new(scenario: &Scenario, fleet: &Fleet, schedule: Schedule) -> Option<Self> {
        let Publish { rate, payload, .. } = scenario.publish;
        let rooms = &fleet.clients.rooms.all;
        let own: usize = rooms.iter().map(|room| room.placed.publishers.len()).sum();
        let in_all = f64::from(rooms.first()?.placed.publishers_in_all) * f64::from(scenario.publish.rooms);
        let rate = rate * own as f64 / in_all;
        let phase = fleet.share.phase();
        (own > 0).then(|| Self { pacer: Pacer::new(schedule, rate, phase), payload, turn: 0 })
    }

    fn publish(&self, planned: Nanos, now: Nanos, fleet: &mut Fleet) {
        let rooms = fleet.clients.rooms.all.len();
        let room = self.turn % rooms;
        let publishers = &fleet.clients.rooms.all[room].placed.publishers;
        let first = self.turn / rooms;
        // Whoever's turn it is, or the next one who is there.
        let found = (0..publishers.len())
            .map(|after| publishers[(first + after) % publishers.len()])
            .find(|(_, client)| fleet.is_usable(*client));
        match found {
            Some(publisher) => fleet.publish(room as u32, publisher, self.payload, planned, now),
            None => fleet.clients.recorder.counts.unsent += 1,
        }
    }
}

impl Activity for Publishing {
    fn next_at(&mut self) -> Option<Nanos> {
        self.pacer.next_at()
    }

    fn act(&mut self, now: Nanos, fleet: &mut Fleet) {
        while let Some(planned) = self.pacer.take_due(now) {
            self.publish(planned, now, fleet);
            self.turn += 1;
        }
    }
}

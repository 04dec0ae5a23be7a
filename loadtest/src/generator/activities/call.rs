//! Calls that are answered: connection after connection.

use roomcast_protocol::Name;

use crate::clock::Nanos;
use crate::generator::fleet::Fleet;
use crate::generator::pacer::{Pacer, Schedule};
use crate::scenario::Scenario;

use super::activity::Activity;

#[derive(Debug)]
pub(crate) struct Calling {
    pacer: Pacer,
    /// Each method with the sum of the weights up to it.
    methods: Vec<(Name, u32)>,
    turn: u32,
}

impl Calling {
    /// None if there are no methods.
    pub(crate) fn new(scenario: &Scenario, fleet: &Fleet, schedule: Schedule) -> Option<Self> {
        let mut sum = 0;
        let methods: Vec<_> = scenario
            .call
            .methods
            .iter()
            .filter_map(|(name, weight)| {
                sum += weight;
                Some((Name::new(name).ok()?, sum))
            })
            .collect();
        let share = fleet.share;
        let rate = scenario.call.rate * f64::from(fleet.len()) / f64::from(scenario.connections);
        (sum > 0).then(|| Self { pacer: Pacer::new(schedule, rate, share.phase()), methods, turn: 0 })
    }

    fn any_method(&self) -> Option<Name> {
        let (_, sum) = self.methods.last()?;
        let at = fastrand::u32(0..*sum);
        self.methods.iter().find(|(_, until)| at < *until).map(|(name, _)| name.clone())
    }
}

impl Activity for Calling {
    fn next_at(&mut self) -> Option<Nanos> {
        self.pacer.next_at()
    }

    fn act(&mut self, now: Nanos, fleet: &mut Fleet) {
        while let Some(planned) = self.pacer.take_due(now) {
            self.turn = (self.turn + 1) % fleet.len();
            let anybody = || fleet.any_usable(|_| Some(())).map(|(client, ())| client);
            let client = if fleet.is_usable(self.turn) { Some(self.turn) } else { anybody() };
            match (client, self.any_method()) {
                (Some(client), Some(name)) => fleet.call_method(client, name, planned, now),
                _ => fleet.clients.recorder.counts.unsent += 1,
            }
        }
    }
}

//! When what is planned: a pure function of the scenario, whatever the servers do (an open loop).

use std::time::Duration;

use crate::clock::{self, Nanos, SECOND};
use crate::scenario::Scenario;

/// The steps of a run.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) start: Nanos,
    /// How long a step takes.
    pub(crate) step: Duration,
    /// Each step's multiple of all rates.
    pub(crate) loads: Vec<f64>,
    /// Planned times are whole multiples of this after their step's start; 0: any.
    pub(crate) tick: Duration,
}

impl Schedule {
    /// What is measured of a scenario.
    pub(crate) fn new(scenario: &Scenario, start: Nanos) -> Self {
        Self { start, step: scenario.duration, loads: scenario.steps.clone(), tick: scenario.tick }
    }

    /// When it is over.
    pub(crate) fn end(&self) -> Nanos {
        self.step_start(self.loads.len())
    }

    /// The step that a time is in; none before the start. What comes after the end is the last one's.
    pub(crate) fn step_at(&self, time: Nanos) -> Option<usize> {
        let since = time.checked_sub(self.start)?;
        let step = since / self.step_nanos();
        Some((step as usize).min(self.loads.len().saturating_sub(1)))
    }

    pub(crate) fn step_start(&self, step: usize) -> Nanos {
        self.start + step as Nanos * self.step_nanos()
    }

    fn step_nanos(&self) -> Nanos {
        clock::nanos(self.step).max(1)
    }
}

/// The planned times of one kind of work: evenly spaced within each step.
#[derive(Debug)]
pub(crate) struct Pacer {
    schedule: Schedule,
    /// A second, at load 1.
    rate: f64,
    /// How far into its interval each time is: keeps several processes from acting at the same moment.
    phase: f64,
    step: usize,
    /// How many of the step's times have been taken.
    taken: u64,
}

impl Pacer {
    /// `phase` is in 0..1.
    pub(crate) fn new(schedule: Schedule, rate: f64, phase: f64) -> Self {
        Self { schedule, rate, phase, step: 0, taken: 0 }
    }

    /// The next planned time; none when there is no more.
    pub(crate) fn next_at(&mut self) -> Option<Nanos> {
        loop {
            let rate = self.rate * self.schedule.loads.get(self.step)?;
            let offset = (self.taken as f64 + self.phase) / rate * SECOND as f64;
            // Infinite, or not a number, at rate 0.
            if offset < self.schedule.step.as_nanos() as f64 {
                let tick = clock::nanos(self.schedule.tick).max(1);
                return Some(self.schedule.step_start(self.step) + offset as Nanos / tick * tick);
            }
            self.step += 1;
            self.taken = 0;
        }
    }

    /// Takes the next planned time if it has come.
    pub(crate) fn take_due(&mut self, now: Nanos) -> Option<Nanos> {
        let at = self.next_at().filter(|at| *at <= now)?;
        self.taken += 1;
        Some(at)
    }
}

/// Times that are `period` apart, within a run; none if it is zero.
pub(crate) fn every(period: Duration, start: Nanos, end: Nanos) -> impl Iterator<Item = Nanos> {
    let period = clock::nanos(period);
    let times = (1..).map(move |number| start + number * period).take_while(move |at| *at < end);
    times.take(if period == 0 { 0 } else { usize::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(loads: &[f64]) -> Schedule {
        Schedule { start: 1_000, step: Duration::from_secs(2), loads: loads.to_vec(), tick: Duration::ZERO }
    }

    fn all(mut pacer: Pacer) -> Vec<Nanos> {
        std::iter::from_fn(|| pacer.take_due(Nanos::MAX)).collect()
    }

    #[test]
    fn each_step_has_its_rate_times_its_load() {
        let times = all(Pacer::new(schedule(&[1.0, 0.0, 2.5]), 10.0, 0.0));
        let count = |step: u64| times.iter().filter(|time| (*time - 1_000) / (2 * SECOND) == step).count();
        assert_eq!([count(0), count(1), count(2)], [20, 0, 50]);
        assert_eq!(times[..3], [1_000, SECOND / 10 + 1_000, SECOND / 5 + 1_000]);
    }

    #[test]
    fn a_rate_of_zero_plans_nothing() {
        assert!(all(Pacer::new(schedule(&[1.0]), 0.0, 0.0)).is_empty());
    }

    #[test]
    fn processes_with_different_phases_take_turns() {
        let [mut first, mut second] = [0.0, 0.5].map(|phase| Pacer::new(schedule(&[1.0]), 1.0, phase));
        let times = [first.take_due(Nanos::MAX), second.take_due(Nanos::MAX), first.take_due(Nanos::MAX)];
        assert_eq!(times, [Some(1_000), Some(SECOND / 2 + 1_000), Some(SECOND + 1_000)]);
    }

    #[test]
    fn what_falls_into_a_tick_is_planned_for_its_beginning() {
        let schedule = Schedule { tick: Duration::from_millis(500), ..schedule(&[1.0]) };
        let times = all(Pacer::new(schedule, 5.0, 0.0));
        let at = |halves: u64| 1_000 + halves * SECOND / 2;
        assert_eq!(times, [at(0), at(0), at(0), at(1), at(1), at(2), at(2), at(2), at(3), at(3)]);
    }

    proptest! {
        #[test]
        fn times_do_not_depend_on_when_they_are_taken(rate in 0.1..5_000.0, loads in proptest::collection::vec(0.0..3.0, 0..4), phase in 0.0..1.0) {
            let times = all(Pacer::new(schedule(&loads), rate, phase));
            prop_assert!(times.is_sorted());
            let mut pacer = Pacer::new(schedule(&loads), rate, phase);
            for time in times {
                prop_assert_eq!(pacer.next_at(), Some(time));
                prop_assert_eq!(pacer.take_due(time - 1), None);
                prop_assert_eq!(pacer.take_due(time), Some(time));
            }
            prop_assert_eq!(pacer.next_at(), None);
        }
    }
}

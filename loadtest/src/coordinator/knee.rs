//! Which load is still carried: pure.

use std::collections::BTreeMap;

use crate::results::{Histograms, Latency, Operation, Step, main_operation};
use crate::scenario::Scenario;

/// A step keeps up if it gets through so much of what is offered.
const KEEPS_UP: f64 = 0.95;

/// The last step before one that is too slow, or falls behind.
pub(crate) fn knee(scenario: &Scenario, steps: &[Step]) -> Option<usize> {
    let keeps_up = |step: &&Step| keeps_up(scenario, step.offered, step.achieved, &step.operations);
    steps.iter().take_while(keeps_up).count().checked_sub(1)
}

/// Publishes and calls a second.
pub(crate) fn offered(scenario: &Scenario, load: f64) -> f64 {
    (scenario.publish.rate + scenario.call.rate) * load
}

fn keeps_up(scenario: &Scenario, offered: f64, achieved: f64, operations: &BTreeMap<Operation, Latency>) -> bool {
    let main = main_operation(operations).and_then(|main| operations.get(&main));
    let p99 = main.map_or(0, |latency| latency.p99);
    u128::from(p99) <= scenario.knee.as_micros() && achieved >= offered * KEEPS_UP
}

/// Whether a step that has just ended was before the knee, or at it, by what was told of so many of its seconds.
pub(crate) fn kept_up(scenario: &Scenario, load: f64, (told, seconds): &(Histograms, f64)) -> bool {
    let operations = told.latencies();
    let count = |operation| operations.get(&operation).map_or(0, |latency: &Latency| latency.count);
    let achieved = (count(Operation::Publish) + count(Operation::Call)) as f64 / seconds;
    keeps_up(scenario, offered(scenario, load), achieved, &operations)
}

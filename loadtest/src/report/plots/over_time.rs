//! Plots of what the generator saw over time.

use crate::results::{Interval, Operation, Results, ShortLatency, main_operation};

use super::axis::{Axis, Scale, Unit};
use super::plot::{Plot, Series};
use super::timeline::Timeline;

/// Of each operation its latency and its rate, the main one first; then what else there is.
pub(crate) fn plots(results: &Results) -> Vec<Plot> {
    let main = main_operation(&results.operations);
    let others = Operation::ALL.into_iter().filter(|operation| Some(*operation) != main);
    let is_seen =
        |operation: &Operation| results.intervals.iter().any(|interval| interval.operations.contains_key(operation));
    let operations = main.into_iter().chain(others).filter(is_seen);
    let mut plots = Vec::new();
    for operation in operations {
        plots.push(latency(results, operation));
        // Whatever is sent has a delay.
        if operation != Operation::SendDelay {
            plots.push(rate(results, operation));
        }
    }
    plots.push(connections(results));
    plots.extend(faults_and_errors(results));
    plots
}

fn latency(results: &Results, operation: Operation) -> Plot {
    let line = |name, colour, of: fn(&ShortLatency) -> u64| {
        // Less than a microsecond has no place on a logarithmic scale.
        let micros = |short: &ShortLatency| of(short).max(1) as f64;
        let points = points(results, |interval| interval.operations.get(&operation).map_or(f64::NAN, micros));
        Series::new(name, colour, points)
    };
    let series =
        vec![line("max", 5, |short| short.max), line("p99", 1, |short| short.p99), line("p50", 0, |short| short.p50)];
    let title = format!("{}: latency", operation.name());
    timeline(results, operation).plot(title, Axis::new(Unit::Micros, Scale::Log), series)
}

fn rate(results: &Results, operation: Operation) -> Plot {
    let count = |interval: &Interval| interval.operations.get(&operation).map_or(0, |short| short.count);
    let rates = points(results, |interval| count(interval) as f64 / results.interval);
    let title = format!("{}: rate", operation.name());
    timeline(results, operation).plot(title, per_second(), vec![Series::new("", 2, rates)])
}

fn connections(results: &Results) -> Plot {
    let points = points(results, |interval| interval.connections as f64);
    let y = Axis::new(Unit::Count, Scale::Linear);
    Timeline::whole(results).plot("connections", y, vec![Series::new("", 2, points)])
}

/// None if there were none.
fn faults_and_errors(results: &Results) -> Option<Plot> {
    let line = |name, colour, of: fn(&Interval) -> u64| {
        Series::new(name, colour, points(results, |interval| of(interval) as f64 / results.interval))
    };
    let series = vec![line("errors", 4, |interval| interval.errors), line("faults", 1, |interval| interval.faults)];
    let has_any = results.intervals.iter().any(|interval| interval.errors + interval.faults > 0);
    has_any.then(|| Timeline::whole(results).plot("errors and faults", per_second(), series))
}

fn points(results: &Results, figure: impl Fn(&Interval) -> f64) -> Vec<(f64, f64)> {
    results.intervals.iter().map(|interval| (interval.at, figure(interval))).collect()
}

fn per_second() -> Axis {
    Axis::new(Unit::PerSecond, Scale::Linear)
}

fn timeline(results: &Results, operation: Operation) -> Timeline {
    match operation {
        Operation::Connect | Operation::Join => Timeline::of(operation, results),
        _ => Timeline::measured(results),
    }
}

//! Runs side by side: what is better or worse than in the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::{self, printable};
use crate::results::{Latency, Operation, Results};

use super::keys::keys;
use super::table::Table;
use super::{tables, verdict};

/// A figure that all runs may have.
struct Figure {
    name: String,
    text: fn(f64) -> String,
    more_is_worse: bool,
    value: Box<Value>,
}

type Value = dyn Fn(&Results) -> Option<f64>;

/// What is worse by more is marked.
const TOLERANCE: f64 = 1.1;

/// The first run is what the others are compared with.
pub(crate) fn compare(runs: &[(String, Results)]) -> String {
    let Some((base, others)) = runs.split_first() else { return String::new() };
    let labels = runs.iter().map(|(label, _)| label.as_str());
    let head: Vec<&str> = [""].into_iter().chain(labels).collect();
    let mut table = Table::new(&head);
    for figure in figures(runs) {
        let values: Vec<Option<f64>> = runs.iter().map(|(_, results)| (figure.value)(results)).collect();
        if values.iter().any(Option::is_some) {
            table.rows.push(figure.row(&values));
        }
    }
    let mut text = table.text();
    text += "!  more than 10 % worse than the first run\n";
    for (label, results) in others {
        text += &differing_keys(&base.1, results, label);
    }
    for (label, results) in runs {
        let doubts = verdict::doubts(results);
        text.extend(doubts.iter().map(|doubt| format!("WARNING: {}: {doubt}\n", printable(label))));
    }
    text
}

impl Figure {
    fn row(&self, values: &[Option<f64>]) -> Vec<String> {
        let base = values.first().copied().flatten();
        let first = base.map_or("–".into(), self.text);
        let others = values[1..].iter().map(|value| value.map_or("–".into(), |value| self.compared(value, base)));
        [self.name.clone(), first].into_iter().chain(others).collect()
    }

    /// As wide with the mark as without, so that the ratios of a column are under each other.
    fn compared(&self, value: f64, base: Option<f64>) -> String {
        let ratio = base.filter(|base| *base > 0.0).map_or(String::new(), |base| format!("×{:.2}", value / base));
        let is_worse = base
            .is_some_and(|base| if self.more_is_worse { value > base * TOLERANCE } else { value * TOLERANCE < base });
        format!("{} {ratio:>7} {}", (self.text)(value), if is_worse { "!" } else { " " })
    }
}

fn figures(runs: &[(String, Results)]) -> Vec<Figure> {
    let operations: BTreeSet<Operation> = runs.iter().flat_map(|(_, run)| run.operations.keys().copied()).collect();
    let mut figures: Vec<Figure> = operations.into_iter().flat_map(of_operation).collect();
    figures.push(more_is_worse("faults", number, |run| Some(run.faults.total() as f64)));
    figures.push(more_is_worse("errors", number, |run| Some(run.errors.values().sum::<u64>() as f64)));
    figures.push(less_is_worse("connections", number, |run| Some(run.ramp.connections as f64)));
    figures.push(less_is_worse("connections opened", format::per_second, |run| Some(run.ramp.connections_per_second)));
    figures.push(more_is_worse("node memory per connection", format::bytes, |run| run.ramp.node_bytes_per_connection));
    figures.push(more_is_worse("node CPU per message", format::time, |run| run.cost.node_us_per_message));
    figures
        .push(more_is_worse("generator CPU per message", format::time, |run| Some(run.cost.generator_us_per_message)));
    figures.push(less_is_worse("knee", format::per_second, |run| Some(run.steps.get(run.knee?)?.offered)));
    figures
}

fn of_operation(operation: Operation) -> [Figure; 3] {
    let name = operation.name();
    let latency = |of: fn(&Latency) -> u64| move |run: &Results| Some(of(run.operations.get(&operation)?) as f64);
    let rate = move |run: &Results| tables::rate(operation, run.operations.get(&operation)?, run.seconds);
    [
        more_is_worse(&format!("{name} p50"), format::time, latency(|latency| latency.p50)),
        more_is_worse(&format!("{name} p99"), format::time, latency(|latency| latency.p99)),
        less_is_worse(&format!("{name} rate"), format::per_second, rate),
    ]
}

fn more_is_worse(name: &str, text: fn(f64) -> String, value: impl Fn(&Results) -> Option<f64> + 'static) -> Figure {
    Figure { name: name.into(), text, more_is_worse: true, value: Box::new(value) }
}

fn less_is_worse(name: &str, text: fn(f64) -> String, value: impl Fn(&Results) -> Option<f64> + 'static) -> Figure {
    Figure { more_is_worse: false, ..more_is_worse(name, text, value) }
}

fn number(number: f64) -> String {
    format::count(number as u64)
}

/// One line; nothing if all keys are the same, whatever the runs are called.
fn differing_keys(base: &Results, other: &Results, label: &str) -> String {
    let (base, other) = (keys(&base.scenario), keys(&other.scenario));
    let value = |of: &BTreeMap<String, String>, key: &str| of.get(key).cloned().unwrap_or_default();
    let names: BTreeSet<&String> = base.keys().chain(other.keys()).filter(|key| *key != "name").collect();
    let differing = names.into_iter().filter(|key| base.get(*key) != other.get(*key));
    let differing = differing.map(|key| format!("{key} {} → {}", value(&base, key), value(&other, key)));
    let differing = differing.collect::<Vec<_>>().join(", ");
    let line = || format!("WARNING: {} ran a different scenario: {}\n", printable(label), printable(&differing));
    if differing.is_empty() { String::new() } else { line() }
}

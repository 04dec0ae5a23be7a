//! What both the summary and the page show as tables.

use std::collections::BTreeMap;

use crate::format;
use crate::results::{Latency, Operation, Results, Step, main_operation};

use super::table::Table;

pub(super) fn operations(results: &Results) -> Table {
    let mut table = Table::new(&["operation", "count", "per second", "p50", "p90", "p99", "p99.9", "max"]);
    for (operation, latency) in &results.operations {
        let rate = rate(*operation, latency, results.seconds).map_or("–".into(), format::per_second);
        let mut row = vec![operation.name().into(), format::count(latency.count), rate];
        let micros = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
        row.extend(micros.map(|micros| format::time(micros as f64)));
        table.rows.push(row);
    }
    table
}

/// How often an operation was done a second; none for what is done when something else calls for it.
pub(super) fn rate(operation: Operation, latency: &Latency, seconds: f64) -> Option<f64> {
    use Operation::{Call, Cancel, Connect, Delivery, Join, Leave, Publish, Reconnect, SendDelay};
    let is_steady = match operation {
        Publish | Delivery | Call | Cancel | Leave => true,
        Connect | Join | Reconnect | SendDelay => false,
    };
    (is_steady && seconds > 0.0).then(|| latency.count as f64 / seconds)
}

pub(super) fn steps(results: &Results) -> Table {
    let mut table = Table::new(&["load", "offered", "achieved", "deliveries", "p50", "p99", ""]);
    for (index, step) in results.steps.iter().enumerate() {
        let latency = |of: fn(&Latency) -> u64| {
            let main = main_latency(&results.operations, step);
            main.map_or("–".into(), |latency| format::time(of(latency) as f64))
        };
        table.rows.push(vec![
            format!("×{}", format::plain(step.load)),
            format::per_second(step.offered),
            format::per_second(step.achieved),
            format::per_second(step.deliveries),
            latency(|latency| latency.p50),
            latency(|latency| latency.p99),
            if results.knee == Some(index) { "knee".into() } else { String::new() },
        ]);
    }
    table
}

/// The latency in a step of what is the main operation of its run.
pub(super) fn main_latency<'a>(run: &BTreeMap<Operation, Latency>, step: &'a Step) -> Option<&'a Latency> {
    step.operations.get(&main_operation(run)?)
}

/// Of the rooms with faults the worst `most`, with the faults that any of them has.
pub(super) fn faulty_rooms(results: &Results, most: usize) -> Table {
    let rooms = &results.faulty_rooms[..most.min(results.faulty_rooms.len())];
    let names = results.faults.named().map(|(name, _)| name);
    let has_any = |column: &usize| rooms.iter().any(|room| room.faults.named()[*column].1 > 0);
    let columns: Vec<usize> = (0..names.len()).filter(has_any).collect();
    let head: Vec<&str> = ["room"].into_iter().chain(columns.iter().map(|column| names[*column])).collect();
    let mut table = Table::new(&head);
    for room in rooms {
        let counts = columns.iter().map(|column| format::count(room.faults.named()[*column].1));
        table.rows.push([room.room.clone()].into_iter().chain(counts).collect());
    }
    table
}

pub(super) fn errors(results: &Results) -> Table {
    counts_table("error", &results.errors)
}

pub(super) fn closes(results: &Results) -> Table {
    counts_table("close", &results.closes)
}

fn counts_table(name: &str, counts: &BTreeMap<String, u64>) -> Table {
    let mut table = Table::new(&[name, "count"]);
    table.rows = by_count(counts).into_iter().map(|(what, count)| vec![what.into(), format::count(count)]).collect();
    table
}

/// The most frequent first.
pub(super) fn by_count(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut counts: Vec<(&str, u64)> = counts.iter().map(|(what, count)| (what.as_str(), *count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

/// What happened how often, whether or not it is an operation with a latency.
pub(super) fn counts(results: &Results) -> Table {
    let counts = &results.counts;
    let named = [
        ("connections opened", counts.connections_opened),
        ("published", counts.published),
        ("delivered", counts.delivered),
        ("called", counts.called),
        ("cancelled", counts.cancelled),
        ("unsent", counts.unsent),
        ("unexpected", counts.unexpected),
    ];
    let mut table = Table::new(&["what", "count"]);
    table.rows = named.into_iter().map(|(name, count)| vec![name.into(), format::count(count)]).collect();
    table
}

/// What the generator and the nodes used for the same messages, side by side.
pub(super) fn cost(results: &Results) -> Table {
    let cost = &results.cost;
    let of_nodes = |figure: Option<f64>, text: fn(f64) -> String| figure.map_or("–".into(), text);
    let rows = [
        ("messages", format::count(cost.messages), format::count(cost.messages)),
        (
            "CPU per message",
            format::time(cost.generator_us_per_message),
            of_nodes(cost.node_us_per_message, format::time),
        ),
        ("total CPU", cpu(cost.generator_cpu), of_nodes(cost.node_cpu, cpu)),
        ("CPU of the busiest process", format::percent(cost.generator_busy), "–".into()),
    ];
    let mut table = Table::new(&["cost", "generator", "nodes"]);
    table.rows = rows.into_iter().map(|(name, generator, nodes)| vec![name.into(), generator, nodes]).collect();
    table
}

fn cpu(seconds: f64) -> String {
    format::time(seconds * 1e6)
}

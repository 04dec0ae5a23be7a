//! A run's summary, for a terminal.

use std::collections::BTreeMap;

use crate::format::{self, printable};
use crate::results::{Faults, Results, ThresholdResult};

use super::{tables, verdict};

/// No more than these are named, so that the verdict is on the same page.
const ROOMS: usize = 5;
const ERRORS: usize = 5;
const URLS: usize = 3;

/// What was run, what it took, what went wrong. The last line is the verdict.
pub(crate) fn summary(results: &Results) -> String {
    let mut parts = vec![header(results), tables::operations(results).text(), facts(results)];
    if results.steps.len() > 1 {
        parts.push(tables::steps(results).text());
    }
    let doubts = verdict::doubts(results).into_iter().map(|doubt| format!("WARNING: {doubt}\n")).collect();
    parts.extend([thresholds(results), doubts, verdict::verdict(results) + "\n"]);
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn header(results: &Results) -> String {
    let (name, started) = (printable(&results.scenario.name), printable(&results.started));
    let more = results.urls.len().saturating_sub(URLS);
    let mut urls =
        results.urls[..results.urls.len() - more].iter().map(|url| printable(url)).collect::<Vec<_>>().join(", ");
    if more > 0 {
        urls += &format!(" and {more} more");
    }
    let seconds = format::elapsed(results.seconds);
    let mut text = format!("{name}: {seconds} measured, started {started}\n");
    text += &line("to", &urls);
    text += &line("by", &generators(results));
    text += &line("connections", &connections(results));
    text
}

pub(super) fn generators(results: &Results) -> String {
    printable(&format!("roomcast-loadtest {}, processes: {}", results.version, results.processes))
}

pub(super) fn connections(results: &Results) -> String {
    let ramp = &results.ramp;
    let (count, seconds) = (format::count(ramp.connections), format::elapsed(ramp.seconds));
    let speed = format::per_second(ramp.connections_per_second);
    let memory = ramp.node_bytes_per_connection.map(|bytes| format!(", {} of node memory each", format::bytes(bytes)));
    format!("{count} in {seconds}, {speed}{}", memory.unwrap_or_default())
}

/// One line each; the worst rooms are indented.
fn facts(results: &Results) -> String {
    let mut text = line("faults", &faults(&results.faults));
    text.extend(tables::faulty_rooms(results, ROOMS).text().lines().map(|row| line("", row)));
    let counts = &results.counts;
    for (name, count) in [("unsent", counts.unsent), ("unexpected", counts.unexpected)] {
        if count > 0 {
            text += &line(name, &format::count(count));
        }
    }
    text += &line("errors", &most_frequent(&results.errors));
    text += &line("closes", &most_frequent(&results.closes));
    text += &line("cost", &cost(results));
    text
}

/// Said even when there are none: it is what a run is made for.
pub(super) fn faults(faults: &Faults) -> String {
    let (none, some): (Vec<_>, Vec<_>) = faults.named().into_iter().partition(|(_, count)| *count == 0);
    if some.is_empty() {
        return format!("nothing {}", none.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
    }
    some.iter().map(|(name, count)| format!("{} {name}", format::count(*count))).collect::<Vec<_>>().join(", ")
}

fn most_frequent(counts: &BTreeMap<String, u64>) -> String {
    let counts = tables::by_count(counts);
    let named =
        counts.iter().take(ERRORS).map(|(what, count)| format!("{} × {}", format::count(*count), printable(what)));
    let mut named: Vec<String> = named.collect();
    if counts.len() > ERRORS {
        named.push(format!("{} other kinds", counts.len() - ERRORS));
    }
    if named.is_empty() { "none".into() } else { named.join(", ") }
}

fn cost(results: &Results) -> String {
    let cost = &results.cost;
    let nodes =
        cost.node_us_per_message.map_or("nodes unknown".into(), |micros| format!("{} nodes", format::time(micros)));
    let (messages, generator) = (format::count(cost.messages), format::time(cost.generator_us_per_message));
    let busy = format::percent(cost.generator_busy);
    format!(
        "{messages} messages; CPU per message: {generator} generator, {nodes}; busiest generator process: {busy} of a core"
    )
}

/// Those that passed, then those that failed.
fn thresholds(results: &Results) -> String {
    let mut text = String::new();
    for (name, passed) in [("passed", true), ("failed", false)] {
        let thresholds = results.thresholds.iter().filter(|threshold| threshold.passed == passed);
        let thresholds: Vec<String> = thresholds.map(threshold).collect();
        if !thresholds.is_empty() {
            text += &line(name, &thresholds.join(", "));
        }
    }
    text
}

fn threshold(result: &ThresholdResult) -> String {
    let ThresholdResult { threshold, found, .. } = result;
    let is_exact = threshold.ends_with(&format!("={found}"));
    printable(&if is_exact { threshold.clone() } else { format!("{threshold} ({found})") })
}

fn line(name: &str, what: &str) -> String {
    format!("{name:<12} {what}\n")
}

//! Whether a run passed, and whether its figures can be trusted.

use crate::format;
use crate::results::{Operation, Results, ThresholdResult, main_operation};

/// `PASSED`, or `FAILED` with each threshold that failed: `p99=80 ms (must be <50ms)`.
pub(super) fn verdict(results: &Results) -> String {
    if results.passed {
        return "PASSED".into();
    }
    let failed = results.thresholds.iter().filter(|threshold| !threshold.passed);
    let failed: Vec<String> = failed.map(failure).collect();
    if failed.is_empty() { "FAILED".into() } else { format!("FAILED: {}", failed.join(", ")) }
}

fn failure(result: &ThresholdResult) -> String {
    let threshold = &result.threshold;
    let (name, limit) = threshold.split_at(threshold.find(['<', '=', '>']).unwrap_or(threshold.len()));
    let limit = match limit.strip_prefix('=').unwrap_or(limit) {
        "" => "0",
        limit => limit,
    };
    format::printable(&format!("{name}={} (must be {limit})", result.found))
}

/// A generator that is busier than this was itself the limit.
const BUSY: f64 = 0.8;

/// Reasons why the figures may say less about the nodes than they seem to.
pub(super) fn doubts(results: &Results) -> Vec<String> {
    let mut doubts = Vec::new();
    if results.ended_early {
        doubts.push("the run was interrupted".into());
    }
    if results.cost.generator_busy > BUSY {
        let busy = format::percent(results.cost.generator_busy);
        doubts.push(format!("a generator process used {busy} of a CPU, so the figures show the limit of the generator, not of the nodes; add --processes"));
    }
    doubts.extend(late_sending(results));
    let failed: u64 = results.nodes.iter().map(|node| node.failed).sum();
    if failed > 0 {
        doubts.push(format!(
            "{} scrapes of node metrics failed, so plots and costs of the nodes have gaps",
            format::count(failed)
        ));
    }
    doubts
}

fn late_sending(results: &Results) -> Option<String> {
    let operation = main_operation(&results.operations)?;
    let delay = results.operations.get(&Operation::SendDelay)?.p99;
    let p99 = results.operations.get(&operation)?.p99;
    // Connections are not opened at planned times.
    let is_planned = operation != Operation::Connect && operation != Operation::Join;
    (is_planned && delay > p99 / 2).then(|| {
        let (delay, p99, name) = (format::time(delay as f64), format::time(p99 as f64), operation.name());
        format!(
            "p99 of {name} is {p99}, of which sending late is {delay}, so the figures show the limit of the generator, not of the nodes"
        )
    })
}

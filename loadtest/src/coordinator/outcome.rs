//! Puts together what the processes and the nodes told.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::clock::{Nanos, SECOND, since};
use crate::generator::{Findings, Schedule};
use crate::results::{
    Cost, Counts, CountsByName, FORMAT, Faults, FaultyRoom, Histograms, Latency, Mark, NodeSample, NodeSeries,
    Operation, Ramp, Results, Step, Thresholds,
};
use crate::scenario::Scenario;

use super::knee;
use super::scrape::{CPU_SECONDS, RESIDENT_BYTES, Scrape};
use super::timeline::Timeline;

/// A step that was cut off before so much of it was measured is left out.
const WORTH_A_STEP: f64 = 0.5;

/// What the user said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) scenario: Scenario,
    pub(crate) thresholds: Thresholds,
    pub(crate) urls: Vec<String>,
    pub(crate) metrics: Vec<String>,
    pub(crate) started: SystemTime,
    pub(crate) interval: Nanos,
}

/// All that was found, not yet put together.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) findings: Vec<Findings>,
    pub(crate) timeline: Timeline,
    pub(crate) scrapes: Vec<Vec<Scrape>>,
    /// When what is measured began.
    pub(crate) schedule: Schedule,
    /// When all connections were open; and when nothing more was sent.
    pub(crate) ramp: (Nanos, u64),
    pub(crate) stopped: Nanos,
    pub(crate) marks: Vec<Mark>,
    pub(crate) exec_failure: Option<String>,
    pub(crate) ended_early: bool,
}

/// The results of a run.
pub(crate) fn results(said: Said, gathered: &Gathered) -> Results {
    let Gathered { findings, schedule, timeline, .. } = gathered;
    let ramp_histograms = Histograms::merged(findings.iter().map(|findings| &findings.ramp));
    let step_histograms: Vec<_> = (0..schedule.loads.len())
        .map(|step| Histograms::merged(findings.iter().filter_map(|findings| findings.steps.get(step))))
        .collect();
    let mut all = ramp_histograms;
    for step in &step_histograms {
        all.merge(step);
    }
    let steps = steps(&said.scenario, schedule, gathered.stopped, &step_histograms);
    let knee = if schedule.loads.len() > 1 { knee::knee(&said.scenario, &steps) } else { None };
    let mut results = Results {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: humantime::format_rfc3339_seconds(said.started).to_string(),
        urls: said.urls,
        processes: findings.len(),
        ended_early: gathered.ended_early,
        seconds: since(gathered.stopped, schedule.start).max(0.0),
        ramp: ramp(gathered),
        steps,
        knee,
        operations: all.latencies(),
        counts: findings.iter().fold(Counts::default(), |sum, findings| sum.plus(findings.counts)),
        faults: findings.iter().fold(Faults::default(), |sum, findings| sum.plus(findings.faults)),
        faulty_rooms: faulty_rooms(findings),
        errors: names(findings.iter().map(|findings| &findings.errors)),
        exec_failure: gathered.exec_failure.clone(),
        closes: names(findings.iter().map(|findings| &findings.closes)),
        interval: said.interval as f64 / SECOND as f64,
        intervals: timeline.intervals(schedule.start),
        marks: gathered.marks.clone(),
        nodes: nodes(&said.metrics, &gathered.scrapes, schedule.start),
        cost: cost(gathered),
        thresholds: Vec::new(),
        passed: false,
        scenario: said.scenario,
    };
    results.thresholds = said.thresholds.evaluate(&results);
    results.passed = results.thresholds.iter().all(|threshold| threshold.passed);
    results
}

fn names<'a>(all: impl Iterator<Item = &'a CountsByName>) -> BTreeMap<String, u64> {
    let mut sum = CountsByName::default();
    all.for_each(|names| sum.merge(names));
    sum.0
}

fn steps(scenario: &Scenario, schedule: &Schedule, stopped: Nanos, histograms: &[Histograms]) -> Vec<Step> {
    let length = schedule.step.as_secs_f64();
    let end = since(stopped, schedule.start);
    let step = |(number, load): (usize, &f64)| {
        let from = number as f64 * length;
        let until = end.min(from + length);
        let seconds = until - from;
        let operations = histograms[number].latencies();
        let rate =
            |operation| operations.get(&operation).map_or(0.0, |latency: &Latency| latency.count as f64) / seconds;
        let offered = knee::offered(scenario, *load);
        let achieved = rate(Operation::Publish) + rate(Operation::Call);
        let deliveries = rate(Operation::Delivery);
        let step = Step { load: *load, from, until, offered, achieved, deliveries, operations };
        // A run of one step has it, however short it was.
        (seconds > 0.0 && (seconds >= length * WORTH_A_STEP || schedule.loads.len() == 1)).then_some(step)
    };
    schedule.loads.iter().enumerate().filter_map(step).collect()
}

fn ramp(gathered: &Gathered) -> Ramp {
    let (time, connections) = gathered.ramp;
    let seconds = time as f64 / SECOND as f64;
    let start = gathered.schedule.start;
    // The first look, and the last one before what is measured begins.
    let growth = |scrapes: &Vec<Scrape>| {
        let first = scrapes.first()?.value(RESIDENT_BYTES)?;
        let open = scrapes.iter().rev().find(|scrape| scrape.at <= start)?;
        Some(open.value(RESIDENT_BYTES)? - first)
    };
    let growths: Option<Vec<f64>> = gathered.scrapes.iter().map(growth).collect();
    let growth = growths.filter(|growths| !growths.is_empty() && connections > 0);
    Ramp {
        connections,
        seconds,
        connections_per_second: if seconds > 0.0 { connections as f64 / seconds } else { 0.0 },
        node_bytes_per_connection: growth.map(|growths| growths.iter().sum::<f64>() / connections as f64),
    }
}

fn cost(gathered: &Gathered) -> Cost {
    let findings = &gathered.findings;
    let messages: u64 = findings.iter().map(|findings| findings.messages).sum();
    let generator_cpu: f64 = findings.iter().map(|findings| findings.cpu).sum();
    let busy = |findings: &Findings| if findings.seconds > 0.0 { findings.cpu / findings.seconds } else { 0.0 };
    let node_cpu: Option<Vec<f64>> = gathered.scrapes.iter().map(|scrapes| node_cpu(gathered, scrapes)).collect();
    let node_cpu: Option<f64> = node_cpu.filter(|nodes| !nodes.is_empty()).map(|nodes| nodes.iter().sum());
    let per_message = |cpu: f64| if messages > 0 { cpu * 1e6 / messages as f64 } else { 0.0 };
    Cost {
        messages,
        generator_cpu,
        generator_us_per_message: per_message(generator_cpu),
        generator_busy: findings.iter().map(busy).fold(0.0, f64::max),
        node_cpu,
        node_us_per_message: node_cpu.map(per_message),
    }
}

/// A node's CPU seconds while it was measured: between the looks that are nearest, brought to the same length.
fn node_cpu(gathered: &Gathered, scrapes: &[Scrape]) -> Option<f64> {
    let (start, stop) = (gathered.schedule.start, gathered.stopped);
    let nearest = |to: Nanos| {
        let answered = scrapes.iter().filter(|scrape| scrape.values.is_some());
        answered.min_by_key(|scrape| scrape.at.abs_diff(to))
    };
    let (first, last) = (nearest(start)?, nearest(stop)?);
    let used = last.value(CPU_SECONDS)? - first.value(CPU_SECONDS)?;
    // A node that was restarted meanwhile counts from 0 again.
    (last.at > first.at && used >= 0.0).then(|| used * since(stop, start) / since(last.at, first.at))
}

fn faulty_rooms(findings: &[Findings]) -> Vec<FaultyRoom> {
    let mut rooms: BTreeMap<&str, Faults> = BTreeMap::new();
    for room in findings.iter().flat_map(|findings| &findings.faulty_rooms) {
        let faults = rooms.entry(&room.room).or_default();
        *faults = faults.plus(room.faults);
    }
    let named = rooms.into_iter().map(|(room, faults)| FaultyRoom { room: room.to_owned(), faults });
    FaultyRoom::worst(named.collect())
}

fn nodes(urls: &[String], scrapes: &[Vec<Scrape>], start: Nanos) -> Vec<NodeSeries> {
    let series = |(url, scrapes): (&String, &Vec<Scrape>)| {
        let sample = |scrape: &Scrape| Some(NodeSample { at: since(scrape.at, start), values: scrape.values.clone()? });
        let samples: Vec<_> = scrapes.iter().filter_map(sample).collect();
        NodeSeries { url: url.clone(), failed: (scrapes.len() - samples.len()) as u64, samples }
    };
    urls.iter().zip(scrapes).map(series).collect()
}

//! What is shown while a run goes on: one screen on a terminal, now and then a line elsewhere.

use std::io::{IsTerminal, Write, stderr};

use crate::clock::{MILLISECOND, Nanos, SECOND, since};
use crate::format;
use crate::generator::{Assignment, Schedule};
use crate::results::Operation;

use super::scrape::{CPU_SECONDS, RESIDENT_BYTES, Scrape};
use super::timeline::Timeline;

/// How often a terminal is painted, and how often a line is written elsewhere.
const REPAINT: Nanos = 500 * MILLISECOND;
const LINE: Nanos = 10 * SECOND;

/// Back to the beginning of the line, so many lines up, and clear what is below.
const UP: &str = "\x1b[1F";
const CLEAR: &str = "\r\x1b[J";

#[derive(Debug)]
pub(crate) struct Screen {
    is_shown: bool,
    is_terminal: bool,
    title: String,
    connections: u32,
    interval: Nanos,
    schedule: Option<Schedule>,
    next_at: Nanos,
    /// Lines that stand there.
    painted: usize,
}

impl Screen {
    pub(crate) fn new(is_shown: bool, assignment: &Assignment) -> Self {
        let hosts: Vec<_> = assignment.targets.iter().map(|target| target.authority.as_str()).collect();
        Self {
            is_shown,
            is_terminal: stderr().is_terminal(),
            title: format!("{} against {}", assignment.scenario.name, hosts.join(", ")),
            connections: assignment.scenario.connections,
            interval: assignment.interval,
            schedule: None,
            next_at: 0,
            painted: 0,
        }
    }

    /// What is measured is planned.
    pub(crate) fn start(&mut self, schedule: &Schedule) {
        self.schedule = Some(schedule.clone());
    }

    /// Shows how it stands, if it is time.
    pub(crate) fn show(&mut self, now: Nanos, timeline: &Timeline, scrapes: &[Vec<Scrape>]) {
        if !self.is_shown || now < self.next_at {
            return;
        }
        self.next_at = now + if self.is_terminal { REPAINT } else { LINE };
        let mut lines = vec![self.headline(now, timeline)];
        lines.extend(self.operations(timeline));
        lines.extend(nodes(scrapes));
        // A terminal that is gone does not matter.
        let mut out = stderr().lock();
        let _ = match self.is_terminal {
            true => {
                let up = UP.repeat(self.painted);
                self.painted = lines.len();
                writeln!(out, "{up}{CLEAR}{}", lines.join("\n"))
            }
            false => writeln!(out, "{}", lines.join(" | ")),
        };
    }

    /// What is printed from now on stands below.
    pub(crate) fn end(&mut self) {
        self.painted = 0;
        self.is_shown = false;
    }

    fn headline(&self, now: Nanos, timeline: &Timeline) -> String {
        let phase = match &self.schedule {
            None => "opening connections".to_owned(),
            Some(schedule) if now > schedule.end() => "waiting for responses and events".to_owned(),
            Some(schedule) => {
                let load = schedule.loads.get(schedule.step_at(now).unwrap_or(0)).copied().unwrap_or_default();
                let whole = since(schedule.end(), schedule.start);
                format!("{:.0} of {whole:.0} s, load {load}", since(now, schedule.start).max(0.0))
            }
        };
        let (open, errors, faults) = (timeline.connections(), timeline.errors(), timeline.faults());
        let busy = timeline.busy() * 100.0;
        format!(
            "{}: {phase} | {open} of {} connections | errors {errors}, faults {faults} | generator {busy:.0}% of a CPU",
            self.title, self.connections
        )
    }

    fn operations(&self, timeline: &Timeline) -> Vec<String> {
        let Some(histograms) = timeline.latest() else { return Vec::new() };
        let seconds = self.interval as f64 / SECOND as f64;
        let shown = Operation::ALL.into_iter().filter_map(|operation| {
            let histogram = histograms.get(operation)?;
            let [p50, p99, max] =
                [histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99), histogram.max()]
                    .map(|micros| format::time(micros as f64));
            let rate = histogram.len() as f64 / seconds;
            Some(format!("  {:<10} {rate:>9.0}/s  p50 {p50}  p99 {p99}  max {max}", operation.name()))
        });
        shown.collect()
    }
}

fn nodes(scrapes: &[Vec<Scrape>]) -> Option<String> {
    let mut cpu = 0.0;
    let mut memory = 0.0;
    for [before, last] in scrapes.iter().filter_map(|scrapes| scrapes.last_chunk()) {
        if let (Some(until_then), Some(until_now)) = (before.value(CPU_SECONDS), last.value(CPU_SECONDS)) {
            cpu += (until_now - until_then) / since(last.at, before.at);
            memory += last.value(RESIDENT_BYTES).unwrap_or_default();
        }
    }
    (memory > 0.0).then(|| format!("  nodes      {:.0}% of a CPU, {:.0} MiB", cpu * 100.0, memory / f64::from(1 << 20)))
}

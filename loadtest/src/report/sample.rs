//! A run for tests: a chat of five steps over two nodes, with a storm and a node that is started again.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::results::{
    Cost, Counts, Faults, FaultyRoom, Interval, Latency, Mark, NodeSample, NodeSeries, Operation, Ramp, Results,
    ShortLatency, Step, ThresholdResult,
};
use crate::scenario::Scenario;

const LOADS: [f64; 5] = [1.0, 2.0, 4.0, 6.0, 8.0];
const STEP_SECONDS: f64 = 11.0;
const SECONDS: f64 = 55.0;
const STORM: f64 = 25.0;

pub(super) fn chat() -> Results {
    Results {
        ramp: Ramp {
            connections: 1000,
            seconds: 5.2,
            connections_per_second: 192.3,
            node_bytes_per_connection: Some(21_811.0),
        },
        steps: LOADS.iter().zip(0..).map(|(load, index)| step(*load, f64::from(index) * STEP_SECONDS)).collect(),
        knee: Some(3),
        operations: [
            (Operation::Connect, latency(850.0, 1000)),
            (Operation::Join, latency(1200.0, 1000)),
            (Operation::Publish, latency(900.0, 230_000)),
            (Operation::Delivery, latency(1900.0, 2_310_000)),
            (Operation::Reconnect, latency(300_000.0, 1000)),
            (Operation::SendDelay, latency(60.0, 230_000)),
        ]
        .into(),
        counts: Counts { unsent: 12, published: 230_000, delivered: 2_310_000, ..Counts::default() },
        faults: Faults { lost: 3, duplicated: 1, ..Faults::default() },
        faulty_rooms: vec![
            FaultyRoom { room: "room:17".into(), faults: Faults { lost: 3, ..Faults::default() } },
            FaultyRoom { room: HOSTILE.into(), faults: Faults { duplicated: 1, ..Faults::default() } },
        ],
        errors: [("publish UNAVAILABLE".into(), 42), ("connect refused".into(), 7), (HOSTILE.into(), 1)].into(),
        exec_failure: None,
        closes: [("1006".into(), 500), ("1012".into(), 500)].into(),
        intervals: (-4..=55).map(|second| interval(f64::from(second))).collect(),
        marks: vec![Mark { at: STORM, what: "storm".into() }, Mark { at: 40.0, what: "exec: restart <b>".into() }],
        nodes: vec![node("http://127.0.0.1:3001/metrics", 1.0), node("http://127.0.0.1:3011/metrics", 0.8)],
        cost: Cost {
            messages: 2_780_000,
            generator_cpu: 22.4,
            generator_us_per_message: 8.06,
            generator_busy: 0.63,
            node_cpu: Some(48.9),
            node_us_per_message: Some(17.6),
        },
        thresholds: vec![
            threshold("lost=0", "3", false),
            threshold("duplicated=0", "1", false),
            threshold("reordered=0", "0", true),
            threshold("unsent>=0", "12", true),
            threshold("p99<50ms", "80 ms", false),
        ],
        processes: 2,
        urls: vec!["ws://127.0.0.1:3000/socket".into(), "ws://127.0.0.1:3010/socket".into()],
        seconds: SECONDS,
        ..nothing()
    }
}

/// What comes from outside may try to be more than text.
pub(super) const HOSTILE: &str = "<script>alert('\"&')</script>\n\u{1b}[2JPASSED";

/// A run in which nothing happened.
pub(super) fn nothing() -> Results {
    Results {
        format: crate::results::FORMAT,
        version: "0.1.0".into(),
        started: "2026-01-02T03:04:05Z".into(),
        scenario: scenario(),
        urls: Vec::new(),
        processes: 0,
        ended_early: false,
        seconds: 0.0,
        ramp: Ramp::default(),
        steps: Vec::new(),
        knee: None,
        operations: BTreeMap::new(),
        counts: Counts::default(),
        faults: Faults::default(),
        faulty_rooms: Vec::new(),
        errors: BTreeMap::new(),
        exec_failure: None,
        closes: BTreeMap::new(),
        interval: 1.0,
        intervals: Vec::new(),
        marks: Vec::new(),
        nodes: Vec::new(),
        cost: Cost::default(),
        thresholds: Vec::new(),
        passed: false,
    }
}

fn scenario() -> Scenario {
    let mut scenario: Scenario = toml::from_str(include_str!("../../scenarios/defaults.toml")).unwrap();
    scenario.name = "chat".into();
    scenario.steps = LOADS.into();
    scenario.publish.rate = 1000.0;
    scenario.publish.rooms = 100;
    scenario
}

/// From 1 µs on evenly to `most`.
pub(super) fn histogram_to(most: u64) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).unwrap();
    (1..=most).for_each(|micros| histogram.record(micros).unwrap());
    histogram
}

/// With a long tail, as latencies have.
fn latency(median: f64, count: u64) -> Latency {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    let parts = count.min(10_000);
    for part in 1..=parts {
        let tail = (1.0 - part as f64 / (parts + 1) as f64).powf(-0.4);
        histogram.record_n((median * 0.76 * tail) as u64, count / parts).unwrap();
    }
    Latency::of(&histogram)
}

fn step(load: f64, from: f64) -> Step {
    let offered = 1000.0 * load;
    let achieved = offered.min(6500.0);
    let median = 900.0 * (1.0 + load * load / 5.0);
    Step {
        load,
        from,
        until: from + STEP_SECONDS,
        offered,
        achieved,
        deliveries: achieved * 10.0,
        operations: [(Operation::Delivery, latency(median, (achieved * STEP_SECONDS * 10.0) as u64))].into(),
    }
}

fn interval(at: f64) -> Interval {
    let load = if at <= 0.0 { 0.0 } else { LOADS[((at - 1.0) / STEP_SECONDS) as usize] };
    let is_storm = (STORM + 1.0..STORM + 3.0).contains(&at);
    let wobble = 1.0 + 0.2 * (at * 1.7).sin() + if is_storm { 20.0 } else { 0.0 };
    let short = |micros: f64, count: f64| ShortLatency {
        count: (count * (1.0 + 0.03 * (at * 2.3).sin())) as u64,
        p50: micros as u64,
        p99: (micros * 3.5 * wobble) as u64,
        max: (micros * 9.0 * wobble) as u64,
    };
    let operations = if at <= 0.0 {
        vec![(Operation::Connect, short(850.0, 200.0)), (Operation::Join, short(1200.0, 200.0))]
    } else {
        let delivery = 900.0 * (1.0 + load * load / 5.0);
        let mut operations = vec![
            (Operation::Publish, short(delivery / 2.0, 1000.0 * load)),
            (Operation::Delivery, short(delivery, 10_000.0 * load)),
            (Operation::SendDelay, short(60.0, 1000.0 * load)),
        ];
        if is_storm {
            operations.push((Operation::Reconnect, short(30_000.0, 500.0)));
        }
        operations
    };
    Interval {
        at,
        connections: if at <= 0.0 {
            (1000.0 + at * 200.0) as u64
        } else if is_storm {
            480
        } else {
            1000
        },
        operations: operations.into_iter().collect(),
        errors: if is_storm { 25 } else { 0 },
        faults: if at == STORM + 1.0 { 4 } else { 0 },
    }
}

/// Started again at 40 s.
fn node(url: &str, share: f64) -> NodeSeries {
    let seconds = (-4..=55).filter(|second| !(40..44).contains(second));
    let sample = |second: i32| {
        let at = f64::from(second);
        let since = if second < 40 { at + 5.0 } else { at - 43.0 };
        let load = 1.0 + at.max(0.0) / STEP_SECONDS;
        let values = [
            ("process_cpu_seconds_total", 0.15 * share * since * load),
            ("process_resident_memory_bytes", 24e6 + 4e6 * share * since.min(5.0)),
            ("process_start_time_seconds", if second < 40 { 1.7e9 } else { 1.8e9 }),
            ("process_open_fds", 20.0 + 100.0 * share * since.min(5.0)),
            ("roomcast_broker_gaps_total", 0.0),
            ("roomcast_broker_up", 1.0),
            ("roomcast_calls_in_flight", (at * 3.0).sin().abs() * 4.0),
            ("roomcast_connections", 100.0 * share * since.min(5.0)),
            ("roomcast_deliveries_total", 5_000.0 * share * since * load),
            ("roomcast_delivery_latency_seconds_count", 1_000.0 * since * load),
            ("roomcast_delivery_latency_seconds_sum", 1.1 * share * since * load),
            ("roomcast_outbound_queue_bytes", (at * 2.0).cos().abs() * 30_000.0 * load),
            ("roomcast_publishes_total", 500.0 * share * since * load),
        ];
        NodeSample { at, values: values.map(|(name, value)| (name.into(), value)).into() }
    };
    NodeSeries { url: url.into(), samples: seconds.map(sample).collect(), failed: 4 }
}

fn threshold(threshold: &str, found: &str, passed: bool) -> ThresholdResult {
    ThresholdResult { threshold: threshold.into(), found: found.into(), passed }
}

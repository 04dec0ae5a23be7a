//! Tests of the reports as wholes.

use super::*;
use crate::results::{Interval, Latency, Operation, Results};

#[test]
fn the_summary_ends_with_what_failed() {
    let text = summary(&sample::chat());
    let verdict = "FAILED: lost=3 (must be 0), duplicated=1 (must be 0), p99=80 ms (must be <50ms)";
    assert_eq!(text.lines().last(), Some(verdict), "{text}");
    assert!(text.lines().count() <= 45, "{text}");
    let passed = Results { passed: true, ..sample::nothing() };
    assert!(summary(&passed).contains("nothing lost, duplicated,"));
    assert_eq!(summary(&passed).lines().last(), Some("PASSED"));
}

#[test]
fn what_comes_from_outside_stays_text() {
    let mut results = sample::chat();
    for text in [&mut results.scenario.name, &mut results.urls[0], &mut results.nodes[0].url, &mut results.started] {
        *text = sample::HOSTILE.into();
    }
    results.thresholds[0].found = sample::HOSTILE.into();
    let runs = [(sample::HOSTILE.into(), results.clone())];
    for markup in [html(&results), curve(&runs)] {
        assert!(!markup.contains("<script>") && !markup.contains("alert('"), "{markup}");
        assert!(markup.contains("&lt;script&gt;alert(&#39;"), "{markup}");
    }
    for text in [summary(&results), compare(&runs)] {
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(text.lines().all(|line| !line.ends_with("PASSED") || line.contains("<script>")), "{text}");
    }
}

#[test]
fn nothing_is_no_reason_to_panic_or_to_divide_by_zero() {
    let zeros = Results { operations: [(Operation::Call, Latency::zero())].into(), ..sample::chat() };
    let without_length = Results { interval: 0.0, seconds: 0.0, ..sample::chat() };
    for results in [sample::nothing(), zeros, without_length] {
        let runs = [("one".into(), results.clone()), ("two".into(), sample::chat())];
        for text in [html(&results), summary(&results), curve(&runs[..1]), compare(&runs), compare(&runs[..1])] {
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
    assert_eq!(compare(&[]), "");
    assert!(curve(&[]).ends_with("</svg>\n"));
}

#[test]
fn a_comparison_marks_what_is_worse_and_names_the_keys_that_differ() {
    let base = sample::chat();
    let mut other = base.clone();
    other.scenario.publish.rate = 2000.0;
    other.operations.insert(Operation::Publish, Latency::of(&sample::histogram_to(100_000)));
    other.ramp.connections_per_second *= 1.5;
    let text = compare(&[("base".into(), base), ("other".into(), other)]);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert!(line("publish p99").ends_with('!'), "{text}");
    assert!(line("connections opened").ends_with("×1.50"), "{text}");
    assert!(line("delivery p99").ends_with("×1.00"), "{text}");
    assert_eq!(line("WARNING: other ran"), "WARNING: other ran a different scenario: publish.rate 1000 → 2000");
}

#[test]
fn a_curve_shows_the_knee_and_what_was_not_reached() {
    let svg = curve(&[("file".into(), sample::chat())]);
    assert_eq!(svg.matches("s0 full").count(), 4, "{svg}");
    assert_eq!(svg.matches("s0 hollow").count(), 1, "{svg}");
    assert!(svg.contains(">knee<") && svg.contains("knee at 6,000/s ("), "{svg}");
    assert!(svg.contains("35.3 ms<"), "{svg}");
}

#[test]
fn a_generator_that_is_too_busy_or_too_late_is_warned_of() {
    let mut results = sample::chat();
    assert!(!summary(&results).contains("limit of the generator"));
    results.operations.insert(Operation::SendDelay, Latency::of(&sample::histogram_to(9_000)));
    results.cost.generator_busy = 0.93;
    let text = summary(&results);
    assert!(text.contains("WARNING: a generator process used 93 % of a CPU"), "{text}");
    assert!(text.contains("p99 of delivery is") && text.contains("limit of the generator"), "{text}");
}

#[test]
fn the_page_of_a_long_run_is_small() {
    let mut results = sample::chat();
    let interval = results.intervals[10].clone();
    let intervals = (0..2000).map(|index| Interval { at: f64::from(index), ..interval.clone() });
    results.intervals = intervals.collect();
    results.nodes = results.nodes.into_iter().cycle().take(8).collect();
    for node in &mut results.nodes {
        let mut sample = node.samples[10].clone();
        sample.values = (0..30).map(|metric| (format!("roomcast_metric_{metric}"), 0.0)).collect();
        let samples = (0..2000).map(|second| {
            let mut sample = sample.clone();
            sample.at = f64::from(second);
            sample.values.values_mut().for_each(|value| *value = f64::from(second * 7 % 31));
            sample
        });
        node.samples = samples.collect();
    }
    let size = html(&results).len();
    assert!(size < 1_000_000, "{size} bytes");
}

impl Latency {
    fn zero() -> Self {
        Self { count: 0, mean: 0.0, min: 0, p50: 0, p90: 0, p99: 0, p999: 0, max: 0, histogram: String::new() }
    }
}

//! Thresholds: what a run must keep, and whether it did.
//!
//! A threshold compares a value of the results with a limit, such as `p99<50ms`. What must not happen at all has a default
//! threshold, such as `lost=0`, which holds unless the scenario or the command line has a threshold on the same value.

use thiserror::Error;

use crate::format;

use super::counts::{Counts, Faults};
use super::file::{Results, ThresholdResult};
use super::histograms::Latency;
use super::operation::{Operation, main_operation};

/// Besides the faults, these must be 0 by default.
const ERRORS: &str = "errors";
const UNSENT: &str = "unsent";
const NO_RESPONSE: &str = "no_response";
const BUSY: &str = "generator_busy";

const COUNTS: &[&str] =
    &["connections", "published", "delivered", "called", "cancelled", "unexpected", ERRORS, UNSENT, NO_RESPONSE];
const LATENCIES: &[&str] = &["p50", "p90", "p99", "p999", "max", "mean"];
const RATE: &str = "rate";

/// Found, limit → passed.
type Comparison = fn(f64, f64) -> bool;

/// In the order in which it is looked for.
const COMPARISONS: &[(&str, Comparison)] = &[
    ("<=", |found, limit| found <= limit),
    (">=", |found, limit| found >= limit),
    ("<", |found, limit| found < limit),
    (">", |found, limit| found > limit),
    ("=", |found, limit| found == limit),
];

/// What is wrong with a threshold.
#[derive(Debug, Error)]
pub(crate) enum ThresholdError {
    #[error("invalid threshold {threshold:?}: write it like p99<50ms, errors<10 or call.p99<=5ms")]
    Shape { threshold: String },
    #[error("invalid threshold {threshold:?}: unknown value {name:?}; use {}", known())]
    Name { threshold: String, name: String },
    #[error("invalid threshold {threshold:?}: {limit:?} is not a {expected}")]
    Limit { threshold: String, limit: String, expected: &'static str },
}

fn known() -> String {
    let faults = Faults::default().named().map(|(name, _)| name);
    let operations = Operation::ALL.map(Operation::name).join(", ");
    format!(
        "{}, {}, {BUSY}, {}, or one of the latencies or {RATE} of an operation, such as call.p99 (operations: {operations})",
        faults.join(", "),
        COUNTS.join(", "),
        LATENCIES.join(", ")
    )
}

/// All thresholds of a run.
#[derive(Debug, Clone)]
pub(crate) struct Thresholds(Vec<Threshold>);

#[derive(Debug, Clone)]
struct Threshold {
    /// As the user wrote it.
    text: String,
    value: Value,
    comparison: Comparison,
    /// Times are in microseconds.
    limit: f64,
}

/// What a threshold limits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Count(String),
    Busy,
    /// None: the run's main operation.
    Latency(Option<Operation>, String),
    Rate(Operation),
}

impl Thresholds {
    /// These, and the default ones of values that none of these limits.
    pub(crate) fn new(texts: &[String]) -> Result<Self, ThresholdError> {
        let own = texts.iter().map(|text| Threshold::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let is_default = |default: &Threshold| own.iter().all(|threshold| threshold.value != default.value);
        Ok(Self(defaults().filter(is_default).chain(own.iter().cloned()).collect()))
    }

    /// Compares each with what a run found.
    pub(crate) fn evaluate(&self, results: &Results) -> Vec<ThresholdResult> {
        // If the program failed, what was to be tested did not happen, and the other thresholds prove nothing.
        let exec = results.exec_failure.iter().map(|failure| ThresholdResult {
            threshold: "exec succeeds".to_owned(),
            found: failure.clone(),
            passed: false,
        });
        self.0.iter().map(|threshold| threshold.evaluate(results)).chain(exec).collect()
    }
}

/// What must be 0.
fn defaults() -> impl Iterator<Item = Threshold> {
    let names = Faults::default().named().into_iter().map(|(name, _)| name).chain([ERRORS, UNSENT, NO_RESPONSE]);
    names.map(|name| Threshold {
        text: format!("{name}=0"),
        value: Value::Count(name.to_owned()),
        comparison: |found, limit| found == limit,
        limit: 0.0,
    })
}

impl Threshold {
    fn parse(text: &str) -> Result<Self, ThresholdError> {
        let threshold = || text.to_owned();
        let shape = || ThresholdError::Shape { threshold: threshold() };
        let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| text.contains(sign)).ok_or_else(shape)?;
        let (name, limit) = text.split_once(sign).ok_or_else(shape)?;
        let (name, limit) = (name.trim(), limit.trim());
        let unknown = || ThresholdError::Name { threshold: threshold(), name: name.to_owned() };
        let value = Value::named(name).ok_or_else(unknown)?;
        let not = |expected| ThresholdError::Limit { threshold: threshold(), limit: limit.to_owned(), expected };
        let limit = match value {
            Value::Latency(..) => micros(limit).ok_or_else(|| not("time such as 500us, 50ms or 1.5s"))?,
            Value::Count(_) | Value::Busy | Value::Rate(_) => limit.parse().map_err(|_| not("number"))?,
        };
        Ok(Self { text: threshold(), value, comparison: *comparison, limit })
    }

    fn evaluate(&self, results: &Results) -> ThresholdResult {
        let (passed, found) = match self.value.of(results) {
            Some(found) => ((self.comparison)(found, self.limit), self.value.text(found)),
            // A threshold on what did not happen fails: otherwise a run that did nothing would pass.
            None => (false, "nothing measured".to_owned()),
        };
        ThresholdResult { threshold: self.text.clone(), found, passed }
    }
}

fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, unit) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.trim().parse::<f64>().ok()? * unit)
}

impl Value {
    fn named(name: &str) -> Option<Self> {
        if name == BUSY {
            return Some(Self::Busy);
        }
        if LATENCIES.contains(&name) {
            return Some(Self::Latency(None, name.to_owned()));
        }
        if let Some((operation, figure)) = name.split_once('.') {
            let operation = Operation::ALL.into_iter().find(|known| known.name() == operation)?;
            return match figure {
                RATE => Some(Self::Rate(operation)),
                _ => LATENCIES.contains(&figure).then(|| Self::Latency(Some(operation), figure.to_owned())),
            };
        }
        let is_fault = Faults::default().named().iter().any(|(fault, _)| *fault == name);
        (is_fault || COUNTS.contains(&name)).then(|| Self::Count(name.to_owned()))
    }

    /// None if it was not measured.
    fn of(&self, results: &Results) -> Option<f64> {
        match self {
            Self::Count(name) => count(results, name).map(|count| count as f64),
            Self::Busy => Some(results.cost.generator_busy),
            Self::Latency(operation, figure) => {
                let operation = operation.or_else(|| main_operation(&results.operations))?;
                Some(figure_of(results.operations.get(&operation)?, figure))
            }
            Self::Rate(operation) => {
                let steps = results.steps.iter().filter_map(|step| step.operations.get(operation));
                let count: u64 = steps.map(|latency| latency.count).sum();
                (results.seconds > 0.0).then(|| count as f64 / results.seconds)
            }
        }
    }

    fn text(&self, found: f64) -> String {
        match self {
            Self::Latency(..) => format::time(found),
            Self::Busy => format!("{found:.2}"),
            Self::Rate(_) => format!("{found:.1}"),
            Self::Count(_) => format!("{found}"),
        }
    }
}

fn figure_of(latency: &Latency, figure: &str) -> f64 {
    match figure {
        "p50" => latency.p50 as f64,
        "p90" => latency.p90 as f64,
        "p99" => latency.p99 as f64,
        "p999" => latency.p999 as f64,
        "max" => latency.max as f64,
        _ => latency.mean,
    }
}

fn count(results: &Results, name: &str) -> Option<u64> {
    let Counts { published, delivered, called, cancelled, unsent, no_response, unexpected, .. } = results.counts;
    Some(match name {
        "connections" => results.ramp.connections,
        "published" => published,
        "delivered" => delivered,
        "called" => called,
        "cancelled" => cancelled,
        "unexpected" => unexpected,
        UNSENT => unsent,
        NO_RESPONSE => no_response,
        ERRORS => results.errors.values().sum(),
        _ => results.faults.named().into_iter().find(|(fault, _)| *fault == name)?.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(thresholds: &[&str]) -> Vec<String> {
        let own: Vec<_> = thresholds.iter().map(|text| (*text).to_owned()).collect();
        Thresholds::new(&own).expect("they are valid").0.into_iter().map(|threshold| threshold.text).collect()
    }

    #[test]
    fn thresholds_are_read_as_people_write_them() {
        for (text, found, passed) in [
            ("p99<50ms", 49_999.0, true),
            ("p99<50ms", 50_000.0, false),
            ("call.p999 <= 1.5s", 1_500_000.0, true),
            ("lost=0", 1.0, false),
            ("delivered>=10", 10.0, true),
            ("publish.rate>99.5", 99.0, false),
            ("generator_busy<0.8", 0.5, true),
        ] {
            let threshold = Threshold::parse(text).expect("it is a threshold");
            assert_eq!((threshold.comparison)(found, threshold.limit), passed, "{text}");
        }
    }

    #[test]
    fn a_threshold_replaces_the_default_one_of_the_same_value_only() {
        let defaults = texts(&[]);
        assert!(defaults.contains(&"lost=0".to_owned()) && defaults.contains(&"no_response=0".to_owned()));
        let own = ["errors<10", "errors>=1", "call.p99<5ms", "lost>=0"];
        let mut expected: Vec<_> = defaults.into_iter().filter(|text| text != "errors=0" && text != "lost=0").collect();
        expected.extend(own.map(str::to_owned));
        assert_eq!(texts(&own), expected);
    }

    #[test]
    fn what_is_wrong_with_a_threshold_is_named() {
        for (text, expected) in [
            ("p99", "write it like"),
            ("errors", "write it like"),
            ("p98<1ms", "unknown value \"p98\"; use lost, duplicated"),
            ("p99<50", "\"50\" is not a time such as"),
            ("lost=none", "\"none\" is not a number"),
            ("call.rates>1", "unknown value \"call.rates\""),
        ] {
            let error = Thresholds::new(&[text.to_owned()]).expect_err("it is wrong").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! What a run must keep, and whether it did.

use thiserror::Error;

use crate::report::main_operation;
use crate::results::{Counts, Faults, Latency, Operation, Results, Rule};

/// What must be 0 unless it is allowed, besides the faults.
const ERRORS: &str = "errors";
const UNSENT: &str = "unsent";
const UNTOLD: &str = "untold";
const BUSY: &str = "generator_busy";

const COUNTS: &[&str] =
    &["connections", "published", "delivered", "called", "cancelled", "foreign", ERRORS, UNSENT, UNTOLD];
const LATENCIES: &[&str] = &["p50", "p90", "p99", "p999", "max", "mean"];
const RATE: &str = "rate";

/// Found, limit → kept.
type Comparison = fn(f64, f64) -> bool;

/// In the order in which it is looked for.
const COMPARISONS: &[(&str, Comparison)] = &[
    ("<=", |found, limit| found <= limit),
    (">=", |found, limit| found >= limit),
    ("<", |found, limit| found < limit),
    (">", |found, limit| found > limit),
    ("=", |found, limit| found == limit),
];

/// What is wrong with a rule.
#[derive(Debug, Error)]
pub(crate) enum RuleError {
    #[error("rule {rule:?}: it must look like p99<50ms, lost=0 or call.p99<=5ms")]
    Shape { rule: String },
    #[error("rule {rule:?}: {name:?} is not known; known are {}", known())]
    Name { rule: String, name: String },
    #[error("rule {rule:?}: {limit:?} is no {expected}")]
    Limit { rule: String, limit: String, expected: &'static str },
    #[error("{name:?} can't be allowed; what can is {}", allowable().collect::<Vec<_>>().join(", "))]
    Allow { name: String },
}

fn known() -> String {
    let faults = Faults::default().named().map(|(name, _)| name);
    let operations = Operation::ALL.map(Operation::name).join(", ");
    format!(
        "{}, {}, {BUSY}, {}, and these or {RATE} of an operation, such as call.p99 ({operations})",
        faults.join(", "),
        COUNTS.join(", "),
        LATENCIES.join(", ")
    )
}

fn allowable() -> impl Iterator<Item = &'static str> {
    Faults::default().named().into_iter().map(|(name, _)| name).chain([ERRORS, UNSENT, UNTOLD])
}

/// What a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Count(String),
    Busy,
    /// None: the run's main one.
    Latency(Option<Operation>, String),
    Rate(Operation),
}

/// A rule that can be judged.
#[derive(Debug, Clone)]
struct Parsed {
    subject: Subject,
    comparison: Comparison,
    /// Times are in microseconds.
    limit: f64,
}

fn parse(rule: &str) -> Result<Parsed, RuleError> {
    let shape = || RuleError::Shape { rule: rule.to_owned() };
    let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| rule.contains(sign)).ok_or_else(shape)?;
    let (name, limit) = rule.split_once(sign).ok_or_else(shape)?;
    let (name, limit) = (name.trim(), limit.trim());
    let subject = subject(name).ok_or_else(|| RuleError::Name { rule: rule.to_owned(), name: name.to_owned() })?;
    let not = |expected| RuleError::Limit { rule: rule.to_owned(), limit: limit.to_owned(), expected };
    let limit = match subject {
        Subject::Latency(..) => micros(limit).ok_or_else(|| not("time such as 500us, 50ms or 1.5s"))?,
        Subject::Count(_) | Subject::Busy | Subject::Rate(_) => limit.parse().map_err(|_| not("number"))?,
    };
    Ok(Parsed { subject, comparison: *comparison, limit })
}

fn subject(name: &str) -> Option<Subject> {
    let is_fault = |name: &str| Faults::default().named().iter().any(|(fault, _)| *fault == name);
    if name == BUSY {
        return Some(Subject::Busy);
    }
    if LATENCIES.contains(&name) {
        return Some(Subject::Latency(None, name.to_owned()));
    }
    if let Some((operation, figure)) = name.split_once('.') {
        let operation = Operation::ALL.into_iter().find(|known| known.name() == operation)?;
        return match figure {
            RATE => Some(Subject::Rate(operation)),
            _ => LATENCIES.contains(&figure).then(|| Subject::Latency(Some(operation), figure.to_owned())),
        };
    }
    (COUNTS.contains(&name) || is_fault(name)).then(|| Subject::Count(name.to_owned()))
}

fn micros(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, unit) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.trim().parse::<f64>().ok()? * unit)
}

/// Whether all rules can be judged.
pub(crate) fn check(rules: &[String], allowed: &[String]) -> Result<(), RuleError> {
    for rule in rules {
        parse(rule)?;
    }
    let unknown = allowed.iter().find(|name| !allowable().any(|known| known == name.as_str()));
    unknown.map_or(Ok(()), |name| Err(RuleError::Allow { name: name.clone() }))
}

/// Judges a run by the rules that hold anyway, and its own.
pub(crate) fn judge(results: &Results) -> Vec<Rule> {
    let anyway = allowable().map(|name| {
        let found = count(results, name).unwrap_or_default();
        let allowed = results.scenario.allow.iter().any(|allowed| allowed == name);
        Rule { rule: format!("{name}=0"), found: found.to_string(), kept: found == 0, allowed }
    });
    let own = results.scenario.require.iter().filter_map(|rule| {
        let parsed = parse(rule).ok()?;
        let (kept, found) = match value(results, &parsed.subject) {
            Some(value) => ((parsed.comparison)(value, parsed.limit), said(&parsed.subject, value)),
            // What did not happen keeps no rule.
            None => (false, "nothing measured".to_owned()),
        };
        Some(Rule { rule: rule.clone(), found, kept, allowed: false })
    });
    // What was to be tested did not happen, so no rule about it says anything.
    let exec = results.exec_failure.iter().map(|failure| {
        let (rule, found) = ("exec succeeds".to_owned(), failure.clone());
        Rule { rule, found, kept: false, allowed: false }
    });
    anyway.chain(own).chain(exec).collect()
}

fn value(results: &Results, subject: &Subject) -> Option<f64> {
    match subject {
        Subject::Count(name) => count(results, name).map(|count| count as f64),
        Subject::Busy => Some(results.cost.generator_busy),
        Subject::Latency(operation, figure) => {
            let operation = operation.or_else(|| main_operation(&results.operations))?;
            Some(figure_of(results.operations.get(&operation)?, figure))
        }
        Subject::Rate(operation) => {
            let count = results.steps.iter().filter_map(|step| step.operations.get(operation)).map(|found| found.count);
            (results.seconds > 0.0).then(|| count.sum::<u64>() as f64 / results.seconds)
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
    let Counts { published, delivered, called, cancelled, unsent, untold, foreign, .. } = results.counts;
    Some(match name {
        "connections" => results.ramp.connections,
        "published" => published,
        "delivered" => delivered,
        "called" => called,
        "cancelled" => cancelled,
        "foreign" => foreign,
        UNSENT => unsent,
        UNTOLD => untold,
        ERRORS => results.errors.values().sum(),
        _ => results.faults.named().into_iter().find(|(fault, _)| *fault == name)?.1,
    })
}

fn said(subject: &Subject, value: f64) -> String {
    match subject {
        Subject::Latency(..) => crate::report::time(value),
        Subject::Busy => format!("{value:.2}"),
        Subject::Rate(_) => format!("{value:.1}"),
        Subject::Count(_) => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_people_write_them() {
        for (rule, found, kept) in [
            ("p99<50ms", 49_999.0, true),
            ("p99<50ms", 50_000.0, false),
            ("call.p999 <= 1.5s", 1_500_000.0, true),
            ("lost=0", 1.0, false),
            ("delivered>=10", 10.0, true),
            ("publish.rate>99.5", 99.0, false),
            ("generator_busy<0.8", 0.5, true),
        ] {
            let parsed = parse(rule).expect("it is a rule");
            assert_eq!((parsed.comparison)(found, parsed.limit), kept, "{rule}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named() {
        for (rule, expected) in [
            ("p99", "it must look like"),
            ("p98<1ms", "\"p98\" is not known; known are lost, duplicated"),
            ("p99<50", "\"50\" is no time such as"),
            ("lost=none", "\"none\" is no number"),
            ("call.rates>1", "\"call.rates\" is not known"),
        ] {
            let error = check(&[rule.to_owned()], &[]).expect_err("it is wrong").to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(check(&[], &["errors".to_owned()]).is_ok());
        assert!(check(&[], &["p99".to_owned()]).expect_err("no").to_string().contains("what can is lost"));
    }
}

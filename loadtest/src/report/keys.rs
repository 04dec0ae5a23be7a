//! A scenario's keys, as on the command line: `publish.rate`.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::scenario::{DEFAULTS, Scenario};

/// Each key with its value as TOML.
pub(super) fn keys(scenario: &Scenario) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    collect(&Table::try_from(scenario).unwrap_or_default(), "", &mut keys);
    keys
}

/// The keys that are not as in `scenarios/defaults.toml`.
pub(super) fn own_keys(scenario: &Scenario) -> BTreeMap<String, String> {
    let defaults = toml::from_str(DEFAULTS).map(|defaults| keys(&defaults)).unwrap_or_default();
    let mut keys = keys(scenario);
    keys.retain(|key, value| defaults.get(key) != Some(value));
    keys
}

fn collect(table: &Table, prefix: &str, keys: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => collect(inner, &format!("{key}."), keys),
            other => drop(keys.insert(key, text(other))),
        }
    }
}

/// Rates without a fraction that is 0.
fn text(value: &Value) -> String {
    match value {
        Value::Float(number) => number.to_string(),
        Value::Array(values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

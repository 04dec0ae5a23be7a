//! Where a scenario's values come from: flag, then file or built-in scenario, then default.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use roomcast_protocol::Name;
use thiserror::Error;
use toml::{Table, Value};

use super::keys::Scenario;

/// An event carries at least what the receiver needs to check it.
pub(crate) const MIN_PAYLOAD: usize = 36;

/// Every key with its default, and above it what it means.
pub(crate) const DEFAULTS: &str = include_str!("../../scenarios/defaults.toml");

/// Shorter, there is nothing to see.
const SHORTEST: Duration = Duration::from_millis(100);

/// The scenarios that are always there.
pub(crate) const BUILTIN: &[(&str, &str)] = &[
    ("connect", include_str!("../../scenarios/connect.toml")),
    ("call", include_str!("../../scenarios/call.toml")),
    ("cancel", include_str!("../../scenarios/cancel.toml")),
    ("broadcast", include_str!("../../scenarios/broadcast.toml")),
    ("chat", include_str!("../../scenarios/chat.toml")),
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("storm", include_str!("../../scenarios/storm.toml")),
    ("drain", include_str!("../../scenarios/drain.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
];

/// What is wrong with a scenario.
#[derive(Debug, Error)]
pub(crate) enum ScenarioError {
    #[error("unknown scenario {name:?}: use {}, or a TOML file ({error})", builtin_names())]
    Unknown { name: String, error: io::Error },
    #[error("{source_name}: {error}")]
    File { source_name: String, error: toml::de::Error },
    #[error("{source_name}: unknown key {key:?}; `roomcast-loadtest scenarios defaults` lists all keys")]
    UnknownKey { source_name: String, key: String },
    #[error("{0}")]
    Value(toml::de::Error),
    #[error("cannot use {key} = {value}: it must be {allowed}")]
    NotAllowed { key: &'static str, value: String, allowed: String },
}

fn builtin_names() -> String {
    BUILTIN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// A key of a scenario, as it is explained and set by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// `publish.rate`
    pub(crate) path: String,
    pub(crate) help: String,
    /// As it would be said for its flag.
    pub(crate) default: String,
}

impl Key {
    /// `publish-rate`
    pub(crate) fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }
}

/// All keys, in the order of the file.
pub(crate) fn keys() -> Vec<Key> {
    let (mut keys, mut table, mut help) = (Vec::new(), String::new(), Vec::new());
    for line in DEFAULTS.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            help.push(comment);
        } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            table = format!("{name}.");
        } else if let Some((name, default)) = line.split_once(" = ") {
            keys.push(Key {
                path: format!("{table}{name}"),
                help: help.join(" "),
                default: default.trim_matches('"').to_owned(),
            });
            help.clear();
        } else {
            // A comment followed by an empty line is about what follows, not about one key.
            help.clear();
        }
    }
    keys
}

/// The text of a scenario: a built-in one, or a file.
pub(crate) fn text(name: &str) -> Result<String, ScenarioError> {
    if name == "defaults" {
        return Ok(DEFAULTS.to_owned());
    }
    match BUILTIN.iter().find(|(builtin, _)| *builtin == name) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => {
            let unknown = |error| ScenarioError::Unknown { name: name.to_owned(), error };
            std::fs::read_to_string(Path::new(name)).map_err(unknown)
        }
    }
}

impl Scenario {
    /// A built-in scenario or a file, with some keys (`publish.rate`) set to other values (`500`, `30s`).
    pub(crate) fn load(name: &str, flags: &[(String, String)]) -> Result<Self, ScenarioError> {
        let mut table = parse("the defaults", DEFAULTS)?;
        overlay(&mut table, parse(name, &text(name)?)?, "", name)?;
        for (path, value) in flags {
            set(&mut table, path, value);
        }
        let scenario: Self = Value::Table(table).try_into().map_err(ScenarioError::Value)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// A built-in scenario as it is.
    #[cfg(test)]
    pub(crate) fn builtin(name: &str) -> Result<Self, ScenarioError> {
        Self::load(name, &[])
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let rates = [
            ("publish.rate", self.publish.rate),
            ("call.rate", self.call.rate),
            ("churn.leaves", self.churn.leaves),
            ("churn.reconnects", self.churn.reconnects),
        ];
        for (key, rate) in rates {
            allow(key, rate, rate >= 0.0 && rate.is_finite(), "at least 0")?;
        }
        allow("ramp", self.ramp, self.ramp > 0.0 && self.ramp.is_finite(), "greater than 0")?;
        allow("connections", self.connections, self.connections > 0, "at least 1")?;
        let duration = humantime::format_duration(self.duration);
        allow("duration", duration, self.duration >= SHORTEST, "at least 100ms")?;
        let whole = self.duration.mul_f64(self.steps.len() as f64);
        let exec_after = humantime::format_duration(self.exec_after);
        allow("exec_after", exec_after, self.exec.is_empty() || self.exec_after < whole, "shorter than the run")?;
        let is_load = |load: &f64| *load > 0.0 && load.is_finite();
        let steps = format!("{:?}", self.steps);
        allow(
            "steps",
            steps,
            !self.steps.is_empty() && self.steps.iter().all(is_load),
            "a list of numbers greater than 0",
        )?;
        let methods = self.call.methods.keys().map(|method| ("call.methods", method));
        for (key, method) in
            methods.chain([("cancel.method", &self.cancel.method), ("cancel.gauge", &self.cancel.gauge)])
        {
            allow(key, format!("{method:?}"), Name::new(method).is_ok(), "a name of at most 255 bytes")?;
        }
        let publishes = self.publish.rate > 0.0;
        allow("publish.payload", self.publish.payload, self.publish.payload >= MIN_PAYLOAD, "at least 36")?;
        allow(
            "publish.rooms",
            self.publish.rooms,
            !publishes || self.publish.rooms > 0,
            "at least 1 if publish.rate is set",
        )?;
        let (members, publishers) = (self.publish.members, self.publish.publishers);
        allow("publish.members", members, members > 0, "at least 1")?;
        allow("publish.publishers", publishers, !publishes || publishers > 0, "at least 1 if publish.rate is set")
    }
}

fn allow(key: &'static str, value: impl Display, is_allowed: bool, allowed: &str) -> Result<(), ScenarioError> {
    match is_allowed {
        true => Ok(()),
        false => Err(ScenarioError::NotAllowed { key, value: value.to_string(), allowed: allowed.to_owned() }),
    }
}

fn parse(source_name: &str, text: &str) -> Result<Table, ScenarioError> {
    toml::from_str(text).map_err(|error| ScenarioError::File { source_name: source_name.to_owned(), error })
}

/// Puts the values of `over` in place of those in `table`, which has all keys.
fn overlay(table: &mut Table, over: Table, within: &str, source_name: &str) -> Result<(), ScenarioError> {
    for (name, value) in over {
        let path = format!("{within}{name}");
        match (table.get_mut(&name), value) {
            (None, _) => return Err(ScenarioError::UnknownKey { source_name: source_name.to_owned(), key: path }),
            // A table of methods is a value, not a table of keys.
            (Some(Value::Table(inner)), Value::Table(value)) if path != "call.methods" => {
                overlay(inner, value, &format!("{path}."), source_name)?;
            }
            (Some(slot), value) => *slot = value,
        }
    }
    Ok(())
}

/// Sets a key to what was said on the command line: text where it is text, else TOML.
fn set(table: &mut Table, path: &str, value: &str) {
    let slot = match path.split_once('.') {
        Some((name, rest)) => table.get_mut(name).and_then(|inner| inner.get_mut(rest)),
        None => table.get_mut(path),
    };
    let text = || Value::String(value.to_owned());
    let parsed = || toml::from_str::<Table>(&format!("value = {value}")).ok()?.remove("value");
    match slot {
        Some(slot @ Value::String(_)) => *slot = text(),
        // What is no TOML is refused, with its type, when the scenario is read.
        Some(slot) => *slot = parsed().unwrap_or_else(text),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, flags: &[(&str, &str)]) -> Result<Scenario, String> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Scenario::load(name, &flags).map_err(|error| error.to_string())
    }

    #[test]
    fn every_builtin_scenario_is_valid_and_named_after_itself() {
        for (name, _) in BUILTIN {
            assert_eq!(load(name, &[]).expect("it is valid").name, *name);
        }
    }

    #[test]
    fn every_key_is_explained_and_can_be_said_as_a_flag() {
        let keys = keys();
        assert!(keys.len() > 25, "{keys:?}");
        for key in keys {
            assert!(!key.help.is_empty(), "{} is not explained", key.path);
            load("connect", &[(&key.path, &key.default)]).expect("its default is allowed");
        }
    }

    #[test]
    fn a_flag_wins_over_the_scenario_and_the_scenario_over_the_default() {
        let flags = [
            ("connections", "7"),
            ("duration", "1m 5s"),
            ("publish.rate", "2.5"),
            ("call.methods", "{ echo = 1, myip = 2 }"),
        ];
        let scenario = load("chat", &flags).expect("it is valid");
        assert_eq!((scenario.connections, scenario.duration.as_secs()), (7, 65));
        assert_eq!((scenario.publish.rate, scenario.publish.rooms, scenario.publish.payload), (2.5, 100, 128));
        assert_eq!(scenario.call.methods.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, flags, expected) in [
            ("nonsense", &[][..], "unknown scenario \"nonsense\": use connect, call"),
            ("chat", &[("duration", "soon")], "\"soon\" is not a duration such as 1m 30s"),
            ("chat", &[("publish.payload", "10")], "cannot use publish.payload = 10: it must be at least 36"),
            ("chat", &[("steps", "[]")], "cannot use steps = []"),
            ("cancel", &[("cancel.method", &"x".repeat(256))], "must be a name of at most 255 bytes"),
        ] {
            let error = load(name, flags).expect_err("it is wrong");
            assert!(error.contains(expected), "{error}");
        }
    }
}

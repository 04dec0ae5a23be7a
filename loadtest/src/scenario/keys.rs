//! The keys of a scenario, as values.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every key is explained in `scenarios/defaults.toml`, which holds the defaults, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) connections: u32,
    pub(crate) ramp: f64,
    #[serde(with = "human")]
    pub(crate) duration: Duration,
    pub(crate) steps: Vec<f64>,
    #[serde(with = "human")]
    pub(crate) tick: Duration,
    #[serde(with = "human")]
    pub(crate) knee: Duration,
    pub(crate) stop_at_knee: bool,
    #[serde(with = "human")]
    pub(crate) timeout: Duration,
    #[serde(with = "human")]
    pub(crate) settle: Duration,
    pub(crate) exec: String,
    #[serde(with = "human")]
    pub(crate) exec_after: Duration,
    pub(crate) thresholds: Vec<String>,
    pub(crate) publish: Publish,
    pub(crate) call: Call,
    pub(crate) cancel: Cancel,
    pub(crate) churn: Churn,
    pub(crate) storm: Storm,
}

/// Rooms and their events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    pub(crate) rate: f64,
    pub(crate) rooms: u32,
    pub(crate) members: u32,
    pub(crate) publishers: u32,
    pub(crate) payload: usize,
}

/// Calls that are answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) rate: f64,
    pub(crate) payload: usize,
    pub(crate) methods: BTreeMap<String, u32>,
}

/// Calls that are cancelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    #[serde(with = "human")]
    pub(crate) every: Duration,
    pub(crate) calls: u32,
    pub(crate) connections: u32,
    pub(crate) method: String,
    pub(crate) gauge: String,
    #[serde(with = "human")]
    pub(crate) after: Duration,
}

/// Members and connections that come and go.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Churn {
    pub(crate) leaves: f64,
    pub(crate) reconnects: f64,
}

/// Everybody at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storm {
    #[serde(with = "human")]
    pub(crate) every: Duration,
    #[serde(with = "human")]
    pub(crate) spread: Duration,
}

/// Durations as people write them: `1m 30s`.
mod human {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is not a duration such as 1m 30s: {error}")))
    }
}

//! The services to which the node sends requests: the tables `backend` and `hooks`.

use std::path::PathBuf;

use roomcast::EventKind;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::config::quantity::Count;
use crate::config::value::Scalar;

/// A service that receives requests of the node
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendTable {
    /// Name of the backend, for the hooks that use it
    pub(crate) name: String,
    /// URL of the backend, beginning with http://; the node sends lifecycle events to URL/roomcast.events
    pub(crate) url: String,
    /// File with the secrets that sign requests, one in each line: whsec_ and the base64 of 24 to 64 bytes; without it,
    /// requests have no signature
    #[serde(default)]
    pub(crate) signing_secret_file: Option<PathBuf>,
}

/// What backends receive besides calls
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hooks {
    /// Lifecycle events that may wait until the backend accepts them; further events are dead until they are replayed
    #[schemars(extend("default" = 100_000))]
    pub(crate) events_max: Scalar<Count>,
    /// The lifecycle events that a backend receives; without this table, there are none
    #[serde(default)]
    pub(crate) events: Option<EventsTable>,
}

/// The lifecycle events that a backend receives
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsTable {
    /// Name of the backend
    pub(crate) backend: String,
    /// Kinds of events: connected, disconnected, joined, left, occupied, vacated and call.ended
    #[schemars(with = "Vec<String>")]
    pub(crate) kinds: Vec<Kind>,
    /// Patterns of the rooms with events of the kinds occupied and vacated, such as game:*
    #[serde(default)]
    pub(crate) rooms: Vec<String>,
}

/// A kind of events, by its name.
pub(crate) struct Kind(pub(crate) EventKind);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(D::Error::custom)
    }
}

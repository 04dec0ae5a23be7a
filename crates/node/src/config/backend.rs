//! The services to which the node sends requests: the tables `backend` and `hooks`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use roomcast::{EventKind, PatternError, RoomPatterns};
use roomcast_backends::MAX_CANCEL_GRACE;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::config::quantity::{Count, NonZeroTime, Number};
use crate::config::value::{Scalar, Value};

/// A service that answers calls and receives other requests of the node
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackendTable {
    /// Name of the backend in metrics and logs, and for the hooks that use it
    pub(crate) name: String,
    /// URL of the backend, beginning with http:// or https://; the node sends a call to URL/METHOD, and lifecycle events
    /// to URL/roomcast.events
    pub(crate) url: String,
    /// Patterns of the methods that the backend answers, such as chat.* or orders/**; the most specific pattern of all
    /// backends decides
    #[serde(default)]
    pub(crate) calls: Vec<String>,
    /// Whether requests use HTTP/2 instead of HTTP/1.1; over http://, the backend must support it with prior knowledge
    #[serde(default)]
    pub(crate) http2: bool,
    /// File with the CA certificates (PEM) that the node trusts for https://; without it, those of the system
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long a call waits for the head of the response; 30s by default
    #[serde(default)]
    pub(crate) timeout: Option<String>,
    /// How long a call waits for the next part of the response's body; 60s by default
    #[serde(default)]
    pub(crate) idle_timeout: Option<String>,
    /// Concurrent calls, of which one connection has at most an eighth; 256 by default, and at most 65536
    #[serde(default)]
    pub(crate) concurrency: Option<usize>,
    /// Calls that wait for others to end, of which one connection has at most an eighth; 1024 by default, and at most
    /// 65536
    #[serde(default)]
    pub(crate) queue: Option<usize>,
    /// How long a call waits for others to end; 1s by default
    #[serde(default)]
    pub(crate) queue_time: Option<String>,
    /// Whether responses can be streams: auto, which is the default, decides by their content type, and off never
    #[serde(default)]
    pub(crate) stream: Streams,
    /// Headers of all requests, which override those of clients
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Headers of the request that opened the client's connection, which the backend gets with each call
    #[serde(default)]
    pub(crate) forward: Vec<String>,
    /// URL that gets a notice of each cancelled call, for services that cannot see that a request has ended
    #[serde(default)]
    pub(crate) cancel_url: Option<String>,
    /// How long a request goes on after its call was cancelled, so that the backend can finish; 0s by default, and at
    /// most 1m
    #[serde(default)]
    pub(crate) cancel_grace: Option<String>,
    /// File with the secrets that sign requests, one in each line: whsec_ and the base64 of 24 to 64 bytes; without it,
    /// requests have no signature
    #[serde(default)]
    pub(crate) signing_secret_file: Option<PathBuf>,
}

/// Whether responses can be streams
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Streams {
    #[default]
    Auto,
    Off,
}

impl BackendTable {
    pub(crate) fn streams(&self) -> bool {
        self.stream == Streams::Auto
    }

    /// Reads a time. The error completes the sentence "cannot use VALUE: ".
    pub(crate) fn time(text: &str) -> Result<Duration, String> {
        NonZeroTime::parse(text).map(NonZeroTime::get)
    }

    /// Reads the time for which the requests of cancelled calls go on. The error completes the sentence "cannot use
    /// VALUE: ".
    pub(crate) fn grace(text: &str) -> Result<Duration, String> {
        let time = Duration::parse(text).ok().filter(|time| *time <= MAX_CANCEL_GRACE);
        time.ok_or_else(|| "it must be a time of at most 1m, such as 0s, 500ms or 5s".to_owned())
    }

    /// Checks a number of calls. The error completes the sentence "cannot use VALUE: ".
    pub(crate) fn count(number: usize) -> Result<usize, String> {
        Number::<1, 65_536>::parse(&number.to_string()).map(Number::get)
    }
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
    /// Asks a backend about each client that connects; without this table, only the table auth decides
    #[serde(default)]
    pub(crate) connect: Option<ConnectTable>,
    /// Asks a backend before a client joins some rooms
    #[serde(default)]
    pub(crate) join: Option<RoomHookTable>,
    /// Asks a backend before an event that a client publishes to some rooms is published
    #[serde(default)]
    pub(crate) publish: Option<RoomHookTable>,
}

/// A hook that decides about clients that connect
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectTable {
    /// Name of the backend
    pub(crate) backend: String,
    /// How long the node waits for a response; 2s by default, and at most 4s
    #[serde(default)]
    pub(crate) timeout: Option<String>,
}

/// A hook that decides about what clients do in some rooms
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoomHookTable {
    /// Patterns of the rooms, such as private:**
    pub(crate) rooms: Vec<String>,
    /// Name of the backend
    pub(crate) backend: String,
    /// How long the node waits for a response; 2s by default
    #[serde(default)]
    pub(crate) timeout: Option<String>,
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

/// Reads a list of patterns.
///
/// # Errors
/// Returns what is wrong with a pattern.
pub(crate) fn room_patterns(list: &[String]) -> Result<RoomPatterns, String> {
    if let Some(pattern) = list.iter().find(|pattern| pattern.contains(',')) {
        return Err(format!("the pattern {pattern:?} contains a comma; write two patterns"));
    }
    list.join(",").parse().map_err(|error: PatternError| error.to_string())
}

/// A kind of events, by its name.
pub(crate) struct Kind(pub(crate) EventKind);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(D::Error::custom)
    }
}

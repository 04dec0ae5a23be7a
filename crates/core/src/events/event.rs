//! The kinds of lifecycle events, and their form in CloudEvents.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::id::NodeId;

/// The content type of a batch of events.
pub const EVENTS_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// What a lifecycle event reports.
///
/// ```
/// use roomcast_core::EventKind;
///
/// let kind: EventKind = "disconnected".parse()?;
/// assert_eq!(kind.type_name(), "com.roomcast.connection.disconnected");
/// # Ok::<(), roomcast_core::UnknownEventKind>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum EventKind {
    /// A connection has opened.
    Connected,
    /// A connection has ended.
    Disconnected,
    /// The first connection of a user has joined a room.
    Joined,
    /// The last connection of a user has left a room.
    Left,
    /// A room has got its first member.
    Occupied,
    /// A room has lost its last member.
    Vacated,
    /// A call that a handler has begun has an outcome.
    CallEnded,
}

/// The error of a text that is not the name of a kind of events.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name:?} is not a kind of events; the kinds are {}", names())]
pub struct UnknownEventKind {
    name: String,
}

fn names() -> String {
    EventKind::ALL.map(EventKind::as_str).join(", ")
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Connected, Self::Disconnected, Self::Joined, Self::Left, Self::Occupied, Self::Vacated, Self::CallEnded];

    /// Returns the kind's name in the configuration, in metrics and in the ids of events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Occupied => "occupied",
            Self::Vacated => "vacated",
            Self::CallEnded => "call.ended",
        }
    }

    /// Returns the kind's `type` in CloudEvents.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Connected => "com.roomcast.connection.connected",
            Self::Disconnected => "com.roomcast.connection.disconnected",
            Self::Joined => "com.roomcast.room.joined",
            Self::Left => "com.roomcast.room.left",
            Self::Occupied => "com.roomcast.room.occupied",
            Self::Vacated => "com.roomcast.room.vacated",
            Self::CallEnded => "com.roomcast.call.ended",
        }
    }
}

impl FromStr for EventKind {
    type Err = UnknownEventKind;

    fn from_str(text: &str) -> Result<Self, UnknownEventKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownEventKind { name: text.to_owned() })
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventKinds(u8);

impl EventKinds {
    /// Returns whether the set contains a kind.
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// Returns whether the set contains one of two kinds.
    pub(crate) fn contains_any(self, kinds: [EventKind; 2]) -> bool {
        kinds.into_iter().any(|kind| self.contains(kind))
    }
}

impl FromIterator<EventKind> for EventKinds {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u8))
    }
}

/// What an event says, apart from its id and time: a JSON object with the members `type`, `source`
/// and `data` of CloudEvents. A store keeps it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventContent(pub Bytes);

#[derive(Serialize, Deserialize)]
struct Content<'a> {
    r#type: &'a str,
    source: &'a str,
    data: Value,
}

impl EventContent {
    pub(crate) fn new(kind: EventKind, node: NodeId, data: Value) -> Self {
        let content = Content { r#type: kind.type_name(), source: &format!("/nodes/{node}"), data };
        Self(json!(content).to_string().into())
    }
}

/// A lifecycle event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleEvent {
    /// The event's id. If the event is delivered again, it has the same id.
    pub id: String,
    /// When it happened, in milliseconds since 1970.
    pub time: u64,
    /// What happened.
    pub content: EventContent,
}

impl LifecycleEvent {
    /// Creates an event.
    pub fn new(id: impl Into<String>, time: u64, content: EventContent) -> Self {
        Self { id: id.into(), time, content }
    }

    /// Returns the event as a JSON object of CloudEvents 1.0. Returns `None` if the content is
    /// invalid, which happens only if the store is corrupt.
    pub fn to_cloud_event(&self) -> Option<Value> {
        let content: Content<'_> = serde_json::from_slice(&self.content.0).ok()?;
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(self.time.min(LATEST)))?;
        Some(json!({
            "specversion": "1.0",
            "id": self.id,
            "source": content.source,
            "type": content.r#type,
            "time": humantime::format_rfc3339_millis(time).to_string(),
            "datacontenttype": "application/json",
            "data": content.data,
        }))
    }
}

/// The end of the year 9999, after which times have no text.
const LATEST: u64 = 253_402_300_799_999;

/// Events that are delivered together.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventBatch {
    /// The batch's id, which is the same whenever the same events are delivered together.
    pub id: String,
    /// How many events the batch contains.
    pub events: usize,
    /// The events, as a JSON array of CloudEvents 1.0 ([`EVENTS_CONTENT_TYPE`]).
    pub body: Bytes,
}

impl EventBatch {
    /// Encodes events. Returns `None` if there are none.
    pub(crate) fn new<'a>(events: impl IntoIterator<Item = &'a LifecycleEvent>) -> Option<Self> {
        let mut first = None;
        let encoded: Vec<Value> = events
            .into_iter()
            .inspect(|event| _ = first.get_or_insert(&event.id))
            .filter_map(|event| {
                let encoded = event.to_cloud_event();
                if encoded.is_none() {
                    tracing::warn!(event = event.id, "dropped a lifecycle event whose content is invalid");
                }
                encoded
            })
            .collect();
        let id = format!("{}+{}", first?, encoded.len());
        Some(Self { id, events: encoded.len(), body: Value::Array(encoded).to_string().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_json_array_of_cloud_events() {
        let content = EventContent::new(EventKind::Connected, NodeId::from_u64(1), json!({ "user": "ann" }));
        let event = LifecycleEvent::new("1", 1_800_000_000_123, content);
        let batch = EventBatch::new([&event, &event]).unwrap();
        assert_eq!((batch.id.as_str(), batch.events), ("1+2", 2));
        let expected = json!({
            "specversion": "1.0",
            "id": "1",
            "source": "/nodes/0000000000000001",
            "type": "com.roomcast.connection.connected",
            "time": "2027-01-15T08:00:00.123Z",
            "datacontenttype": "application/json",
            "data": { "user": "ann" },
        });
        assert_eq!(serde_json::from_slice::<Value>(&batch.body).unwrap(), json!([expected, expected]));
        assert_eq!(EventBatch::new([]), None);
    }

    #[test]
    fn kinds_have_names_that_can_be_parsed() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let error = "arrived".parse::<EventKind>().unwrap_err().to_string();
        assert!(error.starts_with("\"arrived\" is not a kind of events; the kinds are connected, "), "{error}");
        let kinds = EventKinds::from_iter([EventKind::Joined, EventKind::Left]);
        assert!(kinds.contains(EventKind::Left) && !kinds.contains(EventKind::Connected));
    }
}

//! What nodes send to one another: a head in JSON, a line feed, and an event's payload as it is.
//!
//! These types are the wire format alone; the rest of the crate has types of its own. The format can grow while nodes
//! of two versions work together: a node ignores fields that it does not know, responds to a request that it does not
//! know with [`Response::Unsupported`], and decodes a response that it does not know as [`Response::Unknown`]. Whatever
//! may get more fields is therefore a JSON object, never a list. [`VERSION`] changes only if a node would misunderstand
//! a message; nodes drop messages of other versions.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use roomcast_protocol::{CloseCode, Name};
use serde::{Deserialize, Serialize};

use crate::cluster::nodes::MAX_NODES;
use crate::id::{ConnectionId, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId};

/// The format's version.
const VERSION: u32 = 3;

/// How many members of a room one node lists. About 60 bytes each on their way; the count is exact.
pub const MAX_LISTED_MEMBERS: usize = 10_000;

/// How many rooms a list has at most.
pub const MAX_LISTED_ROOMS: usize = 1000;

/// The longest reason that fits into a Close frame, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// The longest head, in bytes: it fits the longest list of members with the longest names.
const MAX_HEAD: usize = 4 * 1024 * 1024;

/// The longest version string of a node, in bytes.
const MAX_VERSION_LEN: usize = 64;

/// The longest explanation of an error, in bytes.
const MAX_REASON_LEN: usize = 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum NodeMessage {
    /// The sender is alive. `clock_ms` is what its clock, in milliseconds since its start, showed when it sent this.
    Heartbeat { version: String, connections: usize, uptime_seconds: u64, clock_ms: u64 },
    /// The sender leaves the cluster.
    Leave,
    /// The response goes to the sender's own room. A request with an effect may be carried out only until the receiving
    /// node's clock, the one in its heartbeats, shows its entry in `expires_ms`; after that, the sender has reported a
    /// failure. A node whose clock the sender has not received yet uses the sender's clock, which showed `sent_ms`.
    Request { id: u64, request: Request, sent_ms: u64, expires_ms: BTreeMap<NodeId, u64> },
    /// The response to the request that the receiver gave this id.
    Response { id: u64, response: Response },
    /// Of a later version of the format.
    #[serde(other)]
    Unknown,
}

/// What other nodes should do with their own connections, or report about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Request {
    /// To queue an event, with the payload behind the head, to a connection.
    NotifyConnection {
        connection: ConnectionId,
        #[serde(with = "name_as_text")]
        event: Name,
    },
    /// The same, to each connection of a user.
    NotifyUser {
        user: UserId,
        #[serde(with = "name_as_text")]
        event: Name,
    },
    CloseConnection {
        connection: ConnectionId,
        code: u16,
        reason: String,
    },
    CloseUser {
        user: UserId,
        code: u16,
        reason: String,
    },
    Join {
        connection: ConnectionId,
        room: RoomName,
    },
    Leave {
        connection: ConnectionId,
        room: RoomName,
    },
    Members {
        room: RoomName,
    },
    /// The first `limit` rooms, by name, after `after`.
    Rooms {
        prefix: String,
        after: String,
        limit: usize,
    },
    /// Of a later version of the format.
    #[serde(other)]
    Unknown,
}

/// What a node responds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Response {
    /// The number of connections that it was done to.
    Reached {
        count: usize,
    },
    JoinFailed {
        error: JoinFailure,
    },
    /// How many there are, and some of them.
    Members {
        count: usize,
        members: Vec<Member>,
    },
    /// By name.
    Rooms {
        rooms: Vec<RoomCount>,
    },
    /// The request is of a later version of the format than the node's.
    Unsupported,
    /// Of a later version of the format.
    #[serde(other)]
    Unknown,
}

/// One member of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) connection: ConnectionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<UserId>,
}

/// One room with the number of its members on the responding node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RoomCount {
    pub(crate) room: RoomName,
    pub(crate) members: usize,
}

/// Why a connection did not become a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum JoinFailure {
    TooManyRooms {
        max: usize,
    },
    Unavailable {
        reason: String,
    },
    /// Of a later version of the format.
    #[serde(other)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Head<M> {
    v: u32,
    message: M,
}

/// The head's version, whatever its message is.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl NodeMessage {
    /// The bytes of a message with an event's payload, which is empty for most.
    pub(crate) fn encode(&self, payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new().writer();
        serde_json::to_writer(&mut bytes, &Head { v: VERSION, message: self })
            .expect("neither memory nor these types fail to be written as JSON");
        let mut bytes = bytes.into_inner();
        bytes.put_u8(b'\n');
        bytes.put_slice(payload);
        bytes.freeze()
    }

    /// A node's message, and the payload behind it. `None`: its format is unknown, or no node sends such a message.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<(Self, Bytes)> {
        let head_len = bytes.iter().take(MAX_HEAD).position(|byte| *byte == b'\n')?;
        let head = bytes.split_to(head_len);
        let version: Version = serde_json::from_slice(&head).ok()?;
        if version.v != VERSION {
            return None;
        }
        let head: Head<Self> = serde_json::from_slice(&head).ok()?;
        head.message.is_valid().then(|| (head.message, bytes.slice(1..)))
    }

    /// Whether it is within the bounds of what a node sends.
    fn is_valid(&self) -> bool {
        match self {
            Self::Heartbeat { version, .. } => {
                version.len() <= MAX_VERSION_LEN && version.bytes().all(|byte| byte.is_ascii_graphic())
            }
            Self::Request { request, expires_ms, .. } => expires_ms.len() <= MAX_NODES && request.is_valid(),
            Self::Response { response, .. } => response.is_valid(),
            Self::Leave | Self::Unknown => true,
        }
    }
}

impl Request {
    /// Whether it has an effect on the node that carries it out.
    pub(crate) fn has_effect(&self) -> bool {
        !matches!(self, Self::Members { .. } | Self::Rooms { .. } | Self::Unknown)
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::CloseConnection { code, reason, .. } | Self::CloseUser { code, reason, .. } => {
                CloseCode(*code).is_valid_on_the_wire() && reason.len() <= MAX_CLOSE_REASON
            }
            Self::Rooms { prefix, after, .. } => prefix.len() <= MAX_ROOM_NAME_LEN && after.len() <= MAX_ROOM_NAME_LEN,
            _ => true,
        }
    }
}

impl Response {
    fn is_valid(&self) -> bool {
        match self {
            Self::Members { members, .. } => members.len() <= MAX_LISTED_MEMBERS,
            Self::Rooms { rooms } => rooms.len() <= MAX_LISTED_ROOMS + 1,
            Self::JoinFailed { error: JoinFailure::Unavailable { reason } } => reason.len() <= MAX_REASON_LEN,
            _ => true,
        }
    }
}

impl JoinFailure {
    /// A failure whose explanation is cut to what a message may have.
    pub(crate) fn unavailable(mut reason: String) -> Self {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_LEN));
        Self::Unavailable { reason }
    }
}

mod name_as_text {
    use roomcast_protocol::Name;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &Name, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        Name::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_u64(7);

    fn decode(bytes: impl Into<Bytes>) -> Option<(NodeMessage, Bytes)> {
        NodeMessage::decode(bytes.into())
    }

    #[test]
    fn a_message_comes_out_as_it_went_in_with_any_payload_behind_it() {
        let request = Request::NotifyUser {
            user: UserId::new("ann\u{e9}").unwrap(),
            event: Name::new("line\nfeed \"quoted\"").unwrap(),
        };
        let message =
            NodeMessage::Request { id: u64::MAX, request, sent_ms: 1, expires_ms: BTreeMap::from([(NODE, 5)]) };
        for payload in [&b""[..], b"\n", b"{\"v\":3}\n\xff\x00"] {
            assert_eq!(decode(message.encode(payload)), Some((message.clone(), Bytes::from_static(payload))));
        }
    }

    #[test]
    fn a_later_version_of_the_format_is_dropped() {
        for strange in ["", "{", "{\"v\":3}\n", "{\"v\":4,\"message\":{\"kind\":\"leave\"}}\n"] {
            assert_eq!(decode(strange), None, "{strange}");
        }
        let invalid_room = "{\"v\":3,\"message\":{\"kind\":\"request\",\"id\":1,\"sent_ms\":1,\"expires_ms\":{},\
            \"request\":{\"kind\":\"members\",\"room\":\"a/b\"}}}\n";
        assert_eq!(decode(invalid_room), None);
    }

    #[test]
    fn what_a_later_node_adds_to_the_format_is_tolerated() {
        let request = |request: &str| {
            let message = format!(
                "{{\"v\":3,\"trace\":[1],\"message\":{{\"kind\":\"request\",\"id\":1,\"sent_ms\":1,\"expires_ms\":{{}},\
                 \"priority\":\"low\",\"request\":{request}}}}}\n"
            );
            match decode(message) {
                Some((NodeMessage::Request { request, .. }, _)) => request,
                other => panic!("{other:?}"),
            }
        };
        let known = request("{\"kind\":\"members\",\"room\":\"a\",\"page\":2}");
        assert_eq!(known, Request::Members { room: RoomName::new("a").unwrap() });
        assert_eq!(request("{\"kind\":\"sing\",\"song\":{\"verses\":3}}"), Request::Unknown);
        let message = "{\"v\":3,\"message\":{\"kind\":\"dance\",\"steps\":[1,2]}}\n";
        assert_eq!(decode(message), Some((NodeMessage::Unknown, Bytes::new())));
        let failure = "{\"v\":3,\"message\":{\"kind\":\"response\",\"id\":1,\
            \"response\":{\"kind\":\"join_failed\",\"error\":{\"kind\":\"too_loud\",\"db\":90}}}}\n";
        let response = Response::JoinFailed { error: JoinFailure::Unknown };
        assert_eq!(decode(failure), Some((NodeMessage::Response { id: 1, response }, Bytes::new())));
    }

    #[test]
    fn what_no_node_sends_is_dropped() {
        let heartbeat = |version: &str| NodeMessage::Heartbeat {
            version: version.to_owned(),
            connections: 1,
            uptime_seconds: 1,
            clock_ms: 1,
        };
        let request = |request| NodeMessage::Request { id: 1, request, sent_ms: 1, expires_ms: BTreeMap::new() };
        let connection = ConnectionId { node: NODE, serial: 1 };
        let close = |code, reason: String| request(Request::CloseConnection { connection, code, reason });
        let member = Member { connection, user: None };
        let members = |count| NodeMessage::Response {
            id: 1,
            response: Response::Members { count, members: vec![member.clone(); count] },
        };
        let is_read = |message: &NodeMessage| decode(message.encode(b"")).is_some();
        for good in [heartbeat("1.0.0-rc.1+x"), close(4409, "r".repeat(123)), members(MAX_LISTED_MEMBERS)] {
            assert!(is_read(&good), "{good:?}");
        }
        for bad in [
            heartbeat(&"1".repeat(65)),
            heartbeat("1\u{202e}"),
            close(1005, String::new()),
            close(0, String::new()),
            close(4409, "r".repeat(124)),
            request(Request::Rooms { prefix: "p".repeat(201), after: String::new(), limit: 1 }),
            members(MAX_LISTED_MEMBERS + 1),
        ] {
            assert!(!is_read(&bad), "{bad:?}");
        }
    }
}

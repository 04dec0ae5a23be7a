//! The messages between nodes. Each consists of a head in JSON, a line feed, and the unmodified
//! payload of an event.
//!
//! These types define only the wire format; the rest of the crate has types of its own. The format
//! can grow while nodes of two versions work together. A node ignores unknown fields, responds to
//! unknown requests with [`Response::Unsupported`], and decodes unknown responses as
//! [`Response::Unknown`]. Everything that may get more fields is therefore a JSON object, not a
//! list. [`VERSION`] changes only if a node would misinterpret a message. Nodes drop messages of
//! other versions.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use roomcast_protocol::{CloseCode, Name};
use serde::{Deserialize, Serialize};

use crate::access::grants::{MAX_PATTERNS, Rule};
use crate::access::revocation::Revocation;
use crate::cluster::connections::{ConnectionDetails, ConnectionSummary, ConnectionsQuery, MAX_LISTED_CONNECTIONS};
use crate::cluster::nodes::MAX_NODES;
use crate::id::{ConnectionId, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId};

/// The format's version.
const VERSION: u32 = 3;

/// How many members of a room one node lists. A member takes about 60 bytes in a message. The count
/// of members is exact.
pub const MAX_LISTED_MEMBERS: usize = 10_000;

/// How many rooms a list has at most.
pub const MAX_LISTED_ROOMS: usize = 1000;

/// The longest reason that fits into a Close frame, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// The longest head, in bytes. The longest list of members with the longest names fits.
const MAX_HEAD: usize = 4 * 1024 * 1024;

/// The longest version string of a node, in bytes.
const MAX_VERSION_LEN: usize = 64;

/// The longest explanation of an error, in bytes.
const MAX_REASON_LEN: usize = 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum NodeMessage {
    /// The sender is alive. `clock_ms` is the sender's clock when it sent this, in milliseconds
    /// since the sender started.
    Heartbeat { version: String, connections: usize, uptime_seconds: u64, clock_ms: u64 },
    /// The sender leaves the cluster.
    Leave,
    /// A request. The response goes to the sender's own room. A request with an effect expires when
    /// the receiving node's clock, which its heartbeats announce, reaches the node's entry in
    /// `expires_ms`. After that, the node must not carry it out, because the sender has reported a
    /// failure. If the node has no entry, because the sender has not received its clock yet, it
    /// uses the sender's clock, which showed `sent_ms`.
    Request { id: u64, request: Request, sent_ms: u64, expires_ms: BTreeMap<NodeId, u64> },
    /// The response to the receiver's request with this id.
    Response { id: u64, response: Response },
    /// A message of a later version of the format.
    #[serde(other)]
    Unknown,
}

/// What other nodes should do with their connections, or report about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Queue an event for a connection. The payload follows the head.
    NotifyConnection {
        connection: ConnectionId,
        #[serde(with = "name_as_text")]
        event: Name,
    },
    /// Queue an event for each connection of a user. The payload follows the head.
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
    /// Close the connections that a revocation applies to, and keep it.
    Revoke {
        revocation: Revocation,
    },
    /// Replace the grants that were added to a user's connections.
    SetGrants {
        user: UserId,
        rules: Vec<Rule>,
    },
    Members {
        room: RoomName,
    },
    /// List the first connections that the query selects.
    Connections {
        query: Box<ConnectionsQuery>,
    },
    /// Describe a connection.
    Connection {
        connection: ConnectionId,
    },
    /// List the first `limit` rooms after `after`, by name.
    Rooms {
        prefix: String,
        after: String,
        limit: usize,
    },
    /// A request of a later version of the format.
    #[serde(other)]
    Unknown,
}

/// A node's response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Response {
    /// For how many connections the node carried out the request.
    Reached {
        count: usize,
    },
    JoinFailed {
        error: JoinFailure,
    },
    /// How many members there are, and a list of some of them.
    Members {
        count: usize,
        members: Vec<Member>,
    },
    /// Connections, in the order of the query.
    Connections {
        connections: Vec<ConnectionSummary>,
    },
    Connection {
        details: Box<ConnectionDetails>,
    },
    /// Rooms, ordered by name.
    Rooms {
        rooms: Vec<RoomCount>,
    },
    /// The node's version does not support the request.
    Unsupported,
    /// A response of a later version of the format.
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

/// A room, with the number of its members on the responding node.
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
    NodeFull {
        max: usize,
    },
    Unavailable {
        reason: String,
    },
    /// An error of a later version of the format.
    #[serde(other)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Head<M> {
    v: u32,
    message: M,
}

/// The version in a head, whatever the message is.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl NodeMessage {
    /// Encodes a message, with the payload of an event. For most messages, the payload is empty.
    pub(crate) fn encode(&self, payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new().writer();
        serde_json::to_writer(&mut bytes, &Head { v: VERSION, message: self })
            .expect("neither memory nor these types fail to be written as JSON");
        let mut bytes = bytes.into_inner();
        bytes.put_u8(b'\n');
        bytes.put_slice(payload);
        bytes.freeze()
    }

    /// Decodes a node's message and the payload that follows it. Returns `None` if the format is
    /// unknown, or if no node sends such a message.
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

    /// Returns whether the message is within the limits of what nodes send.
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
    /// Returns whether the request has an effect on the node that carries it out.
    pub(crate) fn has_effect(&self) -> bool {
        !matches!(
            self,
            Self::Members { .. }
                | Self::Connections { .. }
                | Self::Connection { .. }
                | Self::Rooms { .. }
                | Self::Unknown
        )
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::CloseConnection { code, reason, .. } | Self::CloseUser { code, reason, .. } => {
                CloseCode(*code).is_valid_on_the_wire() && reason.len() <= MAX_CLOSE_REASON
            }
            Self::SetGrants { rules, .. } => rules.len() <= MAX_PATTERNS,
            Self::Rooms { prefix, after, .. } => prefix.len() <= MAX_ROOM_NAME_LEN && after.len() <= MAX_ROOM_NAME_LEN,
            _ => true,
        }
    }
}

impl Response {
    fn is_valid(&self) -> bool {
        match self {
            Self::Members { members, .. } => members.len() <= MAX_LISTED_MEMBERS,
            Self::Connections { connections } => connections.len() <= MAX_LISTED_CONNECTIONS + 1,
            Self::Rooms { rooms } => rooms.len() <= MAX_LISTED_ROOMS + 1,
            Self::JoinFailed { error: JoinFailure::Unavailable { reason } } => reason.len() <= MAX_REASON_LEN,
            _ => true,
        }
    }
}

impl JoinFailure {
    /// Creates a failure whose explanation is truncated to the limit of a message.
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

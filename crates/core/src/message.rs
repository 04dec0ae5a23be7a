//! What nodes say to one another, and its bytes: a head in JSON, a line feed, and an event's payload as
//! it is.
//!
//! Nodes of two versions work together while a cluster is upgraded: a head of an unknown version, kind or
//! form is passed over, and who asked takes its sender for one that does not answer.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use roomcast_protocol::{CloseCode, Name};
use serde::{Deserialize, Serialize};

use crate::answer::{MAX_LISTED_MEMBERS, MAX_LISTED_ROOMS};
use crate::hub::{JoinError, Member};
use crate::id::{ConnectionId, MAX_ROOM_NAME_LEN, NodeId, RoomName, UserId};
use crate::nodes::{MAX_NODES, NodeInfo};

/// The longest reason that fits into a Close frame, in bytes (RFC 6455, section 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// Grows when a node of the version before would misunderstand the new one.
const VERSION: u32 = 2;

/// The longest head, in bytes: it fits the longest list of members with the longest names.
const MAX_HEAD: usize = 4 * 1024 * 1024;

/// The longest version string of a node, in bytes.
const MAX_VERSION_LEN: usize = 64;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The sender is alive. `clock_ms` is what its clock, in milliseconds since its start, showed when it sent this.
    Heartbeat {
        #[serde(flatten)]
        info: NodeInfo,
        clock_ms: u64,
    },
    /// The sender leaves.
    Goodbye,
    /// The answer goes to the sender's own room. A question with an effect may be carried out only until the receiving
    /// node's clock, the one in its heartbeats, shows its entry in `expires_ms`; after that, the sender has reported a
    /// failure. A node that the sender does not know yet goes by the sender's clock, which showed `sent_ms`.
    Question { id: u64, question: Question, sent_ms: u64, expires_ms: BTreeMap<NodeId, u64> },
    /// The answer to the question that the receiver gave this id.
    Answer { id: u64, answer: Answer },
}

/// What a node asks others to do or to tell, about their own connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
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
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It was done to so many connections.
    Reached(usize),
    JoinFailed(JoinError),
    /// How many there are, and some of them.
    Members {
        count: usize,
        members: Vec<Member>,
    },
    /// Rooms with their numbers of members, by name.
    Rooms(Vec<(RoomName, usize)>),
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

impl Message {
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
    pub(crate) fn decode(mut bytes: Bytes, from: NodeId) -> Option<(Self, Bytes)> {
        let head_len = bytes.iter().take(MAX_HEAD).position(|byte| *byte == b'\n')?;
        let head = bytes.split_to(head_len);
        let version: Version = serde_json::from_slice(&head).ok()?;
        if version.v != VERSION {
            return None;
        }
        let head: Head<Self> = serde_json::from_slice(&head).ok()?;
        head.message.is_valid(from).then(|| (head.message, bytes.slice(1..)))
    }

    /// Whether it is within the bounds of what a node sends, and names its true sender.
    fn is_valid(&self, from: NodeId) -> bool {
        match self {
            Self::Heartbeat { info, .. } => {
                let version = &info.version;
                info.node == from
                    && version.len() <= MAX_VERSION_LEN
                    && version.bytes().all(|byte| byte.is_ascii_graphic())
            }
            Self::Goodbye => true,
            Self::Question { question, expires_ms, .. } => expires_ms.len() <= MAX_NODES && question.is_valid(),
            Self::Answer { answer, .. } => match answer {
                Answer::Reached(_) | Answer::JoinFailed(_) => true,
                Answer::Members { members, .. } => members.len() <= MAX_LISTED_MEMBERS,
                Answer::Rooms(rooms) => rooms.len() <= MAX_LISTED_ROOMS + 1,
            },
        }
    }
}

impl Question {
    /// Whether it has an effect on the node that answers it.
    pub(crate) fn has_effect(&self) -> bool {
        !matches!(self, Self::Members { .. } | Self::Rooms { .. })
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

    fn decode(bytes: impl Into<Bytes>) -> Option<(Message, Bytes)> {
        Message::decode(bytes.into(), NODE)
    }

    #[test]
    fn a_message_comes_out_as_it_went_in_with_any_payload_behind_it() {
        let question = Question::NotifyUser {
            user: UserId::new("ann\u{e9}").unwrap(),
            event: Name::new("line\nfeed \"quoted\"").unwrap(),
        };
        let message = Message::Question { id: u64::MAX, question, sent_ms: 1, expires_ms: BTreeMap::from([(NODE, 5)]) };
        for payload in [&b""[..], b"\n", b"{\"v\":2}\n\xff\x00"] {
            assert_eq!(decode(message.encode(payload)), Some((message.clone(), Bytes::from_static(payload))));
        }
    }

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        for strange in [
            "",
            "{",
            "{\"v\":2}\n",
            "{\"v\":3,\"message\":\"goodbye\"}\n",
            "{\"v\":2,\"message\":{\"dance\":{}}}\n",
            "{\"v\":2,\"message\":{\"question\":{\"id\":1,\"sent_ms\":1,\"expires_ms\":{},\"question\":{\"sing\":{}}}}}\n",
            "{\"v\":2,\"message\":{\"question\":{\"id\":1,\"sent_ms\":1,\"expires_ms\":{},\"question\":{\"members\":{\"room\":\"a/b\"}}}}}\n",
        ] {
            assert_eq!(decode(strange), None, "{strange}");
        }
        let newer = "{\"v\":2,\"since\":\"3\",\"message\":\"goodbye\"}\n";
        assert_eq!(decode(newer), Some((Message::Goodbye, Bytes::new())), "new keys do no harm");
    }

    #[test]
    fn what_no_node_sends_is_passed_over() {
        let heartbeat = |node, version: &str| {
            let info = NodeInfo { node, version: version.to_owned(), connections: 1, uptime_seconds: 1 };
            Message::Heartbeat { info, clock_ms: 1 }
        };
        let question = |question| Message::Question { id: 1, question, sent_ms: 1, expires_ms: BTreeMap::new() };
        let connection = ConnectionId { node: NODE, serial: 1 };
        let close = |code, reason: String| question(Question::CloseConnection { connection, code, reason });
        let member = Member { connection, user: None };
        let members =
            |count| Message::Answer { id: 1, answer: Answer::Members { count, members: vec![member.clone(); count] } };
        let is_read = |message: &Message| decode(message.encode(b"")).is_some();
        for good in [heartbeat(NODE, "1.0.0-rc.1+x"), close(4409, "r".repeat(123)), members(MAX_LISTED_MEMBERS)] {
            assert!(is_read(&good), "{good:?}");
        }
        for bad in [
            heartbeat(NodeId::from_u64(8), "1.0.0"),
            heartbeat(NODE, &"1".repeat(65)),
            heartbeat(NODE, "1\u{202e}"),
            close(1005, String::new()),
            close(0, String::new()),
            close(4409, "r".repeat(124)),
            question(Question::Rooms { prefix: "p".repeat(201), after: String::new(), limit: 1 }),
            members(MAX_LISTED_MEMBERS + 1),
        ] {
            assert!(!is_read(&bad), "{bad:?}");
        }
    }
}

//! What nodes say to one another, and its bytes: a head in JSON, a line feed, and an event's payload as
//! it is.
//!
//! Nodes of two versions work together while a cluster is upgraded: a head of an unknown version, kind or
//! form is passed over, and who asked takes its sender for one that does not answer.

use bytes::{BufMut, Bytes, BytesMut};
use roomcast_protocol::Name;
use serde::{Deserialize, Serialize};

use crate::hub::{JoinError, Member};
use crate::id::{ConnectionId, RoomName, UserId};
use crate::nodes::NodeInfo;

/// Grows when a node of the version before would misunderstand the new one.
const VERSION: u32 = 1;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The sender lives.
    Heartbeat(NodeInfo),
    /// The sender leaves.
    Goodbye,
    /// The sender asks for an answer to its own room.
    Question { id: u64, question: Question },
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

    /// The message, and the payload behind it. `None`: this node does not understand it.
    pub(crate) fn decode(mut bytes: Bytes) -> Option<(Self, Bytes)> {
        let head_len = bytes.iter().position(|byte| *byte == b'\n')?;
        let head = bytes.split_to(head_len);
        let version: Version = serde_json::from_slice(&head).ok()?;
        if version.v != VERSION {
            return None;
        }
        let head: Head<Self> = serde_json::from_slice(&head).ok()?;
        Some((head.message, bytes.slice(1..)))
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

    #[test]
    fn a_message_comes_out_as_it_went_in_with_any_payload_behind_it() {
        let question = Question::NotifyUser {
            user: UserId::new("ann\u{e9}").unwrap(),
            event: Name::new("line\nfeed \"quoted\"").unwrap(),
        };
        let message = Message::Question { id: u64::MAX, question };
        for payload in [&b""[..], b"\n", b"{\"v\":2}\n\xff\x00"] {
            assert_eq!(Message::decode(message.encode(payload)), Some((message.clone(), Bytes::from_static(payload))));
        }
    }

    #[test]
    fn what_a_later_version_says_is_passed_over() {
        for strange in [
            "",
            "{",
            "{\"v\":1}\n",
            "{\"v\":2,\"message\":\"goodbye\"}\n",
            "{\"v\":1,\"message\":{\"dance\":{}}}\n",
            "{\"v\":1,\"message\":{\"question\":{\"id\":1,\"question\":{\"sing\":{}}}}}\n",
            "{\"v\":1,\"message\":{\"question\":{\"id\":1,\"question\":{\"members\":{\"room\":\"a/b\"}}}}}\n",
        ] {
            assert_eq!(Message::decode(Bytes::from_static(strange.as_bytes())), None, "{strange}");
        }
        let newer = "{\"v\":1,\"since\":\"2\",\"message\":\"goodbye\"}\n";
        assert_eq!(Message::decode(newer.into()), Some((Message::Goodbye, Bytes::new())), "new keys do no harm");
    }
}

//! Names and ids. Each is validated once, where it enters.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use roomcast_protocol::{MAX_NAME_LEN, Name};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest name of a room, user or room event, in bytes.
pub const MAX_ROOM_NAME_LEN: usize = 200;

/// The prefix of the room of one node, whose id follows. The next constants are the prefix of rooms
/// of several nodes, and the room of all nodes.
const NODE_PREFIX: &str = "node/";
const NODES_PREFIX: &str = "nodes/";
const ALL_NODES: &str = "nodes/all";

/// The id of one run of a node. A node that restarts gets a new id.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::NodeId;
///
/// let node: NodeId = "00000000000000ff".parse()?;
/// assert_eq!((node.as_u64(), node.to_string()), (255, "00000000000000ff".to_owned()));
/// # Ok::<(), roomcast::InvalidId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NodeId(u64);

impl NodeId {
    /// Creates a random id. Ids must differ but need not be secret, so the hash keys of the
    /// standard library, which are seeded by the system's randomness, are sufficient.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// Creates an id from a number that another node sent.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the id as a number, to send to another node.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The id of a connection. It is unique in the cluster and across restarts. It is an address, not a
/// secret.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::ConnectionId;
///
/// let id: ConnectionId = "00000000000000ff-1c".parse()?;
/// assert_eq!((id.node.as_u64(), id.serial), (255, 28));
/// # Ok::<(), roomcast::InvalidId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ConnectionId {
    /// The id of the node that owns the connection.
    pub node: NodeId,
    /// The connection's number on that node.
    pub serial: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.node, self.serial)
    }
}

/// The error of a text that is not the id of a node or connection.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::NodeId;
///
/// let error = "ff".parse::<NodeId>().unwrap_err();
/// assert_eq!(error.to_string(), "invalid node id \"ff\": expected something like 0123456789abcdef");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {what} id {text:?}: expected something like {example}")]
pub struct InvalidId {
    /// The rejected text.
    pub text: String,
    what: &'static str,
    example: &'static str,
}

impl FromStr for NodeId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let id = u64::from_str_radix(text, 16).ok().map(Self);
        // Only the canonical form is valid. Otherwise two texts for one id would be two keys in a
        // map.
        id.filter(|id| id.to_string() == text).ok_or_else(|| InvalidId {
            text: text.to_owned(),
            what: "node",
            example: "0123456789abcdef",
        })
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parse = || {
            let (node, serial) = text.split_once('-')?;
            Some(Self { node: node.parse().ok()?, serial: u64::from_str_radix(serial, 16).ok()? })
        };
        parse().filter(|id| id.to_string() == text).ok_or_else(|| InvalidId {
            text: text.to_owned(),
            what: "connection",
            example: "0123456789abcdef-1f",
        })
    }
}

/// The error of an invalid name.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{InvalidName, RoomName};
///
/// let Err(InvalidName::Character { character, .. }) = RoomName::new("a/b") else { panic!("a slash is not allowed") };
/// assert_eq!(character, '/');
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The name is empty or too long.
    #[error("invalid {what}: it must have 1 to {max} bytes, not {len}")]
    Length {
        /// What the name identifies.
        what: &'static str,
        /// The maximum length, in bytes.
        max: usize,
        /// The name's length, in bytes.
        len: usize,
    },
    /// The name has a character that is not allowed.
    #[error(
        "invalid {what}: it must not contain '/', control characters, invisible characters or white space, but contains {character:?}"
    )]
    Character {
        /// What the name identifies.
        what: &'static str,
        /// The first character that is not allowed.
        character: char,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() || name.len() > MAX_ROOM_NAME_LEN {
        return Err(InvalidName::Length { what, max: MAX_ROOM_NAME_LEN, len: name.len() });
    }
    match name.chars().find(|c| *c == '/' || c.is_control() || c.is_whitespace() || is_invisible(*c)) {
        Some(character) => Err(InvalidName::Character { what, character }),
        None => Ok(()),
    }
}

/// Returns whether a character is invisible and makes one name look like another: it changes the
/// direction of text, or has no width. The joiners U+200C and U+200D are allowed, because Persian
/// and emoji need them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Checks the name of an event that is published to a room.
///
/// # Errors
/// Returns [`InvalidName`] if the name is empty, is longer than 200 bytes, or has a character that
/// is not allowed.
pub fn check_event(event: &str) -> Result<Name, InvalidName> {
    check("room event name", event)?;
    Name::new(event).map_err(|error| InvalidName::Length { what: "event name", max: MAX_NAME_LEN, len: error.len })
}

/// A user's id, which the application chooses. It has 1 to 200 bytes of UTF-8, without `/`, control
/// characters, invisible characters or white space. Clones are cheap.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::UserId;
///
/// let ann = UserId::new("ann@example.com")?;
/// assert!(ann.starts_with("ann") && UserId::new("").is_err());
/// # Ok::<(), roomcast::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks a text, and creates a user's id from it.
    ///
    /// # Errors
    /// Returns [`InvalidName`] if the text is empty, is longer than 200 bytes, or has a character
    /// that is not allowed.
    pub fn new(user: &str) -> Result<Self, InvalidName> {
        check("user id", user)?;
        Ok(Self(user.into()))
    }
}

/// A room's name. It has 1 to 200 bytes of UTF-8, without `/`, control characters, invisible
/// characters or white space. Clones are cheap.
///
/// Applications and clients name rooms with [`new`](Self::new). Brokers also carry internal rooms,
/// through which nodes send each other messages. The names of internal rooms contain a `/`, so a
/// broker decodes names with [`from_wire`](Self::from_wire).
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::RoomName;
///
/// let lobby = RoomName::new("lobby")?;
/// assert_eq!(&*lobby, "lobby");
/// assert!(RoomName::new("nodes/all").is_err());
/// assert!(RoomName::from_wire("nodes/all").is_of_nodes());
/// # Ok::<(), roomcast::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// Checks a text, and creates a room's name from it.
    ///
    /// # Errors
    /// Returns [`InvalidName`] if the text is empty, is longer than 200 bytes, or has a character
    /// that is not allowed.
    pub fn new(room: &str) -> Result<Self, InvalidName> {
        check("room name", room)?;
        Ok(Self(room.into()))
    }

    /// Creates a room's name from what another node sent. It accepts any text, including the names
    /// of internal rooms.
    pub fn from_wire(room: &str) -> Self {
        Self(room.into())
    }

    /// Returns the room of all connections of a user. No client can name it, because its name has a
    /// `/`.
    pub(crate) fn of_user(user: &UserId) -> Self {
        Self::internal("user", user)
    }

    /// Returns the internal room `owner/name`. No client can name it, because its name has a `/`.
    pub fn internal(owner: &str, name: impl fmt::Display) -> Self {
        Self(format!("{owner}/{name}").into())
    }

    /// Returns the room through which other nodes reach a node.
    pub(crate) fn of_node(node: NodeId) -> Self {
        Self(format!("{NODE_PREFIX}{node}").into())
    }

    /// Returns the room that all nodes are in.
    pub(crate) fn of_all_nodes() -> Self {
        Self(ALL_NODES.into())
    }

    /// Returns whether the room's members are nodes, not connections. If a node misses a message in
    /// such a room, the message is of no use to it later.
    pub fn is_of_nodes(&self) -> bool {
        self.0.starts_with(NODE_PREFIX) || self.0.starts_with(NODES_PREFIX)
    }

    /// Returns whether the room is internal. No client can name an internal room, because its name
    /// has a `/`.
    pub(crate) fn is_internal(&self) -> bool {
        self.0.contains('/')
    }
}

/// Maps whose keys are rooms can be searched by a borrowed name.
impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! text {
    ($type:ty) => {
        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}
text!(RoomName);
text!(UserId);

/// Serializes the type as text, in JSON too, and validates the text when it is deserialized.
macro_rules! text_in_json {
    ($type:ty, $error:ty, $parse:expr) => {
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                $parse(&text)
            }
        }
    };
}
text_in_json!(RoomName, InvalidName, Self::new);
text_in_json!(UserId, InvalidName, Self::new);
text_in_json!(NodeId, InvalidId, str::parse);
text_in_json!(ConnectionId, InvalidId, str::parse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_what_it_is() {
        for good in ["lobby", "a:b.c", "日本語", "👩\u{200d}🚀", "می\u{200c}خواهم", &"x".repeat(MAX_ROOM_NAME_LEN)]
        {
            assert!(RoomName::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a/b",
            "a b",
            "a\u{a0}b",
            "a\nb",
            "a\u{7f}b",
            "admin\u{200b}",
            "\u{202e}nimda",
            "\u{2066}a",
            "\u{feff}a",
            &"x".repeat(MAX_ROOM_NAME_LEN + 1),
        ] {
            assert!(RoomName::new(bad).is_err() && UserId::new(bad).is_err() && check_event(bad).is_err(), "{bad:?}");
        }
    }
}

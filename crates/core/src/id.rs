//! Names and ids, validated once where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;
use std::sync::Arc;

use roomcast_protocol::{MAX_NAME_LEN, Name};
use thiserror::Error;

/// The longest name of a room, user or room event in bytes.
pub const MAX_ROOM_NAME_LEN: usize = 200;

/// One run of one node: a restarted node has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// A random one. Ids must differ, they need not be secret: the hash keys of the standard library,
    /// which the system's randomness seeds, are enough.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// The one with this number, as it came from another node.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Its number, for the way to another node.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One connection, unique in the cluster and over restarts. An address, not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The node that owns the connection.
    pub node: NodeId,
    /// Which of that node's.
    pub serial: u64,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}", self.node, self.serial)
    }
}

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// Empty or too long.
    #[error("a {what} has 1 to {max} bytes, this one {len}")]
    Length {
        /// Of what the name is.
        what: &'static str,
        /// The largest length allowed.
        max: usize,
        /// The name's length.
        len: usize,
    },
    /// A character that is not allowed.
    #[error("a {what} has no '/', control characters or white space, this one has {character:?}")]
    Character {
        /// Of what the name is.
        what: &'static str,
        /// The first such character.
        character: char,
    },
}

fn check(what: &'static str, name: &str) -> Result<(), InvalidName> {
    if name.is_empty() || name.len() > MAX_ROOM_NAME_LEN {
        return Err(InvalidName::Length { what, max: MAX_ROOM_NAME_LEN, len: name.len() });
    }
    match name.chars().find(|c| *c == '/' || c.is_control() || c.is_whitespace()) {
        Some(character) => Err(InvalidName::Character { what, character }),
        None => Ok(()),
    }
}

/// Checks the name of an event that is published to a room.
///
/// # Errors
/// [`InvalidName`] if it is empty, longer than 200 bytes, or has a character that is not allowed.
pub fn check_event(event: &str) -> Result<Name, InvalidName> {
    check("room event name", event)?;
    Name::new(event).map_err(|error| InvalidName::Length { what: "event name", max: MAX_NAME_LEN, len: error.len })
}

/// A user, as the application names them: 1 to 200 bytes of UTF-8 without `/`, control characters
/// and white space. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks a user's name.
    ///
    /// # Errors
    /// [`InvalidName`] as for rooms.
    pub fn new(user: &str) -> Result<Self, InvalidName> {
        check("user id", user)?;
        Ok(Self(user.into()))
    }
}

/// A room's name: 1 to 200 bytes of UTF-8 without `/`, control characters and white space.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// Checks a room's name.
    ///
    /// # Errors
    /// [`InvalidName`] if it is empty, longer than 200 bytes, or has a character that is not allowed.
    pub fn new(room: &str) -> Result<Self, InvalidName> {
        check("room name", room)?;
        Ok(Self(room.into()))
    }

    /// The room of all connections of a user. Its name has a `/`, so no client can name it.
    pub(crate) fn of_user(user: &UserId) -> Self {
        Self(format!("user/{user}").into())
    }

    /// A room of the nodes' own. Its name has a `/`, so no client can name it.
    pub fn internal(owner: &str, name: impl fmt::Display) -> Self {
        Self(format!("{owner}/{name}").into())
    }

    pub(crate) fn is_of_user(&self) -> bool {
        self.0.contains('/')
    }
}

/// So that a map by rooms can be asked with a name that is borrowed.
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

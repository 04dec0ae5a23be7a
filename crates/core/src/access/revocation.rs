//! Credentials and users that are no longer accepted.

use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::access::identity::Credential;
use crate::id::UserId;
use crate::unix_time::seconds;

/// The longest id of a credential that can be revoked, in bytes.
pub const MAX_CREDENTIAL_ID: usize = 255;

/// The longest record of a revocation, in bytes. The longest names fit, even if JSON escapes each
/// of their bytes.
const MAX_RECORD: usize = 2048;

/// A revocation: until a time, the nodes reject these credentials and close their connections.
///
/// All times are whole seconds since 1970, as in tokens.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Revocation, Revoked, UserId};
///
/// let ann = UserId::new("ann")?;
/// let revocation = Revocation::new(Revoked::User { user: ann, issued_until: None }, 1_900_000_000)?;
/// assert!(!revocation.has_expired(1_899_999_999) && revocation.has_expired(1_900_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Revocation {
    revoked: Revoked,
    until: u64,
}

/// A revocation whose id is not checked yet.
#[derive(Deserialize)]
struct Fields {
    revoked: Revoked,
    until: u64,
}

impl TryFrom<Fields> for Revocation {
    type Error = InvalidRevocation;

    fn try_from(Fields { revoked, until }: Fields) -> Result<Self, InvalidRevocation> {
        Self::new(revoked, until)
    }
}

/// What a revocation applies to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Revoked {
    /// All credentials of a user. With `issued_until`, the user can connect again with a credential
    /// that was issued later.
    User {
        /// The user.
        user: UserId,
        /// If present, the revocation applies only to credentials issued up to this second.
        issued_until: Option<u64>,
    },
    /// The credential with this id, such as the claim `jti` of a token.
    Credential {
        /// The credential's id.
        id: String,
    },
    /// All credentials that were issued up to this second.
    IssuedUntil {
        /// The last second.
        time: u64,
    },
}

/// The error of an invalid revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the id of a credential must have 1 to {MAX_CREDENTIAL_ID} bytes, not {len}")]
pub struct InvalidRevocation {
    len: usize,
}

/// What a revocation is compared with: a connection, or a client that wants to connect.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// The user. `None` if the client is anonymous.
    pub user: Option<&'a UserId>,
    /// The credential, if there is one.
    pub credential: Option<&'a Credential>,
    /// If the client has no credential, the time at which its connection opened.
    pub connected_at: SystemTime,
}

impl Holder<'_> {
    fn issued_at(&self) -> u64 {
        seconds(self.credential.map_or(self.connected_at, |credential| credential.issued_at))
    }
}

impl Revocation {
    /// Creates a revocation that the nodes keep until this second. Keep it until the last of the
    /// credentials expires.
    ///
    /// # Errors
    /// Returns [`InvalidRevocation`] if the id of a credential is empty or too long.
    pub fn new(revoked: Revoked, until: u64) -> Result<Self, InvalidRevocation> {
        match &revoked {
            Revoked::Credential { id } if !(1..=MAX_CREDENTIAL_ID).contains(&id.len()) => {
                Err(InvalidRevocation { len: id.len() })
            }
            _ => Ok(Self { revoked, until }),
        }
    }

    /// Returns what the revocation applies to.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Returns the second at which the revocation ends.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Returns whether the revocation has ended at this second.
    pub fn has_expired(&self, now: u64) -> bool {
        self.until <= now
    }

    /// Returns whether the revocation applies to this client.
    pub fn applies_to(&self, holder: &Holder<'_>) -> bool {
        match &self.revoked {
            Revoked::User { user, issued_until } => {
                holder.user == Some(user) && issued_until.is_none_or(|until| holder.issued_at() <= until)
            }
            Revoked::Credential { id } => {
                holder.credential.and_then(|credential| credential.id.as_ref()).is_some_and(|own| own == id)
            }
            Revoked::IssuedUntil { time } => holder.credential.is_some() && holder.issued_at() <= *time,
        }
    }

    /// Encodes the revocation for the broker.
    pub(crate) fn to_record(&self) -> Bytes {
        serde_json::to_vec(self).expect("these types have no map keys that JSON lacks").into()
    }

    /// Decodes a record. Returns `None` if no node writes such a record.
    pub(crate) fn from_record(record: &[u8]) -> Option<Self> {
        if record.len() > MAX_RECORD {
            return None;
        }
        serde_json::from_slice(record).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn credential(id: Option<&str>, issued_at: u64) -> Credential {
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        Credential {
            subject: "s".to_owned(),
            id: id.map(ToOwned::to_owned),
            issued_at: at(issued_at),
            expires_at: at(issued_at + 60),
            grace: Duration::ZERO,
        }
    }

    #[test]
    fn a_revocation_applies_to_what_it_names_and_to_nothing_else() {
        let (ann, bob) = (user("ann"), user("bob"));
        let (old, new) = (credential(Some("t1"), 100), credential(Some("t2"), 101));
        let applies = |revoked: Revoked, user: Option<&UserId>, credential: Option<&Credential>| {
            let connected_at = UNIX_EPOCH + Duration::from_secs(100);
            Revocation::new(revoked, 1000).unwrap().applies_to(&Holder { user, credential, connected_at })
        };
        let of_ann = |issued_until| Revoked::User { user: ann.clone(), issued_until };
        assert!(applies(of_ann(None), Some(&ann), Some(&new)) && applies(of_ann(None), Some(&ann), None));
        assert!(!applies(of_ann(None), Some(&bob), Some(&new)) && !applies(of_ann(None), None, None));
        assert!(applies(of_ann(Some(100)), Some(&ann), Some(&old)) && applies(of_ann(Some(100)), Some(&ann), None));
        assert!(!applies(of_ann(Some(100)), Some(&ann), Some(&new)) && !applies(of_ann(Some(99)), Some(&ann), None));
        let token = || Revoked::Credential { id: "t1".to_owned() };
        assert!(applies(token(), Some(&ann), Some(&old)) && !applies(token(), Some(&ann), Some(&new)));
        assert!(!applies(token(), Some(&ann), Some(&credential(None, 1))) && !applies(token(), Some(&ann), None));
        let before = || Revoked::IssuedUntil { time: 100 };
        assert!(applies(before(), Some(&bob), Some(&old)) && !applies(before(), Some(&bob), Some(&new)));
        assert!(!applies(before(), None, None), "an anonymous client has no credential");
    }

    #[test]
    fn the_longest_revocation_fits_into_a_record() {
        let longest = Revoked::Credential { id: "\u{1}".repeat(MAX_CREDENTIAL_ID) };
        let revocation = Revocation::new(longest, u64::MAX).unwrap();
        assert_eq!(Revocation::from_record(&revocation.to_record()), Some(revocation));
        assert!(Revocation::new(Revoked::Credential { id: "x".repeat(MAX_CREDENTIAL_ID + 1) }, 1).is_err());
        assert!(Revocation::new(Revoked::Credential { id: String::new() }, 1).is_err());
    }

    #[test]
    fn a_record_that_no_node_writes_is_ignored() {
        let none_of_these = [
            "",
            "{}",
            "[]",
            r#"{"revoked":{"credential":{"id":""}},"until":1}"#,
            r#"{"revoked":{"user":{"user":"a/b","issued_until":null}},"until":1}"#,
            r#"{"revoked":{"planet":{"name":"x"}},"until":1}"#,
            r#"{"revoked":{"issued_until":{"time":-1}},"until":1}"#,
        ];
        for record in none_of_these {
            assert_eq!(Revocation::from_record(record.as_bytes()), None, "{record}");
        }
        let padded = format!("{}{}", " ".repeat(MAX_RECORD), r#"{"revoked":{"issued_until":{"time":1}},"until":1}"#);
        assert_eq!(Revocation::from_record(padded.as_bytes()), None);
    }
}

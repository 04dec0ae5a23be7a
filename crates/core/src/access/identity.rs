//! A client's identity.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use thiserror::Error;

use crate::access::grants::Grants;
use crate::id::{RoomName, UserId};

/// A grace time for [`Credential::grace`] that suits most applications: a refresh may still be on
/// its way when the credential expires.
pub const EXPIRY_GRACE: Duration = Duration::from_secs(25);

/// Who a client is and what it may do.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Grants, Identity, Right, Rule, Subject, UserId};
/// use serde_json::{Value, json};
///
/// let rules: Vec<Rule> = serde_json::from_value(json!([{ "rooms": ["user:{user}"], "do": ["join",
/// "publish"] }]))?;
/// let grants = Grants::resolve(&rules, Subject { user: Some("ann"), claims: &Value::Null });
/// let identity = Identity::new(grants).with_user(UserId::new("ann")?);
/// assert!(identity.grants.allow(Right::Join, "user:ann"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Identity {
    /// The user. `None` if the client is anonymous.
    pub user: Option<UserId>,
    /// What the client may do.
    pub grants: Grants,
    /// The rooms that the node joins for the client when the connection opens. The client needs no
    /// right to be in them.
    pub join: Vec<RoomName>,
    /// Data for handlers. `Null` if there is none.
    pub meta: Value,
    /// The proof of the identity. `None` if the identity does not expire and cannot be refreshed.
    pub credential: Option<Credential>,
    /// Whether the client has yet to send its credential, with a refresh. Until then, it may do
    /// nothing. The refresh can then set any user.
    pub is_pending: bool,
}

/// What proves a client's identity, such as a token or a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The subject of the credential, which must be unique among all issuers. A refresh cannot
    /// change it.
    pub subject: String,
    /// The credential's own id, if it has one, such as the claim `jti` of a token.
    pub id: Option<String>,
    /// The time at which it was issued. A refresh cannot go back in time.
    pub issued_at: SystemTime,
    /// The time at which it expires.
    pub expires_at: SystemTime,
    /// How long the connection stays open after the credential has expired.
    pub grace: Duration,
}

/// The error of replacing an identity on an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// One of the identities has no credential.
    #[error("the connection has no credential that can be refreshed")]
    NoCredential,
    /// The identities have different users or subjects.
    #[error("the new credential belongs to another user")]
    OtherUser,
    /// The new credential is older than the current one.
    #[error("the new credential is older than the current one")]
    Older,
}

impl Identity {
    /// Creates the identity of an anonymous client with these grants.
    pub fn new(grants: Grants) -> Self {
        Self { grants, ..Self::default() }
    }

    /// Creates the identity of a client that must send its credential with a refresh, as its first
    /// message and within this time. Otherwise, the connection is closed with 4401.
    pub fn pending(within: Duration) -> Self {
        let now = SystemTime::now();
        let expires_at = now.checked_add(within).unwrap_or(now);
        let credential =
            Credential { subject: String::new(), id: None, issued_at: now, expires_at, grace: Duration::ZERO };
        Self { credential: Some(credential), is_pending: true, ..Self::default() }
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Sets the credential.
    #[must_use]
    pub fn with_credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// Checks that another identity may replace this one on an open connection.
    ///
    /// # Errors
    /// Returns [`RefreshError`] if the other identity is of another user or subject, if its
    /// credential is older, or if one of the two has no credential.
    pub fn check_refresh(&self, next: &Self) -> Result<(), RefreshError> {
        let (Some(current), Some(refreshed)) = (&self.credential, &next.credential) else {
            return Err(RefreshError::NoCredential);
        };
        if self.is_pending {
            return Ok(());
        }
        if self.user != next.user || current.subject != refreshed.subject {
            return Err(RefreshError::OtherUser);
        }
        if refreshed.issued_at < current.issued_at {
            return Err(RefreshError::Older);
        }
        Ok(())
    }
}

//! An issuer of tokens.

use std::collections::BTreeSet;

use jsonwebtoken::Algorithm;

/// An issuer of tokens, and how its tokens name users and roles.
///
/// ```
/// use roomcast_auth::{Algorithm, Issuer};
///
/// let issuer = Issuer::new("https://id.example", ["roomcast"], [Algorithm::ES256]);
/// assert_eq!((&*issuer.user_claim, &*issuer.user_prefix), ("sub", ""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issuer {
    /// The issuer's name, which the claim `iss` must equal.
    pub issuer: String,
    /// The accepted audiences. The claim `aud` must contain at least one of them.
    pub audience: Vec<String>,
    /// The algorithms with which the issuer signs.
    pub algorithms: Vec<Algorithm>,
    /// The dotted path of the claim that names the user. Default: `sub`.
    pub user_claim: String,
    /// The prefix that this issuer's users get, so that users of different issuers differ. Default:
    /// none.
    pub user_prefix: String,
    /// The dotted path of the claim that lists the roles. Default: none.
    pub roles_claim: Option<String>,
    /// The only roles that the issuer's tokens can give. Default: `None`, which means all roles.
    pub roles: Option<BTreeSet<String>>,
    /// Whether tokens can grant rights themselves, with the claims `roomcast.allow` and
    /// `roomcast.join`. Default: true.
    pub token_grants: bool,
}

impl Issuer {
    /// Creates an issuer whose claim `sub` names the user, and which has no claim for roles. Its tokens
    /// can grant all rights and name all roles in the claim `roomcast`.
    pub fn new(
        issuer: impl Into<String>,
        audience: impl IntoIterator<Item = impl Into<String>>,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audience: audience.into_iter().map(Into::into).collect(),
            algorithms: algorithms.into_iter().collect(),
            user_claim: "sub".to_owned(),
            user_prefix: String::new(),
            roles_claim: None,
            roles: None,
            token_grants: true,
        }
    }
}

impl Issuer {
    /// Returns whether the issuer's tokens can give this role.
    pub(crate) fn may_give(&self, role: &str) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.contains(role))
    }
}

//! What clients may do: issuers, roles, and anonymous clients.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use roomcast::{Grants, Rule, Subject};
use serde_json::Value;
use thiserror::Error;

use crate::token::{Issuer, Token};

/// The error of combining issuers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Two issuers have the same name.
    #[error("issuer {0:?} is configured twice")]
    DuplicateIssuer(String),
    /// An issuer has no audience.
    #[error("issuer {0:?}: `audience` is empty; list at least one value that the claim `aud` contains")]
    NoAudience(String),
    /// An issuer has no algorithm.
    #[error("issuer {0:?}: `algorithms` is empty; list those with which the issuer signs, such as ES256")]
    NoAlgorithm(String),
    /// An issuer has algorithms for secrets and for public keys. An attacker could sign a token with
    /// the public key as a secret.
    #[error("issuer {0:?}: `algorithms` mixes HMAC and public-key algorithms")]
    MixedAlgorithms(String),
    /// A user of one issuer could have the same name as a user of another issuer.
    #[error(
        "issuers {first:?} and {second:?}: if there are several issuers, each needs a `user_prefix`, and no prefix may begin with another; \
         they have {first_prefix:?} and {second_prefix:?}"
    )]
    UserPrefix {
        /// One of the issuers.
        first: String,
        /// Its prefix.
        first_prefix: String,
        /// The other issuer.
        second: String,
        /// Its prefix.
        second_prefix: String,
    },
}

/// The issuers whose tokens are accepted, and the rights of roles and of anonymous clients.
///
/// ```
/// use roomcast::Right;
/// use roomcast_auth::{Algorithm, Issuer, Policy};
///
/// let issuer = Issuer::new("https://id.example", ["roomcast"], [Algorithm::ES256]);
/// let anonymous = serde_json::from_str(r#"[{"rooms": ["public:*"], "do": ["join"]}]"#)?;
/// let policy = Policy::new(vec![issuer], Default::default(), Some(anonymous))?;
/// let grants = policy.anonymous_grants().expect("clients without a token are allowed");
/// assert!(grants.allow(Right::Join, "public:news"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    issuers: Vec<Issuer>,
    roles: BTreeMap<String, Vec<Rule>>,
    anonymous: Option<Vec<Rule>>,
}

impl Policy {
    /// Creates a policy. If `anonymous` is `None`, every client needs a token.
    ///
    /// # Errors
    /// Returns [`PolicyError`] if an issuer has no audience, has no algorithm or mixes families of
    /// algorithms, or if two issuers have the same name or could have users with the same name.
    pub fn new(
        issuers: Vec<Issuer>,
        roles: BTreeMap<String, Vec<Rule>>,
        anonymous: Option<Vec<Rule>>,
    ) -> Result<Self, PolicyError> {
        for (index, issuer) in issuers.iter().enumerate() {
            check_issuer(issuer)?;
            issuers[..index].iter().try_for_each(|other| check_pair(other, issuer))?;
        }
        Ok(Self { issuers, roles, anonymous })
    }

    /// Returns the issuers.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Returns what a token grants: the rights of its own rules and of its roles. A role that the
    /// policy does not contain grants nothing.
    pub fn grants(&self, token: &Token) -> Grants {
        Grants::resolve(self.rules_of(token), subject(token))
    }

    /// Returns what anonymous clients may do, or `None` if every client needs a token.
    pub fn anonymous_grants(&self) -> Option<Grants> {
        let rules = self.anonymous.as_ref()?;
        Some(Grants::resolve(rules, Subject { user: None, claims: &Value::Null }))
    }

    /// The token's own rules, and those of its roles.
    fn rules_of<'a>(&'a self, token: &'a Token) -> impl Iterator<Item = &'a Rule> {
        let of_roles = token.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        token.allow.iter().chain(of_roles)
    }
}

fn subject(token: &Token) -> Subject<'_> {
    Subject { user: Some(&token.user), claims: &token.claims }
}

fn check_issuer(issuer: &Issuer) -> Result<(), PolicyError> {
    let name = || issuer.issuer.clone();
    if issuer.audience.is_empty() {
        return Err(PolicyError::NoAudience(name()));
    }
    let is_hmac = |algorithm: &Algorithm| algorithm.family() == AlgorithmFamily::Hmac;
    let Some(first) = issuer.algorithms.first() else { return Err(PolicyError::NoAlgorithm(name())) };
    if issuer.algorithms.iter().any(|algorithm| is_hmac(algorithm) != is_hmac(first)) {
        return Err(PolicyError::MixedAlgorithms(name()));
    }
    Ok(())
}

fn check_pair(first: &Issuer, second: &Issuer) -> Result<(), PolicyError> {
    if first.issuer == second.issuer {
        return Err(PolicyError::DuplicateIssuer(first.issuer.clone()));
    }
    let (a, b) = (&first.user_prefix, &second.user_prefix);
    if a.starts_with(b.as_str()) || b.starts_with(a.as_str()) {
        return Err(PolicyError::UserPrefix {
            first: first.issuer.clone(),
            first_prefix: a.clone(),
            second: second.issuer.clone(),
            second_prefix: b.clone(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Algorithm::{ES256, HS256, RS256};

    fn issuer(name: &str, prefix: &str) -> Issuer {
        let mut issuer = Issuer::new(name, ["roomcast"], [ES256]);
        issuer.user_prefix = prefix.to_owned();
        issuer
    }

    fn refused(issuers: Vec<Issuer>) -> String {
        Policy::new(issuers, BTreeMap::new(), None).expect_err("a reason").to_string()
    }

    #[test]
    fn issuers_whose_tokens_or_users_could_be_mixed_up_are_refused() {
        assert!(refused(vec![issuer("a", "x-"), issuer("a", "y-")]).contains("\"a\" is configured twice"));
        for (first, second) in [("", ""), ("x", "x"), ("", "x"), ("x", "xy"), ("xy", "x")] {
            assert!(refused(vec![issuer("a", first), issuer("b", second)]).contains("needs a `user_prefix`"));
        }
        assert!(refused(vec![Issuer::new("a", ["r"], [RS256, HS256])]).contains("mixes HMAC and public-key"));
        assert!(refused(vec![Issuer::new("a", ["r"], [])]).contains("`algorithms` is empty"));
        assert!(refused(vec![Issuer::new("a", [""; 0], [ES256])]).contains("`audience` is empty"));
        let two = vec![issuer("a", "x-"), issuer("b", "y-")];
        assert!(Policy::new(two, BTreeMap::new(), None).is_ok());
    }
}

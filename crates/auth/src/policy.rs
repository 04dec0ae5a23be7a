//! What clients may do: issuers, roles, and anonymous clients.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use roomcast::{Grants, InvalidName, Right, RoomName, Rule, Subject, UserId};
use serde_json::Value;
use thiserror::Error;

use crate::explanation::{Client, Considered, Explanation, Source};
use crate::issuer::Issuer;
use crate::token::Token;

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
    /// An issuer can give a role that is not configured.
    #[error("issuer {issuer:?}: `roles` contains {role:?}, which is not configured")]
    UnknownRole {
        /// The issuer.
        issuer: String,
        /// The role.
        role: String,
    },
    /// An issuer has algorithms for secrets and for public keys. An attacker could sign a token with
    /// the public key as a secret.
    #[error("issuer {0:?}: `algorithms` mixes HMAC and public-key algorithms")]
    MixedAlgorithms(String),
    /// No user's name can begin with an issuer's prefix.
    #[error("issuer {issuer:?}: `user_prefix` is not the beginning of a user's name: {problem}")]
    InvalidUserPrefix {
        /// The issuer.
        issuer: String,
        /// What is wrong with its prefix.
        problem: InvalidName,
    },
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
    /// Returns [`PolicyError`] if an issuer has no audience, has no algorithm, mixes families of
    /// algorithms or can give an unknown role, or if two issuers have the same name or could have users with the same name.
    pub fn new(
        issuers: Vec<Issuer>,
        roles: BTreeMap<String, Vec<Rule>>,
        anonymous: Option<Vec<Rule>>,
    ) -> Result<Self, PolicyError> {
        for (index, issuer) in issuers.iter().enumerate() {
            check_issuer(issuer)?;
            if let Some(role) = issuer.roles.iter().flatten().find(|role| !roles.contains_key(*role)) {
                return Err(PolicyError::UnknownRole { issuer: issuer.issuer.clone(), role: role.clone() });
            }
            issuers[..index].iter().try_for_each(|other| check_pair(other, issuer))?;
        }
        Ok(Self { issuers, roles, anonymous })
    }

    /// Returns the issuers.
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    /// Returns what a token grants: the rights of its own rules and of its roles, as far as its issuer
    /// can give them. A role that the policy does not contain grants nothing.
    pub fn grants(&self, token: &Token) -> Grants {
        Grants::resolve(self.rules_of(token).map(|(_, rule)| rule), subject(token))
    }

    /// Returns what anonymous clients may do, or `None` if every client needs a token.
    pub fn anonymous_grants(&self) -> Option<Grants> {
        let rules = self.anonymous.as_ref()?;
        Some(Grants::resolve(rules, ANONYMOUS))
    }

    /// Explains whether a client with this token, or an anonymous client, has a right on the room or
    /// method with this name. Built-in methods such as `rooms/join` are not matched by any rule on
    /// calls; ask for the right on the room instead.
    pub fn explain(&self, token: Option<&Token>, right: Right, name: &str) -> Explanation {
        let considered = |source: Source, rule: &Rule, subject: Subject<'_>| {
            let verdict = rule.explain(subject, right, name);
            Considered { source, rule: rule.clone(), verdict }
        };
        let Some(token) = token else {
            let Some(grants) = self.anonymous_grants() else {
                let reason = "every client needs a token, because there are no rights for anonymous clients";
                return Explanation::rejected(right, name, reason.to_owned());
            };
            let rules = self.anonymous.iter().flatten().map(|rule| considered(Source::Anonymous, rule, ANONYMOUS));
            return Explanation::new((right, name), None, rules.collect(), grants.allow(right, name));
        };
        let rules = self.rules_of(token).map(|(source, rule)| considered(source, rule, subject(token)));
        let client = Client { issuer: token.issuer.clone(), user: token.user.to_string() };
        let is_granted = self.grants(token).allow(right, name);
        let mut explanation = Explanation::new((right, name), Some(client), rules.collect(), is_granted);
        explanation.ignored = self.ignored(token);
        explanation.joined_on_connect = right == Right::Join && self.joins(token).iter().any(|room| **room == *name);
        explanation
    }

    /// Returns the rooms that the node joins for the client.
    pub(crate) fn joins<'a>(&self, token: &'a Token) -> &'a [RoomName] {
        if self.token_grants(token) { &token.join } else { &[] }
    }

    /// The token's own rules, and those of its roles, as far as its issuer may give them.
    fn rules_of<'a>(&'a self, token: &'a Token) -> impl Iterator<Item = (Source, &'a Rule)> {
        let own = if self.token_grants(token) { &*token.allow } else { &[] };
        let own = own.iter().map(|rule| (Source::Token, rule));
        let of_role = |role: &'a String| {
            let rules = self.roles.get(role).filter(|_| self.may_give(token, role));
            rules.into_iter().flatten().map(|rule| (Source::Role(role.clone()), rule))
        };
        own.chain(token.roles.iter().flat_map(of_role))
    }

    /// The parts of a token that grant nothing, each with the reason.
    fn ignored(&self, token: &Token) -> Vec<String> {
        let claim = |name: &str, is_empty: bool| {
            let is_ignored = !is_empty && !self.token_grants(token);
            is_ignored.then(|| format!("claim `roomcast.{name}`, because the issuer has token_grants = false"))
        };
        let claims = [claim("allow", token.allow.is_empty()), claim("join", token.join.is_empty())];
        let roles = token.roles.iter().filter_map(|role| match self.roles.contains_key(role) {
            false => Some(format!("role {role:?} is not configured")),
            true if !self.may_give(token, role) => Some(format!("role {role:?} is not one of the issuer's roles")),
            true => None,
        });
        claims.into_iter().flatten().chain(roles).collect()
    }

    fn token_grants(&self, token: &Token) -> bool {
        self.issuer_of(token).is_some_and(|issuer| issuer.token_grants)
    }

    fn may_give(&self, token: &Token, role: &str) -> bool {
        self.issuer_of(token).is_some_and(|issuer| issuer.may_give(role))
    }

    fn issuer_of(&self, token: &Token) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.issuer == token.issuer)
    }
}

/// The subject of anonymous clients.
const ANONYMOUS: Subject<'static> = Subject { user: None, claims: &Value::Null };

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
    if !issuer.user_prefix.is_empty() {
        let invalid = |problem| PolicyError::InvalidUserPrefix { issuer: name(), problem };
        UserId::new(&issuer.user_prefix).map_err(invalid)?;
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
        assert!(
            refused(vec![issuer("a", "https://a/")]).contains("`user_prefix` is not the beginning of a user's name")
        );
        let mut of_unknown_role = issuer("a", "");
        of_unknown_role.roles = Some(["member".to_owned()].into());
        assert!(refused(vec![of_unknown_role]).contains("`roles` contains \"member\", which is not configured"));
        let two = vec![issuer("a", "x-"), issuer("b", "y-")];
        assert!(Policy::new(two, BTreeMap::new(), None).is_ok());
    }
}

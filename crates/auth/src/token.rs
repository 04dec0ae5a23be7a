//! Verifies tokens (RFC 7519).
//!
//! [`Unverified::parse`] finds the issuer and the key that a token names. [`Unverified::verify`]
//! checks the token with the key. Before that, the token determines nothing but its issuer. The
//! configuration chooses the algorithms, and the headers `jku`, `x5u` and `jwk` are ignored.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use roomcast::{Credential, RoomName, Rule, Subject, UserId, claim};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::issuer::Issuer;

/// The longest name of a user in bytes, including its issuer's prefix.
pub const MAX_USER_LEN: usize = 180;

/// The largest size of the claim `roomcast.meta` as JSON, in bytes.
pub const MAX_META_LEN: usize = 2048;

/// The largest number of rooms in the claim `roomcast.join`.
pub const MAX_JOIN: usize = 100;

/// Limits for the tokens of all issuers.
///
/// ```
/// use roomcast_auth::TokenRules;
///
/// assert_eq!(TokenRules::default().max_token, 8 * 1024);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// The size of the longest token in bytes. Default: 8 KiB.
    pub max_token: usize,
    /// The longest time from `iat` to `exp`. Default: 24 h.
    pub max_lifetime: Duration,
    /// How far `iat` and `nbf` may be in the future, because clocks differ. Default: 30 s.
    pub leeway: Duration,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self { max_token: 8 * 1024, max_lifetime: Duration::from_secs(24 * 3600), leeway: Duration::from_secs(30) }
    }
}

/// The reason why a token is rejected. It is meant for operators: clients learn only that their
/// token was rejected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is too long.
    #[error("the token has {len} bytes, more than the {max} allowed")]
    TooLong {
        /// The token's length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The text is not a JWT.
    #[error("the token is not a signed JWT: {0}")]
    Malformed(String),
    /// The token's header lists extensions that the recipient must support.
    #[error("the token's header requires extensions (`crit`): {0:?}")]
    Critical(Vec<String>),
    /// No issuer with this name is configured.
    #[error("no issuer {0:?} is configured")]
    UnknownIssuer(String),
    /// The issuer does not sign with this algorithm.
    #[error("issuer {issuer:?} does not use the algorithm {algorithm:?}")]
    Algorithm {
        /// The issuer.
        issuer: String,
        /// The algorithm in the token's header.
        algorithm: Algorithm,
    },
    /// The issuer has no key that could have signed the token.
    #[error("the issuer has no key with the token's key id and algorithm")]
    UnknownKey,
    /// The issuer's keys cannot be fetched at the moment, and none of the keys that were fetched
    /// before could have signed the token.
    #[error("the keys of issuer {issuer:?} cannot be fetched, so the token cannot be verified: {problem}")]
    KeysUnavailable {
        /// The issuer.
        issuer: String,
        /// The error of the last fetch.
        problem: String,
    },
    /// The signature is not valid.
    #[error("the token's signature is not valid")]
    Signature,
    /// A claim is missing or invalid.
    #[error("the token's claim `{name}` is {problem}")]
    Claim {
        /// The name of the claim.
        name: String,
        /// What is wrong with the claim.
        problem: String,
    },
    /// The token expired this long ago.
    #[error("the token expired {} s ago", .0.as_secs())]
    Expired(Duration),
    /// The token is not valid yet.
    #[error("the token's claim `{claim}` is {} s in the future", ahead.as_secs())]
    Early {
        /// `nbf` or `iat`.
        claim: &'static str,
        /// How far the claim is in the future, in addition to the leeway.
        ahead: Duration,
    },
    /// The token is valid for too long.
    #[error("the token is valid for {} s, longer than the {} s allowed", lifetime.as_secs(), max.as_secs())]
    Lifetime {
        /// The time from `iat` to `exp`.
        lifetime: Duration,
        /// The limit.
        max: Duration,
    },
}

/// A token that has not been verified yet.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    token: &'a str,
    issuer: &'a Issuer,
    header: Header,
}

#[derive(Deserialize)]
struct IssuerClaim {
    iss: String,
}

impl<'a> Unverified<'a> {
    /// Finds the issuer that a token names.
    ///
    /// # Errors
    /// Returns [`TokenError`] if the token is too long, is not a JWT, names none of the issuers, or
    /// has an algorithm that its issuer does not use.
    pub(crate) fn parse(token: &'a str, rules: &TokenRules, issuers: &'a [Issuer]) -> Result<Self, TokenError> {
        if token.len() > rules.max_token {
            return Err(TokenError::TooLong { len: token.len(), max: rules.max_token });
        }
        let malformed = |error: jsonwebtoken::errors::Error| TokenError::Malformed(escaped(&error));
        let header = jsonwebtoken::decode_header(token).map_err(malformed)?;
        if let Some(crit) = header.crit {
            return Err(TokenError::Critical(crit));
        }
        let IssuerClaim { iss } = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(malformed)?;
        let issuer = issuers.iter().find(|issuer| issuer.issuer == iss).ok_or(TokenError::UnknownIssuer(iss))?;
        if !issuer.algorithms.contains(&header.alg) {
            return Err(TokenError::Algorithm { issuer: issuer.issuer.clone(), algorithm: header.alg });
        }
        Ok(Self { token, issuer, header })
    }

    /// Returns the issuer that the token names.
    pub(crate) fn issuer(&self) -> &'a Issuer {
        self.issuer
    }

    /// Returns the id of the key that the token names.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Returns the algorithm, which is one of the issuer's.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    /// Checks the signature and all claims.
    ///
    /// # Errors
    /// Returns [`TokenError`] for the first check that fails.
    pub(crate) fn verify(&self, key: &DecodingKey, rules: &TokenRules, now: SystemTime) -> Result<Token, TokenError> {
        let mut signature_only = Validation::new(self.header.alg);
        // `Claims` checks the claims, strictly by their types.
        signature_only.required_spec_claims.clear();
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        let verified =
            jsonwebtoken::decode::<Value>(self.token, key, &signature_only).map_err(|error| match error.kind() {
                jsonwebtoken::errors::ErrorKind::Json(_) => TokenError::Malformed(escaped(&error)),
                _ => TokenError::Signature,
            })?;
        Claims(verified.claims).check(self.issuer, rules, now)
    }
}

/// The contents of a verified token. Not everything in it counts: an [`Issuer`] can limit what its
/// tokens grant, and [`Policy`](crate::Policy) applies these limits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Token {
    /// The name of its issuer.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: Option<String>,
    /// The user: the issuer's prefix, followed by the value of the user claim.
    pub user: UserId,
    /// The claim `jti`.
    pub id: Option<String>,
    /// The claim `iat`.
    pub issued_at: SystemTime,
    /// The claim `exp`.
    pub expires_at: SystemTime,
    /// The names of the user's roles, sorted.
    pub roles: Vec<String>,
    /// The rules in the claim `roomcast.allow`.
    pub allow: Vec<Rule>,
    /// The rooms that the node joins for the client, from the claim `roomcast.join`.
    pub join: Vec<RoomName>,
    /// Data for handlers, from the claim `roomcast.meta`. `Null` if there is none.
    pub meta: Value,
    /// All claims.
    pub claims: Value,
}

impl Token {
    /// Returns the credential of the token's client. Its connection stays open for the grace time
    /// after the token has expired.
    pub fn credential(&self, grace: Duration) -> Credential {
        Credential {
            subject: json!([self.issuer, self.subject, self.user]).to_string(),
            id: self.id.clone(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            grace,
        }
    }
}

/// The claim `roomcast`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Extension {
    allow: Vec<Rule>,
    roles: Vec<String>,
    join: Vec<String>,
    meta: Value,
}

/// The claims of a token with a valid signature.
struct Claims(Value);

impl Claims {
    fn check(self, issuer: &Issuer, rules: &TokenRules, now: SystemTime) -> Result<Token, TokenError> {
        if self.text("iss")? != issuer.issuer {
            return Err(TokenError::UnknownIssuer(self.text("iss")?.to_owned()));
        }
        if !claim_texts(&self.0, "aud").any(|audience| issuer.audience.iter().any(|own| own == audience)) {
            return Err(wrong("aud", format!("none of {:?}", issuer.audience)));
        }
        let (issued_at, expires_at) = self.times(rules, now)?;
        let user = format!("{}{}", issuer.user_prefix, self.user(issuer)?);
        if user.len() > MAX_USER_LEN {
            return Err(wrong(
                &issuer.user_claim,
                format!("{} bytes long with its prefix; {MAX_USER_LEN} are allowed", user.len()),
            ));
        }
        let user = UserId::new(&user)
            .map_err(|error| wrong(&issuer.user_claim, format!("not a user: {}", escaped(&error))))?;
        let Extension { allow, mut roles, join, meta } = self.extension()?;
        if let Some(path) = &issuer.roles_claim {
            roles.extend(claim_texts(&self.0, path).map(ToOwned::to_owned));
        }
        roles.sort();
        roles.dedup();
        let subject = Subject { user: Some(&user), claims: &self.0 };
        let join = join.iter().map(|room| subject.room(room)).collect::<Result<_, _>>();
        let join = join.map_err(|error| wrong("roomcast.join", format!("not valid: {}", escaped(&error))))?;
        Ok(Token {
            issuer: issuer.issuer.clone(),
            subject: self.optional_text("sub")?.map(ToOwned::to_owned),
            user,
            id: self.optional_text("jti")?.map(ToOwned::to_owned),
            issued_at,
            expires_at,
            roles,
            allow,
            join,
            meta,
            claims: self.0,
        })
    }

    fn times(&self, rules: &TokenRules, now: SystemTime) -> Result<(SystemTime, SystemTime), TokenError> {
        let issued_at = self.time("iat")?.ok_or_else(|| wrong("iat", "missing"))?;
        let expires_at = self.time("exp")?.ok_or_else(|| wrong("exp", "missing"))?;
        if let Ok(since) = now.duration_since(expires_at) {
            return Err(TokenError::Expired(since));
        }
        for (claim, time) in [("iat", Some(issued_at)), ("nbf", self.time("nbf")?)] {
            if let Some(time) = time
                && let Ok(ahead) = time.duration_since(now + rules.leeway)
                && !ahead.is_zero()
            {
                return Err(TokenError::Early { claim, ahead });
            }
        }
        let lifetime = expires_at.duration_since(issued_at).map_err(|_| wrong("exp", "before `iat`"))?;
        if lifetime > rules.max_lifetime {
            return Err(TokenError::Lifetime { lifetime, max: rules.max_lifetime });
        }
        Ok((issued_at, expires_at))
    }

    fn user(&self, issuer: &Issuer) -> Result<&str, TokenError> {
        match claim(&self.0, &issuer.user_claim) {
            Some(Value::String(user)) if !user.is_empty() => Ok(user),
            Some(Value::String(_)) => Err(wrong(&issuer.user_claim, "empty")),
            Some(_) => Err(wrong(&issuer.user_claim, "not a string")),
            None => Err(wrong(&issuer.user_claim, "missing")),
        }
    }

    fn extension(&self) -> Result<Extension, TokenError> {
        let Some(value) = self.0.get("roomcast") else { return Ok(Extension::default()) };
        let extension = Extension::deserialize(value)
            .map_err(|error| wrong("roomcast", format!("not valid: {}", escaped(&error))))?;
        if extension.join.len() > MAX_JOIN {
            return Err(wrong(
                "roomcast.join",
                format!("a list of {} rooms; {MAX_JOIN} are allowed", extension.join.len()),
            ));
        }
        let meta_len = extension.meta.to_string().len();
        if meta_len > MAX_META_LEN {
            return Err(wrong("roomcast.meta", format!("{meta_len} bytes long; {MAX_META_LEN} are allowed")));
        }
        Ok(extension)
    }

    fn text(&self, name: &str) -> Result<&str, TokenError> {
        self.optional_text(name)?.ok_or_else(|| wrong(name, "missing"))
    }

    fn optional_text(&self, name: &str) -> Result<Option<&str>, TokenError> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "not a string")),
        }
    }

    /// Reads a NumericDate: seconds since 1970, for which some issuers use fractions.
    fn time(&self, name: &str) -> Result<Option<SystemTime>, TokenError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
        match seconds {
            Some(seconds) => Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds))),
            None => Err(wrong(name, "not a number of seconds since 1970")),
        }
    }
}

/// Returns an error as text without line breaks and control characters, which could come from the
/// token.
pub(crate) fn escaped(error: &impl fmt::Display) -> String {
    let mut text = String::new();
    for char in error.to_string().chars() {
        if char.is_control() { text.extend(char.escape_default()) } else { text.push(char) }
    }
    text
}

/// Returns the texts of a claim that is a list of strings or a single string.
fn claim_texts<'a>(claims: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let (one, many) = match claim(claims, path) {
        Some(Value::Array(values)) => (None, values.as_slice()),
        value => (value, &[][..]),
    };
    one.into_iter().chain(many).filter_map(Value::as_str)
}

/// The end of the year 9999.
const MAX_SECONDS: f64 = 253_402_300_799.0;

fn wrong(claim: &str, problem: impl Into<String>) -> TokenError {
    TokenError::Claim { name: claim.to_owned(), problem: problem.into() }
}

//! Turns a request into an identity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use jsonwebtoken::Algorithm;
use parking_lot::RwLock;
use roomcast::{Authorizer, CallError, Code, Credential, EXPIRY_GRACE, Identity, UserId};
use serde_json::json;
use thiserror::Error;

use crate::keys::Keys;
use crate::policy::Policy;
use crate::request::{self, Origins};
use crate::token::{Token, TokenError, TokenRules, Unverified};

/// Authorizes clients by their tokens. It is cheap to clone, and clones share their rules, so that
/// [`replace`](Self::replace) changes all of them.
///
/// A client sends its token in the header `Authorization: Bearer TOKEN`. Browsers do not let pages
/// set this header, so a page sends the token in `Sec-WebSocket-Protocol`, as the additional entry
/// `roomcast.token.TOKEN`. A client without a token is anonymous if the [`Policy`] has rules for
/// anonymous clients. Otherwise, its request fails with status 401.
///
/// A request with an [origin](Origins) that is not allowed fails with status 403, even if it has a
/// token. A request without `Origin` needs a token.
///
/// A client refreshes its token by calling `auth/refresh` with the new token as the payload.
#[derive(Debug, Clone)]
pub struct JwtAuthorizer {
    rules: Arc<RwLock<Arc<Rules>>>,
}

/// The largest number of keys with which one token is checked: a signature costs CPU time, and
/// anybody can send tokens.
const MAX_TRIED_KEYS: usize = 4;

/// Everything that decides about a client.
#[derive(Debug, Clone)]
struct Rules {
    policy: Policy,
    /// By issuer.
    keys: BTreeMap<String, Keys>,
    tokens: TokenRules,
    origins: Origins,
    token_in_query: bool,
    expiry_grace: Duration,
}

/// The error of an issuer that has no key for any of its algorithms.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("issuer {issuer:?} has no key for its algorithms {algorithms:?}")]
pub struct MissingKeys {
    /// The name of the issuer.
    pub issuer: String,
    /// Its algorithms.
    pub algorithms: Vec<Algorithm>,
}

impl JwtAuthorizer {
    /// Creates an authorizer from a policy and the keys of each of its issuers, by the issuer's name.
    ///
    /// # Errors
    /// Returns [`MissingKeys`] if an issuer of the policy has no key for any of its algorithms.
    pub fn new(policy: Policy, keys: BTreeMap<String, Keys>) -> Result<Self, MissingKeys> {
        for issuer in policy.issuers() {
            let own = keys.get(&issuer.issuer);
            if !issuer.algorithms.iter().any(|algorithm| own.is_some_and(|keys| keys.has_any_for(*algorithm))) {
                return Err(MissingKeys { issuer: issuer.issuer.clone(), algorithms: issuer.algorithms.clone() });
            }
        }
        let rules = Rules {
            policy,
            keys,
            tokens: TokenRules::default(),
            origins: Origins::default(),
            token_in_query: false,
            expiry_grace: EXPIRY_GRACE,
        };
        Ok(Self { rules: Arc::new(RwLock::new(Arc::new(rules))) })
    }

    /// Sets the pages from which browsers may connect. Default: pages of the node's own host.
    #[must_use]
    pub fn origins(self, origins: Origins) -> Self {
        self.change(|rules| rules.origins = origins)
    }

    /// Sets the limits for tokens.
    #[must_use]
    pub fn token_rules(self, tokens: TokenRules) -> Self {
        self.change(|rules| rules.tokens = tokens)
    }

    /// Also accepts a token in the URL, as `?token=TOKEN`. Proxies and servers write URLs to their
    /// logs, so use this only for clients that cannot send a token in a header.
    #[must_use]
    pub fn token_in_query(self) -> Self {
        self.change(|rules| rules.token_in_query = true)
    }

    /// Sets how long a connection stays open after its token has expired. Default: 25 s.
    #[must_use]
    pub fn expiry_grace(self, grace: Duration) -> Self {
        self.change(|rules| rules.expiry_grace = grace)
    }

    /// Verifies a token, and returns its contents or the reason why it is rejected. Use this for
    /// operators and tests. Do not send the reason to a client.
    ///
    /// # Errors
    /// Returns [`TokenError`] for the first check that fails.
    pub fn verify(&self, token: &str) -> Result<Token, TokenError> {
        self.rules().verify(token)
    }

    /// Replaces the rules and keys with those of another authorizer, for later requests and
    /// refreshes. Open connections keep their rights until they refresh their token or close.
    pub fn replace(&self, other: &Self) {
        let rules = Arc::clone(&other.rules.read());
        *self.rules.write() = rules;
    }

    fn change(self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules.write()));
        self
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }
}

impl Authorizer for JwtAuthorizer {
    async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
        let rules = self.rules();
        let from_page = rules.origins.allow(&request.headers);
        if from_page == Some(false) {
            let origin = request.headers.get("origin");
            tracing::debug!(?origin, "a request came from an origin that is not allowed");
            return Err(CallError::new(Code::PermissionDenied, "this origin may not connect"));
        }
        match request::token(request, rules.token_in_query) {
            Some(token) => rules.identity(token),
            // Without a token, only a page of an allowed origin may connect.
            None if from_page.is_none() => Err(no_token()),
            None => rules.anonymous(),
        }
    }

    async fn refresh(&self, _current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        let token = std::str::from_utf8(credential).map_err(|_| rejected())?;
        self.rules().identity(token)
    }
}

impl Rules {
    fn anonymous(&self) -> Result<Identity, CallError> {
        let grants = self.policy.anonymous_grants();
        grants.map(Identity::new).ok_or_else(no_token)
    }

    fn identity(&self, token: &str) -> Result<Identity, CallError> {
        let token = self.verify(token).map_err(|error| {
            tracing::debug!(%error, "a token was rejected");
            rejected()
        })?;
        let user = UserId::new(&token.user).map_err(|error| {
            tracing::debug!(%error, "a token names a user that is not allowed");
            rejected()
        })?;
        let mut identity = Identity::new(self.policy.grants(&token)).with_user(user).with_credential(Credential {
            subject: json!([token.issuer, token.subject, token.user]).to_string(),
            id: token.id,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            grace: self.expiry_grace,
        });
        identity.join = token.join;
        identity.meta = token.meta;
        Ok(identity)
    }

    fn verify(&self, token: &str) -> Result<Token, TokenError> {
        let unverified = Unverified::parse(token, &self.tokens, self.policy.issuers())?;
        let now = SystemTime::now();
        let keys = self.keys.get(&unverified.issuer().issuer).into_iter();
        let candidates =
            keys.flat_map(|keys| keys.candidates(unverified.key_id(), unverified.algorithm())).take(MAX_TRIED_KEYS);
        let mut result = Err(TokenError::UnknownKey);
        for key in candidates {
            result = unverified.verify(key, &self.tokens, now);
            // Another key can make a difference only if the signature is wrong.
            if !matches!(result, Err(TokenError::Signature)) {
                break;
            }
        }
        result
    }
}

fn no_token() -> CallError {
    CallError::new(Code::Unauthenticated, "send a token")
}

/// The client does not learn the reason, which is in the log.
fn rejected() -> CallError {
    CallError::new(Code::Unauthenticated, "the token was rejected")
}

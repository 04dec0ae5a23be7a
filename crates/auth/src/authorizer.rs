//! Turns a request into an identity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::request::Parts;
use jsonwebtoken::Algorithm;
use parking_lot::RwLock;
use roomcast::{Authorizer, CallError, Code, EXPIRY_GRACE, Identity, Right};
use thiserror::Error;

use crate::explanation::Explanation;
use crate::jwks::FetchError;
use crate::key_source::KeySource;
use crate::metrics::KeyMetrics;
use crate::policy::Policy;
use crate::remote_keys::{RemoteKeys, Unavailable};
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

/// How long a client that has connected without a token may take to send it.
const LATE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest number of keys with which one token is checked: a signature costs CPU time, and
/// anybody can send tokens.
const MAX_TRIED_KEYS: usize = 4;

/// Everything that decides about a client.
#[derive(Debug, Clone)]
struct Rules {
    policy: Policy,
    /// By issuer.
    keys: BTreeMap<String, KeySource>,
    tokens: TokenRules,
    origins: Origins,
    token_in_query: bool,
    late: bool,
    anonymous_apps: bool,
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
    pub fn new(policy: Policy, keys: BTreeMap<String, KeySource>) -> Result<Self, MissingKeys> {
        for issuer in policy.issuers() {
            let own = keys.get(&issuer.issuer);
            if !issuer.algorithms.iter().any(|algorithm| own.is_some_and(|keys| keys.may_verify(*algorithm))) {
                return Err(MissingKeys { issuer: issuer.issuer.clone(), algorithms: issuer.algorithms.clone() });
            }
        }
        let rules = Rules {
            policy,
            keys,
            tokens: TokenRules::default(),
            origins: Origins::default(),
            token_in_query: false,
            late: false,
            anonymous_apps: false,
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

    /// Also accepts clients that can send a token neither in a header nor in the URL. Such a client
    /// connects without a token, and must call `auth/refresh` with its token as its first message,
    /// within 5 s. Where anonymous clients may connect, a page without a token remains anonymous.
    #[must_use]
    pub fn late_tokens(self) -> Self {
        self.change(|rules| rules.late = true)
    }

    /// Also treats clients that send neither a token nor `Origin`, such as apps, as anonymous. Anybody
    /// can send such a request, so use this only if another check follows.
    #[must_use]
    pub fn anonymous_apps(self) -> Self {
        self.change(|rules| rules.anonymous_apps = true)
    }

    /// Sets how long a connection stays open after its token has expired. Default: 25 s.
    #[must_use]
    pub fn expiry_grace(self, grace: Duration) -> Self {
        self.change(|rules| rules.expiry_grace = grace)
    }

    /// Verifies a token, and returns its contents or the reason why it is rejected. Use this for
    /// operators and tests. Do not send the reason to a client.
    ///
    /// If the keys of the issuer are [fetched](crate::RemoteKeys), this waits up to 4 s for them.
    ///
    /// # Errors
    /// Returns [`TokenError`] for the first check that fails.
    ///
    /// # Panics
    /// If an issuer's keys are fetched, and this is called outside a tokio runtime.
    pub async fn verify(&self, token: &str) -> Result<Token, TokenError> {
        self.rules().verify(token).await
    }

    /// Explains whether a client with this token, or an anonymous client, has a right on the room or
    /// method with this name. If the token is rejected, the explanation contains the reason. Use this
    /// for operators and tests. Do not send an explanation to a client.
    ///
    /// The explanation does not consider `Origin`, revocations, and grants that an application adds.
    /// Like [`verify`](Self::verify), this may wait for keys.
    ///
    /// # Panics
    /// If an issuer's keys are fetched, and this is called outside a tokio runtime.
    pub async fn explain(&self, token: Option<&str>, right: Right, name: &str) -> Explanation {
        let rules = self.rules();
        let Some(token) = token else { return rules.policy.explain(None, right, name) };
        match rules.verify(token).await {
            Ok(token) => rules.policy.explain(Some(&token), right, name),
            Err(error) => Explanation::rejected(right, name, error.to_string()),
        }
    }

    /// Starts to fetch the keys of all issuers that publish them at a URL, and waits until the first
    /// fetch of each issuer has ended, which takes at most 5 s. Await this before you accept
    /// connections. Otherwise, the first token of an issuer starts the fetches, and waits for its
    /// keys.
    ///
    /// Fetches continue in the background. A failure is logged, and is not an error: until a fetch
    /// succeeds, tokens of this issuer are rejected with [`Code::Unavailable`].
    ///
    /// # Panics
    /// If an issuer's keys are fetched, and this is called outside a tokio runtime.
    pub async fn fetch_keys(&self) {
        let remote = self.remote_keys();
        remote.iter().for_each(|(_, keys)| keys.start());
        for (_, keys) in remote {
            keys.first_fetch().await;
        }
    }

    /// Returns the issuers whose keys are fetched, each with the error of the last fetch if it failed.
    pub fn remote_issuers(&self) -> BTreeMap<String, Option<FetchError>> {
        self.remote_keys().into_iter().map(|(issuer, keys)| (issuer, keys.problem())).collect()
    }

    /// Registers the metrics of the keys that are fetched: the number of fetches by issuer and
    /// result, and the age of the keys.
    ///
    /// # Errors
    /// Returns an error if the registry already contains metrics with these names.
    pub fn register_metrics(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        let authorizer = self.clone();
        registry.register(Box::new(KeyMetrics::new(move || authorizer.remote_keys())?))
    }

    /// Replaces the rules and keys with those of another authorizer, for later requests and
    /// refreshes. Open connections keep their rights until they refresh their token or close.
    ///
    /// If both authorizers fetch the keys of an issuer from the same URL, this authorizer keeps the
    /// keys that it has already fetched. It also keeps the decision about [apps without a
    /// token](Self::anonymous_apps).
    pub fn replace(&self, other: &Self) {
        let mut rules = Arc::clone(&other.rules.read());
        let mut own = self.rules.write();
        // What follows the authorizer does not change with its rules.
        Arc::make_mut(&mut rules).anonymous_apps = own.anonymous_apps;
        for (issuer, keys) in &mut Arc::make_mut(&mut rules).keys {
            let fetched = own.keys.get(issuer).and_then(KeySource::remote);
            if let (Some(fetched), Some(new)) = (fetched, keys.remote()) {
                *keys = fetched.replaced_by(new).into();
            }
        }
        *own = rules;
    }

    /// Returns the issuers whose keys are fetched, with their keys.
    fn remote_keys(&self) -> Vec<(String, RemoteKeys)> {
        let rules = self.rules();
        let remote = |(issuer, keys): (&String, &KeySource)| Some((issuer.clone(), keys.remote()?.clone()));
        rules.keys.iter().filter_map(remote).collect()
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
            Some(token) => rules.identity(token).await,
            // Without a token, only a page of an allowed origin may connect.
            None if from_page.is_none() => rules.late().or_else(|error| match rules.anonymous_apps {
                true => rules.anonymous(),
                false => Err(error),
            }),
            None => rules.anonymous().or_else(|_| rules.late()),
        }
    }

    async fn refresh(&self, _current: &Identity, credential: &[u8]) -> Result<Identity, CallError> {
        let token = std::str::from_utf8(credential).map_err(|_| rejected())?;
        self.rules().identity(token).await
    }
}

impl Rules {
    /// Returns the identity of a client that may send its token later.
    fn late(&self) -> Result<Identity, CallError> {
        match self.late {
            true => Ok(Identity::pending(LATE_TIMEOUT)),
            false => Err(no_token()),
        }
    }

    fn anonymous(&self) -> Result<Identity, CallError> {
        let grants = self.policy.anonymous_grants();
        grants.map(Identity::new).ok_or_else(no_token)
    }

    async fn identity(&self, token: &str) -> Result<Identity, CallError> {
        let token = self.verify(token).await.map_err(|error| {
            tracing::debug!(%error, "a token was rejected");
            match error {
                TokenError::KeysUnavailable { .. } => unavailable(),
                _ => rejected(),
            }
        })?;
        let (grants, join) = (self.policy.grants(&token), self.policy.joins(&token).to_vec());
        let credential = token.credential(self.expiry_grace);
        let mut identity = Identity::new(grants).with_user(token.user).with_credential(credential);
        identity.join = join;
        identity.meta = token.meta;
        Ok(identity)
    }

    async fn verify(&self, token: &str) -> Result<Token, TokenError> {
        let unverified = Unverified::parse(token, &self.tokens, self.policy.issuers())?;
        let (issuer, id, algorithm) = (&unverified.issuer().issuer, unverified.key_id(), unverified.algorithm());
        let source = self.keys.get(issuer).ok_or(TokenError::UnknownKey)?;
        let found = source.find(id, algorithm).await;
        let keys =
            found.map_err(|Unavailable(problem)| TokenError::KeysUnavailable { issuer: issuer.clone(), problem })?;
        let now = SystemTime::now();
        let candidates = keys.candidates(id, algorithm).take(MAX_TRIED_KEYS);
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

/// The token may be valid, so the client should keep it and try again.
fn unavailable() -> CallError {
    CallError::new(Code::Unavailable, "tokens cannot be verified at the moment; try again later")
}

/// The client does not learn the reason, which is in the log.
fn rejected() -> CallError {
    CallError::new(Code::Unauthenticated, "the token was rejected")
}

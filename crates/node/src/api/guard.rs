//! Who may use the API, and how often.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{self, DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use roomcast::Code;

use crate::api::keys::Keyring;
use crate::api::scope::{Admitted, Scopes};
use crate::api::{Failure, browser};

/// Reasons of `roomcast_api_rejections_total`.
const BROWSER: &str = "browser";
const KEY: &str = "key";
const RATE: &str = "rate";
const SCOPE: &str = "scope";

/// After how many seconds a request that was one too many may be tried again: the whole rate is free by then.
const RETRY_AFTER: &str = "1";

/// Failed authentications per second that get status 401; further ones get 429. Requests with a valid key do not count.
const MAX_FAILURES: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Who may use the API, how often, and how large requests may be.
#[derive(Debug)]
pub(crate) struct ApiRules {
    keys: Keyring,
    rate: DefaultDirectRateLimiter,
    max_body: DefaultBodyLimit,
}

impl ApiRules {
    /// Lets requests with these keys pass: so many a second, and as many at once after a quiet second.
    pub(crate) fn new(keys: Keyring, rate: NonZeroU32, max_body: usize) -> Self {
        let rate = RateLimiter::direct(Quota::per_second(rate));
        Self { keys, rate, max_body: DefaultBodyLimit::max(max_body) }
    }
}

/// Applies the rules to each request. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Arc<State>);

#[derive(Debug)]
struct State {
    rules: RwLock<Arc<ApiRules>>,
    /// It outlasts the rules, so that a reload grants nobody further attempts.
    failures: DefaultDirectRateLimiter,
    rejections: IntCounterVec,
}

impl Guard {
    pub(crate) fn new(rules: ApiRules, registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Requests to the HTTP API that were rejected before they had any effect, by reason";
        let rejections = IntCounterVec::new(Opts::new("roomcast_api_rejections_total", help), &["reason"])?;
        registry.register(Box::new(rejections.clone()))?;
        for reason in [BROWSER, KEY, RATE, SCOPE] {
            rejections.with_label_values(&[reason]);
        }
        let failures = RateLimiter::direct(Quota::per_second(MAX_FAILURES));
        Ok(Self(Arc::new(State { rules: RwLock::new(Arc::new(rules)), failures, rejections })))
    }

    /// Applies other rules to later requests.
    pub(crate) fn replace(&self, rules: ApiRules) {
        *self.0.rules.write() = Arc::new(rules);
    }

    fn rejected(&self, reason: &str) -> IntCounter {
        self.0.rejections.with_label_values(&[reason])
    }

    fn reject(&self, reason: &str, code: Code, message: impl Into<String>) -> Failure {
        self.rejected(reason).inc();
        Failure::new(code.http_status(), code, message)
    }

    /// The failure of a request without a key that the node accepts.
    fn unauthenticated(&self) -> Response {
        if self.0.failures.check().is_err() {
            let message =
                "too many requests without a valid key; send the key in the header \"Authorization: Bearer KEY\"";
            return too_many(self.reject(KEY, Code::ResourceExhausted, message));
        }
        let message = "send the header \"Authorization: Bearer KEY\" with an API key of the node";
        let failure = self.reject(KEY, Code::Unauthenticated, message);
        ([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], failure).into_response()
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn check(extract::State(guard): extract::State<Guard>, mut request: Request, next: Next) -> Response {
    let rules = Arc::clone(&guard.0.rules.read());
    if let Some(suspicion) = browser::suspicion(&request, !rules.keys.is_empty()) {
        return guard.reject(BROWSER, Code::PermissionDenied, suspicion).into_response();
    }
    let scopes = match bearer(request.headers()).and_then(|key| rules.keys.scopes(key)) {
        Some(scopes) => scopes,
        None if rules.keys.is_empty() => Scopes::ALL,
        None => return guard.unauthenticated(),
    };
    if rules.rate.check().is_err() {
        let message = "the requests exceed api_rate; try again later";
        return too_many(guard.reject(RATE, Code::ResourceExhausted, message));
    }
    request.extensions_mut().insert(Admitted { scopes, rejections: guard.rejected(SCOPE) });
    rules.max_body.apply(&mut request);
    next.run(request).await
}

fn too_many(failure: Failure) -> Response {
    ([(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))], failure).into_response()
}

/// The token of an `Authorization` header; the scheme's name is in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

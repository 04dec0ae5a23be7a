//! Who may use the API, and how often.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use roomcast::Code;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::Failure;

/// After how many seconds a request that was one too many may be tried again: the whole rate is free by then.
const RETRY_AFTER: &str = "1";

/// The key that requests must show. Only its digest is kept: digests are of one length, so comparing them
/// reveals neither the key's content nor its length, and no log line can contain the key.
#[derive(Debug, Clone)]
pub(crate) struct ApiKey([u8; 32]);

impl ApiKey {
    pub(crate) fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn is(&self, key: &[u8]) -> bool {
        self.0.ct_eq(&Sha256::digest(key)).into()
    }
}

/// Who may use the API, how often, and how large requests may be.
#[derive(Debug)]
pub(crate) struct ApiRules {
    key: Option<ApiKey>,
    rate: DefaultDirectRateLimiter,
    max_body: DefaultBodyLimit,
}

impl ApiRules {
    /// Lets requests with this key pass: so many a second, and as many at once after a quiet second.
    pub(crate) fn new(key: Option<ApiKey>, rate: NonZeroU32, max_body: usize) -> Self {
        let rate = RateLimiter::direct(Quota::per_second(rate));
        Self { key, rate, max_body: DefaultBodyLimit::max(max_body) }
    }
}

/// Applies the rules to each request. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Arc<RwLock<Arc<ApiRules>>>);

impl Guard {
    pub(crate) fn new(rules: ApiRules) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(rules))))
    }

    /// Applies other rules to later requests.
    pub(crate) fn replace(&self, rules: ApiRules) {
        *self.0.write() = Arc::new(rules);
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn check(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let rules = Arc::clone(&guard.0.read());
    if let Some(key) = &rules.key
        && !bearer(request.headers()).is_some_and(|shown| key.is(shown))
    {
        let message = "send the header \"Authorization: Bearer KEY\" with the api_key of the node";
        let failure = Failure::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, message);
        return ([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], failure).into_response();
    }
    if rules.rate.check().is_err() {
        let message = "the requests exceed api_rate; try again later";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, message);
        return ([(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))], failure).into_response();
    }
    rules.max_body.apply(&mut request);
    next.run(request).await
}

/// The token of an `Authorization` header; the scheme's name is in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

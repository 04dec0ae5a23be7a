//! Who may use the API, and how often.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use roomcast::Code;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::Failure;

/// After how many seconds a request that was one too many may be tried again: the bucket is full by then.
const RETRY_AFTER: &str = "1";

/// The key that requests must show. Only its digest is kept: digests are of one length, so comparing them
/// tells neither the key's content nor its length, and nothing that prints this gives the key away.
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

/// What stands before the API. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    key: Option<ApiKey>,
    bucket: Arc<Mutex<TokenBucket>>,
}

impl Guard {
    /// Lets requests with this key pass, and so many a second.
    pub(crate) fn new(key: Option<ApiKey>, rate: usize) -> Self {
        Self { key, bucket: Arc::new(Mutex::new(TokenBucket::new(rate, Instant::now()))) }
    }
}

/// Lets a request pass, or answers it.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(key) = &guard.key
        && !bearer(request.headers()).is_some_and(|shown| key.is(shown))
    {
        let message = "this needs the header \"Authorization: Bearer KEY\" with the node's api_key";
        let failure = Failure::new(StatusCode::UNAUTHORIZED, Code::Unauthenticated, message);
        return ([(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))], failure).into_response();
    }
    if !guard.bucket.lock().take(Instant::now()) {
        let message = "more requests than api_rate allows; try again later";
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted, message);
        return ([(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER))], failure).into_response();
    }
    next.run(request).await
}

/// The token of an `Authorization` header; the scheme's name is in any case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Lets `rate` requests a second pass on average, and as many at once after a quiet second.
#[derive(Debug)]
struct TokenBucket {
    rate: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    fn new(rate: usize, now: Instant) -> Self {
        let rate = rate as f64;
        Self { rate, tokens: rate, filled_at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        self.filled_at = now;
        let has_token = self.tokens >= 1.0;
        if has_token {
            self.tokens -= 1.0;
        }
        has_token
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_requests_pass_at_once_and_so_many_a_second_after_that() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, start);
        let mut passed = |at: Duration| (0..100).filter(|_| bucket.take(start + at)).count();
        assert_eq!(passed(Duration::ZERO), 10);
        assert_eq!(passed(Duration::from_millis(250)), 2);
        assert_eq!(passed(Duration::from_millis(300)), 1, "half a token was left");
        assert_eq!(passed(Duration::from_secs(3600)), 10);
    }
}

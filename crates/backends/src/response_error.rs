//! The error that a call gets if its backend does not respond with success.

use std::time::{Duration, SystemTime};

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use roomcast::{CallError, Code};
use serde_json::json;

/// The longest time after which a backend can ask clients to retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Returns the error for a response whose status is not 2xx. Only the body of a 4xx response can
/// name an error. The text of all other bodies is for the backend's operators, not for its clients.
pub(crate) fn of(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> CallError {
    let named = if status.is_client_error() { CallError::from_payload(body) } else { None };
    let error = named.unwrap_or_else(|| {
        let code = code(status);
        let message = match code {
            Code::Internal => "the backend failed".to_owned(),
            _ => format!("the backend responded with status {}", status.as_u16()),
        };
        CallError::new(code, message)
    });
    let may_retry = matches!(error.code, Code::ResourceExhausted | Code::Unavailable);
    match headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now)) {
        Some(wait) if may_retry && error.details().is_none() => {
            error.with_details(json!({ "retry_after_ms": wait.as_millis() as u64 }))
        }
        _ => error,
    }
}

fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        400..=498 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// Reads the value of `Retry-After`: a number of seconds or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn error(status: u16, retry_after: Option<&str>, body: &str) -> CallError {
        let headers = retry_after.map(|value| (RETRY_AFTER, value.parse().unwrap()));
        // Sun, 06 Nov 1994 08:49:30 GMT
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        of(StatusCode::from_u16(status).unwrap(), &headers.into_iter().collect(), body.as_bytes(), now)
    }

    #[test]
    fn each_status_has_its_code() {
        let codes = [
            (300, "INTERNAL"),
            (304, "INTERNAL"),
            (307, "INTERNAL"),
            (400, "INVALID_ARGUMENT"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "NOT_FOUND"),
            (409, "ABORTED"),
            (412, "FAILED_PRECONDITION"),
            (413, "RESOURCE_EXHAUSTED"),
            (418, "INVALID_ARGUMENT"),
            (429, "RESOURCE_EXHAUSTED"),
            (499, "CANCELLED"),
            (500, "INTERNAL"),
            (501, "UNIMPLEMENTED"),
            (502, "INTERNAL"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
            (599, "INTERNAL"),
            (999, "INTERNAL"),
        ];
        for (status, code) in codes {
            assert_eq!(error(status, None, "").code.as_str(), code, "{status}");
        }
    }

    #[test]
    fn the_body_of_a_4xx_names_the_error_and_no_other_body_reaches_clients() {
        let body = r#"{"error":{"code":"ALREADY_EXISTS","message":"taken","details":{"name":"ann"}}}"#;
        let named = CallError::new(Code::AlreadyExists, "taken").with_details(json!({ "name": "ann" }));
        assert_eq!(error(422, None, body), named);
        for (status, body) in [
            (500, body),
            (302, body),
            (400, "secret"),
            (400, r#"{"error":{"code":"SECRET","message":""}}"#),
            (400, r#"{"error":"secret"}"#),
        ] {
            let error = error(status, None, body);
            assert!(
                !error.to_string().contains("taken") && !error.to_string().to_lowercase().contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn clients_learn_when_to_retry() {
        let wait =
            |status, value| error(status, Some(value), "").details().map(|details| details["retry_after_ms"].clone());
        assert_eq!(wait(429, "3"), Some(json!(3000)));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(json!(7000)));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:00 GMT"), Some(json!(0)), "it is in the past");
        assert_eq!(wait(413, "99999999999"), Some(json!(86_400_000)));
        for value in ["soon", "-1", "1.5", ""] {
            assert_eq!(wait(429, value), None, "{value}");
        }
        assert_eq!(wait(404, "3"), None, "a retry does not help");
        let named = r#"{"error":{"code":"RESOURCE_EXHAUSTED","message":"","details":{"quota":5}}}"#;
        assert_eq!(error(429, Some("3"), named).details(), Some(&json!({ "quota": 5 })), "they are the backend's own");
    }
}

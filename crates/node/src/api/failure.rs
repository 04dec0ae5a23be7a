//! How requests fail: `{"error":{"code":"NOT_FOUND","message":"…"}}` with the HTTP status of the code.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use roomcast::{CallError, Code, InvalidId};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// A request's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self { status: error.code.http_status(), code: error.code, message: error.message }
    }
}

impl From<InvalidId> for Failure {
    fn from(error: InvalidId) -> Self {
        CallError::from(error).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = ErrorDetail { code: self.code.as_str(), message: self.message };
        (self.status, axum::Json(ErrorBody { error })).into_response()
    }
}

/// Why a request failed.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    #[schema(inline)]
    error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// The gRPC status code
    #[schema(example = "NOT_FOUND")]
    code: &'static str,
    /// What went wrong, as a sentence for people
    #[schema(example = "there is no such connection")]
    message: String,
}

// === what the description says of failures ===

/// Failures that every request may have.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description")]
pub(crate) enum Always {
    /// The request needs the header `Authorization: Bearer KEY`
    #[response(status = UNAUTHORIZED, headers(("WWW-Authenticate" = String, description = "`Bearer`")))]
    Unauthenticated(ErrorBody),
    /// The key does not have the scope that the operation requires, or the request could come from a hostile web page
    #[response(status = FORBIDDEN)]
    Forbidden(ErrorBody),
    /// The requests, or those without a valid key, exceed their rate, or a limit on rooms or revocations is reached
    #[response(
        status = TOO_MANY_REQUESTS,
        headers(("Retry-After" = u32, description = "Seconds to wait, if the requests exceed their rate"))
    )]
    TooMany(ErrorBody),
    /// The node failed
    #[response(status = INTERNAL_SERVER_ERROR)]
    Internal(ErrorBody),
}

/// Failures of requests that have a name and need other nodes.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description")]
pub(crate) enum Asking {
    /// A name, an id or a parameter is invalid
    #[response(status = BAD_REQUEST)]
    Invalid(ErrorBody),
    /// The request needs other nodes, and the broker is down or did not accept it
    #[response(status = SERVICE_UNAVAILABLE)]
    Unavailable(ErrorBody),
}

/// Failures of requests about a connection or user.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description")]
pub(crate) enum Finding {
    /// No node has this connection, or any connection of this user; nothing changed
    #[response(status = NOT_FOUND)]
    NotFound(ErrorBody),
    /// A node did not respond in time. The request may have taken effect; it will not take effect later
    #[response(status = GATEWAY_TIMEOUT)]
    NoAnswer(ErrorBody),
}

/// Failures of requests with a payload.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "for the description")]
pub(crate) enum Sending {
    /// The body was not complete within 10 s
    #[response(status = REQUEST_TIMEOUT)]
    TooSlow(ErrorBody),
    /// The body is larger than `max_payload`
    #[response(status = PAYLOAD_TOO_LARGE)]
    TooLarge(ErrorBody),
}

//! The errors of calls and notifications.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use roomcast_core::{BrokerError, InvalidId, InvalidName, InvalidRevocation, JoinError, PublishError, RequestError};
use roomcast_protocol::{CloseCode, CloseFrame};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::task::JoinError as TaskError;

/// Why a call failed: one of gRPC's status codes.
///
/// ```
/// use roomcast::Code;
///
/// assert_eq!(Code::NotFound.as_str(), "NOT_FOUND");
/// assert_eq!("NOT_FOUND".parse(), Ok(Code::NotFound));
/// assert_eq!(Code::NotFound.http_status(), 404);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The call was cancelled.
    Cancelled,
    /// No other code describes the failure.
    Unknown,
    /// The arguments are invalid, regardless of the state of the system.
    InvalidArgument,
    /// The call ran past its deadline.
    DeadlineExceeded,
    /// The method, or the entity that the call names, does not exist.
    NotFound,
    /// The entity that the call would create already exists.
    AlreadyExists,
    /// The caller lacks the permission for this call.
    PermissionDenied,
    /// A quota or limit is exhausted.
    ResourceExhausted,
    /// The system is not in the state that the call requires.
    FailedPrecondition,
    /// The call conflicted with another one. The caller may retry the whole operation.
    Aborted,
    /// An argument is outside the valid range.
    OutOfRange,
    /// The server does not support this call.
    Unimplemented,
    /// The server failed because of an internal error.
    Internal,
    /// The service is unavailable at the moment. The caller may retry later.
    Unavailable,
    /// Data is lost or corrupted, and cannot be recovered.
    DataLoss,
    /// The caller is not authenticated.
    Unauthenticated,
}

impl Code {
    const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Returns the code's name on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// Returns the HTTP status that gRPC gateways map this code to.
    pub fn http_status(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable | Self::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Unknown | Self::Internal | Self::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns whether the code means a fault of the server, which its developer should
    /// investigate.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Self::Unknown | Self::Internal | Self::DataLoss)
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(name: &str) -> Result<Self, UnknownCode> {
        let code = Self::ALL.into_iter().find(|code| code.as_str() == name);
        code.ok_or_else(|| UnknownCode(name.to_owned()))
    }
}

/// The error of parsing a name that is not one of gRPC's status codes. See [`Code`] for an example
/// of parsing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a gRPC status code; use one of them, such as NOT_FOUND")]
pub struct UnknownCode(String);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call's failure. The client receives it as `{"error":{"code":"NOT_FOUND","message":"…"}}`, with
/// `"details"` if it has any. As the response to an HTTP request, it has the [HTTP
/// status](Code::http_status) of its code.
///
/// ```
/// use roomcast::{CallError, Code};
/// use serde_json::json;
///
/// let error = CallError::new(Code::FailedPrecondition, "3 cups are left").with_details(json!({ "left": 3 }));
/// assert_eq!(error.to_string(), "FAILED_PRECONDITION: 3 cups are left");
/// assert_eq!(error.details(), Some(&json!({ "left": 3 })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct CallError {
    /// The kind of failure.
    pub code: Code,
    /// A message for the client's developer.
    pub message: String,
    /// Boxed, because results that carry an error are moved often, and errors rarely have details.
    details: Option<Box<Value>>,
}

impl CallError {
    /// Creates an error from a code and a message for the client's developer.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// Attaches details: structured data for the client's code.
    ///
    /// # Panics
    /// Panics if the details cannot be serialized to JSON, for example because a map has keys that
    /// are not strings.
    #[must_use]
    pub fn with_details(mut self, details: impl Serialize) -> Self {
        self.details = Some(Box::new(serde_json::to_value(details).expect("the details have JSON")));
        self
    }

    /// Returns the details, if the error has any.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_deref()
    }

    /// Creates an `INVALID_ARGUMENT` error.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Returns the error that a Response's payload contains, or `None` if the payload is something
    /// else.
    ///
    /// ```
    /// use roomcast::{CallError, Code};
    ///
    /// let error = CallError::from_payload(br#"{"error":{"code":"NOT_FOUND","message":"no such cup"}}"#);
    /// assert_eq!(error, Some(CallError::new(Code::NotFound, "no such cup")));
    /// assert_eq!(CallError::from_payload(b"a cup"), None);
    /// ```
    pub fn from_payload(payload: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            error: Error,
        }
        #[derive(Deserialize)]
        struct Error {
            code: String,
            message: String,
            details: Option<Box<Value>>,
        }
        let Error { code, message, details } = serde_json::from_slice::<Body>(payload).ok()?.error;
        Some(Self { code: code.parse().ok()?, message, details })
    }

    /// Returns the payload of the Response.
    pub(crate) fn payload(&self) -> Bytes {
        self.json().to_string().into()
    }

    fn json(&self) -> Value {
        let mut error = json!({ "code": self.code.as_str(), "message": self.message });
        if let Some(details) = &self.details {
            error["details"] = Value::clone(details);
        }
        json!({ "error": error })
    }
}

impl IntoResponse for CallError {
    fn into_response(self) -> Response {
        (self.code.http_status(), axum::Json(self.json())).into_response()
    }
}

/// The error of a call whose handler panicked.
pub(crate) fn panicked() -> CallError {
    CallError::new(Code::Internal, "the handler panicked")
}

/// The error of a call whose handler reached its deadline.
pub(crate) fn took_too_long(timeout: Duration) -> CallError {
    CallError::new(Code::DeadlineExceeded, format!("the call took longer than {timeout:?}"))
}

/// The error of an event that was not queued.
///
/// ```
/// use roomcast::{NotifyError, Socket};
///
/// fn is_gone(socket: &Socket) -> bool {
///     matches!(socket.notify("still-there", ()), Err(NotifyError::Closed))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The event's name is over 255 bytes.
    #[error(transparent)]
    NameTooLong(#[from] roomcast_protocol::NameError),
    /// The payload cannot be serialized.
    #[error(transparent)]
    InvalidPayload(#[from] InvalidPayload),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// The client reads too slowly. Its unread output reached the limit, and its connection is
    /// being closed with 4408.
    #[error("the client reads too slowly; its connection is being closed")]
    SlowConsumer,
}

impl NotifyError {
    /// Returns whether the event was not sent because the connection has ended or is being closed.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::SlowConsumer)
    }
}

/// The error of a value that cannot be serialized to JSON, such as a map whose keys are not
/// strings. See [`IntoPayload`](crate::IntoPayload) for an example of payloads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the payload cannot be serialized as JSON: {0}")]
pub struct InvalidPayload(pub(crate) String);

impl From<InvalidPayload> for CallError {
    fn from(error: InvalidPayload) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}

/// A task that a handler spawned and awaits.
impl From<TaskError> for CallError {
    fn from(error: TaskError) -> Self {
        let code = if error.is_cancelled() { Code::Cancelled } else { Code::Internal };
        Self::new(code, error.to_string())
    }
}

impl From<InvalidName> for CallError {
    fn from(error: InvalidName) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<InvalidRevocation> for CallError {
    fn from(error: InvalidRevocation) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<InvalidId> for CallError {
    fn from(error: InvalidId) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<RequestError> for CallError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::Join(error) => return error.into(),
            RequestError::NotFound { .. } => Code::NotFound,
            RequestError::NoResponse { .. } => Code::DeadlineExceeded,
            RequestError::TooManyRequests => Code::ResourceExhausted,
            RequestError::Broker(BrokerError::TooLarge { .. }) => Code::InvalidArgument,
            RequestError::Broker(BrokerError::LedgerFull) => Code::ResourceExhausted,
            RequestError::Broker(BrokerError::Unsupported { .. }) => Code::Unimplemented,
            _ => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<JoinError> for CallError {
    fn from(error: JoinError) -> Self {
        let code = match error {
            JoinError::TooManyRooms { .. } | JoinError::NodeFull { .. } => Code::ResourceExhausted,
            JoinError::Closed => Code::Cancelled,
            _ => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PublishError> for CallError {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Broker(BrokerError::TooLarge { .. }) => Code::InvalidArgument,
            _ => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<NotifyError> for CallError {
    fn from(error: NotifyError) -> Self {
        let code = match error {
            NotifyError::NameTooLong(_) => Code::InvalidArgument,
            NotifyError::InvalidPayload(_) => Code::Internal,
            NotifyError::Closed | NotifyError::SlowConsumer => Code::Cancelled,
        };
        Self::new(code, error.to_string())
    }
}

/// The close frame for a client that sends notifications faster than they are handled.
pub(crate) fn overloaded() -> CloseFrame {
    CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "notifications come faster than they are handled; try again later")
}

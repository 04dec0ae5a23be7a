//! How a call fails.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use roomcast_core::{BrokerError, InvalidId, InvalidName, JoinError, PublishError, RequestError};
use roomcast_protocol::{CloseCode, CloseFrame};
use serde_json::json;
use thiserror::Error;

/// What kind of failure it is: gRPC's status codes, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The call was given up.
    Cancelled,
    /// Nothing better fits.
    Unknown,
    /// The arguments are wrong, whatever the state of the system.
    InvalidArgument,
    /// The call took longer than it may.
    DeadlineExceeded,
    /// There is no such procedure, or thing.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// A quota or a bound is used up.
    ResourceExhausted,
    /// The system is not in the state that this needs.
    FailedPrecondition,
    /// A conflict; the caller may try the whole again.
    Aborted,
    /// Beyond the valid range.
    OutOfRange,
    /// Not supported.
    Unimplemented,
    /// The server failed.
    Internal,
    /// Not now; try again later.
    Unavailable,
    /// Data is lost for good.
    DataLoss,
    /// Who calls is not known.
    Unauthenticated,
}

impl Code {
    /// The name on the wire and in metrics.
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
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call's failure, as the client gets it: `{"error":{"code":"NOT_FOUND","message":"…"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct CallError {
    /// The kind.
    pub code: Code,
    /// A sentence for the client's developer.
    pub message: String,
}

impl CallError {
    /// A failure of a kind, with a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Wrong arguments.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The payload that tells the client.
    pub(crate) fn payload(&self) -> Bytes {
        json!({ "error": { "code": self.code.as_str(), "message": self.message } }).to_string().into()
    }
}

/// The answer to a call whose handler panicked.
pub(crate) fn panicked() -> CallError {
    CallError::new(Code::Internal, "the handler panicked")
}

/// The answer to a call whose handler reached its deadline.
pub(crate) fn took_too_long(timeout: Duration) -> CallError {
    CallError::new(Code::DeadlineExceeded, format!("the handler took longer than {timeout:?}"))
}

/// Why a notification was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The event's name is over 255 bytes.
    #[error(transparent)]
    NameTooLong(#[from] roomcast_protocol::NameError),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

impl From<InvalidName> for CallError {
    fn from(error: InvalidName) -> Self {
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
            _ => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<JoinError> for CallError {
    fn from(error: JoinError) -> Self {
        let code = match error {
            JoinError::TooManyRooms { .. } => Code::ResourceExhausted,
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
            NotifyError::Closed => Code::Cancelled,
        };
        Self::new(code, error.to_string())
    }
}

/// A client sends notifications faster than they are handled, and there is no place to keep more.
pub(crate) fn overloaded() -> CloseFrame {
    CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "notifications come faster than they are handled; try again later")
}

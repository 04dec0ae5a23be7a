//! How connections and calls end.

use std::{fmt, io};

use roomcast_core::Ending;
use roomcast_protocol::{CloseCode, CloseFrame};
use thiserror::Error;

/// How a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client sent a Close.
    ByClient(Option<CloseFrame>),
    /// The node closes the connection.
    ByServer(CloseFrame),
    /// The connection was lost, for the given reason.
    Lost(String),
}

impl End {
    pub(crate) fn lost(error: &io::Error) -> Self {
        Self::Lost(error.to_string())
    }

    /// Returns how the connection ended, for handlers and metrics. By RFC 6455, section 7.1.5, 1005
    /// means a Close without a code, and 1006 means that there was no Close.
    pub(crate) fn disconnected(&self) -> Disconnected {
        match self {
            Self::ByClient(Some(close)) | Self::ByServer(close) => Disconnected::new(close.code, close.reason.clone()),
            Self::ByClient(None) => Disconnected::new(CloseCode(1005), "closed by the client"),
            Self::Lost(reason) => Disconnected::new(CloseCode(1006), reason.clone()),
        }
    }

    /// Returns how the connection ended, for lifecycle events.
    pub(crate) fn ending(&self) -> Ending {
        let cause = match self {
            Self::ByClient(_) => "client",
            Self::ByServer(_) => "server",
            Self::Lost(_) => "lost",
        };
        Ending::new(cause, self.disconnected().code.0)
    }

    /// Returns whether the client's credential has expired or was revoked.
    pub(crate) fn is_for_credential(&self) -> bool {
        matches!(self, Self::ByServer(close) if close.code == CloseCode::TOKEN_EXPIRED)
    }

    /// Returns why the calls in flight are cancelled.
    pub(crate) fn cancel_cause(&self) -> CancelCause {
        match self {
            Self::ByServer(close) if close.code == CloseCode::GOING_AWAY => CancelCause::Drain,
            Self::ByClient(_) | Self::ByServer(_) => CancelCause::Closed,
            Self::Lost(_) => CancelCause::Lost,
        }
    }
}

/// How a connection ended: its close code and reason. See
/// [`Router::on_disconnect`](crate::Router::on_disconnect).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
// Quoted and escaped: a client's reason may contain line breaks and control characters.
#[error("the connection has ended: {code} {reason:?}")]
#[non_exhaustive]
pub struct Disconnected {
    /// The close code. It is 1005 if the client's Close had no code, and 1006 if the connection was
    /// lost.
    pub code: CloseCode,
    /// The reason in the Close. If the connection was lost, what the server observed.
    pub reason: String,
}

impl Disconnected {
    /// Creates a value with this code and reason. Use it to test disconnect handlers.
    ///
    /// ```
    /// use roomcast::{CloseCode, Disconnected};
    ///
    /// let lost = Disconnected::new(CloseCode(1006), "the TCP connection was reset");
    /// assert_eq!(lost.code, CloseCode(1006));
    /// ```
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// Why a call was cancelled.
///
/// ```
/// use roomcast::{Cancel, CancelCause};
///
/// async fn watch(cancel: Cancel) {
///     if cancel.reset().await == CancelCause::Drain {
///         println!("the node goes away; save the work");
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum CancelCause {
    /// The client cancelled the call.
    Reset = 1,
    /// The connection was closed, by either side.
    Closed,
    /// The connection was lost: TCP was reset, or nothing arrived in time after a Ping.
    Lost,
    /// The node's drain reached its deadline.
    Drain,
    /// The call ran past its deadline, [`Options::call_timeout`](crate::Options::call_timeout).
    Deadline,
    /// The handler panicked, so the tasks in the call's scope stop.
    Panic,
}

impl CancelCause {
    const ALL: [Self; 6] = [Self::Reset, Self::Closed, Self::Lost, Self::Drain, Self::Deadline, Self::Panic];

    /// Returns the cause's name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Drain => "drain",
            Self::Deadline => "deadline",
            Self::Panic => "panic",
        }
    }

    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == bits)
    }
}

impl fmt::Display for CancelCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

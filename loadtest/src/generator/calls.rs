//! A call of a client: what it is for, and what its response says.

use bytes::Bytes;
use roomcast_protocol::Name;
use serde::Deserialize;

use crate::clock::Nanos;

/// A call to be sent.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) purpose: Purpose,
    pub(crate) planned: Nanos,
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
}

/// What a call is for. Rooms are numbered within the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Join(u32),
    Leave(u32),
    Publish {
        room: u32,
        publisher: u32,
        sequence: u64,
    },
    /// `is_echo`: the response is what was sent.
    Call {
        is_echo: bool,
    },
    /// To be cancelled.
    Long,
    /// Asks how many of the long calls run.
    Gauge,
}

impl Purpose {
    /// As in the names of errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::Publish { .. } => "publish",
            Self::Call { .. } => "call",
            Self::Long => "call to cancel",
            Self::Gauge => "gauge",
        }
    }
}

/// A call in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) purpose: Purpose,
    pub(crate) planned: Nanos,
    /// It timed out and counts as failed. A late response still changes what it would have changed, such as a membership.
    pub(crate) is_late: bool,
}

/// The code, if a response says that the call failed.
pub(crate) fn error_code(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Failure {
        error: Code,
    }
    #[derive(Deserialize)]
    struct Code {
        code: String,
    }
    let failure = payload.starts_with(b"{\"error\":").then(|| serde_json::from_slice::<Failure>(payload).ok())??;
    Some(failure.error.code)
}

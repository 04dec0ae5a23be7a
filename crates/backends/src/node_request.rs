//! The requests that a node itself sends to a backend, such as those of hooks.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use roomcast::{CallError, NodeId};
use thiserror::Error;

use crate::admission::Owner;
use crate::failure::Failure;
use crate::metrics::Outcome;

/// A request that a node itself sends, such as one of a hook.
#[derive(Debug)]
pub struct NodeRequest {
    /// The name that is appended to the backend's path. It consists of letters, digits, `_`, `.`, `-`
    /// and `/`.
    pub method: &'static str,
    /// The id of the request, if it is sent again when it fails. `None`: a new id.
    pub id: Option<String>,
    /// Headers of this request.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whose share of the backend's slots for hooks the request takes. `None`: the request takes no slot and
    /// never waits for one, so whoever sends it bounds the number of such requests.
    pub owner: Option<Owner>,
    /// The node that sends the request.
    pub node: NodeId,
    /// How long the request waits for the response, once it has a slot.
    pub timeout: Duration,
}

/// A response of success.
#[derive(Debug)]
#[non_exhaustive]
pub struct NodeResponse {
    /// The status, which is 2xx.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why a request of a node has no response of success.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeRequestError {
    /// The backend responded with a status of 4xx. The error is for a client.
    #[error("the backend rejected the request: {0}")]
    Rejected(CallError),
    /// The request was not sent, because the circuit breaker is open or no slot is free. The error is
    /// for a client.
    #[error("the request was not sent: {0}")]
    NotSent(CallError),
    /// The backend failed. The reason is for the log: it may contain what the backend has written.
    #[error("the request failed: {0}")]
    Failed(String),
}

impl From<Failure> for NodeRequestError {
    fn from(failure: Failure) -> Self {
        match failure.outcome {
            Outcome::Rejected => Self::Rejected(failure.error),
            Outcome::BreakerOpen | Outcome::NoSlot => Self::NotSent(failure.error),
            _ => Self::Failed(failure.reason),
        }
    }
}

//! Calls of Roomcast's clients, answered by services over HTTP.
//!
//! A [`Backend`] is a [`Handler`](roomcast::Handler) of calls. It sends each call as a request, and
//! answers it with the response. If the call is cancelled, so is the request: the connection over
//! HTTP/1.1 closes, or the stream over HTTP/2 is reset. With
//! [`cancel_grace`](BackendOptions::cancel_grace), this happens some time later.
//!
//! ```
//! use roomcast::{Node, Options, Router};
//! use roomcast_backends::{Backend, BackendMetrics, BackendOptions};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = BackendOptions::new("chat", "http://127.0.0.1:8080/rpc".parse()?);
//! let backend = Backend::new(options, &BackendMetrics::new()?)?;
//! let router = Router::new(Node::embedded(Options::default())).calls("chat", ["chat.*".parse()?], backend);
//! # let _ = router; Ok(()) }
//! ```
//!
//! # Streams
//!
//! A response with the content type `text/event-stream` or `application/x-ndjson`, or with the header
//! `Roomcast-Stream: chunks`, is a stream of Items. A client of the protocol
//! `websocket.io-rpc-v0.1` gets all Items in one Response, as they follow one another. In
//! newline-delimited JSON, a line break follows each Item.
//!
//! Reading order, from what does no I/O to what does: `options` → `method` → `request` and `signature`
//! → `response_error` → `stream` → `breaker` → `admission` → `in_flight` and `connector` (requests
//! that can be cancelled at any time) → `client` → `body` → `metrics` → `failure` → `call` → `health` →
//! `cancel_notices` and `grace` (what follows a cancellation) → `node_request` → `backend` (all of it).
//! `hook_metrics` → `hooks` let a backend decide about what clients do. `events` delivers lifecycle events.
//! `check` finds out whether a backend notices a cancellation.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![warn(unnameable_types)]

mod admission;
mod backend;
mod body;
mod breaker;
mod call;
mod cancel_notices;
mod check;
mod client;
mod connector;
mod events;
mod failure;
mod grace;
mod health;
mod hook_metrics;
mod hooks;
mod in_flight;
mod method;
mod metrics;
mod node_request;
mod options;
mod request;
mod response_error;
mod signature;
mod stream;

pub use admission::Owner;
pub use backend::Backend;
pub use check::{CancelCheck, CancelCheckError, CancelFinding};
pub use client::InvalidCaCertificates;
pub use events::EventDelivery;
pub use hook_metrics::HookMetrics;
pub use hooks::Hook;
pub use metrics::BackendMetrics;
pub use node_request::{NodeRequest, NodeRequestError, NodeResponse};
pub use options::{BackendOptions, BackendUrl, InvalidUrl, MAX_CANCEL_GRACE};
pub use signature::{SecretError, SigningSecrets};

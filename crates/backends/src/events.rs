//! Delivers lifecycle events to a backend: a request for each batch.

use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use roomcast::{BoxFuture, EVENTS_CONTENT_TYPE, EventBatch, EventSink, NodeId};

use crate::backend::Backend;
use crate::node_request::NodeRequest;
use crate::request::HOOK_HEADER;

/// The name of this hook. A batch is POSTed to the backend's URL, followed by `/` and this name.
const HOOK: &str = "roomcast.events";

/// The id of a batch. The header exists even if requests are not signed, because a backend recognises a
/// repeated batch by it.
const ID_HEADER: HeaderName = HeaderName::from_static("webhook-id");

/// How long a backend may take to respond to a batch, unless its own timeout is shorter. The reporter
/// drops a delivery after 10 s. The time is shorter, so that the request counts as one that timed out
/// and not as one that was cancelled.
const TIMEOUT: Duration = Duration::from_secs(9);

/// Delivers lifecycle events to a backend. A status of 2xx accepts the batch.
///
/// The circuit breaker of the backend applies to batches: while it is open, they are refused, and the
/// node sends them again. They take no slots, because a node delivers one batch at a time, and calls
/// that wait for slots must not delay the events.
///
/// ```
/// use roomcast::{Node, Options};
/// use roomcast_backends::{Backend, BackendMetrics, BackendOptions, EventDelivery};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::embedded(Options::default());
/// let options = BackendOptions::new("chat", "https://chat.internal/rpc".parse()?);
/// let backend = Backend::new(options, &BackendMetrics::new()?)?;
/// let delivery = EventDelivery::new(backend, node.id());
/// # let _ = delivery;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventDelivery {
    backend: Backend,
    node: NodeId,
}

impl EventDelivery {
    /// Creates a delivery from a node to the hook `roomcast.events` of a backend.
    pub fn new(backend: Backend, node: NodeId) -> Self {
        Self { backend, node }
    }

    fn request(&self, batch: EventBatch) -> Result<NodeRequest, String> {
        let id = HeaderValue::from_str(&batch.id).map_err(|_| format!("the id {:?} is not printable", batch.id))?;
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static(EVENTS_CONTENT_TYPE)),
            (HOOK_HEADER, HeaderValue::from_static("events")),
            (ID_HEADER, id),
        ]);
        Ok(NodeRequest {
            method: HOOK,
            id: Some(batch.id),
            headers,
            body: batch.body,
            owner: None,
            node: self.node,
            timeout: self.backend.options().timeout.min(TIMEOUT),
        })
    }
}

impl EventSink for EventDelivery {
    fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
        let (backend, request) = (self.backend.clone(), self.request(batch));
        Box::pin(async move {
            match backend.send(request?).await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

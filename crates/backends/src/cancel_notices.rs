//! Notices of cancelled calls, for backends that cannot see that a request has ended: a signed POST to
//! `cancel_url`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use roomcast::{Cancel, CancelCause, ConnectionId, NodeId};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

use crate::admission::{Admission, Admitted, Owner, Slot};
use crate::client::{HttpClient, with_causes};
use crate::in_flight::{InFlight, Sent};
use crate::metrics::{CancelNoticeMetrics, NoticeOutcome};
use crate::options::BackendOptions;
use crate::request::{self, Parts};

/// How long a notice is repeated until the backend accepts it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between the first two attempts. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest time between two attempts.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How many notices of a backend can be under way, of which one connection has its share. Further ones are
/// dropped and counted.
const MAX_NOTICES: usize = 1024;

/// Sends the notices of one backend.
#[derive(Debug)]
pub(crate) struct CancelNotices {
    /// The backend's options, with the URL up to the last segment of `cancel_url`.
    options: BackendOptions,
    /// The last segment of `cancel_url`.
    name: String,
    client: HttpClient,
    admission: Arc<Admission>,
    metrics: CancelNoticeMetrics,
}

impl CancelNotices {
    /// Returns `None` if the backend gets no notices.
    pub(crate) fn new(
        options: &BackendOptions,
        client: &HttpClient,
        metrics: CancelNoticeMetrics,
    ) -> Option<Arc<Self>> {
        let (url, name) = options.cancel_url.as_ref()?.split_last()?;
        let options = BackendOptions { url, ..options.clone() };
        // Nothing waits: a notice that is late is of no use.
        let admission = Admission::new(MAX_NOTICES, 0);
        Some(Arc::new(Self { options, name, client: client.clone(), admission, metrics }))
    }

    /// Sends a notice if the call is cancelled before [`Watch::disarm`].
    pub(crate) fn watch(self: &Arc<Self>, cancel: &Cancel, connection: ConnectionId, call: &str) -> Watch {
        Watch(Some(Watched { notices: Arc::clone(self), cancel: cancel.clone(), connection, call: call.to_owned() }))
    }

    fn send(self: Arc<Self>, connection: ConnectionId, call: String, cause: CancelCause) {
        match (self.admission.enter(Owner::Connection(connection)), Handle::try_current()) {
            (Ok(Admitted::Now(slot)), Ok(runtime)) => {
                drop(runtime.spawn(self.deliver(connection.node, call, cause, slot)));
            }
            // There are too many, or the program ends.
            _ => self.metrics.count(NoticeOutcome::Dropped),
        }
    }

    async fn deliver(self: Arc<Self>, node: NodeId, call: String, cause: CancelCause, _slot: Slot) {
        let backend = &*self.options.name;
        let (deadline, mut delay) = (Instant::now() + PATIENCE, FIRST_DELAY);
        loop {
            let problem = match timeout(ATTEMPT_TIMEOUT, self.attempt(node, &call, cause)).await {
                Ok(Ok(())) => return self.metrics.count(NoticeOutcome::Delivered),
                Ok(Err(problem)) => problem,
                Err(_) => "no response in time".to_owned(),
            };
            if Instant::now() + delay >= deadline {
                tracing::debug!(backend, call, %cause, error = problem, "the backend did not accept the notice of a cancelled call");
                return self.metrics.count(NoticeOutcome::Failed);
            }
            sleep(delay).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    async fn attempt(&self, node: NodeId, call: &str, cause: CancelCause) -> Result<(), String> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("roomcast-call", value(call)?);
        headers.insert(request::HOOK_HEADER, HeaderValue::from_static("cancel"));
        // The same for each attempt, so that the backend can recognize a repetition.
        let id = format!("{call}-cancel");
        let parts = Parts {
            method: &self.name,
            headers,
            body: json!({ "call": call, "cause": cause.as_str() }).to_string().into(),
            id: &id,
            node,
            timeout: ATTEMPT_TIMEOUT,
            timestamp: request::now_unix(),
        };
        let request = request::build(&self.options, parts, &Span::none()).map_err(|error| error.to_string())?;
        let (request, _in_flight) = InFlight::new(request, Sent::default());
        let response = self.client.send(request).await.map_err(|error| with_causes(&error))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("status {}", status.as_u16())),
        }
    }
}

/// Held while a request is in flight.
#[derive(Debug)]
#[must_use]
pub(crate) struct Watch(Option<Watched>);

#[derive(Debug)]
struct Watched {
    notices: Arc<CancelNotices>,
    cancel: Cancel,
    connection: ConnectionId,
    call: String,
}

impl Watch {
    /// Ends the watch, because the request has ended by itself.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(Watched { notices, cancel, connection, call }) = self.0.take()
            && let Some(cause) = cancel.cause()
        {
            notices.send(connection, call, cause);
        }
    }
}

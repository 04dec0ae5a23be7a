//! A backend: admits calls, sends them as requests, and turns responses into results.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use roomcast::{BoxFuture, CallContext, CallError, Code, Context, Handler, MessageContext, NodeId, trace};
use serde_json::json;
use tracing::{Instrument, Span, debug_span, field};

use crate::admission::{Admission, Admitted, Owner, Refusal, Slot};
use crate::body::{BodyError, Reader};
use crate::call::ServedCall;
use crate::cancel_notices::CancelNotices;
use crate::client::{HttpClient, InvalidCaCertificates, SendError, with_causes};
use crate::failure::Failure;
use crate::grace::Graceful;
use crate::health::{Counted, Health};
use crate::in_flight::{InFlight, Sent};
use crate::method;
use crate::metrics::{BackendMetrics, Outcome};
use crate::node_request::{NodeRequest, NodeRequestError, NodeResponse};
use crate::options::{BackendOptions, MAX_CANCEL_GRACE};
use crate::request::{self, Parts, now_unix};
use crate::response_error;
use crate::stream::Format;

/// A request that was certainly not executed is sent once more, after this time.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// How much of the body of a response of failure is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How much of the body of a response of failure is logged, in bytes.
const MAX_LOGGED: usize = 1024;

/// Numbers the requests of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// A service that answers calls over HTTP. Cheap to clone; clones share the connections, the slots
/// and the circuit breaker.
///
/// A backend is a [`Handler`] of calls. Register it with
/// [`Router::calls`](roomcast::Router::calls), next to handlers in Rust.
#[derive(Debug, Clone)]
pub struct Backend(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: BackendOptions,
    client: HttpClient,
    calls: Lane,
    /// The requests of nodes.
    hooks: Lane,
    cancel_notices: Option<Arc<CancelNotices>>,
}

/// The slots and the circuit breaker of one kind of requests. Calls and hooks each have their own, so
/// that whoever calls slow or failing methods does not keep other clients from what hooks decide.
#[derive(Debug)]
struct Lane {
    admission: Arc<Admission>,
    health: Health,
}

impl Backend {
    /// Creates a backend. It opens connections when it needs them.
    ///
    /// # Errors
    /// Returns [`InvalidCaCertificates`] if the CA certificates cannot be read.
    pub fn new(options: BackendOptions, metrics: &BackendMetrics) -> Result<Self, InvalidCaCertificates> {
        let client = HttpClient::new(&options, metrics.stop_seconds(&options.name))?;
        let cancel_notices = CancelNotices::new(&options, &client, metrics.cancel_notices(&options.name));
        let lane = || Lane {
            admission: Admission::new(options.concurrency, options.queue),
            health: Health::new(&options.name, metrics.of(&options.name)),
        };
        let (calls, hooks) = (lane(), lane());
        Ok(Self(Arc::new(Shared { cancel_notices, client, calls, hooks, options })))
    }

    /// Returns the options.
    pub fn options(&self) -> &BackendOptions {
        &self.0.options
    }

    /// Sends a request of the node itself. The response's body is read whole, up to
    /// [`max_response`](BackendOptions::max_response).
    ///
    /// # Errors
    /// Returns [`NodeRequestError`] if there is no response of success.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is cancelled.
    pub async fn send(&self, request: NodeRequest) -> Result<NodeResponse, NodeRequestError> {
        let NodeRequest { method, id, headers, body, owner, node, timeout } = request;
        let id = id.unwrap_or_else(|| new_id(node));
        let slot = match owner {
            Some(owner) => Some(self.0.slot(&self.0.hooks, owner).await?),
            None => None,
        };
        let parts = || Parts {
            method,
            headers: headers.clone(),
            body: body.clone(),
            id: &id,
            node,
            timeout,
            timestamp: now_unix(),
        };
        let deadline = Some(tokio::time::Instant::now() + timeout);
        let limits = Limits { timeout, deadline, streams: false };
        let (head, body) = self.0.exchange(&self.0.hooks, slot, limits, method, parts, None).await?;
        Ok(NodeResponse { status: head.status, headers: head.headers, body })
    }

    async fn call(self, call: CallContext) -> Result<Bytes, CallError> {
        let shared = &self.0;
        let (socket, method) = (call.socket(), call.name());
        if !method::can_be_sent(method) {
            return Err(CallError::new(Code::NotFound, format!("the method {:?} does not exist", &**method)));
        }
        let id = new_id(socket.node().id());
        let mut headers = HeaderMap::new();
        if let Some(request) = call.request() {
            request::forward(&shared.options.forward, &request.headers, &mut headers);
        }
        request::identify_call(&id, &mut headers)?;
        request::identify_client(Some(socket.id()), socket.user(), socket.identity().as_deref(), &mut headers)?;

        let slot = shared.slot(&shared.calls, Owner::Connection(socket.id())).await.map_err(|failure| failure.error)?;
        let watch = shared.cancel_notices.as_ref().map(|notices| notices.watch(call.cancel(), socket.id(), &id));
        let (cancel, sent, backend) = (call.cancel().clone(), Sent::default(), self.clone());
        let request = {
            let sent = sent.clone();
            Box::pin(async move { backend.0.serve(&call, &id, headers, slot, &sent).await })
        };
        let result = Graceful::new(request, cancel, sent, shared.options.cancel_grace.min(MAX_CANCEL_GRACE)).await;
        if let Some(watch) = watch {
            watch.disarm();
        }
        result
    }
}

impl<S> Handler<CallContext, (), S> for Backend {
    fn handle(self: Arc<Self>, call: CallContext, _state: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>> {
        Box::pin(Self::clone(&self).call(call))
    }
}

impl Shared {
    /// Waits for a slot.
    async fn slot(&self, lane: &Lane, owner: Owner) -> Result<Slot, Failure> {
        let not_sent = |code: Code, message: &'static str| {
            lane.health.metrics.count(Outcome::NoSlot);
            Failure::not_sent(Outcome::NoSlot, CallError::new(code, message))
        };
        let mut place = match lane.admission.enter(owner) {
            Ok(Admitted::Now(slot)) => return Ok(slot),
            Ok(Admitted::Later(place)) => place,
            Err(Refusal::QueueIsFull) => {
                return Err(not_sent(Code::Unavailable, "too many calls wait for the backend"));
            }
            Err(Refusal::OwnerHasItsShare) => {
                return Err(match owner {
                    Owner::Connection(_) => {
                        not_sent(Code::ResourceExhausted, "too many calls of this connection wait for the backend")
                    }
                    Owner::Handshake => not_sent(Code::Unavailable, "too many clients connect at the moment"),
                });
            }
        };
        let _queued = Counted::new(&lane.health.metrics.queued);
        match tokio::time::timeout(self.options.queue_time, place.slot()).await {
            Ok(Some(slot)) => Ok(slot),
            _ => Err(not_sent(Code::Unavailable, "the backend is busy")),
        }
    }

    /// Sends the request of a call, and reads the response.
    async fn serve(
        &self,
        call: &CallContext,
        id: &str,
        headers: HeaderMap,
        slot: Slot,
        sent: &Sent,
    ) -> Result<Bytes, CallError> {
        let (socket, method) = (call.socket(), call.name());
        // The node cancels the call at its deadline, if that is earlier.
        let time_left = || call.deadline().saturating_duration_since(Instant::now()).min(self.options.timeout);
        let parts = || Parts {
            method,
            headers: headers.clone(),
            body: call.payload().clone(),
            id,
            node: socket.node().id(),
            timeout: time_left(),
            timestamp: now_unix(),
        };
        let limits = Limits { timeout: self.options.timeout, deadline: None, streams: self.options.streams };
        let grace = (!self.options.cancel_grace.is_zero()).then(|| call.grace());
        let served = ServedCall {
            id,
            connection: socket.id(),
            user: socket.user().map(|user| &**user),
            cancel: call.cancel(),
            sent,
            grace: grace.as_ref(),
        };
        let result = self.exchange(&self.calls, Some(slot), limits, method, parts, Some(served)).await;
        result.map(|(_, body)| body).map_err(|failure| failure.error)
    }

    /// Sends a request, and reads the response.
    async fn exchange<'a>(
        &self,
        lane: &Lane,
        slot: Option<Slot>,
        limits: Limits,
        method: &str,
        parts: impl Fn() -> Parts<'a>,
        call: Option<ServedCall<'_>>,
    ) -> Result<(axum::http::response::Parts, Bytes), Failure> {
        let Limits { timeout, deadline, streams } = limits;
        let exchange = lane.health.begin(slot, call)?;
        let span = self.span(method);
        let sent = tokio::time::timeout(timeout, self.send(&parts, &span, call)).instrument(span.clone()).await;
        let (in_flight, response) = match sent {
            Ok(Ok(sent)) => sent,
            Ok(Err(failure)) => return Err(exchange.end(&span, failure)),
            Err(_elapsed) => {
                let message = format!("the backend did not respond within {timeout:?}");
                return Err(exchange.end(&span, Failure::timeout(message)));
            }
        };
        let (head, body) = response.into_parts();
        span.record("http.response.status_code", head.status.as_u16());
        exchange.answered(head.status);
        let mut body = Reader::new(body, self.options.idle_timeout, deadline);
        let read = async {
            if !head.status.is_success() {
                let (beginning, has_ended) = body.beginning(MAX_ERROR_BODY).await;
                return Err(BodyOrStatus::Status(beginning, has_ended));
            }
            let (format, max) = (Format::of(&head.headers).filter(|_| streams), self.options.max_response);
            let received = || call.iter().for_each(ServedCall::item_received);
            let read = match format {
                Some(format) => body.items(format, max, received).await,
                // A response without a stream is one Item.
                None => body.whole(max).await.inspect(|_| received()),
            };
            read.map_err(BodyOrStatus::Body)
        };
        match read.instrument(span.clone()).await {
            Ok(body) => {
                in_flight.finish();
                exchange.succeed();
                Ok((head, body))
            }
            Err(BodyOrStatus::Status(body, has_ended)) => {
                let outcome = match head.status {
                    status if status.is_client_error() => Outcome::Rejected,
                    status if status.is_server_error() => Outcome::Failed,
                    _ => Outcome::Invalid,
                };
                let text = String::from_utf8_lossy(&body[..body.len().min(MAX_LOGGED)]).into_owned();
                let reason = format!("status {}: {}", head.status.as_u16(), text.escape_debug());
                let error = response_error::of(head.status, &head.headers, &body, SystemTime::now());
                if has_ended {
                    in_flight.finish();
                }
                Err(exchange.end(&span, Failure { outcome, reason, error }))
            }
            Err(BodyOrStatus::Body(problem)) => Err(exchange.end(&span, self.of_body(problem))),
        }
    }

    /// Sends a request until it may have been executed, at most twice.
    async fn send<'a>(
        &self,
        parts: &impl Fn() -> Parts<'a>,
        span: &Span,
        call: Option<ServedCall<'_>>,
    ) -> Result<(InFlight, Response<Incoming>), Failure> {
        let sent = call.map_or_else(Sent::default, |call| call.sent.clone());
        let mut is_retry = false;
        loop {
            let request = request::build(&self.options, parts(), span)
                .map_err(|error| Failure::not_sent(Outcome::Invalid, error))?;
            let (request, in_flight) = InFlight::new(request, sent.clone());
            match self.client.send(request).await {
                Ok(response) => return Ok((in_flight, response)),
                Err(error) => {
                    let kind = SendError::from(&error);
                    if is_retry || kind != SendError::NotExecuted || call.is_some_and(|call| call.is_cancelled()) {
                        let (outcome, reason) = (Outcome::of_send(&kind), with_causes(&error));
                        return Err(Failure { outcome, reason, error: kind.into() });
                    }
                    is_retry = true;
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    fn of_body(&self, problem: BodyError) -> Failure {
        match problem {
            BodyError::TooLarge => {
                let message = format!("the backend's response is larger than {} bytes", self.options.max_response);
                let error = CallError::new(Code::Internal, &*message);
                Failure { outcome: Outcome::Invalid, reason: message, error }
            }
            BodyError::Lost(reason) => Failure { outcome: Outcome::Unreachable, reason, error: SendError::Lost.into() },
            BodyError::Timeout(waited) => {
                Failure::timeout(format!("the backend's response did not continue within {waited:?}"))
            }
            BodyError::Stream(error) => {
                Failure { outcome: Outcome::Invalid, reason: error.to_string(), error: error.into() }
            }
            BodyError::Error(error) => Failure { outcome: Outcome::Rejected, reason: error.to_string(), error },
        }
    }

    /// A span with the fields of OpenTelemetry's conventions for HTTP clients.
    fn span(&self, method: &str) -> Span {
        let url = &self.options.url;
        debug_span!(
            target: trace::INNER,
            "backend request",
            otel.name = "POST",
            otel.kind = "client",
            otel.status_code = field::Empty,
            roomcast.backend = self.options.name,
            http.request.method = "POST",
            http.response.status_code = field::Empty,
            server.address = url.host(),
            server.port = url.port(),
            url.full = url.with_path(&url.path_of(method)),
            error.type = field::Empty,
        )
    }
}

/// The limits of one request.
struct Limits {
    /// For the head of the response.
    timeout: Duration,
    /// For all of the response.
    deadline: Option<tokio::time::Instant>,
    /// Whether the response can be a stream.
    streams: bool,
}

/// Why a response has no result.
enum BodyOrStatus {
    /// The status is not 2xx. The beginning of the body follows, and whether this is all of it.
    Status(Bytes, bool),
    Body(BodyError),
}

impl Outcome {
    fn of_send(error: &SendError) -> Self {
        match error {
            SendError::NotExecuted | SendError::Lost => Self::Unreachable,
            SendError::Invalid => Self::Invalid,
        }
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotExecuted => Self::new(Code::Unavailable, "the backend cannot be reached"),
            SendError::Lost => Self::new(Code::Unavailable, "the connection to the backend was lost")
                .with_details(json!({ "maybe_executed": true })),
            SendError::Invalid => Self::new(Code::Internal, "the backend's response is invalid"),
        }
    }
}

/// Returns an id that is unique in the cluster.
fn new_id(node: NodeId) -> String {
    format!("{node}-{:x}", REQUESTS.fetch_add(1, Ordering::Relaxed))
}

//! Counts, logs and traces the requests to the API, those that are refused included.

use std::time::Instant;

use axum::extract::{self, MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use roomcast::trace::{self, Parent};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

/// The route of requests for which the API has none. Clients must not be able to create label values.
const NO_ROUTE: &str = "none";

/// From requests that this node answers alone to those for which it waits for other nodes.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The metrics of requests to the API. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl RequestMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("roomcast_api_requests_total", "Requests to the HTTP API, by method, route and HTTP status"),
            &["method", "route", "status"],
        )?;
        let help = "Time from the head of a request to the HTTP API to its response, by route";
        let options = HistogramOpts::new("roomcast_api_request_duration_seconds", help).buckets(BUCKETS.to_vec());
        let duration = HistogramVec::new(options, &["route"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { requests, duration })
    }
}

/// Passes a request on, and counts and logs its outcome.
pub(super) async fn observe(
    extract::State(metrics): extract::State<RequestMetrics>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = name_of(request.method());
    let path = request.extensions().get::<MatchedPath>().cloned();
    let route = path.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let span = span(&request, method, route);
    let response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    metrics.requests.with_label_values(&[method, route, &status.to_string()]).inc();
    metrics.duration.with_label_values(&[route]).observe(elapsed.as_secs_f64());
    span.record("http.response.status_code", status);
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    tracing::debug!(method, route, status, ?elapsed, "a request to the HTTP API was answered");
    response
}

/// The span of a request. It belongs to the trace of the backend that has sent the request, and exists only if the backend
/// samples that trace.
fn span(request: &Request, method: &str, route: &str) -> Span {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    match Parent::parse(header("traceparent"), header("tracestate")) {
        Parent::Sampled { context, state } => trace::continued_with_state(
            debug_span!(
                target: trace::CONTINUED, "api request", otel.name = format_args!("{method} {route}"),
                otel.kind = "server", otel.status_code = Empty, http.request.method = method, http.route = route,
                http.response.status_code = Empty,
            ),
            &context,
            state,
        ),
        Parent::NotSampled => Span::none(),
        Parent::None if !trace::samples_next() => Span::none(),
        Parent::None => debug_span!(
            target: trace::TARGET, "api request", otel.name = format_args!("{method} {route}"),
            otel.kind = "server", otel.status_code = Empty, http.request.method = method, http.route = route,
            http.response.status_code = Empty,
        ),
    }
}

/// The label of a method. The API uses no others.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

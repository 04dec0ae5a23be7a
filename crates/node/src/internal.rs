//! The internal listener: health, metrics and the API, on a thread of its own, so that it answers while
//! the data path is saturated.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;

use axum::http::StatusCode;
use axum::http::header::{self, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use roomcast::Code;
use serde_json::json;
use tokio::net::TcpListener;

use crate::api::{self, Failure};
use crate::listener::{self, Service};
use crate::places::Places;
use crate::process::ProcessMetrics;

/// Why the node should get no traffic; ready when there is no reason left.
#[derive(Debug, Clone)]
pub(crate) struct Readiness {
    /// Each with its details, if any are known.
    reasons: Arc<Mutex<BTreeMap<&'static str, String>>>,
    ready: IntGauge,
}

impl Readiness {
    /// For one reason.
    pub(crate) fn not_yet(reason: &'static str, registry: &Registry) -> Result<Self, prometheus::Error> {
        let ready = IntGauge::new("roomcast_ready", "1 while /readyz answers 200")?;
        registry.register(Box::new(ready.clone()))?;
        Ok(Self { reasons: Arc::new(Mutex::new(BTreeMap::from([(reason, String::new())]))), ready })
    }

    pub(crate) fn add(&self, reason: &'static str) {
        self.add_with(reason, String::new());
    }

    /// Adds a reason, or replaces what is known about it.
    pub(crate) fn add_with(&self, reason: &'static str, detail: String) {
        self.change(|reasons| _ = reasons.insert(reason, detail));
    }

    pub(crate) fn remove(&self, reason: &'static str) {
        self.change(|reasons| _ = reasons.remove(reason));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, String>)) {
        let mut reasons = self.reasons.lock();
        change(&mut reasons);
        self.ready.set(i64::from(reasons.is_empty()));
    }

    fn answer(&self) -> Response {
        let reasons = self.reasons.lock();
        let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let shown = reasons.iter().map(|(reason, detail)| match detail.is_empty() {
            true => (*reason).to_owned(),
            false => format!("{reason}: {detail}"),
        });
        (status, axum::Json(json!({ "ready": reasons.is_empty(), "reasons": shown.collect::<Vec<_>>() })))
            .into_response()
    }
}

/// Serves health, metrics and the API until the process ends.
pub(crate) fn spawn(
    socket: std::net::TcpListener,
    places: Places,
    readiness: Readiness,
    registry: Registry,
    api: axum::Router,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let app = axum::Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || readiness.answer()))
        .route("/metrics", get(async move || metrics(&registry)))
        .nest(api::PREFIX, api)
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::not_allowed);
    thread::Builder::new().name("roomcast-internal".into()).spawn(move || {
        runtime.block_on(async move {
            match TcpListener::from_std(socket) {
                Ok(socket) => listener::accept(&socket, &Service::plain(places, app)).await,
                Err(error) => tracing::error!(%error, "the internal listener failed"),
            }
        });
    })?;
    Ok(())
}

fn metrics(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => {
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, error.to_string()).into_response()
        }
    }
}

/// A registry with the metrics of the process, the build, and the threads that serve connections.
pub(crate) fn registry(worker_threads: usize) -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessMetrics::new()))?;
    let build = IntGaugeVec::new(
        Opts::new("roomcast_build_info", "1; the labels have the version and commit that the node was built from"),
        &["version", "commit"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BUILD_COMMIT")]).set(1);
    registry.register(Box::new(build))?;
    let threads = IntGauge::new("roomcast_worker_threads", "Threads that serve connections")?;
    threads.set(i64::try_from(worker_threads).unwrap_or(i64::MAX));
    registry.register(Box::new(threads))?;
    Ok(registry)
}

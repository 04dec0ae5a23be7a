//! Sends spans to a collector over OTLP, by gRPC or HTTP.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::otlp::queue::SpanMetrics;
use crate::otlp::{TraceOptions, TraceProtocol};

/// How long the export of one batch may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many bytes of a collector's response are read.
const MAX_RESPONSE: usize = 64 * 1024;

/// The exporter of spans. Its I/O runs on this runtime.
pub(super) fn exporter(
    options: &TraceOptions,
    runtime: &Handle,
    metrics: &SpanMetrics,
) -> io::Result<impl SpanExporter + use<>> {
    let _entered = runtime.enter();
    let endpoint = &options.endpoint;
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let exporter = match options.protocol {
        TraceProtocol::Grpc => {
            let builder = builder.with_tonic().with_endpoint(endpoint.0.to_string()).with_timeout(EXPORT_TIMEOUT);
            match endpoint.is_tls() {
                true => builder.with_tls_config(ClientTlsConfig::new().with_native_roots()).build(),
                false => builder.build(),
            }
        }
        TraceProtocol::Http => builder
            .with_http()
            .with_endpoint(endpoint.for_http())
            .with_timeout(EXPORT_TIMEOUT)
            .with_http_client(RuntimeClient::new(endpoint.is_tls())?)
            .build(),
    };
    let inner = Arc::new(exporter.map_err(io::Error::other)?);
    Ok(CountedExporter { inner, runtime: runtime.clone(), metrics: metrics.clone(), failing: AtomicBool::new(false) })
}

/// Exports on a runtime, within a deadline, and counts and logs the outcomes.
#[derive(Debug)]
struct CountedExporter<E> {
    inner: Arc<E>,
    runtime: Handle,
    metrics: SpanMetrics,
    /// Whether the last export failed. Only changes are logged.
    failing: AtomicBool,
}

impl<E: SpanExporter + 'static> SpanExporter for CountedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (inner, export) = (Arc::clone(&self.inner), self.metrics.export(batch.len()));
        let exporting = self.runtime.spawn(async move {
            let exported = tokio::time::timeout(EXPORT_TIMEOUT, inner.export(batch)).await;
            exported.unwrap_or(Err(OTelSdkError::Timeout(EXPORT_TIMEOUT)))
        });
        // A task that has panicked, which is logged.
        let result = exporting.await.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string())));
        match &result {
            Ok(()) => export.accept(),
            Err(_) => drop(export),
        }
        let was_failing = self.failing.swap(result.is_err(), Ordering::AcqRel);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "traces cannot be exported; their spans are dropped until the collector accepts them");
            }
            Ok(()) if was_failing => tracing::info!("traces are exported again"),
            _ => {}
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource); // no export has begun
        }
    }
}

/// The HTTP client of OTLP over HTTP. It trusts the CA certificates of the system.
#[derive(Debug)]
struct RuntimeClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl RuntimeClient {
    fn new(is_tls: bool) -> io::Result<Self> {
        let builder = HttpsConnectorBuilder::new();
        let connector = match is_tls {
            true => {
                builder.with_provider_and_native_roots(ring::default_provider())?.https_only().enable_http1().build()
            }
            // It never uses TLS, so a machine without CA certificates can run it.
            false => builder.with_tls_config(without_roots()?).https_or_http().enable_http1().build(),
        };
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }
}

fn without_roots() -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

#[async_trait::async_trait]
impl HttpClient for RuntimeClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.0.request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, Limited::new(body, MAX_RESPONSE).collect().await?.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use prometheus::{Encoder as _, Registry, TextEncoder};

    use super::*;
    use crate::otlp::queue::BoundedProcessor;

    #[derive(Debug, Clone, Copy)]
    enum Collector {
        Accepts,
        Refuses,
        Panics,
    }

    impl SpanExporter for Collector {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            match self {
                Self::Accepts => Ok(()),
                Self::Refuses => Err(OTelSdkError::InternalFailure("refused".to_owned())),
                Self::Panics => panic!("a bug in an exporter"),
            }
        }
    }

    /// Ends spans before and after the shutdown.
    fn end_spans(collector: Collector, runtime: Handle) -> SpanMetrics {
        let metrics = SpanMetrics::new().expect("valid names");
        let (inner, failing) = (Arc::new(collector), AtomicBool::new(false));
        let exporter = CountedExporter { inner, runtime, metrics: metrics.clone(), failing };
        let processor = BoundedProcessor::new(exporter, metrics.clone());
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("test");
        for round in 0..3 {
            tracer.start("span").end();
            // It reports what the exporter does.
            let _ = if round == 1 { provider.shutdown() } else { provider.force_flush() };
        }
        metrics
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_span_keeps_its_place_whatever_becomes_of_it() {
        for (collector, outcome) in [
            (Collector::Accepts, "roomcast_trace_spans_exported_total 2"),
            (Collector::Refuses, "roomcast_trace_spans_dropped_total{reason=\"export\"} 2"),
            (Collector::Panics, "roomcast_trace_spans_dropped_total{reason=\"export\"} 2"),
        ] {
            let runtime = Handle::current();
            let ended = tokio::task::spawn_blocking(move || end_spans(collector, runtime));
            let metrics = ended.await.expect("it does not panic");
            assert_eq!(metrics.waiting(), 0, "{collector:?}");
            let registry = Registry::new();
            metrics.register(&registry).expect("two counters");
            let mut page = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut page).expect("text");
            let page = String::from_utf8(page).expect("text");
            assert!(page.contains(outcome), "{collector:?}: {page}");
        }
    }
}

//! Traces: which spans are sampled, and their export over OTLP.
//!
//! `sampler` decides before a trace's first span is built, `queue` bounds the spans that wait, and `export` sends them. The
//! exporter has a runtime of its own, so a collector that is slow or down delays nothing else.

mod export;
mod propagation;
mod queue;
mod sampler;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use prometheus::Registry;
use tokio::runtime::Runtime;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::NAME;
use crate::otlp::propagation::OpenTelemetry;
use crate::otlp::queue::{BoundedProcessor, SpanMetrics};
use crate::otlp::sampler::{SpanFilter, TraceSampler};

/// How long the exiting process waits for its last spans to be exported.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How spans are sent to the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TraceProtocol {
    Grpc,
    Http,
}

/// The URL of a collector.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TraceEndpoint(Uri);

impl TraceEndpoint {
    /// Parses a URL that begins with `http://` or `https://`.
    ///
    /// # Errors
    /// What is wrong with the URL. The text does not quote the URL, which may contain a password.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "write the URL of a collector, such as http://127.0.0.1:4317".to_owned();
        let uri = Uri::from_str(text).map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https")));
        match authority {
            Some(authority) if authority.as_str().contains('@') => {
                Err("leave out the password; set the header in OTEL_EXPORTER_OTLP_HEADERS".to_owned())
            }
            Some(_) => Ok(Self(uri)),
            None => Err(wrong()),
        }
    }

    fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// The URL for OTLP over HTTP, whose usual path is added to a URL without a path.
    fn for_http(&self) -> String {
        let uri = self.0.to_string();
        match (self.0.path(), uri.split_once('?')) {
            ("" | "/", None) => format!("{uri}v1/traces"),
            ("" | "/", Some((root, query))) => format!("{root}v1/traces?{query}"),
            _ => uri,
        }
    }
}

/// Omits the query, which could contain a key.
impl fmt::Display for TraceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.0.to_string();
        f.write_str(uri.split('?').next().unwrap_or_default())
    }
}

/// Like [`Display`](fmt::Display).
impl fmt::Debug for TraceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceEndpoint({self})")
    }
}

/// Which part of all traces is sampled: a number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TraceRatio(f64);

impl TraceRatio {
    /// Parses a number from 0 to 1.
    ///
    /// # Errors
    /// What is wrong with the number.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.map(Self).ok_or_else(|| "it must be a number from 0 to 1, such as 0.01".to_owned())
    }
}

/// Where traces go, and which are sampled.
#[derive(Debug, Clone)]
pub(crate) struct TraceOptions {
    pub(crate) endpoint: TraceEndpoint,
    pub(crate) protocol: TraceProtocol,
    pub(crate) ratio: TraceRatio,
}

/// The export of traces. Dropping this exports the last spans.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    metrics: SpanMetrics,
    /// `None` while this is dropped.
    runtime: Option<Runtime>,
}

impl Traces {
    /// Starts to export, and returns the layer that makes spans into traces. Nothing is sent before the first span ends.
    pub(crate) fn start<S>(options: &TraceOptions) -> io::Result<(Self, impl Layer<S> + Send + Sync + use<S>)>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("roomcast-traces")
            .enable_all()
            .build()?;
        let metrics = SpanMetrics::new().map_err(io::Error::other)?;
        let exporter = export::exporter(options, runtime.handle(), &metrics)?;
        // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override and extend these.
        let resource = Resource::builder()
            .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
            .with_attributes(
                std::env::var_os("OTEL_SERVICE_NAME").is_none().then(|| KeyValue::new("service.name", NAME)),
            )
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn) // no other spans are built
            .with_resource(resource)
            .with_span_processor(BoundedProcessor::new(exporter, metrics.clone()))
            .build();
        // It fails only if the process has another propagator.
        let _ = roomcast::trace::set_propagator(Box::new(OpenTelemetry::new(TraceSampler::new(options.ratio.0))));
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false)
            .with_filter(SpanFilter);
        Ok((Self { provider, metrics, runtime: Some(runtime) }, layer))
    }

    /// Registers the counters of spans.
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.metrics.register(registry)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // After the timeout, the rest is lost: the collector does not take it.
        let _ = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_a_password() {
        let endpoint = |text| TraceEndpoint::parse(text).expect(text);
        assert_eq!(endpoint("http://127.0.0.1:4318").for_http(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(endpoint("http://otel?key=1").for_http(), "http://otel/v1/traces?key=1");
        assert_eq!(endpoint("https://otel.example.org/team/traces").for_http(), "https://otel.example.org/team/traces");
        assert!(endpoint("https://otel.example.org").is_tls() && !endpoint("http://otel.example.org").is_tls());
        for wrong in ["otel:4317", "ftp://otel", "http://", "/v1/traces", "http://me:secret@otel"] {
            TraceEndpoint::parse(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        assert_eq!(TraceRatio::parse("0.25"), Ok(TraceRatio(0.25)));
        for wrong in ["", "-0.1", "1.01", "NaN", "all"] {
            TraceRatio::parse(wrong).expect_err(wrong);
        }
    }
}

//! A collector of traces, with the official definitions of OTLP.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::support::{DEADLINE, wait_until};

/// The spans that have arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// Receives OTLP over gRPC, and returns the URL.
    pub(crate) async fn grpc() -> (Self, String) {
        let collector = Self::default();
        let url = serve(collector.grpc_service()).await;
        (collector, url)
    }

    /// Receives OTLP over HTTP, and returns the URL.
    pub(crate) async fn http() -> (Self, String) {
        let collector = Self::default();
        let url = serve(collector.http_service()).await;
        (collector, url)
    }

    pub(crate) fn grpc_service(&self) -> axum::Router {
        tonic::service::Routes::new(TraceServiceServer::new(self.clone())).into_axum_router()
    }

    pub(crate) fn http_service(&self) -> axum::Router {
        let requests = Arc::clone(&self.requests);
        let receive = async move |headers: HeaderMap, body: axum::body::Bytes| {
            let is_protobuf = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/x-protobuf");
            match ExportTraceServiceRequest::decode(body) {
                Ok(request) if is_protobuf => {
                    requests.lock().push(request);
                    (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
                }
                _ => (StatusCode::BAD_REQUEST, Vec::new()),
            }
        };
        axum::Router::new().route("/v1/traces", post(receive))
    }

    /// The values of a resource attribute of all processes that have sent spans.
    pub(crate) fn resources(&self, key: &str) -> Vec<String> {
        let requests = self.requests.lock();
        let resources = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.resource);
        resources.map(|resource| attribute_in(&resource.attributes, key)).collect()
    }

    /// Forgets all spans.
    pub(crate) fn clear(&self) {
        self.requests.lock().clear();
    }

    /// All spans.
    pub(crate) fn all(&self) -> Vec<Span> {
        let requests = self.requests.lock();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// All spans with this name.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// Waits for so many spans with this name.
    pub(crate) async fn wait_for(&self, name: &str, count: usize) -> Vec<Span> {
        let found = async || self.spans(name).len() >= count;
        if tokio::time::timeout(DEADLINE, wait_until("the spans arrive", found)).await.is_err() {
            panic!("waited in vain for {count} spans {name:?}; there are {:?}", self.requests.lock());
        }
        self.spans(name)
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.requests.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn serve(service: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, service).await });
    url
}

/// The value of a span's attribute, as text. It is empty if the span has no such attribute.
pub(crate) fn attribute(span: &Span, key: &str) -> String {
    attribute_in(&span.attributes, key)
}

fn attribute_in(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone()?.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

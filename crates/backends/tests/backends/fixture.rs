//! A backend over HTTP/1.1 or HTTP/2 that counts its live requests, and a client that calls it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use roomcast::testing::{self, Client};
use roomcast::{Node, Options, Router};
use roomcast_backends::{Backend, BackendMetrics, BackendOptions};
use tokio::net::TcpListener;

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// More than any test needs.
const MAX_STREAMS: u32 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// What the backend does with a request, whose body has been read.
pub(crate) type Handle = fn(Request<Bytes>) -> std::pin::Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

pub(crate) fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

/// A body of these parts, after which it does not end.
pub(crate) fn unending(parts: &'static [&'static str]) -> Body {
    use futures_util::stream::{StreamExt, iter, pending};
    let parts = iter(parts).map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    BodyExt::boxed(SyncBody(StreamBody::new(parts.chain(pending()))))
}

/// A body that only one task uses.
pub(crate) struct SyncBody<B>(pub(crate) B);

impl<B: hyper::body::Body + Unpin> hyper::body::Body for SyncBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(context)
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    live: Arc<AtomicUsize>,
    started: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// Counts a request as live until its response was sent or it was cancelled.
struct Live(Arc<AtomicUsize>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Server {
    pub(crate) async fn start(protocol: Protocol, handle: Handle) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (live, started) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let connections = Arc::<AtomicUsize>::default();
        let server = Self {
            address,
            live: Arc::clone(&live),
            started: Arc::clone(&started),
            connections: Arc::clone(&connections),
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (live, started) = (Arc::clone(&live), Arc::clone(&started));
                let service = service_fn(move |request: Request<Incoming>| {
                    live.fetch_add(1, Ordering::SeqCst);
                    started.fetch_add(1, Ordering::SeqCst);
                    let live = Live(Arc::clone(&live));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let response = handle(Request::from_parts(head, body)).await;
                        drop(live);
                        Ok::<_, hyper::Error>(response)
                    }
                });
                let io = TokioIo::new(stream);
                connections.fetch_add(1, Ordering::SeqCst);
                let open = Live(Arc::clone(&connections));
                tokio::spawn(async move {
                    let _open = open;
                    // A connection that its client closes is an error.
                    let _ = match protocol {
                        Protocol::Http1 => {
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                        }
                        Protocol::Http2 => {
                            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                            server.max_concurrent_streams(MAX_STREAMS);
                            server.serve_connection(io, service).await
                        }
                    };
                });
            }
        });
        server
    }

    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

/// A client of a node whose methods a backend answers, and the node's metrics.
pub(crate) struct Calls {
    pub(crate) client: Client,
    pub(crate) router: Router,
    pub(crate) registry: prometheus::Registry,
}

impl Calls {
    pub(crate) async fn to(address: SocketAddr, protocol: Protocol, change: impl FnOnce(&mut BackendOptions)) -> Self {
        let mut options = BackendOptions::new("chat", format!("http://{address}/rpc").parse().unwrap());
        options.http2 = protocol == Protocol::Http2;
        change(&mut options);
        let (metrics, registry) = (BackendMetrics::new().unwrap(), prometheus::Registry::new());
        metrics.register(&registry).unwrap();
        let backend = Backend::new(options, &metrics).unwrap();
        let router = Router::new(Node::embedded(Options::default())).calls("chat", ["**".parse().unwrap()], backend);
        let (client, _) = testing::connect(&router).await.unwrap();
        Self { client, router, registry }
    }

    /// Returns the sum of a metric over its other labels.
    pub(crate) fn metric(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        metric(&self.registry, name, label)
    }

    pub(crate) fn outcome(&self, outcome: &str) -> f64 {
        self.metric("roomcast_backend_requests_total", Some(("outcome", outcome)))
    }
}

/// Returns the sum of a metric over its other labels.
pub(crate) fn metric(registry: &prometheus::Registry, name: &str, label: Option<(&str, &str)>) -> f64 {
    let families = registry.gather();
    let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    let has_label = |metric: &&prometheus::proto::Metric| {
        label.is_none_or(|(name, value)| {
            metric.get_label().iter().any(|label| label.name() == name && label.value() == value)
        })
    };
    let value = |metric: &prometheus::proto::Metric| {
        metric.get_counter().get_value()
            + metric.get_gauge().get_value()
            + metric.get_histogram().get_sample_count() as f64
    };
    metrics.filter(has_label).map(value).sum()
}

/// Waits until a condition holds.
pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(testing::PATIENCE, holds).await.expect("the condition holds in time");
}

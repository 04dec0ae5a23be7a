//! Lifecycle events that are delivered to a backend.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::{Response, StatusCode};
use roomcast::testing;
use roomcast::{EventKind, EventOptions, EventRules, EventStore, MemoryEvents, Node, Options, Router};
use roomcast_backends::{Backend, BackendMetrics, BackendOptions, EventDelivery};

use crate::fixture::{PROTOCOLS, Protocol, Server, metric, wait_until, whole};

/// Reports connections to a backend that has a single slot, which a call takes for the whole test.
struct Reporter {
    router: Router,
    registry: prometheus::Registry,
}

impl Reporter {
    fn to(address: SocketAddr, protocol: Protocol) -> Self {
        let mut options = BackendOptions::new("chat", format!("http://{address}/rpc/").parse().unwrap());
        options.http2 = protocol == Protocol::Http2;
        options.concurrency = 1;
        options.signing_secrets = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap());
        let (metrics, registry) = (BackendMetrics::new().unwrap(), prometheus::Registry::new());
        metrics.register(&registry).unwrap();
        let backend = Backend::new(options, &metrics).unwrap();
        let node = Node::embedded(Options::default());
        let store: Arc<dyn EventStore> = Arc::new(MemoryEvents::new(EventRules::default()));
        let delivery = Arc::new(EventDelivery::new(backend.clone(), node.id()));
        node.report_events(EventOptions::new([EventKind::Connected].into_iter().collect(), store, delivery));
        Self { router: Router::new(node).calls("chat", ["**".parse().unwrap()], backend), registry }
    }

    fn outcome(&self, outcome: &str) -> f64 {
        metric(&self.registry, "roomcast_backend_requests_total", Some(("outcome", outcome)))
    }
}

#[tokio::test]
async fn events_arrive_signed_although_calls_take_all_slots() {
    for protocol in PROTOCOLS {
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                if request.uri().path() != "/rpc/roomcast.events" {
                    std::future::pending::<()>().await;
                }
                let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
                let is_valid = header("content-type") == "application/cloudevents-batch+json"
                    && header("roomcast-hook") == "events"
                    && header("webhook-id").ends_with(".connected+1")
                    && header("webhook-signature").starts_with("v1,")
                    && header("roomcast-signature").starts_with("v1,");
                let status = if is_valid { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST };
                Response::builder().status(status).body(whole("")).unwrap()
            })
        })
        .await;
        let reporter = Reporter::to(server.address, protocol);
        let (mut caller, _) = testing::connect(&reporter.router).await.unwrap();
        let call = tokio::spawn(async move { caller.call("a", "").await });
        wait_until(|| reporter.outcome("ok") == 1.0 && server.live() == 1).await;
        let (_another, _) = testing::connect(&reporter.router).await.unwrap();
        wait_until(|| reporter.outcome("ok") == 2.0).await;
        assert_eq!(reporter.outcome("cancelled"), 0.0, "the call still has the slot");
        call.abort();
    }
}

#[tokio::test]
async fn a_batch_that_is_not_accepted_is_sent_again_with_the_same_id() {
    let server = Server::start(Protocol::Http1, |request| {
        Box::pin(async move {
            static FIRST: std::sync::OnceLock<hyper::header::HeaderValue> = std::sync::OnceLock::new();
            let id = request.headers()["webhook-id"].clone();
            let status = match FIRST.get() {
                Some(first) if *first == id => StatusCode::OK,
                Some(_) => StatusCode::BAD_REQUEST,
                None => {
                    FIRST.set(id).unwrap();
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            };
            Response::builder().status(status).body(whole("")).unwrap()
        })
    })
    .await;
    let reporter = Reporter::to(server.address, Protocol::Http1);
    let (_client, _) = testing::connect(&reporter.router).await.unwrap();
    wait_until(|| reporter.outcome("ok") == 1.0).await;
    assert_eq!((reporter.outcome("failed"), reporter.outcome("rejected")), (1.0, 0.0));
}

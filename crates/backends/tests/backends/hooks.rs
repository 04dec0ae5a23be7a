//! Hooks decide although calls of the same backend take all slots or fail.

use std::time::Duration;

use hyper::{Response, StatusCode};
use roomcast::{Code, Node, Options, Router, testing};
use roomcast_backends::{Backend, BackendMetrics, BackendOptions, Hook, HookMetrics};

use crate::fixture::{PROTOCOLS, Protocol, Server, metric, unending, wait_until, whole};

/// Publishes are permitted; every fourth call hangs, fails, streams without end, or is answered.
async fn server(protocol: Protocol) -> Server {
    Server::start(protocol, |request| {
        Box::pin(async move {
            match request.uri().path() {
                "/rpc/roomcast.publish" => Response::builder().status(StatusCode::NO_CONTENT).body(whole("")).unwrap(),
                "/rpc/hang" => std::future::pending().await,
                "/rpc/fail" => Response::builder().status(StatusCode::BAD_GATEWAY).body(whole("")).unwrap(),
                "/rpc/stream" => {
                    let response = Response::builder().header("content-type", "text/event-stream");
                    response.body(unending(&["data: 1\n\n"])).unwrap()
                }
                _ => Response::new(whole("answered")),
            }
        })
    })
    .await
}

fn router(server: &Server, protocol: Protocol, concurrency: usize) -> (Router, prometheus::Registry) {
    let mut options = BackendOptions::new("chat", format!("http://{}/rpc", server.address).parse().unwrap());
    options.http2 = protocol == Protocol::Http2;
    options.concurrency = concurrency;
    let (metrics, registry) = (BackendMetrics::new().unwrap(), prometheus::Registry::new());
    metrics.register(&registry).unwrap();
    let backend = Backend::new(options, &metrics).unwrap();
    let hook = Hook::new(backend.clone(), Duration::from_secs(2), &HookMetrics::new().unwrap());
    let router = Router::new(Node::embedded(Options::default())).open_rooms();
    let router = router.on_publish("**".parse().unwrap(), hook).calls("chat", ["**".parse().unwrap()], backend);
    (router, registry)
}

#[tokio::test]
async fn a_hook_decides_while_calls_take_all_slots() {
    for protocol in PROTOCOLS {
        let server = server(protocol).await;
        let (router, _) = router(&server, protocol, 1);
        let (mut caller, _) = testing::connect(&router).await.unwrap();
        let (mut publisher, _) = testing::connect(&router).await.unwrap();
        let call = tokio::spawn(async move { caller.call("hang", "").await });
        wait_until(|| server.live() == 1).await;
        publisher.call("rooms/publish/lobby/said", "hi").await.unwrap();
        assert_eq!(server.live(), 1, "the call still has its slot");
        call.abort();
    }
}

#[tokio::test]
async fn a_hook_decides_while_calls_fail_and_the_head_of_a_stream_ends_the_failure() {
    let server = server(Protocol::Http1).await;
    let (router, registry) = router(&server, Protocol::Http1, 256);
    let (mut client, _) = testing::connect(&router).await.unwrap();
    let is_open = || metric(&registry, "roomcast_backend_breaker_open", None) == 1.0;
    while !is_open() {
        client.call("fail", "").await.unwrap_err();
    }
    assert_eq!(client.call("echo", "").await.unwrap_err().code, Code::Unavailable);
    client.call("rooms/publish/lobby/said", "hi").await.unwrap();

    let (mut streaming, _) = testing::connect(&router).await.unwrap();
    let probe = tokio::spawn(async move {
        // Refused until the breaker lets one call through, whose stream does not end.
        while streaming.call("stream", "").await.is_err_and(|error| error.code == Code::Unavailable) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    wait_until(|| !is_open()).await;
    assert_eq!(client.call("echo", "").await.unwrap(), "answered");
    assert!(!probe.is_finished(), "its stream goes on");
    probe.abort();
}

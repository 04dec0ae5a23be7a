//! Calls that a backend answers: requests, responses, streams, cancellation and limits.

use std::time::Duration;

use crate::fixture::{Calls, PROTOCOLS, Protocol, Server, unending, wait_until, whole};
use hyper::{Response, StatusCode};
use roomcast::testing::{self, ClientBuilder};
use roomcast::{Code, UserId};
use serde_json::json;

#[tokio::test]
async fn a_call_becomes_a_request_and_its_response_the_result() {
    for protocol in PROTOCOLS {
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                let header = |name: &str| request.headers().get(name).map_or("none", |value| value.to_str().unwrap());
                let seen = json!({
                    "path": request.uri().path(),
                    "body": String::from_utf8_lossy(request.body()),
                    "user": header("roomcast-user"),
                    "app": header("x-app"),
                    "call": header("roomcast-call") == header("webhook-id"),
                    "signed": header("roomcast-signature").starts_with("v1,"),
                    "timeout": header("roomcast-timeout-ms"),
                });
                Response::new(whole(seen.to_string()))
            })
        })
        .await;
        let calls = Calls::to(server.address, protocol, |options| {
            options.headers = vec![("x-app".parse().unwrap(), "roomcast".parse().unwrap())];
            options.signing_secrets = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap());
        })
        .await;
        let client = ClientBuilder::default().user(UserId::new("zoë").unwrap());
        let (mut client, _) = client.connect(&calls.router).await.unwrap();
        let seen = client.call("chat.send", "hello").await.unwrap();
        let expected = json!({
            "path": "/rpc/chat.send", "body": "hello", "user": "zo%C3%AB", "app": "roomcast", "call": true, "signed": true,
            "timeout": "30000",
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&seen).unwrap(), expected, "{protocol:?}");
        for method in ["../admin", "a b", "roomcast.connect"] {
            assert_eq!(client.call(method, "").await.unwrap_err().code, Code::NotFound, "{method}");
        }
        assert_eq!((calls.outcome("ok"), server.started()), (1.0, 1));
    }
}

#[tokio::test]
async fn a_status_of_failure_is_an_error_and_what_a_backend_that_fails_writes_stays_secret() {
    let server = Server::start(Protocol::Http1, |request| {
        Box::pin(async move {
            let status: StatusCode = request.uri().path().trim_start_matches("/rpc/").parse().unwrap();
            let body = r#"{"error":{"code":"ALREADY_EXISTS","message":"a secret"}}"#;
            let response = Response::builder().status(status).header("location", "/rpc/200").header("retry-after", "2");
            response.body(whole(body)).unwrap()
        })
    })
    .await;
    let mut calls = Calls::to(server.address, Protocol::Http1, |_| ()).await;
    for (status, code, message) in [
        ("307", Code::Internal, "the backend failed"),
        ("409", Code::AlreadyExists, "a secret"),
        ("500", Code::Internal, "the backend failed"),
        ("503", Code::Unavailable, "the backend responded with status 503"),
    ] {
        let error = calls.client.call(status, "").await.unwrap_err();
        assert_eq!((error.code, &*error.message), (code, message), "{status}");
    }
    let error = calls.client.call("503", "").await.unwrap_err();
    assert_eq!(error.details(), Some(&json!({ "retry_after_ms": 2000 })));
    let outcomes = ["rejected", "failed", "invalid"].map(|outcome| calls.outcome(outcome));
    assert_eq!(outcomes, [1.0, 3.0, 1.0]);
}

#[tokio::test]
async fn a_call_that_ends_cancels_its_request_before_and_during_the_response() {
    for protocol in PROTOCOLS {
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                match request.uri().path() {
                    "/rpc/never" => std::future::pending().await,
                    _ => Response::new(unending(&["one", "two"])),
                }
            })
        })
        .await;
        let mut calls = Calls::to(server.address, protocol, |_| ()).await;
        for (number, method) in ["never", "unending"].into_iter().enumerate() {
            let call = calls.client.start(method, vec![0; 100_000]).await;
            wait_until(|| server.started() == number + 1).await;
            calls.client.cancel(call).await;
            wait_until(|| server.live() == 0 && calls.outcome("cancelled") == number as f64 + 1.0).await;
        }
        let (mut other, _) = testing::connect(&calls.router).await.unwrap();
        other.start("never", "").await;
        wait_until(|| server.live() == 1).await;
        drop(other);
        wait_until(|| server.live() == 0 && calls.outcome("cancelled") == 3.0).await;
        assert_eq!(calls.metric("roomcast_backend_requests_in_flight", None), 0.0);
        if protocol == Protocol::Http1 {
            wait_until(|| calls.metric("roomcast_backend_stop_seconds", None) == 3.0).await;
        }
    }
}

#[tokio::test]
async fn a_backend_that_takes_too_long_causes_deadline_exceeded_and_stops() {
    for protocol in PROTOCOLS {
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                match request.uri().path() {
                    "/rpc/never" => std::future::pending().await,
                    _ => Response::new(unending(&["one"])),
                }
            })
        })
        .await;
        let mut calls = Calls::to(server.address, protocol, |options| {
            options.timeout = Duration::from_millis(300);
            options.idle_timeout = Duration::from_millis(300);
        })
        .await;
        for (method, message) in
            [("never", "did not respond within 300ms"), ("unending", "did not continue within 300ms")]
        {
            let error = calls.client.call(method, "").await.unwrap_err();
            assert_eq!(error.code, Code::DeadlineExceeded);
            assert!(error.message.contains(message), "{error}");
        }
        wait_until(|| server.live() == 0).await;
        assert_eq!(calls.outcome("timeout"), 2.0);
    }
}

#[tokio::test]
async fn the_items_of_a_stream_are_one_response() {
    let server = Server::start(Protocol::Http1, |request| {
        Box::pin(async move {
            let (name, value, body) = match request.uri().path() {
                "/rpc/events" => ("content-type", "text/event-stream", "data: Hel\n\ndata: lo\n\nevent: end\n\n"),
                "/rpc/error" => {
                    let body =
                        "data: Hel\n\nevent: error\ndata: {\"error\":{\"code\":\"ABORTED\",\"message\":\"no\"}}\n\n";
                    ("content-type", "text/event-stream", body)
                }
                "/rpc/half" => ("content-type", "text/event-stream", "data: Hel\n\ndata: l"),
                "/rpc/lines" => ("content-type", "application/x-ndjson", "{\"a\":1}\n\n{\"a\":2}"),
                _ => ("roomcast-stream", "chunks", "Hello"),
            };
            Response::builder().header(name, value).body(whole(body)).unwrap()
        })
    })
    .await;
    let mut calls = Calls::to(server.address, Protocol::Http1, |_| ()).await;
    for (method, result) in [("events", "Hello"), ("lines", "{\"a\":1}\n{\"a\":2}\n"), ("chunks", "Hello")] {
        assert_eq!(calls.client.call(method, "").await.unwrap(), result, "{method}");
    }
    assert_eq!(calls.client.call("error", "").await.unwrap_err().code, Code::Aborted);
    let half = calls.client.call("half", "").await.unwrap_err();
    assert_eq!((half.code, half.details()), (Code::Unavailable, Some(&json!({ "maybe_executed": true }))));

    let mut plain = Calls::to(server.address, Protocol::Http1, |options| options.streams = false).await;
    assert_eq!(plain.client.call("half", "").await.unwrap(), "data: Hel\n\ndata: l");
}

#[tokio::test]
async fn calls_beyond_the_slots_of_a_connection_wait_and_then_fail() {
    let server = Server::start(Protocol::Http1, |_| Box::pin(std::future::pending())).await;
    let mut calls = Calls::to(server.address, Protocol::Http1, |options| {
        options.concurrency = 8;
        options.queue = 8;
        options.queue_time = Duration::from_millis(200);
    })
    .await;
    let first = calls.client.start("a", "").await;
    wait_until(|| server.live() == 1).await;
    let waits = calls.client.start("b", "").await;
    let too_many = calls.client.call("c", "").await.unwrap_err();
    assert_eq!(too_many.code, Code::ResourceExhausted);
    let (mut other, _) = testing::connect(&calls.router).await.unwrap();
    other.start("d", "").await;
    wait_until(|| server.live() == 2).await;
    assert_eq!(calls.client.response(waits).await.unwrap_err().code, Code::Unavailable);
    calls.client.cancel(first).await;
    wait_until(|| server.live() == 1).await;
    assert_eq!((server.started(), calls.outcome("no_slot"), calls.outcome("breaker_open")), (2, 2.0, 0.0));
    assert_eq!(calls.metric("roomcast_backend_calls_queued", None), 0.0);
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_not_called_after_20_failures() {
    // Nothing listens on this port any more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut calls = Calls::to(address, Protocol::Http1, |_| ()).await;
    for _ in 0..20 {
        let error = calls.client.call("a", "").await.unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::Unavailable, "the backend cannot be reached"));
    }
    let error = calls.client.call("a", "").await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.details().unwrap()["retry_after_ms"].as_u64().unwrap() <= 5000);
    assert_eq!(
        (calls.outcome("unreachable"), calls.outcome("breaker_open"), calls.outcome("no_slot")),
        (20.0, 1.0, 0.0)
    );
    assert_eq!(calls.metric("roomcast_backend_breaker_open", None), 1.0);
}

#[tokio::test]
async fn a_request_is_sent_again_after_a_refused_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // The first connection ends during its TLS handshake, so no request was sent.
    let accepted = tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        drop(listener.accept().await.unwrap());
    });
    let mut calls = Calls::to(address, Protocol::Http1, |options| {
        options.url = format!("https://{address}").parse().unwrap();
    })
    .await;
    assert_eq!(calls.client.call("a", "").await.unwrap_err().code, Code::Unavailable);
    tokio::time::timeout(testing::PATIENCE, accepted).await.expect("there are two attempts").unwrap();
}

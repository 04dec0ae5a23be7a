//! Requests that go on for the `cancel_grace` of their backend after their calls were cancelled.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use roomcast::testing::{self, PATIENCE};
use roomcast::{BoxFuture, EventBatch, EventKind, EventOptions, EventRules, EventSink, MemoryEvents};
use roomcast_backends::MAX_CANCEL_GRACE;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, UnboundedSender};

use crate::fixture::{Calls, PROTOCOLS, Protocol, Server, SyncBody, wait_until, whole};

/// The parts of the bodies that the backend sends, by the path of the request.
static BODIES: LazyLock<Mutex<HashMap<String, UnboundedSender<&'static str>>>> = LazyLock::new(Mutex::default);

/// Starts a backend whose responses are streams, except for `/rpc/plain`. The test sends their bodies.
async fn backend(protocol: Protocol) -> Server {
    Server::start(protocol, |request| {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if path == "/rpc/roomcast.cancel" {
                return Response::builder().status(StatusCode::NO_CONTENT).body(whole("")).unwrap();
            }
            let (sender, mut receiver) = mpsc::unbounded_channel();
            BODIES.lock().unwrap().insert(path.clone(), sender);
            if path == "/rpc/plain" {
                let body = receiver.recv().await.unwrap();
                let status = if body == "failure" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                return Response::builder().status(status).body(whole(body)).unwrap();
            }
            let parts = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
            let frames =
                futures_util::StreamExt::map(parts, |part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
            let response = Response::builder().header("content-type", "application/x-ndjson");
            response.body(http_body_util::BodyExt::boxed(SyncBody(StreamBody::new(frames)))).unwrap()
        })
    })
    .await
}

/// Returns the sender of the body of the last request of a method.
async fn body(method: &str) -> UnboundedSender<&'static str> {
    let path = format!("/rpc/{method}");
    wait_until(|| BODIES.lock().unwrap().contains_key(&path)).await;
    BODIES.lock().unwrap().remove(&path).unwrap()
}

/// The data of the events `call.ended`.
#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<Value>>>);

impl EventSink for Ended {
    fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
        let events: Vec<Value> = serde_json::from_slice(&batch.body).unwrap();
        self.0.lock().unwrap().extend(events.into_iter().map(|event| event["data"].clone()));
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Ended {
    fn of(calls: &Calls) -> Self {
        let (store, ended) = (Arc::new(MemoryEvents::new(EventRules::default())), Self::default());
        let kinds = [EventKind::CallEnded].into_iter().collect();
        calls.router.node().report_events(EventOptions::new(kinds, store, Arc::new(ended.clone())));
        ended
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Waits for the next event, and returns how many Items were late.
    async fn late_items(&self) -> Value {
        wait_until(|| self.count() > 0).await;
        self.0.lock().unwrap().remove(0)["late_items"].clone()
    }
}

#[tokio::test]
async fn what_a_backend_sends_in_the_grace_of_a_call_is_only_counted() {
    for protocol in PROTOCOLS {
        let server = backend(protocol).await;
        let mut calls = Calls::to(server.address, protocol, |options| {
            options.cancel_grace = MAX_CANCEL_GRACE;
            options.cancel_url = Some(format!("http://{}/rpc/roomcast.cancel", server.address).parse().unwrap());
        })
        .await;
        let ended = Ended::of(&calls);
        let in_flight = || calls.metric("roomcast_backend_requests_in_flight", None);
        let notices = || calls.metric("roomcast_backend_cancel_notices_total", Some(("outcome", "delivered")));

        let (mut other, _) = testing::connect(&calls.router).await.unwrap();
        other.start("stream", "").await;
        let stream = body("stream").await;
        stream.send("{}\n").unwrap();
        drop(other);
        wait_until(|| notices() == 1.0).await;
        assert_eq!((in_flight(), ended.count()), (1.0, 0), "the request goes on");
        stream.send("{}\n{}\n").unwrap();
        stream.send("{}").unwrap();
        drop(stream);
        // The first Item has arrived before or after the cancellation.
        assert!([json!(3), json!(4)].contains(&ended.late_items().await));
        wait_until(|| in_flight() == 0.0).await;

        for (sent, late_items) in [("", 1), ("failure", 0)] {
            let call = calls.client.start("plain", "").await;
            let plain = body("plain").await;
            calls.client.cancel(call).await;
            wait_until(|| calls.router.node().calls_in_flight() == 0).await;
            plain.send(sent).unwrap();
            assert_eq!(ended.late_items().await, late_items, "{sent:?}");
        }
        assert_eq!((calls.outcome("cancelled"), calls.outcome("ok"), calls.outcome("failed")), (3.0, 0.0, 0.0));

        let call = calls.client.start("stream", "").await;
        let stream = body("stream").await;
        stream.send("1\n").unwrap();
        drop(stream);
        assert_eq!(calls.client.response(call).await.unwrap(), "1\n", "of this call alone");
        assert_eq!(ended.late_items().await, 0, "the call was not cancelled");
    }
}

#[tokio::test]
async fn a_request_is_aborted_at_the_end_of_the_grace() {
    const GRACE: Duration = Duration::from_millis(300);
    for protocol in PROTOCOLS {
        let server = backend(protocol).await;
        let mut calls = Calls::to(server.address, protocol, |options| {
            options.cancel_grace = GRACE;
            options.concurrency = 1;
        })
        .await;
        let ended = Ended::of(&calls);
        for method in ["plain", "stream"] {
            let call = calls.client.start(method, "").await;
            let body = body(method).await;
            let cancelled = Instant::now();
            calls.client.cancel(call).await;
            let next = calls.client.start("plain", "").await;
            tokio::time::timeout(PATIENCE, body.closed()).await.expect("the backend stops");
            assert!(cancelled.elapsed() >= GRACE, "{method} had {:?}", cancelled.elapsed());
            assert_eq!(ended.late_items().await, 0);
            crate::cancel_grace::body("plain").await.send("next").unwrap();
            assert_eq!(calls.client.response(next).await.unwrap(), "next", "it has got the slot");
            ended.late_items().await;
        }
        assert_eq!(calls.outcome("cancelled"), 2.0);
    }
}

#[tokio::test]
async fn a_request_that_was_not_sent_has_no_grace() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut calls = Calls::to(listener.local_addr().unwrap(), Protocol::Http1, |options| {
        options.url = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
        options.cancel_grace = MAX_CANCEL_GRACE;
    })
    .await;
    let call = calls.client.start("a", "").await;
    let (mut stream, _) = listener.accept().await.unwrap();
    calls.client.cancel(call).await;
    // The TLS handshake, which the test does not answer, ends.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("the connection closes").unwrap();
    assert_eq!(calls.outcome("cancelled"), 1.0);
}

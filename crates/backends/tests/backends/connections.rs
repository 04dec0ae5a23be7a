//! What happens to the connections and streams of requests that are refused or cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::fixture::{Calls, Protocol, wait_until};

#[tokio::test]
async fn a_stream_that_the_backend_refuses_is_opened_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut is_first = true;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            if std::mem::take(&mut is_first) {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            } else {
                let response = Response::builder().status(StatusCode::NO_CONTENT).body(()).unwrap();
                respond.send_response(response, true).unwrap();
            }
        }
    });
    let mut calls = Calls::to(address, Protocol::Http2, |_| ()).await;
    assert_eq!(calls.client.call("refused_once", "").await.unwrap(), "");
    assert_eq!(calls.outcome("ok"), 1.0);
}

/// The connection of a cancelled request never returns to the pool, where its response would become
/// that of another call.
#[tokio::test]
async fn a_response_after_the_cancellation_reaches_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, is_cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (accepted, released) = (Arc::clone(&connections), Arc::clone(&is_cancelled));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let is_first = accepted.fetch_add(1, Ordering::SeqCst) == 0;
            let released = Arc::clone(&released);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                assert_ne!(stream.read(&mut request).await.unwrap(), 0, "there is a request");
                let body = if is_first { "late" } else { "good" };
                if is_first {
                    released.notified().await;
                }
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n{body}");
                // The node has closed the first connection.
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.read(&mut request).await;
            });
        }
    });
    let mut calls = Calls::to(address, Protocol::Http1, |_| ()).await;
    let call = calls.client.start("first", "").await;
    wait_until(|| connections.load(Ordering::SeqCst) == 1).await;
    calls.client.cancel(call).await;
    wait_until(|| calls.outcome("cancelled") == 1.0).await;
    is_cancelled.notify_one();
    assert_eq!(calls.client.call("second", "").await.unwrap(), "good");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

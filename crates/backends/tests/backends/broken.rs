//! Backends that break HTTP, or that send more than anybody can hold. Each causes a clear error, and
//! the next call succeeds.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fixture::{Calls, Protocol, wait_until};
use roomcast::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a backend sends after the head of a request.
#[derive(Debug, Clone, Copy)]
enum Sends {
    /// These bytes, and then it closes the connection.
    Once(&'static str),
    /// These bytes first, and then others again and again.
    Forever(&'static str, &'static str),
}

/// Sends this for the method `broken`, and a response of success for others.
async fn backend(sends: Sends) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, sends));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, sends: Sends) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"POST /rpc/broken ") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    }
    match sends {
        Sends::Once(text) => stream.write_all(text.as_bytes()).await,
        Sends::Forever(text, more) => {
            stream.write_all(text.as_bytes()).await?;
            loop {
                stream.write_all(more.repeat(100).as_bytes()).await?;
            }
        }
    }
}

#[tokio::test]
async fn every_broken_response_is_a_clear_error_and_affects_no_other_call() {
    let chunk = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (sends, code, message) in [
        (Sends::Once(""), Code::Unavailable, "was lost"),
        (Sends::Once("SSH-2.0-OpenSSH\r\n\r\n"), Code::Internal, "is invalid"),
        (Sends::Once("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), Code::Unavailable, "was lost"),
        (
            Sends::Once("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            Code::Internal,
            "is invalid",
        ),
        (Sends::Once("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"), Code::Unavailable, "was lost"),
        (
            Sends::Once("HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n"),
            Code::Internal,
            "is larger than 1048576 bytes",
        ),
        (Sends::Forever(chunk, "4\r\naaaa\r\n"), Code::Internal, "is larger than 1048576 bytes"),
        (Sends::Forever("HTTP/1.1 200 OK\r\n\r\n", "a"), Code::Internal, "is larger than 1048576 bytes"),
        (Sends::Forever("HTTP/1.1 200 OK\r\na: ", "a"), Code::Internal, "is invalid"),
        (Sends::Forever("HTTP/1.1 200 OK\r\n", "a: b\r\n"), Code::Internal, "is invalid"),
        (
            Sends::Forever("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ", "a"),
            Code::Internal,
            "an item is larger than",
        ),
    ] {
        let mut calls = Calls::to(backend(sends).await, Protocol::Http1, |_| ()).await;
        let error = calls.client.call("broken", "").await.unwrap_err();
        assert_eq!(error.code, code, "{sends:?}: {error}");
        assert!(error.message.contains(message), "{sends:?}: {error}");
        assert_eq!(calls.client.call("works", "").await.unwrap(), "ok", "{sends:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_of_informational_responses_ends_with_the_time_limit_or_the_call() {
    let flood = backend(Sends::Forever("", "HTTP/1.1 100 Continue\r\n\r\n")).await;
    let mut calls = Calls::to(flood, Protocol::Http1, |options| options.timeout = Duration::from_millis(300)).await;
    assert_eq!(calls.client.call("broken", "").await.unwrap_err().code, Code::DeadlineExceeded);
    wait_until(|| calls.metric("roomcast_backend_stop_seconds", None) == 1.0).await;
    let mut calls = Calls::to(flood, Protocol::Http1, |_| ()).await;
    let call = calls.client.start("broken", "").await;
    wait_until(|| calls.metric("roomcast_backend_requests_in_flight", None) == 1.0).await;
    calls.client.cancel(call).await;
    wait_until(|| calls.metric("roomcast_backend_requests_in_flight", None) == 0.0).await;
    assert_eq!(calls.client.call("works", "").await.unwrap(), "ok");
}

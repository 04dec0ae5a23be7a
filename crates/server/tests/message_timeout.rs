//! How long a client may take for one message, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io;
use std::time::Duration;

use axum::routing::get;
use common::one::One;
use roomcast::{Node, Options, Router, SUBPROTOCOL, SocketIoUpgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE: u8 = 0x88;
const BINARY: u8 = 0x82;

struct Client(DuplexStream);

impl Client {
    /// Of a node that echoes calls.
    async fn connect(options: Options) -> Self {
        let router = Router::new(Node::embedded(options)).quick_call("echo", async |payload: bytes::Bytes| payload);
        let app = axum::Router::new()
            .route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await));
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { axum::serve(One(Some(server)), app).await });
        let request = format!(
            "GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(client)
    }

    /// Sends bytes, one after each pause.
    async fn trickle(&mut self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        for byte in bytes {
            tokio::time::sleep(pause).await;
            self.0.write_all(&[*byte]).await?;
        }
        Ok(())
    }

    /// The next frame but for the Pings.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            let (first, len) = (self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap());
            let mut payload = vec![0; usize::from(len)];
            self.0.read_exact(&mut payload).await.unwrap();
            if matches!(first, CLOSE | BINARY) {
                return (first, payload);
            }
        }
    }
}

/// A call of `echo` with 87 bytes, in a masked frame: 104 bytes in all.
fn call() -> Vec<u8> {
    let request = [&[2, 0, 0, 0, 1, 4][..], b"echo", &[b'x'; 87]].concat();
    [&[BINARY, 0x80 | request.len() as u8, 0, 0, 0, 0][..], &request].concat()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_whole_after_30_seconds_closes_with_1008_though_bytes_keep_coming() {
    let mut client = Client::connect(Options::default()).await;
    let begun = Instant::now();
    let sending = client.trickle(&call()[..60], Duration::from_secs(1)).await;
    assert!(sending.is_err(), "the node ends the connection");
    assert!(begun.elapsed() < 2 * MESSAGE_TIMEOUT, "after {:?}", begun.elapsed());
    let (opcode, payload) = client.frame().await;
    assert_eq!((opcode, &payload[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
}

#[tokio::test(start_paused = true)]
async fn slow_messages_that_are_whole_in_time_are_handled_each_with_a_time_of_its_own() {
    let mut client = Client::connect(Options::default()).await;
    let (call, begun) = (call(), Instant::now());
    // The frame's header, and a bit of its payload.
    let (beginning, rest) = call.split_at(8);
    client.0.write_all(beginning).await.unwrap();
    for _ in 0..3 {
        let (last, all_but_last) = rest.split_last().unwrap();
        client.trickle(all_but_last, Duration::from_millis(250)).await.unwrap();
        // With the next one's beginning: no read ends between two messages.
        client.0.write_all(&[&[*last], beginning].concat()).await.unwrap();
        assert_eq!(client.frame().await.0, BINARY);
    }
    assert!(begun.elapsed() > 2 * MESSAGE_TIMEOUT, "it took only {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn where_messages_may_be_larger_they_may_take_longer() {
    const MIB: usize = 1024 * 1024;
    let mut client = Client::connect(Options::default().with(|options| options.max_payload = 3 * MIB)).await;
    let begun = Instant::now();
    assert!(client.trickle(&call(), Duration::from_secs(1)).await.is_err(), "the node ends the connection");
    // One second more for each of the 32 times 64 KiB beyond the first MiB.
    let (took, allowed) = (begun.elapsed(), MESSAGE_TIMEOUT + Duration::from_secs(32));
    assert!((allowed..allowed + MESSAGE_TIMEOUT).contains(&took), "after {took:?}");
}

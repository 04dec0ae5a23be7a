//! The opening handshake (RFC 6455, section 4.2) and the choice of the subprotocol, as clients of a router meet them.

use axum::routing::get;
use roomcast::{Node, Router, SocketIoUpgrade};
use tokio::net::TcpListener;

use crate::client::{ACCEPT, Client};

/// A good request.
const GOOD: &[&str] = &[
    "GET /socket HTTP/1.1",
    "Host: roomcast.test",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: websocket.io-rpc-v0.1",
];

/// A row: the lines that replace the good one of the same header, a name, the status of the response, and a line that
/// it must have. Lines are compared without case.
type Row = (&'static [&'static str], &'static str, u16, &'static str);

const ROWS: &[Row] = &[
    (&[], "a good request", 101, ACCEPT),
    (&[], "the subprotocol is confirmed", 101, "Sec-WebSocket-Protocol: websocket.io-rpc-v0.1"),
    (
        &["Sec-WebSocket-Protocol: a, websocket.io-rpc-v0.1 ,b"],
        "a list",
        101,
        "Sec-WebSocket-Protocol: websocket.io-rpc-v0.1",
    ),
    (
        &["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: websocket.io-rpc-v0.1"],
        "a list in two lines",
        101,
        "Sec-WebSocket-Protocol: websocket.io-rpc-v0.1",
    ),
    (&["Sec-WebSocket-Protocol: a, b"], "only unknown subprotocols", 400, ""),
    (&["Sec-WebSocket-Protocol:"], "an empty list of subprotocols", 400, ""),
    (&["Upgrade: WEBSOCKET"], "Upgrade in capitals", 101, ACCEPT),
    (&["Connection: keep-alive, upgrade"], "Connection is a list", 101, ACCEPT),
    (&["Upgrade: h2c"], "an upgrade to something else", 426, "Upgrade: websocket"),
    (&["Connection: keep-alive"], "Connection does not name the upgrade", 400, ""),
    (&["Sec-WebSocket-Version: 8"], "an older version", 426, "Sec-WebSocket-Version: 13"),
    (&["Sec-WebSocket-Version:"], "an empty version", 426, "Sec-WebSocket-Version: 13"),
    (&["Sec-WebSocket-Key:"], "an empty key", 400, ""),
    (&["Sec-WebSocket-Key: c2hvcnQ="], "a key of five bytes", 400, ""),
    (&["Sec-WebSocket-Key: not base64 at all!!!"], "a key that is not base64", 400, ""),
];

#[tokio::test]
async fn a_request_is_upgraded_only_if_all_of_it_is_right() {
    let router = Router::new(Node::embedded(roomcast::Options::default()));
    let app =
        axum::Router::new().route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });

    for (changes, name, status, line) in ROWS {
        let (_, head) = Client::shake_hands(&address, &request(changes)).await.expect("a response");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
        assert!(
            line.is_empty() || head.lines().any(|got| got.eq_ignore_ascii_case(line)),
            "{name}: no {line:?} in {head}"
        );
    }
}

/// The good request with some of its headers replaced.
fn request(changes: &[&str]) -> String {
    let name = |line: &str| line.split(':').next().map(str::to_owned);
    let kept = GOOD.iter().filter(|line| changes.iter().all(|change| name(change) != name(line)));
    let lines: Vec<&str> = kept.chain(changes).copied().collect();
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

//! Where a node believes its clients to be, behind proxies that it trusts and others.

mod support;

use std::net::SocketAddr;

use support::{Bare, in_time, start_node};
use tokio::net::TcpSocket;

/// All of 127.0.0.0/8 is loopback: one address is the load balancer's, the other a client's.
const PROXY: &str = "127.0.0.1";
const STRANGER: &str = "127.0.0.9";

/// What `myip` answers to a client that connects from this address with these headers, and where it really is.
async fn seen(node: &str, from: &str, headers: &str) -> (String, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0)).expect("an address of this machine");
    let connecting = socket.connect(node.parse().expect("an address"));
    let stream = in_time("a connection is there", connecting).await.expect("the node listens");
    let own = stream.local_addr().expect("an address").to_string();
    let mut bare = Bare::dial_over(stream, node).await.headers(headers).await.complete().await;
    bare.upgraded().await;
    (String::from_utf8(bare.call("myip", b"").await).expect("an address in text"), own)
}

#[tokio::test]
async fn a_trusted_proxy_says_where_a_client_is_and_nobody_else_does() {
    let node = start_node(&["--demo", "--trusted-proxies=10.0.0.0/8,127.0.0.1"]).await;
    let headers = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 203.0.113.9:4711, 10.1.2.3\r\n";
    assert_eq!(seen(&node.address, PROXY, headers).await.0, "203.0.113.9:4711");
    let (seen_at, own) = seen(&node.address, STRANGER, headers).await;
    assert_eq!(seen_at, own);
    let (seen_at, own) = seen(&node.address, PROXY, "").await;
    assert_eq!(seen_at, own, "a health check of the proxy's own");
}

#[tokio::test]
async fn without_the_option_nobody_is_believed() {
    let node = start_node(&["--demo"]).await;
    let (seen_at, own) = seen(&node.address, PROXY, "X-Forwarded-For: 203.0.113.9\r\n").await;
    assert_eq!(seen_at, own);
}

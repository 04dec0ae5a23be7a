//! Where a node believes its clients to be, behind proxies that it trusts and others.

mod support;

use std::net::SocketAddr;

use roomcast_testkit::HaProxy;
use support::certificate::write_certificate;
use support::{Bare, Scrape, error_of, exchange, in_time, run, start_node};
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

/// The status of an upgrade that a proxy forwards for a client, the connection, and the header `Retry-After`.
async fn forwarded(node: &str, client: &str) -> (u16, Option<String>, Bare) {
    let mut bare =
        Bare::dial_in_two(node).await.headers(&format!("X-Forwarded-For: {client}\r\n")).await.complete().await;
    let head = bare.head().await;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let retry_after = head.lines().find_map(|line| line.strip_prefix("retry-after: ").map(str::to_owned));
    (status, retry_after, bare)
}

#[tokio::test]
async fn an_address_behind_a_proxy_has_so_many_connections_and_the_proxy_has_any_number() {
    let options = ["--demo", "--trusted-proxies=127.0.0.1", "--max-connections-per-address=2"];
    let node = start_node(&options).await;
    let mut open = Vec::new();
    for client in ["2001:db8::1", "2001:db8::2", "203.0.113.9", "203.0.113.9:7", "10.0.0.1", "10.0.0.1", "10.0.0.1"] {
        let (status, _, bare) = forwarded(&node.address, client).await;
        assert_eq!(status, 101, "{client}");
        open.push(bare);
    }
    for client in ["2001:db8::3", "203.0.113.9:8"] {
        let (status, retry_after, _) = forwarded(&node.address, client).await;
        assert_eq!((status, retry_after.as_deref()), (429, Some("30")), "{client}");
    }
    let refused = "roomcast_limits_reached_total{limit=\"max_connections_per_address\"}";
    assert_eq!(Scrape::of(&node).await.value(refused), Some(2.0));
}

#[tokio::test]
async fn an_address_behind_a_proxy_opens_so_many_connections_in_a_second() {
    let options = ["--demo", "--trusted-proxies=127.0.0.1", "--rates-connections=1/s"];
    let node = start_node(&options).await;
    let mut refused = None;
    for _ in 0..100 {
        refused = refused.or(Some(forwarded(&node.address, "203.0.113.9").await).filter(|answer| answer.0 == 429));
    }
    assert_eq!(refused.expect("one of them is too many").1.as_deref(), Some("1"));
    assert_eq!(forwarded(&node.address, "203.0.113.10").await.0, 101);
}

#[tokio::test]
async fn without_the_option_nobody_is_believed() {
    let node = start_node(&["--demo"]).await;
    let (seen_at, own) = seen(&node.address, PROXY, "X-Forwarded-For: 203.0.113.9\r\n").await;
    assert_eq!(seen_at, own);
}

// === the PROXY protocol ===

#[tokio::test]
async fn haproxy_names_its_clients_with_both_versions_of_the_proxy_protocol() {
    let node = start_node(&["--demo", "--proxy-protocol", "--trusted-proxies=127.0.0.1"]).await;
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let proxy = HaProxy::start_tcp(&node, options).await;
        let (seen_at, own) = seen(&proxy.address(), STRANGER, "X-Forwarded-For: 6.6.6.6\r\n").await;
        assert_eq!(seen_at, own, "{options}");
    }
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let [certificate, key] = write_certificate("proxy-protocol");
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    let options = [&["--demo", "--proxy-protocol", "--trusted-proxies=127.0.0.1"], &tls[..]].concat();
    let node = start_node(&options).await;
    let proxy = HaProxy::start_tcp(&node, "send-proxy-v2").await;
    let shaken = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &proxy.address(), "-CAfile", &certificate, "-verify_return_error", "-brief"])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl starts");
    assert!(shaken.status.success(), "{}", String::from_utf8_lossy(&shaken.stderr));
}

#[tokio::test]
async fn without_a_header_and_from_hosts_that_are_not_trusted_nothing_is_served() {
    let node = start_node(&["--demo", "--proxy-protocol", "--trusted-proxies=127.0.0.2"]).await;
    let proxy = HaProxy::start_tcp(&node, "send-proxy-v2").await;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&proxy.address(), request).await, b"", "HAProxy connects from 127.0.0.1");
    let trusting = start_node(&["--demo", "--proxy-protocol", "--trusted-proxies=127.0.0.1"]).await;
    assert_eq!(exchange(&trusting.address, request).await, b"", "the header is missing");
}

#[test]
fn the_proxy_protocol_requires_trusted_proxies() {
    let error = error_of(&run(&["serve", "--proxy-protocol"], &[]), 2);
    assert!(error.contains("--proxy-protocol") && error.contains("trusted_proxies"), "{error}");
}

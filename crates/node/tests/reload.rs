//! SIGHUP: a running node takes over a changed configuration, whole or not at all.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use roomcast_testkit::Node;
use support::certificate::{connect_tls, read_certificate, write_certificate_for};
use support::log::{Killed, Log};
use support::{
    BINARY, Bare, CONNECTIONS, http, in_time, message, request, wait_for_values, without_options, write_file,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Stands in place of secrets; no line of the log may contain it.
const SECRET: &str = "c4n4ry";

/// A node with a configuration file, and its log.
struct Reloading {
    node: Node,
    file: &'static str,
    log: Log,
}

impl Reloading {
    async fn start(file: &'static str, content: &str) -> Self {
        let mut command = Command::new(BINARY);
        let log = Log::of(&mut command);
        let node = Node::start_by(command, &["--demo", "--config", &write_file(file, content)]).await;
        Self { node, file, log }
    }

    /// Changes the file and reloads. Returns the lines of the log up to one with this text.
    fn reload(&self, content: &str, until: &str) -> Vec<String> {
        write_file(self.file, content);
        self.node.signal("HUP");
        self.log.until(until)
    }

    /// The status of a request to the API with this key.
    async fn api(&self, key: &str, body: &[u8]) -> u16 {
        let header = format!("Authorization: Bearer {key}\r\n");
        http(&self.node.internal, "POST", "/v1/rooms/other/events/x", &header, body).await.status
    }
}

fn certify(name: &str, days: u32) -> CertificateDer<'static> {
    write_certificate_for(name, days);
    read_certificate(name)
}

/// The days until the certificate expires that a node serves.
async fn days_left(node: &Node) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    (node.metric("roomcast_tls_certificate_expiry_timestamp_seconds").await - now.as_secs_f64()) / 86_400.0
}

async fn upgrade(node: &Node, certificate: &CertificateDer<'static>) -> Bare<TlsStream<TcpStream>> {
    let stream = connect_tls(&node.address, certificate).await.expect("the node has the certificate");
    let mut bare = Bare::dial_over(stream, &node.address).await.complete().await;
    bare.upgraded().await;
    bare
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_while_open_ones_go_on() {
    let old = certify("reload-tls", 2);
    let directory = env!("CARGO_TARGET_TMPDIR");
    let content = format!("tls_cert = \"{directory}/reload-tls.pem\"\ntls_key = \"{directory}/reload-tls.key\"\n");
    let reloading = Reloading::start("reload-tls.toml", &content).await;
    let mut open = upgrade(&reloading.node, &old).await;
    open.echo(b"before").await;
    assert_eq!(days_left(&reloading.node).await.round(), 2.0);

    let new = certify("reload-tls", 9);
    let log = reloading.reload(&content, "configuration reloaded");
    assert!(log.last().expect("a line").contains("the certificate in tls_cert"), "{log:#?}");
    upgrade(&reloading.node, &new).await.echo(b"new").await;
    assert_eq!(days_left(&reloading.node).await.round(), 9.0);
    connect_tls(&reloading.node.address, &old).await.expect_err("the old certificate is no longer served");
    open.echo(b"after").await;

    let cut = write_file("reload-tls.pem", "no certificate\n");
    let log = reloading.reload(&content, "cannot reload the configuration");
    let error = log.last().expect("a line");
    assert!(error.contains("ERROR") && error.contains(&format!("{cut} contains no certificate")), "{log:#?}");
    upgrade(&reloading.node, &new).await.echo(b"still new").await;
    open.echo(b"at last").await;
}

#[tokio::test]
async fn keys_limits_and_the_log_filter_change_at_once_or_not_at_all() {
    let reloading = Reloading::start("reload.toml", "api_key = \"c4n4ry-0123456789-1\"\nmax_connections = 9\n").await;
    let node = &reloading.node;
    let mut open = Bare::connect(&node.address).await;
    open.write(&message(&request(7, "long", b""))).await.expect("the node reads");
    wait_for_values(node, &[("roomcast_calls_in_flight", 1.0)]).await;
    let large = [b'x'; 2048];
    assert_eq!(
        [reloading.api("c4n4ry-0123456789-1", &large).await, reloading.api("c4n4ry-0123456789-2", b"").await],
        [200, 401]
    );

    let new = "api_key = \"c4n4ry-0123456789-2\"\nmax_connections = 2\nmax_payload = \"1KiB\"\ncall_timeout = \"10ms\"\nlog = \"debug\"\n";
    let mut log = reloading.reload(&format!("{new}max_calls = 0\n"), "cannot reload the configuration");
    let error = log.last().expect("a line");
    assert!(error.contains("ERROR") && error.contains("reload.toml:6: max_calls: cannot use \"0\":"), "{error}");
    assert_eq!(
        [reloading.api("c4n4ry-0123456789-1", &large).await, reloading.api("c4n4ry-0123456789-2", b"").await],
        [200, 401]
    );
    wait_for_values(node, &[("roomcast_max_connections", 9.0)]).await;

    log.extend(reloading.reload(new, "configuration reloaded"));
    let report = log.last().expect("a line");
    assert!(report.contains("INFO"), "{report}");
    for change in ["api_key", "max_connections: 9 -> 2", "max_payload: 1MiB -> 1KiB", "call_timeout: 15m -> 10ms"] {
        assert!(report.contains(change), "{change:?} is not in {report}");
    }
    let statuses = [reloading.api("c4n4ry-0123456789-1", b"").await, reloading.api("c4n4ry-0123456789-2", b"").await];
    assert_eq!((statuses, reloading.api("c4n4ry-0123456789-2", &large).await), ([401, 200], 413));
    wait_for_values(node, &[("roomcast_max_connections", 2.0)]).await;
    let mut second = Bare::connect(&node.address).await;
    assert!(second.call("long", b"").await.windows(17).any(|text| text == b"DEADLINE_EXCEEDED"));
    let mut third = Bare::dial(&node.address).await;
    third.end().await;
    wait_for_values(node, &[(CONNECTIONS, 2.0), ("roomcast_calls_in_flight", 1.0)]).await;
    open.echo(b"open connections keep their limits").await;

    let mut half = TcpStream::connect(&node.address).await.expect("the node listens");
    half.write_all(b"GET").await.expect("the node reads");
    drop(half);
    log.extend(reloading.log.until("DEBUG"));
    assert!(!log.iter().any(|line| line.contains(SECRET)), "{log:#?}");
}

#[tokio::test]
async fn options_that_need_a_restart_are_named_each_time_and_stay_as_they_are() {
    let reloading = Reloading::start("reload-all.toml", "").await;
    let reloaded = "api_key = \"c4n4ry-0123456789\"\napi_publish_key = \"c4n4ry-0123456789\"\n\
                    api_read_key = \"c4n4ry-0123456789\"\napi_rate = 1\nmax_connections = 1\nmax_payload = 1\nmax_inbound = 1\n\
                    max_calls = 1\nping_interval = \"1s\"\npong_timeout = \"1s\"\ncall_timeout = \"1s\"\n";
    let restart = "trusted_proxies = \"10.0.0.1\"\nredis = \"redis://u:c4n4ry@127.0.0.1:1\"\nredis_ca = \"/dev/null\"\n\
                   redis_prefix = \"x\"\nredis_history = \"1/1s\"\nredis_history_bytes = \"2MiB\"\nredis_unsubscribe_delay = \"1s\"\n\
                   cluster_secret = \"c4n4ry-c4n4ry-c4n4ry\"\nredis_unready_after = \"1s\"\nmax_outbound = 1\n\
                   inbound_memory = 1\noutbound_memory = 1\nmax_rooms = 1\nworker_threads = 1\nlog_format = \"json\"\n";
    let drain = "[drain]\ndelay = \"1s\"\nduration = \"1s\"\ntimeout = \"2s\"\n";
    let events = "[[backend]]\nname = \"chat\"\nurl = \"http://chat\"\n\
                  [hooks.events]\nbackend = \"chat\"\nkinds = [\"connected\"]\n";
    let keys =
        |content: &str| content.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    let (reloaded_keys, mut restart_keys): (BTreeSet<String>, BTreeSet<String>) = (keys(reloaded), keys(restart));
    restart_keys.extend(["backend", "hooks.events"].map(str::to_owned));

    let content = format!("{reloaded}{restart}{drain}{events}");
    let mut log = reloading.reload(&content, "restart the node to apply changes");
    for key in &reloaded_keys {
        assert!(log[log.len() - 2].contains(key.as_str()), "{key} is not in {log:#?}");
    }
    let named = |line: &str| {
        let (_, list) = line.split_once("options=\"").expect("the list");
        list.trim_end_matches('"').split(", ").map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(named(log.last().expect("a line")), restart_keys);
    assert!(log.last().expect("a line").contains("WARN"), "{log:#?}");

    log.extend(reloading.reload(&content, "restart the node to apply changes"));
    assert!(log[log.len() - 2].contains("changed=\"nothing\""), "{log:#?}");
    assert_eq!(named(log.last().expect("a line")), restart_keys);
    assert!(!log.iter().any(|line| line.contains(SECRET)), "{log:#?}");
}

#[test]
fn a_key_that_the_running_internal_listener_needs_can_not_be_taken_away() {
    let file = write_file("reload-key.toml", "api_key = \"c4n4ry-0123456789\"\ninternal_listen = \"0.0.0.0:0\"\n");
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let log = Log::of(&mut command);
    let child = command.args(["serve", "--listen=127.0.0.1:0", "--config", &file]).spawn();
    let child = Killed::new(child.expect("the binary starts"));
    log.until("listening on");

    write_file("reload-key.toml", "internal_listen = \"127.0.0.1:0\"\n");
    let signalled = Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
    assert!(signalled.expect("kill starts").success());
    let lines = log.until("configuration");
    let error = lines.last().expect("a line");
    assert!(error.contains("cannot reload") && error.contains("set api_key"), "{lines:#?}");
}

#[tokio::test]
async fn a_node_that_drains_is_not_ended_by_sighup() {
    let mut reloading = Reloading::start("reload-drain.toml", "[drain]\ndelay = \"10m\"\ntimeout = \"20m\"\n").await;
    reloading.reload("[drain]\ndelay = \"500ms\"\nduration = \"0s\"\ntimeout = \"1s\"\n", "configuration reloaded");
    reloading.node.signal("TERM");
    reloading.log.until("draining");
    reloading.node.signal("HUP");
    reloading.log.until("drained");
    assert_eq!(in_time("the node ends", reloading.node.exit()).await.code(), Some(0));
}

//! The listeners as HTTP servers: deadlines, bounds, the page, and life without descriptors.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use roomcast_protocol::SUBPROTOCOL;
use roomcast_testkit::{Client, Node};
use support::{
    BINARY, Bare, CONNECTIONS, Scrape, cpu_ticks_in_a_second, exchange, get, in_time, start_node, start_node_by,
    wait_for_values, wait_until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

// === deadlines and bounds ===

/// How long a client may take for a request's head, and how much later it may be noticed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const NOTICED: Duration = Duration::from_millis(2500);

/// Sends the start, then a byte now and then, and returns how long the node bore it.
async fn time_until_cut(address: &str, start: &str, trickle: bool) -> Duration {
    let mut stream = in_time("a connection is there", TcpStream::connect(address)).await.expect("the node listens");
    let started = Instant::now();
    stream.write_all(start.as_bytes()).await.expect("the node reads");
    let (mut input, mut output) = stream.into_split();
    let trickling = async {
        let mut turn = tokio::time::interval(Duration::from_millis(200));
        while trickle && output.write_all(b"x").await.is_ok() {
            turn.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let ended = in_time("the connection is cut", async {
        tokio::select! {
            ended = input.read_to_end(&mut answer) => ended,
            () = trickling => unreachable!("it never ends"),
        }
    });
    // It may be a reset, if bytes were under way.
    let _ = ended.await;
    started.elapsed()
}

#[tokio::test]
async fn who_does_not_send_a_whole_request_head_within_5_seconds_is_cut() {
    let node = start_node(&["--demo"]).await;
    let half = "GET / HTTP/1.1\r\nHost: half\r\nX-Half: ";
    let whole = "GET /healthz HTTP/1.1\r\nHost: whole\r\n\r\n";
    let (public, internal) = (node.address.as_str(), node.internal.as_str());
    let times = tokio::join!(
        time_until_cut(public, half, false),
        time_until_cut(public, half, true),
        time_until_cut(public, "", false),
        time_until_cut(internal, whole, false),
        time_until_cut(internal, half, false),
    );
    let names = ["half a head", "a byte now and then", "nothing", "nothing after an answer", "the internal listener"];
    for (name, time) in names.into_iter().zip(<[Duration; 5]>::from(times)) {
        assert!(time >= HEADER_TIMEOUT - NOTICED / 5 && time < HEADER_TIMEOUT + NOTICED, "{name}: {time:?}");
    }
    let mut client = Client::connect(&node.url()).await.expect("the node serves others");
    assert_eq!(client.call_text("echo", "x").await.expect("calls too"), "x");
}

#[tokio::test]
async fn a_request_with_too_many_headers_or_too_large_a_head_is_refused() {
    let node = start_node(&["--demo"]).await;
    let many: String = (0..200).map(|number| format!("X-{number}: x\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "x".repeat(64 * 1024));
    let long_path = format!("/{}", "x".repeat(64 * 1024));
    let heads = [
        format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{large}\r\n"),
        format!("GET {long_path} HTTP/1.1\r\nHost: x\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n".to_owned(),
    ];
    for address in [&node.address, &node.internal] {
        for head in &heads {
            let answer = exchange(address, head.as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer);
            // Closed without an answer is right too.
            let status = answer.split(' ').nth(1);
            assert!(matches!(status, None | Some("400" | "414" | "431")), "{}…: {answer}", &head[..40]);
        }
    }
    let mut client = Client::connect(&node.url()).await.expect("the node serves others");
    assert_eq!(client.call_text("echo", "x").await.expect("calls too"), "x");
}

/// Requests for an upgrade that RFC 6455 or RFC 9112 forbids: the request line and the headers beside the usual ones,
/// and a word of the answer.
const BAD_UPGRADES: [(&str, &str, &str); 8] = [
    ("HTTP/1.0", "Host: x\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "HTTP/1.1"),
    ("HTTP/1.1", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "Host"),
    ("HTTP/1.1", "Host: x\r\nHost: y\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "Host"),
    ("HTTP/1.1", "Host: x\r\nContent-Length: 5\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "body"),
    ("HTTP/1.1", "Host: x\r\nTransfer-Encoding: chunked\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", "body"),
    (
        "HTTP/1.1",
        "Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "body",
    ),
    (
        "HTTP/1.1",
        "Host: x\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        "Sec-WebSocket-Key",
    ),
    ("HTTP/1.1", "Host: x\r\nSec-WebSocket-Key: c2hvcnQ=\r\n", "Sec-WebSocket-Key"),
];

#[tokio::test]
async fn a_request_for_an_upgrade_that_the_standards_forbid_is_answered_400_with_a_sentence() {
    let node = start_node(&["--demo"]).await;
    for (version, headers, word) in BAD_UPGRADES {
        let mut stream = in_time("a connection is there", TcpStream::connect(&node.address)).await.expect("it listens");
        let request = format!(
            "GET /socket {version}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the node reads");
        let mut answer = vec![0; 1024];
        let len = in_time("it is answered", stream.read(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[..len]);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert_eq!(head.split(' ').nth(1), Some("400"), "{version} {headers}: {answer}");
        assert!(body.contains(word), "{version} {headers}: {body}");
    }
    let refused = node.metric("roomcast_upgrades_refused_total{reason=\"handshake\"}").await;
    assert_eq!(refused, BAD_UPGRADES.len() as f64);
}

// === the page ===

const PAGE_FILES: [(&str, &str); 5] = [
    ("/", "text/html"),
    ("/app.js", "text/javascript"),
    ("/client.js", "text/javascript"),
    ("/style.css", "text/css"),
    ("/icon.svg", "image/svg+xml"),
];

#[tokio::test]
async fn the_page_is_whole_in_the_node_and_names_no_other_host() {
    let node = start_node(&["--demo"]).await;
    for (path, content_type) in PAGE_FILES {
        let answer = get(&node.address, path).await;
        assert_eq!(answer.status, 200, "{path}");
        let found = answer.header("content-type").and_then(|found| found.split(';').next());
        assert_eq!(found, Some(content_type), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'self'"), "{path}: {policy}");
        for hole in ["unsafe", "http", "*", "data:"] {
            assert!(!policy.contains(hole), "{path}: {hole:?} is in {policy}");
        }
        assert!(!answer.body.is_empty(), "{path}");
        for scheme in ["http://", "https://", "\"//", "'//", "(//"] {
            let others = answer.body.match_indices(scheme).map(|(at, _)| &answer.body[at..]);
            let others: Vec<_> = others.filter(|url| !url.starts_with("http://www.w3.org/")).collect();
            let names: Vec<_> = others.iter().map(|url| url.chars().take(60).collect::<String>()).collect();
            assert!(names.is_empty(), "{path}: {names:?}");
        }
    }
}

#[tokio::test]
async fn without_demo_there_is_no_page_no_method_and_no_room_for_clients() {
    let node = start_node(&[]).await;
    for (path, _) in PAGE_FILES {
        assert_eq!(get(&node.address, path).await.status, 404, "{path}");
    }
    let mut client = Client::connect(&node.url()).await.expect("the node serves");
    for method in ["myip", "uppercase", "long_runing_task", "long", "echo", "running"] {
        assert_eq!(error_code(&mut client, method).await, "NOT_FOUND", "{method}");
    }
    for method in ["rooms/join/main", "rooms/leave/main", "rooms/publish/main/message", "rooms/members/main"] {
        assert_eq!(error_code(&mut client, method).await, "PERMISSION_DENIED", "{method}");
    }
    wait_for_values(&node, &[(CONNECTIONS, 1.0), ("roomcast_memberships", 0.0)]).await;
}

async fn error_code(client: &mut Client, method: &str) -> String {
    let answer = client.call(method, "").await.expect("every call is answered");
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("an error in JSON");
    answer["error"]["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn a_client_that_pipelines_requests_and_never_reads_loses_its_socket_on_either_listener() {
    let node = start_node(&["--demo"]).await;
    let cut = async |address: &str, path: &str| {
        let mut stream = in_time("a connection is there", TcpStream::connect(address)).await.expect("it listens");
        let requests = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(1000);
        in_time("the socket is closed", async { while stream.write_all(requests.as_bytes()).await.is_ok() {} }).await;
    };
    tokio::join!(cut(&node.address, "/app.js"), cut(&node.internal, "/v1/openapi.json"));
}

// === descriptors ===

const DESCRIPTORS: usize = 128;

/// Clients that are served throughout.
const SERVED: usize = 16;

/// More connections than the node can accept beside them; they never ask for anything.
const SILENT: usize = 100;

/// A tenth of one processor: it looks again a few times in a second, and does not spin.
const NOT_SPINNING: u64 = 10;

/// The gauge of sockets of the public listener that are not upgraded, and its limit.
const HTTP: &str = "roomcast_http_connections{listener=\"public\"}";
const MAX_HTTP: &str = "roomcast_max_http_connections{listener=\"public\"}";
const DISPLACED: &str = "roomcast_http_connections_displaced_total{listener=\"public\"}";

async fn start_node_with_descriptors(descriptors: usize) -> Node {
    let mut launcher = Command::new("prlimit");
    launcher.arg(format!("--nofile={descriptors}:{descriptors}")).arg(BINARY);
    start_node_by(launcher, &["--demo"]).await
}

#[tokio::test]
async fn a_node_without_free_places_serves_who_is_connected_and_does_not_spin() {
    let node = start_node_with_descriptors(DESCRIPTORS).await;
    let mut served = Vec::new();
    for _ in 0..SERVED {
        served.push(Bare::connect(&node.address).await);
    }
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(in_time("the kernel accepts", TcpStream::connect(&node.address)).await.expect("the node listens"));
    }
    let places = Scrape::of(&node).await.value(MAX_HTTP).expect("the limit is there");
    // The silent connections displace one another until a place is free for the next one.
    wait_for_values(&node, &[(HTTP, places - 1.0), (DISPLACED, SILENT as f64 - places + 1.0)]).await;
    let ticks = cpu_ticks_in_a_second(node.pid()).await;
    assert!(ticks <= NOT_SPINNING, "{ticks} clock ticks in a second without places");
    for bare in &mut served {
        bare.echo(b"still here").await;
    }
    drop(silent);
    let mut client = Client::connect(&node.url()).await.expect("new connections are accepted again");
    assert_eq!(client.call_text("echo", "x").await.expect("calls too"), "x");
    wait_for_values(&node, &[(HTTP, 0.0), (CONNECTIONS, SERVED as f64 + 1.0)]).await;
}

#[tokio::test]
async fn clients_leave_descriptors_for_those_who_watch_the_node() {
    let node = start_node_with_descriptors(DESCRIPTORS).await;
    let mut clients = Vec::new();
    let refused = loop {
        assert!(clients.len() < DESCRIPTORS, "no client was refused");
        match Client::connect(&node.url()).await {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert!(refused.to_string().contains("503"), "{refused}");
    assert_eq!(get(&node.internal, "/healthz").await.status, 200);
    // Of so few descriptors, 48 are kept, and a quarter of the others is for sockets that are not upgraded.
    let allowed = (DESCRIPTORS - 48) as f64 * 0.75;
    wait_for_values(&node, &[(CONNECTIONS, clients.len() as f64), ("roomcast_max_connections", allowed)]).await;
}

/// The descriptors of a node under attack, and the sockets that attack it.
const ATTACKED: usize = 256;
const ATTACKERS: usize = 400;

/// A probe that is answered later has failed: Kubernetes' default.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket that is never upgraded: it sends nothing, a byte now and then, or requests without reading the responses.
async fn attack(address: String, number: usize) {
    let Ok(mut stream) = TcpStream::connect(&address).await else { return };
    match number % 3 {
        0 => drop(stream.read_u8().await),
        1 => {
            let mut turn = tokio::time::interval(Duration::from_millis(100));
            let mut head = b"GET / HTTP/1.1\r\nX-Long: ".iter().chain(std::iter::repeat(&b'x'));
            while stream.write_all(&[*head.next().expect("it never ends")]).await.is_ok() {
                turn.tick().await;
            }
        }
        _ => {
            let request = format!("GET /app.js HTTP/1.1\r\nHost: {address}\r\n\r\n");
            while stream.write_all(request.as_bytes()).await.is_ok() {}
        }
    }
}

#[tokio::test]
async fn sockets_that_are_never_upgraded_cost_neither_health_nor_those_who_are_connected() {
    let node = start_node_with_descriptors(ATTACKED).await;
    let mut connected = Client::connect(&node.url()).await.expect("the node serves");
    let mut attackers = JoinSet::new();
    for number in 0..ATTACKERS {
        attackers.spawn(attack(node.address.clone(), number));
    }
    wait_until("places are short", async || Scrape::of(&node).await.value(DISPLACED) > Some(0.0)).await;
    let mut turn = tokio::time::interval(Duration::from_millis(200));
    for probe in 0..20 {
        turn.tick().await;
        for path in ["/healthz", "/readyz"] {
            let answer = tokio::time::timeout(PROBE_TIMEOUT, get(&node.internal, path)).await;
            assert_eq!(answer.unwrap_or_else(|_| panic!("probe {probe} of {path} timed out")).status, 200);
        }
        assert_eq!(connected.call_text("echo", "x").await.expect("calls are answered"), "x");
    }
    drop(attackers);
    let mut client = Client::connect(&node.url()).await.expect("new connections are accepted again");
    assert_eq!(client.call_text("echo", "x").await.expect("calls too"), "x");
}

/// How long an attacker takes to open a socket again.
const REOPENING: Duration = Duration::from_millis(100);

#[tokio::test]
async fn sockets_that_stay_silent_and_are_reopened_displace_one_another_and_not_a_new_client() {
    let node = start_node_with_descriptors(ATTACKED).await;
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        let address = node.address.clone();
        attackers.spawn(async move {
            loop {
                attack(address.clone(), 0).await;
                tokio::time::sleep(REOPENING).await;
            }
        });
    }
    let reopened = ATTACKERS as f64;
    wait_until("sockets are reopened", async || Scrape::of(&node).await.value(DISPLACED) > Some(reopened)).await;
    // Deadlines for request heads would free a place for each attacker ahead in the backlog much later.
    let url = node.url();
    let connecting = tokio::time::timeout(HEADER_TIMEOUT, Client::connect(&url));
    let mut client = connecting.await.expect("a place becomes free").expect("the node serves");
    assert_eq!(client.call_text("echo", "x").await.expect("calls too"), "x");
}

#[tokio::test]
async fn a_response_of_the_public_listener_closes_the_connection_unless_it_upgrades() {
    let node = start_node(&["--demo"]).await;
    for path in ["/", "/socket", "/nowhere"] {
        let answer = exchange(&node.address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("\r\nconnection: close\r\n"), "{path}: {answer}");
    }
    Bare::connect(&node.address).await.echo(b"upgraded").await;
}

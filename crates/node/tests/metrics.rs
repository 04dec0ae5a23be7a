//! `/metrics` tells what happened, whatever clients do, and also while the node is busy.

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use roomcast_testkit::{Client, Node, http_get};
use support::{
    Bare, CLOSE, CONNECTIONS, GAUGES_AT_REST, Scrape, TEXT, busiest_thread, client_frame, in_time, is_runnable,
    message, notify, request, start_node, wait_for_values, wait_until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// What the operating system tells about the process.
const OF_THE_PROCESS: [&str; 5] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// How the names of metrics begin that only a node with an issuer, a backend, traces or a certificate has. The tests of
/// these look for them.
const OF_OTHERS: [&str; 4] = ["jwks_", "backend_", "trace_", "tls_certificate_"];

/// The metrics that the documentation promises: `name{label,label} kind`.
fn documented() -> BTreeSet<String> {
    let rows =
        include_str!("../../../docs/reference/metrics.md").lines().filter_map(|line| line.strip_prefix("| `roomcast_"));
    rows.filter(|row| !OF_OTHERS.iter().any(|beginning| row.starts_with(beginning)))
        .map(|row| {
            let mut columns = row.split('|').map(|column| column.trim().trim_matches('`'));
            format!("roomcast_{} {}", columns.next().unwrap_or_default(), columns.next().unwrap_or_default())
        })
        .collect()
}

/// The metrics that a node has, in the same form.
fn exposed(scrape: &Scrape) -> BTreeSet<String> {
    let kinds = scrape.text.lines().filter_map(|line| line.strip_prefix("# TYPE roomcast_")?.split_once(' '));
    kinds
        .map(|(name, kind)| {
            let sample =
                if kind == "histogram" { format!("roomcast_{name}_count") } else { format!("roomcast_{name}") };
            let line = scrape.text.lines().find(|line| line.starts_with(&sample)).unwrap_or_default();
            let labels = line[sample.len()..].strip_prefix('{').and_then(|rest| rest.rsplit_once('}'));
            let mut labels: Vec<_> = labels
                .iter()
                .flat_map(|(labels, _)| labels.split(',').filter_map(|label| label.split('=').next()))
                .collect();
            labels.sort_by_key(|label| ["method", "version"].iter().position(|first| first == label).unwrap_or(9));
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("roomcast_{name}{labels} {kind}")
        })
        .collect()
}

/// What `--worker-threads 0`, the default, comes to.
fn available_threads() -> f64 {
    std::thread::available_parallelism().expect("the system tells").get() as f64
}

fn calls(method: &str, outcome: &str) -> String {
    format!("roomcast_calls_total{{method=\"{method}\",outcome=\"{outcome}\"}}")
}

fn closed(code: &str) -> String {
    format!("roomcast_connections_closed_total{{code=\"{code}\"}}")
}

fn cancelled(cause: &str) -> String {
    format!("roomcast_cancellations_total{{cause=\"{cause}\"}}")
}

async fn connect(node: &Node) -> Client {
    Client::connect(&node.url()).await.expect("the node serves")
}

async fn call(client: &mut Client, method: &str, payload: &[u8]) -> String {
    client.call_text(method, payload).await.expect("every call is answered")
}

/// Starts a call that takes minutes, and waits until it is in flight.
async fn start_long(node: &Node, client: &mut Client) -> roomcast_protocol::CallId {
    let id = client.start("long", "").await.expect("the node serves");
    wait_for_values(node, &[("roomcast_calls_in_flight", 1.0)]).await;
    id
}

// === values ===

/// Calls with every outcome that a client can bring about at once.
async fn make_calls(node: &Node, client: &mut Client) {
    for _ in 0..5 {
        assert_eq!(call(client, "echo", b"x").await, "x");
    }
    assert_eq!(call(client, "uppercase", b"x").await, "X");
    for (method, payload, code) in [
        ("uppercase", &b"\xff"[..], "INVALID_ARGUMENT"),
        ("nope", b"", "NOT_FOUND"),
        ("rooms/nope/x", b"", "NOT_FOUND"),
    ] {
        let answer = call(client, method, payload).await;
        assert!(answer.starts_with("{\"error\":") && answer.contains(code), "{answer}");
    }
    let id = start_long(node, client).await;
    client.reset(id).await.expect("the node serves");
    wait_for_values(node, &[("roomcast_calls_in_flight", 0.0)]).await;
}

/// 3 publishes with 1 member each by calls, 2 with all 3 clients by notifications, and other notifications.
async fn make_events(node: &Node, client: &mut Client) {
    assert_eq!(call(client, "rooms/join/den", b"").await, "");
    wait_for_values(node, &[("roomcast_rooms", 2.0), ("roomcast_memberships", 4.0)]).await;
    for _ in 0..3 {
        assert_eq!(call(client, "rooms/publish/den/news", b"x").await, "");
    }
    assert!(call(client, "rooms/publish/den", b"").await.contains("INVALID_ARGUMENT"));
    assert_eq!(call(client, "rooms/leave/den", b"").await, "");
    wait_for_values(node, &[("roomcast_rooms", 1.0), ("roomcast_memberships", 3.0)]).await;
    for (event, times) in [("ping", 4), ("broadcast", 2), ("rooms/join/yard", 1), ("nope", 1)] {
        for _ in 0..times {
            client.notify(event, "x").await.expect("the node serves");
        }
    }
    // The fifth echo is an answer behind all these.
    assert_eq!(call(client, "echo", b"x").await, "x");
    wait_for_values(node, &[("roomcast_rooms", 2.0), ("roomcast_memberships", 4.0)]).await;
}

fn api_requests(route: &str, status: u16) -> String {
    format!("roomcast_api_requests_total{{method=\"GET\",route=\"{route}\",status=\"{status}\"}}")
}

/// Ends connections in every way.
async fn end_connections(node: &Node, first: Client, mut second: Client, mut third: Client) {
    start_long(node, &mut second).await;
    second.close().await.expect("an orderly close");
    wait_for_values(node, &[("roomcast_calls_in_flight", 0.0), (CONNECTIONS, 2.0)]).await;
    start_long(node, &mut third).await;
    drop(third);
    wait_for_values(node, &[("roomcast_calls_in_flight", 0.0), (CONNECTIONS, 1.0)]).await;
    first.close().await.expect("an orderly close");

    Bare::connect(&node.address).await.close(Some(1000)).await;
    Bare::connect(&node.address).await.close(Some(4999)).await;
    for frame in [client_frame(TEXT, b"x"), message(&[9])] {
        let mut bare = Bare::connect(&node.address).await;
        bare.write(&frame).await.expect("the frame is written");
        assert_eq!(bare.frame().await.expect("a close").0, CLOSE);
    }
}

#[tokio::test]
async fn every_metric_of_one_node_is_there_with_its_right_value_after_traffic_of_each_kind() {
    let node = start_node(&["--demo", "--max-connections", "77"]).await;
    wait_for_values(&node, &GAUGES_AT_REST).await;
    let (mut first, second, third) = (connect(&node).await, connect(&node).await, connect(&node).await);
    wait_for_values(&node, &[(CONNECTIONS, 3.0), ("roomcast_memberships", 3.0), ("roomcast_rooms", 1.0)]).await;
    make_calls(&node, &mut first).await;
    make_events(&node, &mut first).await;
    end_connections(&node, first, second, third).await;
    for path in ["/v1/rooms/den", "/v1/rooms/yard", "/v1/nope"] {
        support::get(&node.internal, path).await;
    }

    wait_for_values(&node, &GAUGES_AT_REST).await;
    let values = [
        (calls("echo", "ok"), 6.0),
        (calls("uppercase", "ok"), 1.0),
        (calls("uppercase", "INVALID_ARGUMENT"), 1.0),
        (calls("unknown", "NOT_FOUND"), 2.0),
        (calls("long", "ok"), 0.0),
        (calls("long", "cancelled"), 3.0),
        (calls("rooms/join", "ok"), 1.0),
        (calls("rooms/leave", "ok"), 1.0),
        (calls("rooms/publish", "ok"), 3.0),
        (calls("rooms/publish", "INVALID_ARGUMENT"), 1.0),
        (cancelled("reset"), 1.0),
        (cancelled("closed"), 1.0),
        (cancelled("lost"), 1.0),
        (closed("1000"), 1.0),
        (closed("1002"), 1.0),
        (closed("1003"), 1.0),
        (closed("1005"), 2.0),
        (closed("1006"), 1.0),
        (closed("other"), 1.0),
        (api_requests("/v1/rooms/{room}", 200), 2.0),
        (api_requests("none", 404), 1.0),
    ];
    let values: Vec<_> = values.iter().map(|(series, value)| (series.as_str(), *value)).collect();
    wait_for_values(&node, &values).await;
    let plain_values = [
        ("roomcast_connections_opened_total", 7.0),
        ("roomcast_notifications_received_total", 8.0),
        ("roomcast_notifications_failed_total{code=\"NOT_FOUND\"}", 1.0),
        ("roomcast_publishes_total{outcome=\"ok\"}", 5.0),
        ("roomcast_deliveries_total", 3.0 + 2.0 * 3.0),
        ("roomcast_broker_publish_duration_seconds_count", 5.0),
        ("roomcast_call_duration_seconds_count{method=\"echo\"}", 6.0),
        ("roomcast_call_duration_seconds_count{method=\"long\"}", 3.0),
        ("roomcast_call_duration_seconds_count{method=\"unknown\"}", 2.0),
        ("roomcast_call_stop_duration_seconds_count{cause=\"reset\"}", 1.0),
        ("roomcast_call_stop_duration_seconds_count{cause=\"closed\"}", 1.0),
        ("roomcast_call_stop_duration_seconds_count{cause=\"lost\"}", 1.0),
        ("roomcast_slow_consumers_total", 0.0),
        ("roomcast_broker_up", 1.0),
        ("roomcast_ready", 1.0),
        ("roomcast_max_connections", 77.0),
        ("roomcast_worker_threads", available_threads()),
    ];
    wait_for_values(&node, &plain_values).await;

    let scrape = Scrape::of(&node).await;
    let missing: Vec<_> = OF_THE_PROCESS.iter().filter(|name| !scrape.names().contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?} are missing in:\n{}", scrape.text);
    assert_eq!(
        exposed(&scrape),
        documented(),
        "on the left what a node has, on the right what docs/reference/metrics.md says"
    );
    assert_eq!(scrape.sum("roomcast_connections_closed_total"), 7.0);
    assert_eq!(scrape.sum("roomcast_build_info"), 1.0);
    // A connection that gets several events in one write is one sample.
    let batches = scrape.value("roomcast_delivery_latency_seconds_count").expect("a histogram");
    assert!((5.0..=9.0).contains(&batches), "{batches}");
    assert!(scrape.value("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    assert!(scrape.value("process_open_fds").is_some_and(|files| files > 3.0));
}

#[tokio::test]
async fn a_call_that_runs_too_long_is_counted_as_failed_and_its_work_as_cancelled() {
    let node = start_node(&["--demo", "--call-timeout", "50ms"]).await;
    assert!(call(&mut connect(&node).await, "long", b"").await.contains("DEADLINE_EXCEEDED"));
    let (failed, cancelled) = (calls("long", "DEADLINE_EXCEEDED"), cancelled("deadline"));
    wait_for_values(&node, &[(&failed, 1.0), (&cancelled, 1.0), ("roomcast_calls_in_flight", 0.0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_to_a_slow_consumer_and_its_end_are_counted() {
    const SLOW_CONSUMERS: &str = "roomcast_slow_consumers_total";
    let node = start_node(&["--demo", "--max-outbound", "16MiB"]).await;
    let mut slow = Bare::connect(&node.address).await;
    let chunk = message(&request(1, "echo", &[b'x'; 256 * 1024]));
    let mut most_queued = 0.0_f64;
    in_time("the slow consumer is closed", async {
        while node.metric(SLOW_CONSUMERS).await == 0.0 {
            most_queued = most_queued.max(node.metric("roomcast_outbound_queue_bytes").await);
            slow.write(&chunk).await.expect("the node reads on");
        }
    })
    .await;
    assert!(most_queued > 0.0 && most_queued <= 16.0 * 1024.0 * 1024.0, "{most_queued}");
    wait_for_values(&node, &[(SLOW_CONSUMERS, 1.0), (&closed("4408"), 1.0), (CONNECTIONS, 0.0)]).await;
    drop(slow);
    wait_for_values(&node, &GAUGES_AT_REST).await;
}

#[tokio::test]
async fn a_client_that_closes_with_4408_itself_is_not_counted_as_a_slow_consumer() {
    let node = start_node(&["--demo"]).await;
    Bare::connect(&node.address).await.close(Some(4408)).await;
    wait_for_values(&node, &[("roomcast_connections_opened_total", 1.0), (CONNECTIONS, 0.0)]).await;
    assert_eq!(node.metric("roomcast_slow_consumers_total").await, 0.0);
}

// === label values ===

/// The codes that have a meaning; all others are counted as one.
const KNOWN_CODES: [u16; 15] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 4401, 4408, 4409];

/// Calls and notifications with names that nobody else uses, then closes with many codes.
async fn use_strange_names_and_codes(node: &Node, names: usize, codes: impl Iterator<Item = u16>) {
    let mut client = Bare::connect(&node.address).await;
    for index in 0..names {
        let mut batch = Vec::new();
        for event in ["event-{}", "rooms/join/\u{7}{}", "rooms/publish/{}/e"] {
            batch.extend(message(&notify(&event.replace("{}", &format!("{names}-{index}")), b"x")));
        }
        for method in STRANGE_CALLS {
            let method = method.replace("{}", &format!("{names}-{index}"));
            batch.extend(message(&request(1, &method, b"")));
        }
        client.write(&batch).await.expect("the node reads");
        let mut answered = 0;
        while answered < STRANGE_CALLS.len() {
            let (_, frame) = client.frame().await.expect("every call is answered");
            // The client is in a room for a moment, and may get the event that it publishes there.
            match frame.starts_with(&[4, 0, 0, 0, 1]) {
                true => answered += 1,
                false => assert_eq!(frame, notify("e", b""), "neither a response nor the event"),
            }
        }
    }
    client.close(None).await;
    for code in codes {
        Bare::connect(&node.address).await.close(Some(code)).await;
    }
    drop(Bare::connect(&node.address).await);
    wait_for_values(node, &[(CONNECTIONS, 0.0)]).await;
}

/// Some of these are no methods, and some no rooms.
const STRANGE_CALLS: [&str; 6] =
    ["method-{}", "rooms/join/{}", "rooms/publish/{}/e", "rooms/{}/x", "rooms/leave/{}", "{}\n\"x"];

#[tokio::test]
async fn clients_make_no_new_series_by_names_of_methods_events_and_rooms_nor_by_close_codes() {
    let rates = ["--rates-frames=off", "--rates-calls=off", "--rates-joins=off", "--rates-publishes=off"];
    let node = start_node(&[&["--demo", "--rates-new-rooms=off"], &rates[..]].concat()).await;
    use_strange_names_and_codes(&node, 1, KNOWN_CODES.into_iter().chain([3000])).await;
    let before = Scrape::of(&node).await;
    use_strange_names_and_codes(&node, 1000, (3000..3100).chain(4000..4050).chain(4380..4420).chain([4999])).await;
    let after = Scrape::of(&node).await;
    let new: BTreeSet<_> = after.series().difference(&before.series()).map(|series| (*series).to_owned()).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(after.sum("roomcast_calls_total") >= before.sum("roomcast_calls_total") + 6000.0, "all were counted");
}

// === form ===

#[tokio::test]
async fn promtool_has_nothing_to_say_against_the_metrics() {
    let node = start_node(&["--demo"]).await;
    let mut client = connect(&node).await;
    make_calls(&node, &mut client).await;
    assert_eq!(call(&mut client, "rooms/publish/main/news", b"x").await, "");
    client.close().await.expect("an orderly close");
    let scrape = Scrape::of(&node).await;

    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let excused = std::env::var("ROOMCAST_WITHOUT_PROMTOOL").is_ok_and(|value| value == "1");
            assert!(excused, "promtool (Debian package prometheus): {error}; ROOMCAST_WITHOUT_PROMTOOL=1 goes without");
            return;
        }
    };
    let mut input = promtool.stdin.take().expect("a pipe");
    input.write_all(scrape.text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((String::from_utf8_lossy(&said).as_ref(), output.status.code()), ("", Some(0)));
}

// === under load ===

/// Writes calls and broadcasts as fast as the node takes them, and reads away what comes.
async fn flood(address: String) {
    let connected = Bare::connect(&address).await;
    let (mut input, mut output) = connected.stream.into_split();
    let mut batch = Vec::new();
    for _ in 0..500 {
        batch.extend(message(&request(1, "echo", &[b'x'; 64])));
    }
    batch.extend(message(&notify("broadcast", b"x")));
    let writing = async { while output.write_all(&batch).await.is_ok() {} };
    let mut buffer = vec![0; 64 * 1024];
    let reading = async { while input.read(&mut buffer).await.is_ok_and(|len| len > 0) {} };
    tokio::join!(writing, reading);
}

/// How long probes may take while the data path has more to do than it can.
const PROMPT: Duration = Duration::from_secs(1);

const PROBES: usize = 20;

/// So many that a probe that had to wait its turn behind them would wait for seconds.
const FLOODS: usize = 24;

/// The clients have threads of their own, so that what is measured is the node's delay, not this process's.
fn start_floods(address: &str) -> (tokio::runtime::Runtime, JoinSet<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the system has threads");
    let mut clients = JoinSet::new();
    for _ in 0..FLOODS {
        clients.spawn_on(flood(address.to_owned()), runtime.handle());
    }
    (runtime, clients)
}

/// Whether a thread has something to do whenever it is looked at, 50 times.
async fn never_rests(pid: u32, thread: &str) -> bool {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    for _ in 0..50 {
        look.tick().await;
        if !is_runnable(pid, thread) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn the_internal_listener_answers_within_a_second_while_the_only_data_thread_is_saturated() {
    let node = start_node(&["--demo", "--worker-threads", "1", "--max-outbound", "1GiB"]).await;
    let echoed = calls("echo", "ok");
    let (runtime, mut clients) = start_floods(&node.address);
    wait_until("the node is busy", async || Scrape::of(&node).await.value(&echoed).unwrap_or_default() > 10_000.0)
        .await;
    assert_eq!(node.metric("roomcast_worker_threads").await, 1.0);
    let data_thread = busiest_thread(node.pid());
    wait_until("the data thread never rests", async || never_rests(node.pid(), &data_thread).await).await;

    let before = Scrape::of(&node).await.value(&echoed);
    let mut runnable = 0;
    for _ in 0..PROBES {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let started = Instant::now();
            let (status, _) = http_get(&node.internal, path).await.expect("the internal listener answers");
            assert_eq!(status, 200);
            assert!(started.elapsed() < PROMPT, "{path} took {:?}", started.elapsed());
        }
        runnable += usize::from(is_runnable(node.pid(), &data_thread));
    }
    assert!(runnable >= PROBES * 3 / 4, "the data thread rested in {} of {PROBES} looks", PROBES - runnable);
    assert!(Scrape::of(&node).await.value(&echoed) > before, "the data path went on");
    assert_eq!(clients.len(), FLOODS);
    assert!(clients.try_join_next().is_none(), "no client was closed");
    clients.abort_all();
    runtime.shutdown_background();
}

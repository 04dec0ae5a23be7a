//! Logs: whoever reads them, or does not, connections are served.

mod support;

use std::io::{self, PipeReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roomcast_testkit::{Client, Node};
use serde_json::{Value, json};
use support::log::Log;
use support::{
    BINARY, Bare, CONNECTIONS, DEADLINE, http, in_time, message, notify, tokens, wait_for_values, without_options,
    write_file,
};

/// Each of them makes the node log a line.
const CLIENTS: usize = 300;

/// A full pipe that nobody reads.
struct Unread {
    _reader: PipeReader,
    filler: Child,
}

impl Unread {
    /// The binary, with such a pipe as its standard error.
    fn command() -> (Self, Command) {
        let (reader, pipe) = io::pipe().expect("a pipe");
        // It writes until the pipe is full, and then waits.
        let filler = Command::new("yes").stdout(pipe.try_clone().expect("another end")).spawn().expect("yes starts");
        let mut command = Command::new(BINARY);
        without_options(&mut command);
        command.stderr(Stdio::from(pipe));
        (Self { _reader: reader, filler }, command)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.filler.kill();
        let _ = self.filler.wait();
    }
}

#[tokio::test]
async fn a_node_whose_logs_nobody_reads_answers_calls_and_ends_in_order() {
    let (_unread, command) = Unread::command();
    let drain = ["--drain-delay=0s", "--drain-duration=0s", "--drain-timeout=5s"];
    let arguments = [&["--demo", "--log=trace", "--log-rate=off"], &drain[..]].concat();
    let mut node = in_time("the node is ready", Node::start_by(command, &arguments)).await;
    for _ in 0..CLIENTS {
        let mut client = Bare::connect(&node.address).await;
        client.write(&message(&notify("nope", b""))).await.expect("the notification is written");
        client.echo(b"x").await;
        client.close(Some(1000)).await;
    }
    node.signal("TERM");
    let status = in_time("the node ends", node.exit()).await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_client_causes_so_many_lines_in_a_second_and_the_others_are_counted() {
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let node = in_time("the node is ready", Node::start_by(command, &["--demo", "--log=debug", "--log-rate=1"])).await;
    let mut client = Bare::connect(&node.address).await;
    for _ in 0..CLIENTS {
        client.write(&message(&notify("nope", b""))).await.expect("the notification is written");
    }
    client.echo(b"x").await;
    let dropped = node.metric("roomcast_client_log_lines_dropped_total").await;
    assert!(dropped > 0.0 && dropped <= CLIENTS as f64 + 10.0, "{dropped}");
}

#[tokio::test]
async fn an_event_can_be_followed_through_a_node_that_logs_nothing_else() {
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let log = Log::of(&mut command);
    let options = ["--demo", "--log=error", "--log-rate=1", "--log-follow=room=lobby"];
    let node = in_time("the node is ready", Node::start_by(command, &options)).await;
    let mut client = Client::connect(&node.url()).await.expect("the node accepts it");
    for room in ["other", "lobby"] {
        client.call(&format!("rooms/join/{room}"), b"").await.expect("it joins");
        client.call(&format!("rooms/publish/{room}/said"), b"a secret").await.expect("the broker accepts it");
    }
    let mut lines = log.until("events were queued");
    let answer = http(&node.internal, "POST", "/v1/rooms/lobby/events/told", "", b"a secret").await;
    assert_eq!(answer.status, 200);
    lines.extend(log.until("events were queued"));
    client.call("rooms/leave/lobby", b"").await.expect("it leaves");

    lines.extend(log.until("has left"));
    let text = lines.join("\n");
    for line in [
        r#"a connection has joined connection="#,
        r#"room=lobby event="said" bytes=8 source="client""#,
        r#"room=lobby event="told" bytes=8 source="server""#,
        "events were queued for the members here room=lobby events=1 members=1",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert!(!text.contains("other") && !text.contains("secret"), "{text}");
    assert_eq!(node.metric("roomcast_client_log_lines_dropped_total").await, 0.0);
}

/// A field of a line, or of one of the spans in which it was logged.
fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    let spans = line["spans"].as_array().into_iter().flatten();
    spans.chain([line]).map(|fields| &fields[name]).rfind(|value| !value.is_null()).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn each_line_about_a_call_names_its_connection_its_user_the_call_and_its_trace() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a free port"); // it accepts, and never answers
    let config = format!(
        r#"
log = "warn,roomcast=trace,roomcast_core=debug,roomcast_backends=debug"
log_rate = "off"
log_format = "json"
trace_endpoint = "http://{}"
trace_ratio = 1
{}
[[role]]
name = "member"
allow = [{{ rooms = ["lobby"], do = ["join", "publish"] }}, {{ calls = ["down.*"], do = ["call"] }}]

[[backend]]
name = "down"
calls = ["down.*"]
url = "http://127.0.0.1:1/rpc"
"#,
        collector.local_addr().expect("an address"),
        tokens::issuer("logs")
    );
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let log = Log::of(&mut command);
    let options = ["--config", &write_file("logs.toml", &config)];
    let node = in_time("the node is ready", Node::start_by(command, &options)).await;
    let token = format!("Bearer {}", tokens::token(tokens::SECRET, &json!({})));
    let connected = Client::connect_with(&node.url(), &[("authorization", &token)]).await;
    let mut client = connected.expect("the token is valid");
    let mut lines = Vec::new();
    for (method, message, is_traced) in [
        ("rooms/join/lobby", "a connection has joined", true),
        ("rooms/publish/lobby/said", "an event was published", true),
        ("down.now", "a request to a backend failed", true),
        ("up.now", "the client lacks a right", false),
    ] {
        client.call_text(method, b"").await.expect("the call is answered");
        for message in [message, "a call has ended"] {
            lines.extend(log.until(message));
            let line: Value = serde_json::from_str(lines.last().expect("a line")).expect("JSON");
            assert!(field(&line, "connection").is_string(), "{line}");
            // The backend has got another id, which is a text.
            assert_eq!(field(&line, "call").is_string(), message.contains("backend"), "{line}");
            assert!(!field(&line, "call").is_null(), "{line}");
            assert_eq!(field(&line, "user"), "ann", "{line}");
            let trace_id = field(&line, "trace_id").as_str().unwrap_or_default();
            assert_eq!(trace_id.len(), if is_traced { 32 } else { 0 }, "{line}");
        }
    }
}

/// Starts a node whose log has only the access log, if any. Connects with a token in the URL, and uses the API.
async fn use_node(options: &[&str]) -> Vec<String> {
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let log = Log::of(&mut command);
    let options = [&["--demo", "--log=error"], options].concat();
    let mut node = in_time("the node is ready", Node::start_by(command, &options)).await;
    let mut client = Client::connect(&format!("{}?access_token=secret", node.url())).await.expect("it is accepted");
    client.call("echo", b"secret").await.expect("it is answered");
    client.close().await.expect("an orderly close");
    let answer = http(&node.internal, "POST", "/v1/rooms/lobby/events/told?x=secret", "", b"secret").await;
    assert_eq!(answer.status, 200);
    assert_eq!(http(&node.address, "GET", "/nowhere", "X-Secret: secret\r\n", b"").await.status, 404);
    wait_for_values(&node, &[(CONNECTIONS, 0.0)]).await;
    node.signal("INT");
    in_time("the node ends", node.exit()).await;
    log.rest()
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_request_and_each_ended_connection_without_their_secrets() {
    let lines = use_node(&["--access-log=true"]).await;
    assert!(!lines.join("\n").contains("secret"), "{lines:#?}");
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let is_of_test = |line: &Value| {
        line["target"] == "access" && line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:"))
    };
    assert!(lines.iter().all(is_of_test), "{lines:#?}");
    let requests = lines.iter().filter(|line| line["message"] == "a request was answered");
    let mut requests: Vec<_> =
        requests.map(|line| format!("{} {} {}", line["method"], line["path"], line["status"])).collect();
    requests.sort();
    let expected = [r#""GET" "/nowhere" 404"#, r#""GET" "/socket" 101"#, r#""POST" "/v1/rooms/lobby/events/told" 200"#];
    assert_eq!(requests, expected, "health and metrics have no lines");
    let ended: Vec<_> = lines.iter().filter(|line| line["message"] == "a connection has ended").collect();
    let [ended] = ended[..] else { panic!("{lines:#?}") };
    assert_eq!(ended["code"], 1005, "the client sends none");
    assert!(ended["connection"].is_string() && ended["duration_ms"].is_u64(), "{ended}");
    // Each direction had a message and a Close.
    for field in ["bytes_received", "bytes_sent"] {
        assert!(ended[field].as_u64().is_some_and(|bytes| (12..200).contains(&bytes)), "{field}: {ended}");
    }

    assert_eq!(use_node(&[]).await, [""; 0], "it is off by default");
}

#[tokio::test]
async fn a_node_that_can_not_start_ends_though_nobody_reads_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (_unread, mut command) = Unread::command();
    let listen = format!("--listen={}", taken.local_addr().expect("an address"));
    let mut node = command.args(["serve", &listen]).spawn().expect("the binary starts");
    let started = Instant::now();
    while node.try_wait().expect("a child of this process").is_none() && started.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It has ended, or the test fails.
    let _ = node.kill();
    assert_eq!(node.wait().expect("a child of this process").code(), Some(1));
}

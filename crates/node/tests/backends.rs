//! Calls that a node forwards to a backend, as its configuration describes.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use parking_lot::Mutex;
use roomcast_testkit::Client;
use serde_json::{Value, json};
use support::{error_of, run, start_node, wait_for_values, wait_until, write_file};

/// The status with which a node ends if its configuration is wrong.
const EXIT_USAGE: i32 = 2;

/// The requests that the backend works on.
type Live = Arc<AtomicUsize>;

/// Counts a request as live.
struct Request(Live);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(live): State<Live>, Path(method): Path<String>, headers: HeaderMap, body: String) -> String {
    live.fetch_add(1, Ordering::SeqCst);
    let _request = Request(live);
    if method == "chat.never" {
        std::future::pending::<()>().await;
    }
    let header = |name: &str| headers.get(name).map_or("none", |value| value.to_str().expect("ASCII")).to_owned();
    format!("{method} {body} {} {}", header("x-app"), header("x-tenant"))
}

/// Starts a backend, and returns its URL.
async fn backend(live: &Live) -> String {
    let app = axum::Router::new().route("/rpc/{*method}", post(answer)).with_state(Arc::clone(live));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/rpc", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_answers_calls_and_stops_when_a_call_is_cancelled() {
    let live = Live::default();
    let url = backend(&live).await;
    let config = format!(
        "[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\"]\nurl = \"{url}\"\nheaders = {{ x-app = \"roomcast\" }}\n\
         forward = [\"x-tenant\"]\n\n\
         [[backend]]\nname = \"other\"\ncalls = [\"**\"]\nurl = \"{url}/other\"\n"
    );
    let node = start_node(&["--config", &write_file("backends.toml", &config)]).await;
    let mut client = Client::connect_with(&node.url(), &[("x-tenant", "cups")]).await.expect("it accepts");
    assert_eq!(client.call_text("chat.send", "hello").await.expect("a response"), "chat.send hello roomcast cups");
    assert_eq!(client.call_text("orders/7", "").await.expect("a response"), "other/orders/7  none none");

    let call = client.start("chat.never", "").await.expect("it is sent");
    wait_until("the backend works on the call", async || live.load(Ordering::SeqCst) == 1).await;
    client.reset(call).await.expect("it is sent");
    wait_until("the backend has stopped", async || live.load(Ordering::SeqCst) == 0).await;

    let requests = |backend: &str, outcome: &str| {
        format!("roomcast_backend_requests_total{{backend=\"{backend}\",outcome=\"{outcome}\"}}")
    };
    let calls =
        |method: &str, outcome: &str| format!("roomcast_calls_total{{method=\"{method}\",outcome=\"{outcome}\"}}");
    let expected = [
        (requests("chat", "ok"), 1.0),
        (requests("chat", "cancelled"), 1.0),
        (requests("other", "ok"), 1.0),
        (calls("chat", "ok"), 1.0),
        (calls("chat", "cancelled"), 1.0),
        (calls("other", "ok"), 1.0),
        ("roomcast_backend_requests_in_flight{backend=\"chat\"}".to_owned(), 0.0),
        ("roomcast_backend_stop_seconds_count{backend=\"chat\"}".to_owned(), 1.0),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, value)| (&**name, *value)).collect();
    wait_for_values(&node, &expected).await;
    let page = include_str!("../../../docs/reference/metrics.md");
    let scrape = support::Scrape::of(&node).await;
    for name in scrape.names().iter().filter(|name| name.starts_with("roomcast_backend_")) {
        assert!(page.contains(&format!("| `{name}{{backend")), "{name} is not in the page of metrics");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_reported_after_its_grace_with_what_its_backend_has_finished() {
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let (finished, events) = (Arc::new(Mutex::new(Some(finished))), Arc::<Mutex<Vec<Value>>>::default());
    let received = Arc::clone(&events);
    let slow = async move || {
        let finished = finished.lock().take().expect("a single call");
        finished.await.map_or("failed", |()| "finished")
    };
    let receive = async move |body: String| {
        received.lock().extend(serde_json::from_str::<Vec<Value>>(&body).expect("a batch"));
    };
    let app = axum::Router::new().route("/chat.slow", post(slow)).route("/roomcast.events", post(receive));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let config = format!(
        "[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\"]\nurl = \"{url}\"\ncancel_grace = \"1m\"\n\n\
         [hooks.events]\nbackend = \"chat\"\nkinds = [\"disconnected\", \"call.ended\"]\n"
    );
    let node = start_node(&["--config", &write_file("backends-grace.toml", &config)]).await;
    let mut client = Client::connect(&node.url()).await.expect("it accepts");
    client.start("chat.slow", "").await.expect("it is sent");
    wait_for_values(&node, &[("roomcast_backend_requests_in_flight{backend=\"chat\"}", 1.0)]).await;
    drop(client);
    wait_until("the connection has ended", async || !events.lock().is_empty()).await;
    finish.send(()).expect("the backend still works");
    wait_until("the call is reported", async || events.lock().len() == 2).await;
    let events = events.lock();
    assert_eq!(events[0]["type"], "com.roomcast.connection.disconnected");
    let data = &events[1]["data"];
    assert_eq!(
        (&data["connection"], &data["outcome"], &data["cause"], &data["late_items"]),
        (&events[0]["data"]["connection"], &json!("cancelled"), &json!("lost"), &json!(1))
    );
}

#[test]
fn check_shows_the_backends() {
    let config = "[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\", \"orders/**\"]\nurl = \"https://chat.internal/rpc/\"\nhttp2 = true\n";
    let output = run(&["check", "--config", &write_file("backends-check.toml", config)], &[]);
    let printed = String::from_utf8_lossy(&output.stdout);
    let expected =
        "Backend chat at https://chat.internal/rpc answers chat.*, orders/**, over HTTP/2. Requests are not signed.\n";
    assert!(output.status.success() && printed.contains(expected), "{printed}");
}

#[test]
fn a_wrong_table_is_reported_with_its_key_its_value_and_what_to_change() {
    let good = "[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\"]\nurl = \"http://chat:8080/rpc\"\n";
    let patterns = format!("calls = {:?}", (0..1000).map(|at| format!("m{at}")).collect::<Vec<_>>());
    for (at, (change, expected)) in [
        ("timeout = \"soon\"", "backend.0.timeout: cannot use \"soon\": it must be a time over 0"),
        (
            "cancel_url = \"http://chat\"",
            "backend.0.cancel_url: cannot use \"http://chat\": it must contain a path, such as /rpc/roomcast.cancel",
        ),
        (
            "cancel_grace = \"61s\"",
            "backend.0.cancel_grace: cannot use \"61s\": it must be a time of at most 1m, such as 0s, 500ms or 5s",
        ),
        ("queue_time = \"0s\"", "backend.0.queue_time: cannot use \"0s\": it must be a time over 0"),
        ("concurrency = 0", "backend.0.concurrency: cannot use 0: it must be a number from 1 to 65536"),
        ("stream = \"on\"", "backend.0.stream: it must be one of auto, off"),
        (
            "headers = { Roomcast-User = \"ann\" }",
            "backend.0.headers: \"Roomcast-User\" is a header that the node sets",
        ),
        ("forward = [\"host\"]", "backend.0.forward: \"host\" is a header that the node sets"),
        ("forward = [\"Traceparent\"]", "backend.0.forward: \"Traceparent\" is a header that the node sets"),
        ("ca_file = \"/nowhere\"", "backend.0.ca_file: cannot read /nowhere"),
        ("signing_secret_file = \"/dev/null\"", "backend.0.signing_secret_file: there is no secret"),
        (
            "[[backend]]\nname = \"chat\"\nurl = \"http://x\"",
            "backend.1.name: the backend \"chat\" is configured twice",
        ),
        ("[[backend]]\nname = \"a b\"\nurl = \"http://x\"", "backend.1.name: \"a b\" is not a name"),
        ("[[backend]]\nname = \"b\"\nurl = \"chat\"", "backend.1.url: cannot use \"chat\": it must begin with http"),
        (
            "[[backend]]\nname = \"b\"\nurl = \"http://x\"\ncalls = [\"chat.*\"]",
            "backend.1.calls: the pattern \"chat.*\" is configured twice",
        ),
        ("[[backend]]\nname = \"b\"\nurl = \"http://x\"\ncalls = [\"chat*\"]", "backend.1.calls: pattern \"chat*\""),
        (
            "[[backend]]\nname = \"b\"\nurl = \"http://x\"\ncalls = [\"rooms/**\"]",
            "backend.1.calls: the node itself answers all methods rooms/…; remove \"rooms/**\"",
        ),
        (&format!("forward = {:?}", ["x"; 33]), "backend.0.forward: there are 33 headers; at most 32 are allowed"),
        (
            &"[[backend]]\nname = \"b\"\nurl = \"http://x\"\n".repeat(64),
            "backend: there are 65 backends; at most 64 are allowed",
        ),
        (
            &format!("[[backend]]\nname = \"b\"\nurl = \"http://x\"\n{patterns}"),
            "backend.1.calls: all backends have more than 1000 patterns together",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let file = write_file(&format!("backends-wrong-{at}.toml"), &format!("{good}{change}\n"));
        let error = error_of(&run(&["serve", "--config", &file], &[]), EXIT_USAGE);
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
    }
}

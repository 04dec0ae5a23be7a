//! The traces of calls that backends answer, which the backends continue.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::routing::post;
use parking_lot::Mutex;
use roomcast_testkit::Client;
use serde_json::json;
use tokio::net::TcpListener;

use crate::TRACEPARENT;
use crate::collector::{Collector, attribute};
use crate::support::tokens::{SECRET, issuer, token};
use crate::support::{in_time, start_node, write_file};

/// The headers of the trace in a hook's request.
type OfHook = Arc<Mutex<String>>;

/// A backend whose responses to calls are the headers of the trace in its requests. Returns its URL.
async fn backend(of_hook: &OfHook) -> String {
    let of_hook = Arc::clone(of_hook);
    let answer = async move |Path(method): Path<String>, headers: HeaderMap| {
        let header = |name| headers.get(name).map_or("none", |value| value.to_str().expect("ASCII"));
        let found = format!("{} {}", header("traceparent"), header("tracestate"));
        match method == "roomcast.connect" {
            true => {
                *of_hook.lock() = found;
                "{}".to_owned()
            }
            false => found,
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/rpc", listener.local_addr().expect("an address"));
    let app = axum::Router::new().route("/rpc/{*method}", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_continues_the_trace_of_a_call_that_is_sampled() {
    let (collector, url) = Collector::http().await;
    let config = format!(
        "[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\"]\nurl = \"{}\"\n",
        backend(&OfHook::default()).await
    );
    let file = write_file("traced-backends.toml", &config);
    let start = async |ratio: &str| {
        let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio", ratio];
        start_node(&[&["--config", &file], &traces[..]].concat()).await
    };
    // The client's own trace is that of its handshake. It decides nothing about its calls.
    let headers = [("traceparent", TRACEPARENT), ("tracestate", "vendor=1")];

    let node = start("0").await;
    let mut client = Client::connect_with(&node.url(), &headers).await.expect("it connects");
    assert_eq!(client.call_text("chat.send", "").await.expect("an answer"), "none none");

    let node = start("1").await;
    let mut client = Client::connect_with(&node.url(), &headers).await.expect("it connects");
    let answer = client.call_text("chat.send", "").await.expect("an answer");
    let request = collector.wait_for("POST", 1).await.remove(0);
    let call = collector.wait_for("chat", 1).await.remove(0);
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(answer, format!("00-{}-{}-01 none", hex(&request.trace_id), hex(&request.span_id)));
    assert_eq!((request.trace_id, request.parent_span_id), (call.trace_id, call.span_id));
    let of_request = |key| attribute(&collector.spans("POST")[0], key);
    assert_eq!(
        (of_request("roomcast.backend"), of_request("http.response.status_code")),
        ("chat".into(), "200".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_continues_the_trace_of_a_client_only_if_the_operator_permits_it() {
    let (of_hook, (collector, url)) = (OfHook::default(), Collector::http().await);
    let backend = format!("[[backend]]\nname = \"chat\"\nurl = \"{}\"\n", backend(&of_hook).await);
    let hooks = "[hooks]\nconnect = { backend = \"chat\" }\n";
    let file = write_file("traced-hooks.toml", &[&backend, hooks, &issuer("traced-hooks")].concat());
    let bearer = format!("Bearer {}", token(SECRET, &json!({})));
    let headers = [("authorization", &*bearer), ("traceparent", TRACEPARENT), ("tracestate", "vendor=1")];
    let connect = async |options: &[&str]| {
        let traces = ["--trace-protocol=http", "--trace-endpoint", &url, "--trace-ratio=0"];
        let mut node = start_node(&[&["--config", &file], &traces[..], options].concat()).await;
        let client = Client::connect_with(&node.url(), &headers).await.expect("it connects");
        client.close().await.expect("an orderly close");
        node.signal("INT"); // it exports its last spans before it ends
        in_time("the node ends", node.exit()).await;
        of_hook.lock().clone()
    };
    assert_eq!(connect(&["--trace-clients=false"]).await, "none none");

    let continued = connect(&["--trace-clients=true"]).await;
    let (trace, _) = TRACEPARENT.split_at("00-".len() + 32);
    assert!(continued.starts_with(trace) && continued.ends_with("-01 vendor=1"), "{continued}");
    assert_ne!(continued, format!("{TRACEPARENT} vendor=1"), "the parent is the span of the request");
    let request = collector.wait_for("POST", 1).await.remove(0);
    let decision = collector.wait_for("authorize", 1).await.remove(0);
    assert_eq!(request.parent_span_id, decision.span_id);
}

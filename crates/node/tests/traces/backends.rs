//! The traces of calls that backends answer, which the backends continue.

use axum::http::HeaderMap;
use axum::routing::post;
use roomcast_testkit::Client;
use tokio::net::TcpListener;

use crate::TRACEPARENT;
use crate::collector::{Collector, attribute};
use crate::support::{start_node, write_file};

/// A backend whose responses are the headers of the trace in its requests. Returns its URL.
async fn backend() -> String {
    let answer = async |headers: HeaderMap| {
        let header = |name| headers.get(name).map_or("none", |value| value.to_str().expect("ASCII"));
        format!("{} {}", header("traceparent"), header("tracestate"))
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
    let config = format!("[[backend]]\nname = \"chat\"\ncalls = [\"chat.*\"]\nurl = \"{}\"\n", backend().await);
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

//! SIGTERM on a node with many clients: everybody leaves in an orderly way, and every call has an outcome.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_protocol::CallId;
use roomcast_testkit::{Client, Node, http_get};
use support::{CONNECTIONS, DEADLINE, get, in_time, start_node, wait_for_values, wait_until};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const CLIENTS: usize = 1000;

/// Calls of each kind: those that can end before the deadline, and those that can't.
const SHORT_CALLS: usize = 50;
const ENDLESS_CALLS: usize = 50;

const DELAY: Duration = Duration::from_secs(1);
const DURATION: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(6);

/// What a drain may take beyond its deadline.
const GRACE: Duration = Duration::from_secs(2);

const GOING_AWAY: u16 = 1001;

/// What a client has under way when the node drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Idle,
    ShortCall(CallId),
    EndlessCall(CallId),
}

/// How a client's connection ended.
#[derive(Debug)]
struct Ending {
    of: Use,
    at: Instant,
    close_code: Option<u16>,
    answer: Option<Bytes>,
}

async fn connect_all(node: &Node) -> Vec<Client> {
    let mut connecting = JoinSet::new();
    for _ in 0..10 {
        let url = node.url();
        connecting.spawn(async move {
            let mut clients = Vec::new();
            for _ in 0..CLIENTS / 10 {
                clients.push(Client::connect(&url).await.expect("the node serves"));
            }
            clients
        });
    }
    connecting.join_all().await.into_iter().flatten().collect()
}

/// Starts the calls, and then waits on each connection for its end.
async fn use_all(clients: Vec<Client>) -> JoinSet<Ending> {
    let mut endings = JoinSet::new();
    // The endless ones first: the others must not end while calls are still being started.
    for (index, mut client) in clients.into_iter().enumerate() {
        let of = if index < ENDLESS_CALLS {
            Use::EndlessCall(client.start("long", "").await.expect("the node serves"))
        } else if index < ENDLESS_CALLS + SHORT_CALLS {
            Use::ShortCall(client.start("long_runing_task", "").await.expect("the node serves"))
        } else {
            Use::Idle
        };
        endings.spawn(await_end(client, of));
    }
    endings
}

async fn await_end(mut client: Client, of: Use) -> Ending {
    let close_code = client.closed().await.ok().map(|(code, _)| code);
    let at = Instant::now();
    let answer = match of {
        Use::Idle => None,
        Use::ShortCall(id) | Use::EndlessCall(id) => client.answer(id).await.ok(),
    };
    Ending { of, at, close_code, answer }
}

async fn refuses_connections(node: &Node) -> bool {
    let connected = in_time("a connection is refused", TcpStream::connect(&node.address)).await;
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// What others see from the signal on: not ready and alive, then open to new clients until the delay is over.
async fn watch_from_outside(node: &Node, signalled: Instant) -> Ending {
    node.wait_until("it is not ready", async || get(&node.internal, "/readyz").await.status == 503).await;
    assert!(signalled.elapsed() < DELAY / 2, "not ready only after {:?}", signalled.elapsed());
    let (_, reasons) = http_get(&node.internal, "/readyz").await.expect("the internal listener answers");
    let reasons: serde_json::Value = serde_json::from_str(&reasons).expect("JSON");
    assert_eq!(reasons, serde_json::json!({ "ready": false, "reasons": ["draining"] }));
    assert_eq!(get(&node.internal, "/healthz").await.status, 200);
    assert_eq!(node.metric("roomcast_ready").await, 0.0);

    let mut late = Client::connect(&node.url()).await.expect("new connections are served during the delay");
    assert_eq!(late.call_text("echo", "late").await.expect("calls too"), "late");
    assert!(signalled.elapsed() < DELAY, "this machine is too slow to tell");

    node.wait_until("new connections are refused", async || refuses_connections(node).await).await;
    assert!(signalled.elapsed() >= DELAY, "refused after {:?} already", signalled.elapsed());
    assert_eq!(get(&node.internal, "/healthz").await.status, 200);
    assert_eq!(get(&node.internal, "/readyz").await.status, 503);
    await_end(late, Use::Idle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_with_a_thousand_clients_leaves_nobody_without_a_close_and_no_call_without_an_outcome() {
    let time = |time: Duration| format!("{}ms", time.as_millis());
    let (delay, duration, timeout) = (time(DELAY), time(DURATION), time(TIMEOUT));
    let mut node =
        start_node(&["--demo", "--drain-delay", &delay, "--drain-duration", &duration, "--drain-timeout", &timeout])
            .await;
    let clients = connect_all(&node).await;
    wait_for_values(&node, &[(CONNECTIONS, CLIENTS as f64)]).await;
    let endings = use_all(clients).await;
    wait_for_values(&node, &[("roomcast_calls_in_flight", (SHORT_CALLS + ENDLESS_CALLS) as f64)]).await;

    let signalled = Instant::now();
    node.signal("TERM");
    let late = watch_from_outside(&node, signalled).await;
    let mut endings = in_time("every connection has ended", endings.join_all()).await;
    let status = node.exit().await;
    let took = signalled.elapsed();
    endings.push(late);

    assert_eq!(status.code(), Some(0));
    assert!(took >= TIMEOUT, "calls were in flight, and it ended after {took:?}");
    assert!(took < TIMEOUT + GRACE, "it ended only after {took:?}");
    for ending in &endings {
        assert_eq!(ending.close_code, Some(GOING_AWAY), "{ending:?}");
        match ending.of {
            Use::Idle => {}
            Use::ShortCall(_) => assert_eq!(ending.answer.as_deref(), Some(&b"done!"[..]), "{ending:?}"),
            Use::EndlessCall(_) => {
                assert_eq!(ending.answer, None, "{ending:?}");
                assert!(ending.at - signalled >= TIMEOUT, "cancelled before the deadline: {ending:?}");
            }
        }
    }
    assert_spread(&endings, signalled);
}

fn assert_spread(endings: &[Ending], signalled: Instant) {
    // Those with calls leave late anyway.
    let idle = || endings.iter().filter(|ending| ending.of == Use::Idle).map(|ending| ending.at);
    assert_eq!(idle().count(), CLIENTS - SHORT_CALLS - ENDLESS_CALLS + 1);
    let (first, last) = (idle().min().expect("an idle client"), idle().max().expect("an idle client"));
    assert!(first - signalled >= DELAY, "the first left after {:?} already", first - signalled);
    assert!(last - first >= DURATION / 2, "all left within {:?}", last - first);
    assert!(last - signalled < DELAY + DURATION + GRACE, "the last left only after {:?}", last - signalled);
}

/// More than the kernel holds for a client that does not read.
const ANSWERS: usize = 64;
const ANSWER_SIZE: usize = 512 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_flushes_what_a_client_has_not_read_yet() {
    let mut node = start_node(&[
        "--demo",
        "--max-outbound=1GiB",
        "--drain-delay=0s",
        "--drain-duration=0s",
        "--drain-timeout=10s",
    ])
    .await;
    let mut client = Client::connect(&node.url()).await.expect("the node serves");
    let mut watcher = Client::connect(&node.url()).await.expect("the node serves");
    let mut calls = Vec::new();
    for _ in 0..ANSWERS {
        calls.push(client.start("echo", vec![b'x'; ANSWER_SIZE]).await.expect("the node reads"));
    }
    let answered = ("roomcast_calls_total{method=\"echo\",outcome=\"ok\"}", ANSWERS as f64);
    wait_for_values(&node, &[answered]).await;
    assert!(node.metric("roomcast_outbound_queue_bytes").await > 0.0, "the kernel holds everything");

    node.signal("TERM");
    assert_eq!(watcher.closed().await.expect("a close").0, GOING_AWAY);
    let close = client.closed().await;
    let mut received = 0;
    for id in calls {
        received += usize::from(client.answer(id).await.is_ok_and(|answer| answer.len() == ANSWER_SIZE));
    }
    assert_eq!((received, close.map(|(code, _)| code).ok()), (ANSWERS, Some(GOING_AWAY)));
    assert_eq!(node.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_connection_that_is_upgraded_only_when_the_drain_runs_does_not_hold_the_node_until_its_deadline() {
    let mut node = start_node(&["--demo", "--drain-delay=0s", "--drain-duration=0s", "--drain-timeout=15s"]).await;
    let mut busy = Client::connect(&node.url()).await.expect("the node serves");
    let call = busy.start("long_runing_task", "").await.expect("the node serves");
    wait_for_values(&node, &[("roomcast_calls_in_flight", 1.0)]).await;
    let half = support::Bare::dial_in_two(&node.address).await;

    let signalled = Instant::now();
    node.signal("TERM");
    wait_until("connections are refused", async || refuses_connections(&node).await).await;
    let mut late = half.complete().await;
    assert_eq!(busy.answer(call).await.expect("the call ends in time"), "done!");
    late.end().await;
    assert_eq!(node.exit().await.code(), Some(0));
    assert!(signalled.elapsed() < DEADLINE / 2, "it ended only after {:?}", signalled.elapsed());
}

#[tokio::test]
async fn an_interrupted_node_does_not_wait_for_load_balancers() {
    let delay_beyond_the_test = ["--demo", "--drain-delay=10m", "--drain-timeout=11m"];
    let mut unused = start_node(&delay_beyond_the_test).await;
    unused.signal("INT");
    assert_eq!(unused.exit().await.code(), Some(0));

    let mut used = start_node(&delay_beyond_the_test).await;
    let mut client = Client::connect(&used.url()).await.expect("the node serves");
    let call = client.start("long", "").await.expect("the node serves");
    wait_for_values(&used, &[("roomcast_calls_in_flight", 1.0)]).await;
    used.signal("INT");
    wait_until("connections are refused", async || refuses_connections(&used).await).await;
    used.signal("INT");
    assert!(client.answer(call).await.is_err(), "the second signal waited for the call");
    assert_eq!(used.exit().await.code(), Some(0));
}

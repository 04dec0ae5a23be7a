//! Each scenario, small: against a healthy node all its thresholds pass, and what is special about it was done.

mod support;

use roomcast_testkit::{Node, RedisOptions, RedisServer};
use support::node_binary::start_node;
use support::results::Results;
use support::tool::{run_scenario, text, write_file};

/// The members of a room where no other number is said.
const MEMBERS: u64 = 10;

/// A chat of 50 connections in 5 rooms.
const CHAT: &[&str] = &["--connections=50", "--ramp=500", "--publish-rooms=5", "--publish-rate=200"];

/// Runs a scenario whose thresholds pass and which shows no fault at the nodes.
async fn run_at(nodes: &[&Node], scenario: &str, arguments: &[&str]) -> Results {
    let urls: Vec<_> = nodes.iter().flat_map(|node| ["--url".to_owned(), node.url()]).collect();
    let arguments: Vec<_> =
        [scenario].iter().chain(arguments).copied().chain(urls.iter().map(String::as_str)).collect();
    let name = scenario.rsplit('/').next().expect("a name");
    let (outcome, results) = run_scenario(&format!("scenario-{name}-{}.json", nodes.len()), &arguments).await;
    outcome.assert_code(0);
    assert_eq!(results.at("/passed"), true);
    assert_eq!(results.at("/ended_early"), false);
    results.assert_no_fault();
    results
}

/// What was done is about what was planned: a rate's first or last may be on either side of the edge.
#[track_caller]
fn assert_about(done: u64, planned: u64) {
    let edge = planned / 20;
    assert!((planned - edge..=planned + edge).contains(&done), "{done} were done, {planned} planned");
}

#[track_caller]
fn assert_all_connected(results: &Results, connections: u64) {
    assert_eq!(results.count("/ramp/connections"), connections);
    assert!(results.done("connect") >= connections, "{}", results.described());
}

#[tokio::test]
async fn connect_opens_connections_at_its_pace_and_holds_them() {
    let node = start_node(&[]).await;
    let options = ["--connections=100", "--ramp=200", "--duration=1s", "--sources=127.0.0.1,127.0.0.2"];
    let results = run_at(&[&node], "connect", &options).await;
    assert_all_connected(&results, 100);
    assert_eq!(results.done("connect"), 100);
    assert_eq!(results.count("/counts/connections_opened"), 100);
    assert_eq!(node.metric("roomcast_connections_opened_total").await, 100.0);
    // 200 a second: the last one is opened half a second after the first.
    assert!(results.number("/ramp/seconds") > 0.45, "{}", results.described());
    assert_eq!(results.at("/closes"), &serde_json::json!({}));
}

#[tokio::test]
async fn call_calls_at_its_rate() {
    let node = start_node(&[]).await;
    let results = run_at(&[&node], "call", &["--connections=20", "--call-rate=300", "--duration=2s"]).await;
    assert_about(results.done("call"), 600);
    assert_eq!(results.count("/counts/called"), results.done("call"));
    assert_eq!(node.metric("roomcast_calls_total{method=\"echo\",outcome=\"ok\"}").await, results.done("call") as f64);
}

#[tokio::test]
async fn methods_are_called_as_often_as_they_shall_be_among_the_others() {
    let node = start_node(&[]).await;
    let scenario = "connections = 20\nduration = \"2s\"\n[call]\nrate = 200\nmethods = { echo = 3, myip = 1 }\n";
    let file = write_file("methods.toml", scenario);
    let results = run_at(&[&node], text(&file), &[]).await;
    let echo = node.metric("roomcast_calls_total{method=\"echo\",outcome=\"ok\"}").await;
    let myip = node.metric("roomcast_calls_total{method=\"myip\",outcome=\"ok\"}").await;
    assert_eq!(results.count("/counts/called") as f64, echo + myip);
    // Of 400 calls; if it was by chance, one run in millions is further away.
    assert!((55.0..145.0).contains(&myip), "{myip} of {}", echo + myip);
}

#[tokio::test]
async fn cancel_cancels_waves_of_calls_and_waits_for_their_end() {
    let node = start_node(&[]).await;
    let options = ["--connections=10", "--cancel-calls=50", "--cancel-every=1s", "--cancel-after=200ms"];
    let results = run_at(&[&node], "cancel", &[&options[..], &["--duration=2500ms"]].concat()).await;
    let cancelled = results.count("/counts/cancelled");
    assert!(cancelled >= 50 && cancelled.is_multiple_of(50), "{}", results.described());
    assert!(results.done("cancel") > 0, "{}", results.described());
    assert_eq!(
        node.metric("roomcast_calls_total{method=\"long\",outcome=\"cancelled\"}").await,
        cancelled as f64,
        "they were cancelled by Resets, and not by the end of their connections"
    );
}

#[tokio::test]
async fn broadcast_reaches_all_connections_if_the_room_has_places_for_more() {
    let node = start_node(&[]).await;
    let results = run_at(&[&node], "broadcast", &["--connections=50", "--publish-rate=20", "--duration=2s"]).await;
    assert_about(results.count("/counts/published"), 40);
    results.assert_delivered_to(50);
}

#[tokio::test]
async fn members_come_and_go_in_a_churn() {
    let node = start_node(&[]).await;
    let churn = ["--churn-leaves=20", "--churn-reconnects=10", "--duration=3s"];
    let results = run_at(&[&node], "churn", &[CHAT, &churn].concat()).await;
    assert_all_connected(&results, 50);
    assert!(results.done("leave") > 40, "{}", results.described());
    assert!(results.done("join") > 50 + 40, "{}", results.described());
    assert!(results.count("/counts/connections_opened") > 50 + 20, "{}", results.described());
    assert!(results.count("/counts/delivered") > 0);
}

#[tokio::test]
async fn all_come_back_after_a_storm() {
    let node = start_node(&[]).await;
    let storm = ["--storm-every=1s", "--storm-spread=300ms", "--duration=2500ms"];
    let results = run_at(&[&node], "storm", &[CHAT, &storm].concat()).await;
    let reconnected = results.done("reconnect");
    assert!(reconnected >= 50 && reconnected.is_multiple_of(50), "{}", results.described());
    assert_eq!(results.count("/counts/connections_opened"), 50 + reconnected);
    // It was not the node that ended them.
    assert_eq!(results.at("/closes"), &serde_json::json!({}));
}

#[tokio::test]
async fn a_soak_has_a_bit_of_everything() {
    let node = start_node(&[]).await;
    let more = ["--call-rate=50", "--cancel-every=1s", "--cancel-calls=20", "--cancel-after=200ms"];
    let churn = ["--churn-leaves=10", "--churn-reconnects=5", "--duration=3s"];
    let results = run_at(&[&node], "soak", &[CHAT, &more, &churn].concat()).await;
    for operation in ["connect", "join", "leave", "publish", "delivery", "call", "cancel", "send_delay"] {
        assert!(results.done(operation) > 0, "{operation}: {}", results.described());
    }
}

/// A drained node's clients go to the other one, and get everything.
#[tokio::test]
async fn nothing_is_lost_while_a_node_is_drained() {
    let redis = RedisServer::start(RedisOptions::default()).await;
    let url = redis.url();
    let quickly = ["--redis", &url, "--drain-delay=0s", "--drain-duration=500ms", "--drain-timeout=2s"];
    let (mut drained, staying) = tokio::join!(start_node(&quickly), start_node(&quickly));

    let exec = format!("kill -TERM {}", drained.pid());
    let drain = ["--call-rate=50", "--exec", &exec, "--exec-after=1s", "--duration=4s"];
    let results = run_at(&[&drained, &staying], "drain", &[CHAT, &drain].concat()).await;
    assert_eq!(drained.exit().await.code(), Some(0));
    assert_all_connected(&results, 50);
    assert_eq!(results.count("/closes/1001"), 25, "half of them were there");
    assert!(results.done("reconnect") >= 25, "{}", results.described());
    assert!(staying.metric("roomcast_connections_opened_total").await >= 50.0);
    // The drain's spread is over.
    let mut after = results.list("/intervals").iter().filter(|interval| interval["at"].as_f64() > Some(1.6));
    assert!(after.any(|interval| interval["connections"] == 50), "{:#}", results.at("/intervals"));
    assert!(!results.list("/marks").is_empty(), "the drain's begin is in the plots");
    assert!(results.count("/counts/published") > 0);
}

#[tokio::test]
async fn connections_go_to_several_urls_in_turn() {
    let (one, other) = tokio::join!(start_node(&[]), start_node(&[]));
    let results = run_at(&[&one, &other], "connect", &["--connections=30", "--duration=1s"]).await;
    assert_all_connected(&results, 30);
    for node in [&one, &other] {
        assert_eq!(node.metric("roomcast_connections_opened_total").await, 15.0);
        assert!(results.list("/urls").contains(&node.url().into()));
    }
}

/// Members of one room are in both.
#[tokio::test]
async fn what_two_processes_count_adds_up() {
    let node = start_node(&[]).await;
    let results = run_at(&[&node], "chat", &[CHAT, &["--processes=2", "--duration=2s"]].concat()).await;
    assert_eq!(results.count("/processes"), 2);
    assert_all_connected(&results, 50);
    assert_eq!(results.done("connect"), 50);
    assert_eq!(results.done("join"), 50);
    assert_about(results.count("/counts/published"), 400);
    assert_eq!(results.done("publish"), results.count("/counts/published"));
    assert_eq!(results.done("delivery"), results.count("/counts/delivered"));
    results.assert_delivered_to(MEMBERS);
    let node_published = node.metric("roomcast_publishes_total{outcome=\"ok\"}").await;
    assert_eq!(node_published, results.count("/counts/published") as f64);
}

#[tokio::test]
async fn what_a_node_says_about_itself_is_kept() {
    let node = start_node(&[]).await;
    let metrics = format!("http://{}/metrics", node.internal);
    let options = ["--connections=20", "--call-rate=100", "--duration=2500ms", "--metrics", &metrics];
    let results = run_at(&[&node], "call", &options).await;
    let [series] = results.list("/nodes") else { panic!("one node's: {}", results.at("/nodes")) };
    assert_eq!((series["url"].as_str(), series["failed"].as_u64()), (Some(&*metrics), Some(0)));
    let samples = series["samples"].as_array().expect("a list");
    let while_measured = samples.iter().filter(|sample| sample["at"].as_f64() >= Some(0.0));
    assert!(while_measured.count() >= 2, "every second: {samples:#?}");
    // By its name without labels.
    assert!(samples.iter().any(|sample| sample["values"]["roomcast_connections"] == 20.0), "{samples:#?}");
    assert!(results.number("/cost/node_us_per_message") >= 0.0);
    assert!(results.at("/ramp/node_bytes_per_connection").is_number());
}

#[tokio::test]
async fn a_node_that_dies_fails_the_run_and_does_not_hold_it() {
    let node = start_node(&[]).await;
    let (url, exec) = (node.url(), format!("kill -KILL {}", node.pid()));
    let options = ["call", "--connections=20", "--call-rate=100", "--duration=3s", "--timeout=1s", "--settle=1s"];
    let options = [&options[..], &["--exec", &exec, "--exec-after=1s", "--url", &url]].concat();
    let (outcome, results) = run_scenario("died.json", &options).await;
    outcome.assert_code(1);
    results.assert_no_fault();
    assert_eq!(results.count("/closes/lost"), 20);
    assert!(results.count("/counts/no_response") >= 20, "{}", results.described());
    assert!(results.count("/counts/called") > 50, "{}", results.described());
    assert!(results.count("/counts/unsent") > 100, "{}", results.described());
    assert_eq!(results.failed_thresholds(), ["errors=0", "unsent=0", "no_response=0"]);
}

//! What is planned is done, however late, or counted as not done. Who waits for an answer before the next call
//! sees but a few slow ones while a node stands still, and reports percentiles that nobody has lived through.

mod support;

use std::time::Duration;

use support::node_binary::start_node;
use support::results::Results;
use support::tool::{Tool, new_file, run_scenario, text, write_file};
use tokio::time::sleep;

const CALL: &[&str] = &["call", "--connections=10", "--call-rate=200"];

/// What was planned in so many seconds is about what was done or not sent.
#[track_caller]
fn assert_nothing_is_forgotten(results: &Results, seconds: u64) {
    let planned = 200 * seconds;
    let known = results.count("/counts/called") + results.count("/counts/unsent");
    assert!((planned - 5..=planned + 5).contains(&known), "{known} of {planned}: {}", results.described());
}

#[tokio::test]
async fn calls_planned_while_the_node_stood_still_are_late() {
    let node = start_node(&[]).await;
    let pid = node.pid();
    let script = write_file("stop.sh", &format!("kill -STOP {pid}\nsleep 1\nkill -CONT {pid}\n"));
    let (url, exec) = (node.url(), format!("sh {}", text(&script)));
    let options = ["--duration=4s", "--exec", &exec, "--exec-after=1s", "--url", &url];
    let (outcome, results) = run_scenario("node-stood-still.json", &[CALL, &options].concat()).await;
    outcome.assert_code(0);
    assert_nothing_is_forgotten(&results, 4);
    assert_eq!(results.count("/counts/unsent"), 0);
    // A quarter of them, by up to a second: a tenth is later than 0.6 s.
    assert!(results.number("/operations/call/p90") > 400_000.0, "{}", results.described());
}

#[tokio::test]
async fn what_is_answered_after_its_time_is_an_error_and_no_fault() {
    let node = start_node(&[]).await;
    let pid = node.pid();
    let script = write_file("stop-for-long.sh", &format!("kill -STOP {pid}\nsleep 1.5\nkill -CONT {pid}\n"));
    let (url, exec) = (node.url(), format!("sh {}", text(&script)));
    let chat = ["chat", "--connections=50", "--publish-rooms=5", "--publish-rate=100", "--call-rate=100"];
    let churn = ["--churn-leaves=50", "--timeout=500ms", "--threshold=errors>=0"];
    let any = ["--threshold=unsent>=0", "--threshold=no_response>=0"];
    let options = ["--duration=4s", "--exec", &exec, "--exec-after=1s", "--url", &url];
    let (outcome, results) = run_scenario("answered-late.json", &[&chat[..], &churn, &any, &options].concat()).await;
    outcome.assert_code(0);
    for name in ["publish timed out", "call timed out", "leave timed out"] {
        assert!(results.count(&format!("/errors/{name}")) > 0, "{name}: {}", results.described());
    }
    let errors = results.at("/errors").as_object().expect("errors by name");
    let late = errors.iter().filter(|(name, _)| name.ends_with("timed out")).filter_map(|(_, count)| count.as_u64());
    assert_eq!(results.count("/counts/no_response"), late.sum::<u64>(), "{}", results.described());
}

/// Stops the tool in the middle of a run that measures so long, and lets it go on after a while.
async fn stop_the_tool(file: &str, measured: &str, stopped: Duration) -> Results {
    let node = start_node(&[]).await;
    let (url, json) = (node.url(), new_file(file));
    let options = ["--quiet", "--processes=2", "--duration", measured, "--url", &url, "--json", text(&json)];
    let tool = Tool::start(&[&["run"], CALL, &options].concat());
    let called = async || node.metric("roomcast_calls_total{method=\"echo\",outcome=\"ok\"}").await;
    node.wait_until("it calls", async || called().await > 50.0).await;
    tool.signal_all("STOP");
    // This is not waiting for something: it is what happens to the tool. Its generators are stopped longest.
    sleep(stopped).await;
    tool.signal("CONT");
    sleep(Duration::from_millis(200)).await;
    tool.signal_all("CONT");
    let outcome = tool.end().await;
    Results::read(&json).unwrap_or_else(|| panic!("there are no results: {}", outcome.printed()))
}

#[tokio::test]
async fn calls_planned_while_the_generator_stood_still_are_late() {
    let results = stop_the_tool("tool-stood-still.json", "3s", Duration::from_secs(1)).await;
    assert_nothing_is_forgotten(&results, 3);
    for operation in ["call", "send_delay"] {
        let longest = results.number(&format!("/operations/{operation}/max"));
        assert!(longest > 900_000.0, "{operation}: {}", results.described());
    }
}

#[tokio::test]
async fn calls_planned_while_the_generator_stood_still_until_the_end_are_late_or_unsent() {
    let results = stop_the_tool("tool-stood-still-until-the-end.json", "2s", Duration::from_secs(3)).await;
    assert_nothing_is_forgotten(&results, 2);
}

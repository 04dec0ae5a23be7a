//! The command line: what it reads, what it refuses, when it ends, and what it writes.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use roomcast_testkit::{Client, Node, free_port};
use serde_json::{Value, json};
use support::node_binary::start_node;
use support::results::Results;
use support::tool::{DEADLINE, Tool, new_file, run, run_scenario, text, write_file};
use tokio::time::sleep;

const CALLS: &[&str] = &["run", "call", "--quiet", "--connections=20", "--call-rate=200"];

const BUILT_IN: [&str; 9] = ["connect", "call", "cancel", "broadcast", "chat", "churn", "storm", "drain", "soak"];

const ECHOED: &str = "roomcast_calls_total{method=\"echo\",outcome=\"ok\"}";

// === how a run ends ===

/// Interrupts a run of two processes.
async fn interrupt(name: &str, signal: impl FnOnce(&Tool)) {
    let node = start_node(&[]).await;
    let (json, html) = (new_file(&format!("{name}.json")), new_file(&format!("{name}.html")));
    let files = ["--json", text(&json), "--html", text(&html)];
    // Much longer than anybody here waits.
    let options = ["--processes=2", "--duration=10m", "--url", &node.url()];
    let tool = Tool::start(&[CALLS, &options, &files].concat());
    node.wait_until("it calls", async || node.metric(ECHOED).await > 100.0).await;
    signal(&tool);
    let outcome = tool.end().await;
    outcome.assert_code(0);
    let results = Results::read(&json).expect("results are written");
    assert_eq!(results.at("/ended_early"), true);
    results.assert_no_fault();
    let called = results.count("/counts/called");
    assert!((101.0..=node.metric(ECHOED).await).contains(&(called as f64)), "{called}");
    assert!(std::fs::read_to_string(html).expect("a report is written").contains("<svg"));
}

#[tokio::test]
async fn a_run_that_is_interrupted_ends_soon_and_reports() {
    tokio::join!(
        interrupt("interrupted", |tool| tool.signal_all("INT")),
        interrupt("terminated", |tool| tool.signal("TERM")),
    );
}

#[tokio::test]
async fn a_run_that_is_interrupted_twice_ends_at_once() {
    let node = start_node(&[]).await;
    // Much longer than anybody here waits.
    let options = ["--timeout=10m", "--settle=10m", "--duration=10m", "--url", &node.url()];
    let mut tool = Tool::start(&[CALLS, &options].concat());
    node.wait_until("it calls", async || node.metric(ECHOED).await > 100.0).await;
    // Now calls are under way that are never answered.
    node.signal("STOP");
    let started = Instant::now();
    while tool.is_running() {
        assert!(started.elapsed() < DEADLINE, "it waits for answers");
        tool.signal_all("INT");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_url_where_nobody_listens_fails_the_run() {
    let address = format!("127.0.0.1:{}", free_port());
    let url = format!("ws://{address}/socket");
    let outcome = run(&[CALLS, &["--duration=1s", "--timeout=1s", "--url", &url]].concat()).await;
    // Its connections are errors, or it says that it can't be made.
    assert!(matches!(outcome.code, Some(1 | 2)), "{}", outcome.printed());
    assert!(outcome.printed().contains(&address), "{}", outcome.printed());
}

#[tokio::test]
async fn calls_that_fail_are_errors_and_fail_the_run_unless_a_threshold_allows_them() {
    let node = start_node(&[]).await;
    let scenario = "connections = 10\nduration = \"1s\"\n[call]\nrate = 100\nmethods = { echo = 1, nonsense = 1 }\n";
    let file = write_file("errors.toml", scenario);
    let (outcome, results) = run_scenario("errors.json", &[text(&file), "--url", &node.url()]).await;
    outcome.assert_code(1);
    results.assert_no_fault();
    let failed = results.count("/errors/call NOT_FOUND");
    assert!(failed > 10, "{}", results.described());
    assert!(outcome.stdout.contains("call NOT_FOUND"), "{}", outcome.printed());
    assert_eq!(node.metric(ECHOED).await, results.count("/counts/called") as f64);

    let arguments = [text(&file), "--url", &node.url(), "--threshold", "errors>=10"];
    let (outcome, results) = run_scenario("errors-allowed.json", &arguments).await;
    outcome.assert_code(0);
    assert!(results.count("/errors/call NOT_FOUND") > 10, "{}", results.described());
}

#[tokio::test]
async fn a_run_whose_program_fails_has_tested_nothing() {
    let node = start_node(&[]).await;
    let options =
        ["call", "--duration=1s", "--exec-after=100ms", "--exec=false", "--threshold=errors>=0", "--url", &node.url()];
    let (outcome, _) = run_scenario("exec-fails.json", &options).await;
    outcome.assert_code(1);
    assert!(outcome.stdout.contains("exec succeeds"), "{}", outcome.printed());
}

#[tokio::test]
async fn thresholds_say_what_a_run_must_keep() {
    let node = start_node(&[]).await;
    let scenario = "
        connections = 20
        duration = \"1s\"
        thresholds = [
            \"p50<10s\", \"p90<10000ms\", \"p99<=10s\", \"p999<10s\", \"max<10000000us\", \"mean>0us\", \"call.p99<10s\",
            \"publish.max<10s\", \"connect.mean<10s\", \"connections=20\", \"published>10\", \"delivered>=100\",
            \"called>10\", \"cancelled=0\", \"unexpected=0\", \"publish.rate>10\", \"delivery.rate>10\", \"call.rate>10\",
            \"generator_busy<100\", \"lost=0\", \"errors<1\",
        ]
        [publish]
        rate = 50
        rooms = 2
        [call]
        rate = 50
    ";
    let file = write_file("thresholds.toml", scenario);
    let (outcome, results) = run_scenario("thresholds.json", &[text(&file), "--url", &node.url()]).await;
    outcome.assert_code(0);
    assert!(results.list("/thresholds").len() > 21, "{:#}", results.at("/thresholds"));
    assert_eq!(results.failed_thresholds(), [""; 0]);

    let more = ["--threshold", "connections>20", "--threshold", "called<1", "--url", &node.url()];
    let (outcome, results) = run_scenario("thresholds.json", &[&[text(&file)], &more[..]].concat()).await;
    outcome.assert_code(1);
    assert_eq!(results.failed_thresholds(), ["connections>20", "called<1"]);
    assert_eq!(results.threshold("connections>20")["found"], "20");
    assert!(outcome.stdout.contains("connections>20"), "{}", outcome.printed());
}

#[tokio::test]
async fn what_others_publish_is_counted_and_no_fault() {
    let node = start_node(&[]).await;
    let json = new_file("unexpected.json");
    let idle = ["run", "connect", "--quiet", "--connections=20", "--duration=2s", "--json", text(&json)];
    let tool = Tool::start(&[&idle[..], &["--url", &node.url()]].concat());
    let connected = async || node.metric("roomcast_connections{protocol=\"websocket.io-rpc-v0.1\"}").await;
    node.wait_until("all are connected", async || connected().await == 20.0).await;
    let mut other = Client::connect(&node.url()).await.expect("the node serves");
    for _ in 0..3 {
        other.notify("broadcast", "hello").await.expect("the node serves");
    }
    let outcome = tool.end().await;
    outcome.assert_code(0);
    let results = Results::read(&json).expect("results are written");
    results.assert_no_fault();
    assert_eq!(results.count("/counts/unexpected"), 60);
    assert_eq!(results.count("/counts/delivered"), 0);
}

#[tokio::test]
async fn a_node_with_tls_is_trusted_by_its_ca_certificate_only() {
    let (cert, key) = (new_file("cert.pem"), new_file("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", text(&cert), "-keyout", text(&key)]);
    let made = openssl.output().expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let node = start_node(&["--tls-cert", text(&cert), "--tls-key", text(&key)]).await;
    let url = format!("wss://{}/socket", node.address);

    let arguments = ["call", "--connections=20", "--call-rate=100", "--duration=1s", "--url", &url];
    let trusting = [&arguments[..], &["--ca", text(&cert)]].concat();
    let strange = [&["run"], &arguments[..], &["--quiet", "--timeout=1s"]].concat();
    let ((trusted, results), refused) = tokio::join!(run_scenario("tls.json", &trusting), run(&strange));
    trusted.assert_code(0);
    assert!(results.count("/counts/called") > 50);
    assert!(matches!(refused.code, Some(1 | 2)), "{}", refused.printed());
    assert_eq!(node.metric(ECHOED).await, results.count("/counts/called") as f64);
}

// === what is refused ===

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_name() {
    let url = "ws://127.0.0.1:9/socket";
    let unknown_key = write_file("unknown-key.toml", "conections = 5\n");
    let bad_value = write_file("bad-value.toml", "duration = \"5 parsecs\"\n");
    let bad_toml = write_file("bad.toml", "connections = = 5\n");
    let cases: [(&[&str], &str); 17] = [
        (&["nonsense", "--url", url], "nonsense"),
        (&["no-such-file.toml", "--url", url], "no-such-file.toml"),
        (&[text(&unknown_key), "--url", url], "conections"),
        (&[text(&bad_value), "--url", url], "5 parsecs"),
        (&[text(&bad_toml), "--url", url], "bad.toml"),
        (&["chat", "--url", url, "--duration", "5 parsecs"], "5 parsecs"),
        (&["chat", "--url", url, "--publish-rate", "many"], "many"),
        (&["chat", "--url", url, "--publish-payload", "7"], "7"),
        (&["chat", "--url", url, "--nonsense"], "--nonsense"),
        (&["chat", "--url", url, "--threshold", "p98<5ms"], "p98<5ms"),
        (&["chat", "--url", url, "--threshold", "p99<5 parsecs"], "p99<5 parsecs"),
        (&["chat", "--url", url, "--threshold", "errors"], "errors"),
        (&["chat", "--url", "http://127.0.0.1:9/socket"], "http://127.0.0.1:9/socket"),
        (&["chat", "--url", url, "--ca", "no-such-file.pem"], "no-such-file.pem"),
        // Not only when the run is over.
        (&["chat", "--url", url, "--json", "no-such-directory/a.json"], "no-such-directory/a.json"),
        (&["chat", "--url", url, "--html", "no-such-directory/a.html"], "no-such-directory/a.html"),
        (&["chat"], "--url"),
    ];
    for (arguments, word) in cases {
        run(&[&["run", "--quiet"], arguments].concat()).await.assert_refused(&[word]);
    }
}

#[tokio::test]
async fn a_text_that_looks_like_something_else_is_still_a_text() {
    let node = start_node(&[]).await;
    for text in ["2026", "true", "[1]", "a \"quoted\" 'name'"] {
        let arguments = ["connect", "--connections=1", "--duration=1s", "--name", text, "--url", &node.url()];
        let (outcome, results) = run_scenario("name.json", &arguments).await;
        outcome.assert_code(0);
        assert_eq!(results.at("/scenario/name"), text);
    }
}

#[tokio::test]
async fn results_that_are_none_are_refused_by_their_names() {
    let files = [("nothing.json", "{}"), ("old.json", "{\"format\": 1}"), ("other.json", "{\"format\": 987}")];
    let [nothing, old, other] = files.map(|(name, content)| {
        let file = write_file(name, content);
        text(&file).to_owned()
    });
    for command in [&["report"][..], &["curve", "refused.svg"]] {
        run(&[command, &[&nothing]].concat()).await.assert_refused(&["nothing.json"]);
        run(&[command, &[&old]].concat()).await.assert_refused(&["old.json", "format 1", "reads format 2"]);
        run(&[command, &[&other]].concat()).await.assert_refused(&["other.json", "987"]);
        run(&[command, &["no-such-file.json"]].concat()).await.assert_refused(&["no-such-file.json"]);
    }
    run(&["scenarios", "nonsense"]).await.assert_refused(&["nonsense"]);
    run(&["nonsense"]).await.assert_refused(&["nonsense"]);
}

// === what is printed and written ===

#[tokio::test]
async fn scenarios_are_listed_and_printed() {
    let listed = run(&["scenarios"]).await;
    listed.assert_code(0);
    for name in BUILT_IN {
        assert!(listed.stdout.contains(name), "{}", listed.stdout);
        let printed = run(&["scenarios", name]).await;
        printed.assert_code(0);
        assert!(printed.stdout.contains(&format!("name = \"{name}\"")), "{}", printed.stdout);
    }
    let defaults = run(&["scenarios", "defaults"]).await;
    defaults.assert_code(0);
    assert_eq!(defaults.stdout.trim(), include_str!("../scenarios/defaults.toml").trim());
}

#[tokio::test]
async fn results_that_are_printed_can_be_read_again() {
    let node = start_node(&[]).await;
    let outcome = run(&[CALLS, &["--duration=1s", "--json=-", "--url", &node.url()]].concat()).await;
    outcome.assert_code(0);
    let results: Value = serde_json::from_str(&outcome.stdout).expect("nothing but JSON");
    assert_eq!(results["format"], 2);
    assert!(results["counts"]["called"].as_u64() > Some(100));

    // As a log holds them.
    let log = write_file("printed.json", &format!("{}{}", outcome.stderr, outcome.stdout));
    let report = run(&["report", text(&log)]).await;
    report.assert_code(0);
    assert!(report.stdout.contains("p99"), "{}", report.stdout);
}

/// A page that shows everything without asking anybody for anything.
#[track_caller]
fn assert_self_contained(html: &str, node: &Node) {
    assert!(html.contains("<svg"), "there are plots");
    for word in ["<link", "@import", "src=\"", "src='", "fetch("] {
        for (at, _) in html.match_indices(word) {
            let rest: String = html[at + word.len()..].chars().take(80).collect();
            assert!(word.starts_with("src") && rest.starts_with("data:"), "{word}{rest}");
        }
    }
    for (at, _) in html.match_indices("://") {
        let scheme = html[..at].rfind(|letter: char| !letter.is_ascii_alphabetic()).map_or(0, |before| before + 1);
        let url: String = html[scheme..].chars().take(60).collect();
        let tested = url[at + 3 - scheme..].starts_with(&node.address) || url.contains(&node.internal);
        assert!(tested || url.starts_with("http://www.w3.org/"), "{url}");
    }
}

/// A short run of two steps; its JSON and its HTML file.
async fn run_steps(node: &Node, name: &str, rate: u32) -> (String, String) {
    let scenario = format!(
        "name = \"{name}\"\nconnections = 20\nduration = \"1s\"\nsteps = [0.5, 1]\nstop_at_knee = false\nknee = \"10s\"\n\
         [publish]\nrate = {rate}\nrooms = 2\n"
    );
    let file = write_file(&format!("{name}.toml"), &scenario);
    let (json, html) = (new_file(&format!("{name}.json")), new_file(&format!("{name}.html")));
    let metrics = format!("http://{}/metrics", node.internal);
    let files = ["--json", text(&json), "--html", text(&html)];
    let arguments = ["run", text(&file), "--quiet", "--url", &node.url(), "--metrics", &metrics];
    run(&[&arguments[..], &files].concat()).await.assert_code(0);
    (text(&json).to_owned(), text(&html).to_owned())
}

#[tokio::test]
async fn reports_and_curves_show_one_run_or_compare_several() {
    let (one_node, other_node) = tokio::join!(start_node(&[]), start_node(&[]));
    let ((slow, slow_html), (fast, _)) =
        tokio::join!(run_steps(&one_node, "slow", 100), run_steps(&other_node, "fast", 300));

    let results = Results::read(slow.as_ref()).expect("results are written");
    assert_eq!(results.list("/steps").iter().map(|step| &step["load"]).collect::<Vec<_>>(), [&json!(0.5), &json!(1.0)]);
    for (step, rate) in [(0, 50.0), (1, 100.0)] {
        let offered = results.number(&format!("/steps/{step}/offered"));
        assert!((offered - rate).abs() < rate / 10.0, "{offered} of {rate}");
        let time = results.number(&format!("/steps/{step}/until")) - results.number(&format!("/steps/{step}/from"));
        assert!((0.9..1.5).contains(&time), "each step has the duration, not {time} s");
    }
    assert_eq!(results.at("/scenario/name"), "slow");

    let html = std::fs::read_to_string(&slow_html).expect("a report is written");
    assert_self_contained(&html, &one_node);
    let again = new_file("again.html");
    let report = run(&["report", &slow, "--html", text(&again)]).await;
    report.assert_code(0);
    assert!(report.stdout.contains("slow") && report.stdout.contains("p99"), "{}", report.stdout);
    assert!(html == std::fs::read_to_string(again).expect("it is written"), "the report is another one");

    let comparison = run(&["report", &slow, &fast]).await;
    comparison.assert_code(0);
    assert!(comparison.stdout.contains("slow") && comparison.stdout.contains("fast"), "{}", comparison.stdout);

    let svg = new_file("curve.svg");
    run(&["curve", text(&svg), &slow, &fast]).await.assert_code(0);
    let svg = std::fs::read_to_string(svg).expect("it is written");
    assert!(svg.contains("<svg") && svg.contains("</svg>"), "{svg}");
    assert!(svg.contains("slow") && svg.contains("fast"), "lines have labels: {svg}");
}

/// The knee is the last step before one that is too slow; here even the first one is.
#[tokio::test]
async fn steps_after_the_knee_are_left_out() {
    let node = start_node(&[]).await;
    let scenario = "connections = 10\nduration = \"1s\"\nsteps = [1, 2, 3]\nknee = \"1us\"\n[call]\nrate = 50\n";
    let file = write_file("knee.toml", scenario);
    let (outcome, results) = run_scenario("knee.json", &[text(&file), "--url", &node.url()]).await;
    outcome.assert_code(0);
    assert_eq!((results.list("/steps").len(), results.at("/knee")), (1, &Value::Null), "even the first is over it");
    let time = Duration::from_secs_f64(results.number("/seconds"));
    assert!(time < Duration::from_secs(2), "one step, not {time:?}");
}

//! The Helm chart against the node that it deploys.

mod support;

use std::process::Command;

use roomcast_testkit::{JwksReply, JwksServer};
use support::{run, write_file};

const CHART: &str = include_str!("../../../helm/roomcast/Chart.yaml");
const AUTH_TESTS: &str = include_str!("../../../helm/roomcast/tests/auth_test.yaml");
const SCHEMA_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/schema");

#[test]
fn the_charts_schema_is_made_of_the_nodes_options() {
    let mut script = Command::new("python3");
    let output = script.args([SCHEMA_SCRIPT, "--check"]).env("ROOMCAST_BIN", env!("CARGO_BIN_EXE_roomcast")).output();
    let output = output.expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_chart_installs_this_version() {
    let version = concat!("appVersion: ", env!("CARGO_PKG_VERSION"));
    assert!(CHART.lines().any(|line| line == version), "Chart.yaml has not {version:?}");
}

/// The block of YAML with the file that the chart makes of its values.
fn file_of_the_chart() -> String {
    let (_, block) = AUTH_TESTS.split_once("          value: |\n").expect("the chart's test has the file");
    let lines = block.lines().map(|line| line.strip_prefix("            ").or(line.is_empty().then_some("")));
    lines.map_while(|line| line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_accepts_the_file_that_the_chart_makes_of_its_values() {
    let keys = r#"{"keys": [{"kty": "RSA", "n": "KEY", "e": "AQAB"}]}"#.replace("KEY", &("u".repeat(341) + "w"));
    let server = JwksServer::start_plain(JwksReply::Body(keys)).await;
    let secret = write_file("chart-secret", &"s".repeat(32));
    let file = file_of_the_chart();
    assert!(file.contains("[[auth.issuer]]") && file.contains("[[role]]"), "{file}");
    let file = file
        .replace("https://id.example.org/realms/app/protocol/openid-connect/certs", &server.url)
        .replace("/etc/roomcast/issuers/secret", &secret);
    let output = run(&["check", "--config", &write_file("chart.toml", &file)], &[]);
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}");
    for part in ["https://id.example.org/realms/app, https://backend.example.org", "member, guest", "are allowed"] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
}

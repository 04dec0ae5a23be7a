//! The Helm chart against the node that it deploys.

use std::process::Command;

const CHART: &str = include_str!("../../../helm/roomcast/Chart.yaml");
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

//! The Helm chart against the node that it deploys.

use std::collections::BTreeSet;
use std::process::Command;

/// What the chart sets itself, from values of its own.
const SET_BY_CHART: &[&str] =
    &["listen", "internal_listen", "tls_cert", "tls_key", "redis", "redis_ca", "cluster_secret", "api_key"];

const CHART: &str = include_str!("../../../helm/roomcast/Chart.yaml");
const SCHEMA: &str = include_str!("../../../helm/roomcast/values.schema.json");

#[test]
fn the_chart_takes_every_option_that_it_does_not_set_itself() {
    let expected: BTreeSet<String> =
        options().into_iter().filter(|key| !SET_BY_CHART.contains(&key.as_str())).collect();
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let mut taken = BTreeSet::new();
    for (key, value) in schema["properties"]["config"]["properties"].as_object().expect("config has properties") {
        match value["properties"].as_object() {
            Some(table) => taken.extend(table.keys().map(|inner| format!("{key}.{inner}"))),
            None => drop(taken.insert(key.clone())),
        }
    }
    assert_eq!(taken, expected, "left: values.schema.json; right: the node");
}

#[test]
fn the_chart_installs_this_version() {
    let version = concat!("appVersion: ", env!("CARGO_PKG_VERSION"));
    assert!(CHART.lines().any(|line| line == version), "Chart.yaml has not {version:?}");
}

/// The options' keys, as `roomcast check` prints them.
fn options() -> BTreeSet<String> {
    let mut roomcast = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    let output = roomcast.arg("check").env_clear().output().expect("roomcast starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("it prints UTF-8");
    said.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.trim_end().to_owned()).collect()
}

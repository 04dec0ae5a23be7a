//! A run's report as a page that needs nothing besides itself.

use crate::format::{self, escaped};
use crate::results::{NodeSeries, Results, ThresholdResult, main_operation};

use super::plots::{self, Plot, Size};
use super::{keys, summary, tables, verdict};

/// The whole page.
pub(crate) fn html(results: &Results) -> String {
    let body = [
        header(results),
        section("Key figures", &key_figures(results)),
        section("Run", &what_was_run(results)),
        section("Operations", &tables::operations(results).html()),
        section("Percentiles", &figures(&[plots::percentiles(results)])),
        section("Capacity", &capacity(results)),
        section("Over time", &figures(&plots::over_time(results))),
        section("Node metrics", &node_metrics(results)),
        section("Counts", &numbers(results)),
        section("Scenario", &scenario(results)),
    ];
    let (name, css) =
        (escaped(&results.scenario.name), concat!(include_str!("plots/plot.css"), include_str!("page.css")));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name}</title>\n<style>\n{css}</style></head>\n<body>\n{}</body>\n</html>\n",
        body.concat()
    )
}

/// Nothing without content.
fn section(title: &str, content: &str) -> String {
    if content.is_empty() { String::new() } else { format!("<section><h2>{title}</h2>\n{content}</section>\n") }
}

fn header(results: &Results) -> String {
    let (class, word) = if results.passed { ("passed", "PASSED") } else { ("failed", "FAILED") };
    let thresholds: String = results.thresholds.iter().map(threshold).collect();
    let doubts = verdict::doubts(results);
    let doubts: String = doubts.iter().map(|doubt| format!("<p class=\"doubt\">{}</p>\n", escaped(doubt))).collect();
    let name = escaped(&results.scenario.name);
    format!(
        "<header class=\"{class}\"><h1>{name} <b>{word}</b></h1>\n<ul class=\"thresholds\">{thresholds}</ul></header>\n{doubts}"
    )
}

fn threshold(result: &ThresholdResult) -> String {
    let class = if result.passed { "passed" } else { "failed" };
    let (text, found) = (escaped(&result.threshold), escaped(&result.found));
    format!("<li class=\"{class}\" title=\"{class}\"><code>{text}</code> {found}</li>\n")
}

fn key_figures(results: &Results) -> String {
    let mut figures = Vec::new();
    if let Some((operation, latency)) =
        main_operation(&results.operations).and_then(|main| results.operations.get_key_value(&main))
    {
        let name = operation.name();
        figures.push((format::time(latency.p50 as f64), format!("{name}, median")));
        figures.push((format::time(latency.p99 as f64), format!("{name}, 99th percentile")));
        let rate = tables::rate(*operation, latency, results.seconds);
        figures.extend(rate.map(|rate| (format::per_second(rate), format!("{name}, rate"))));
    }
    if let Some(knee) = results.knee.and_then(|knee| results.steps.get(knee)) {
        figures.push((format::per_second(knee.offered), "offered at the knee".into()));
    }
    figures.push((format::count(results.ramp.connections), "connections".into()));
    figures.push((format::per_second(results.ramp.connections_per_second), "connections opened".into()));
    let memory = results.ramp.node_bytes_per_connection;
    figures.extend(memory.map(|memory| (format::bytes(memory), "node memory per connection".into())));
    let cpu = results.cost.node_us_per_message;
    figures.extend(cpu.map(|micros| (format::time(micros), "node CPU per message".into())));
    figures.push((format::count(results.faults.total()), "faults".into()));
    let figures: String = figures.iter().map(|(value, name)| format!("<li><b>{value}</b> {name}</li>\n")).collect();
    format!("<ul class=\"figures\">{figures}</ul>\n<p>{}</p>\n", summary::faults(&results.faults))
}

fn what_was_run(results: &Results) -> String {
    let own = keys::own_keys(&results.scenario);
    let own: Vec<String> = own.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let facts = [
        ("started", results.started.clone()),
        ("measured", format::elapsed(results.seconds)),
        ("connections", summary::connections(results)),
        ("to", results.urls.join(", ")),
        ("by", summary::generators(results)),
        ("scenario", own.join(", ")),
    ];
    let facts = facts.iter().map(|(name, fact)| format!("<dt>{name}</dt><dd>{}</dd>\n", escaped(fact)));
    format!("<dl>{}</dl>\n", facts.collect::<String>())
}

fn figures(plots: &[Plot]) -> String {
    let plots: String = plots.iter().filter_map(Plot::svg).map(|svg| format!("<figure>{svg}</figure>\n")).collect();
    if plots.is_empty() { plots } else { format!("<div class=\"plots\">{plots}</div>\n") }
}

fn capacity(results: &Results) -> String {
    if results.steps.len() < 2 {
        return String::new();
    }
    let plot = Plot { size: Size::WIDE, ..plots::capacity([results].into_iter()) };
    figures(&[plot]) + &tables::steps(results).html()
}

fn node_metrics(results: &Results) -> String {
    if results.nodes.is_empty() {
        return String::new();
    }
    let legend: String = results.nodes.iter().enumerate().map(|(index, node)| legend(index, node)).collect();
    let figures = figures(&plots::of_nodes(results));
    let unchanged = escaped(&plots::unchanged(results).join(", "));
    let unchanged = if unchanged.is_empty() { unchanged } else { format!("<p>Unchanged: {unchanged}.</p>\n") };
    format!("<ul class=\"legend\">{legend}</ul>\n<div class=\"small\">{figures}</div>\n{unchanged}")
}

fn legend(index: usize, node: &NodeSeries) -> String {
    let (class, label) = (plots::class(index), escaped(plots::label(node)));
    let line = format!("<path class=\"line {class}\" d=\"M0,4h14\"/>");
    format!("<li><svg class=\"plot\" viewBox=\"0 0 14 8\">{line}</svg> {label}</li>\n")
}

fn numbers(results: &Results) -> String {
    let rooms = tables::faulty_rooms(results, results.faulty_rooms.len());
    let tables =
        [rooms, tables::errors(results), tables::closes(results), tables::counts(results), tables::cost(results)];
    format!("<div class=\"tables\">{}</div>\n", tables.map(|table| table.html()).concat())
}

fn scenario(results: &Results) -> String {
    let text = toml::to_string(&results.scenario).unwrap_or_default();
    // Lines stay lines.
    let lines: Vec<String> = text.lines().map(escaped).collect();
    format!("<pre>{}</pre>\n", lines.join("\n"))
}

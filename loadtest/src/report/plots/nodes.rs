//! Plots of what the nodes said about themselves: one for each metric, one line for each node.

use std::collections::BTreeSet;

use crate::results::{NodeSample, NodeSeries, Results};

use super::axis::{Axis, Scale, Unit};
use super::plot::{Plot, Series, Size};
use super::timeline::Timeline;

/// The metrics that changed. Legend and marks are the same for all, and are not said at each.
pub(crate) fn plots(results: &Results) -> Vec<Plot> {
    let changing = metrics(results).into_iter().filter(|metric| metric.changes(results));
    changing.map(|metric| metric.plot(results)).collect()
}

/// The names of the others.
pub(crate) fn unchanged(results: &Results) -> Vec<&str> {
    let unchanged = metrics(results).into_iter().filter(|metric| !metric.changes(results));
    unchanged.map(|metric| metric.name).collect()
}

/// A node as legends name it: host and port of its metrics.
pub(crate) fn label(node: &NodeSeries) -> &str {
    let address = node.url.split_once("://").map_or(node.url.as_str(), |(_, address)| address);
    address.split('/').next().unwrap_or(address)
}

struct Metric<'a> {
    name: &'a str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Gauge(Unit),
    /// Shown as its growth a second, times the factor.
    Counter(Unit, f64),
    /// A histogram's sum, shown by what was counted with it: the mean.
    Sum,
}

fn metrics(results: &Results) -> Vec<Metric<'_>> {
    let samples = results.nodes.iter().flat_map(|node| &node.samples);
    let names: BTreeSet<&str> = samples.flat_map(|sample| sample.values.keys()).map(String::as_str).collect();
    names.into_iter().filter_map(|name| Some(Metric { name, kind: kind(name)? })).collect()
}

fn kind(name: &str) -> Option<Kind> {
    match name {
        "process_start_time_seconds" => None,
        "process_cpu_seconds_total" => Some(Kind::Counter(Unit::Percent, 100.0)),
        _ if name.ends_with("_total") => Some(Kind::Counter(Unit::PerSecond, 1.0)),
        _ if name.ends_with("_seconds_sum") => Some(Kind::Sum),
        // Counted beside a sum.
        _ if name.ends_with("_seconds_count") || name.ends_with("_bucket") => None,
        _ if name.ends_with("_bytes") => Some(Kind::Gauge(Unit::Bytes)),
        _ => Some(Kind::Gauge(Unit::Count)),
    }
}

impl Metric<'_> {
    fn plot(&self, results: &Results) -> Plot {
        let (title, unit) = match self.kind {
            Kind::Gauge(unit) | Kind::Counter(unit, _) => (self.name.into(), unit),
            Kind::Sum => (format!("{}, mean", self.name.trim_end_matches("_sum")), Unit::Micros),
        };
        let nodes = results.nodes.iter().enumerate();
        let series = nodes.map(|(index, node)| Series::new(label(node), index, self.points(node))).collect();
        let plot = Timeline::whole(results).plot(title, Axis::new(unit, Scale::Linear), series);
        Plot { size: Size::SMALL, is_labelled: false, ..plot }
    }

    fn changes(&self, results: &Results) -> bool {
        results.nodes.iter().any(|node| {
            let mut values = node.samples.iter().filter_map(|sample| sample.values.get(self.name));
            let first = values.next();
            values.any(|value| Some(value) != first)
        })
    }

    fn points(&self, node: &NodeSeries) -> Vec<(f64, f64)> {
        match self.kind {
            Kind::Gauge(_) => over_pairs(node, |_, to| to.values.get(self.name).copied()),
            Kind::Counter(_, factor) => over_pairs(node, |from, to| {
                let per_second = growth(self.name, from, to)? / (to.at - from.at);
                Some(per_second * factor)
            }),
            Kind::Sum => {
                let count = format!("{}_count", self.name.trim_end_matches("_sum"));
                over_pairs(node, |from, to| Some(1e6 * growth(self.name, from, to)? / growth(&count, from, to)?))
            }
        }
    }
}

/// Not a number where `figure` has nothing to say, and where samples are missing.
fn over_pairs(node: &NodeSeries, figure: impl Fn(&NodeSample, &NodeSample) -> Option<f64>) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (node.samples.first(), node.samples.last()) else { return Vec::new() };
    let longest = 3.0 * (last.at - first.at) / node.samples.len() as f64;
    let point = |pair: &[NodeSample]| {
        let (from, to) = (&pair[0], &pair[1]);
        let value = figure(from, to).filter(|_| to.at - from.at <= longest);
        (to.at, value.unwrap_or(f64::NAN))
    };
    node.samples.windows(2).map(point).collect()
}

/// A counter that is less than before began anew at 0: its node was started again.
fn growth(name: &str, from: &NodeSample, to: &NodeSample) -> Option<f64> {
    let (before, after) = (*from.values.get(name)?, *to.values.get(name)?);
    Some(if after < before { after } else { after - before })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_become_rates_even_if_a_node_is_started_again() {
        let samples = [(0.0, 1000.0), (2.0, 1100.0), (4.0, 1300.0), (6.0, 20.0), (60.0, 500.0)];
        let sample = |(at, value)| NodeSample { at, values: [("calls_total".into(), value)].into() };
        let node = NodeSeries { url: String::new(), samples: samples.map(sample).into(), failed: 0 };
        let metric = Metric { name: "calls_total", kind: kind("calls_total").unwrap() };
        let points = metric.points(&node);
        assert_eq!(points[..3], [(2.0, 50.0), (4.0, 100.0), (6.0, 10.0)]);
        assert!(points[3].1.is_nan(), "nothing is known of a long time without samples: {points:?}");
    }
}

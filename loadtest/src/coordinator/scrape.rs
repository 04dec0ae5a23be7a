//! The metrics of nodes: their `/metrics`, now and then, each on a thread of its own.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock::{self, Nanos};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is looked at by name.
pub(crate) const CPU_SECONDS: &str = "process_cpu_seconds_total";
pub(crate) const RESIDENT_BYTES: &str = "process_resident_memory_bytes";

/// What is kept of a node's metrics: enough to see a bottleneck.
const KEPT: &[&str] = &[
    CPU_SECONDS,
    RESIDENT_BYTES,
    "process_open_fds",
    "roomcast_connections",
    "roomcast_memberships",
    "roomcast_rooms",
    "roomcast_publishes_total",
    "roomcast_deliveries_total",
    "roomcast_calls_in_flight",
    "roomcast_outbound_queue_bytes",
    "roomcast_slow_consumers_total",
    "roomcast_broker_up",
    "roomcast_broker_reconnects_total",
    "roomcast_broker_events_repaired_total",
    "roomcast_broker_events_lost_total",
];

/// A look at a node.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// Which node, by its place among the URLs.
    pub(crate) node: usize,
    pub(crate) at: Nanos,
    /// None if it did not answer.
    pub(crate) values: Option<BTreeMap<String, f64>>,
}

impl Scrape {
    /// A metric; none if the node did not answer, or has no such metric.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.values.as_ref()?.get(name).copied()
    }
}

/// Looks at a node until nobody listens any more.
pub(crate) fn start<T: From<Scrape> + Send + 'static>(node: usize, url: String, every: Duration, to: Sender<T>) {
    std::thread::spawn(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build().into();
        loop {
            let text = agent.get(&url).call().and_then(|mut response| response.body_mut().read_to_string());
            let scrape = Scrape { node, at: clock::now(), values: text.ok().map(|text| parse(&text)) };
            if to.send(scrape.into()).is_err() {
                return;
            }
            std::thread::sleep(every);
        }
    });
}

/// The kept metrics of a Prometheus text, summed over labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split_once('{').map_or(series, |(name, _)| name);
        if let (true, Ok(value)) = (KEPT.contains(&name), value.parse::<f64>()) {
            *values.entry(name.to_owned()).or_default() += value;
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let text = "# HELP roomcast_connections Open\nroomcast_connections{protocol=\"a b\"} 3\nroomcast_connections{protocol=\"c\"} 4\n\
                    process_open_fds 12\nsomething_else 5\n";
        let expected = [("process_open_fds".to_owned(), 12.0), ("roomcast_connections".to_owned(), 7.0)];
        assert_eq!(parse(text), BTreeMap::from(expected));
    }
}

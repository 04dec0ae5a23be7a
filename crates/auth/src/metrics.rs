//! The metrics of fetched keys, computed when they are read.

use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, Opts};

use crate::remote_keys::RemoteKeys;

const ISSUER: &str = "issuer";

/// Collects the metrics of the issuers whose keys are fetched at this moment.
pub(crate) struct KeyMetrics<F> {
    /// Returns these issuers, with their keys.
    issuers: F,
    descriptions: Vec<Desc>,
}

impl<F: Fn() -> Vec<(String, RemoteKeys)>> KeyMetrics<F> {
    pub(crate) fn new(issuers: F) -> Result<Self, prometheus::Error> {
        let descriptions = [fetches()?.desc(), age()?.desc()].concat().into_iter().cloned().collect();
        Ok(Self { issuers, descriptions })
    }
}

impl<F: Fn() -> Vec<(String, RemoteKeys)> + Send + Sync> Collector for KeyMetrics<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // New ones each time: an issuer that is no longer configured leaves nothing behind.
        let (Ok(fetches), Ok(age)) = (fetches(), age()) else { return Vec::new() };
        for (issuer, keys) in (self.issuers)() {
            let (results, since) = keys.statistics();
            for (result, count) in results {
                fetches.with_label_values(&[&*issuer, result]).inc_by(count);
            }
            age.with_label_values(&[&*issuer]).set(since.map_or(f64::INFINITY, |since: Duration| since.as_secs_f64()));
        }
        [fetches.collect(), age.collect()].concat()
    }
}

fn fetches() -> Result<IntCounterVec, prometheus::Error> {
    let help = "Fetches of an issuer's keys, by result: ok, or the kind of the error";
    IntCounterVec::new(Opts::new("roomcast_jwks_fetches_total", help), &[ISSUER, "result"])
}

fn age() -> Result<GaugeVec, prometheus::Error> {
    let help = "Time since an issuer's keys were last fetched; infinite if there are no keys";
    GaugeVec::new(Opts::new("roomcast_jwks_age_seconds", help), &[ISSUER])
}

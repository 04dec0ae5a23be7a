//! A run's results, read as anybody would read them: by the names in the JSON.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde_json::Value;

pub const FAULTS: [&str; 7] = ["lost", "duplicated", "reordered", "misrouted", "corrupted", "unmatched", "orphaned"];

#[derive(Debug)]
pub struct Results(pub Value);

impl Results {
    /// None if there is no such file.
    pub fn read(file: &Path) -> Option<Self> {
        let json = std::fs::read_to_string(file).ok()?;
        Some(Self(serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in:\n{json}"))))
    }

    /// What is at a JSON pointer.
    #[track_caller]
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in:\n{}", self.described()))
    }

    #[track_caller]
    pub fn count(&self, pointer: &str) -> u64 {
        self.at(pointer).as_u64().unwrap_or_else(|| panic!("{pointer} is no count: {}", self.at(pointer)))
    }

    #[track_caller]
    pub fn number(&self, pointer: &str) -> f64 {
        self.at(pointer).as_f64().unwrap_or_else(|| panic!("{pointer} is no number: {}", self.at(pointer)))
    }

    /// How often an operation was done: 0 if it is not there.
    pub fn done(&self, operation: &str) -> u64 {
        self.0.pointer(&format!("/operations/{operation}/count")).and_then(Value::as_u64).unwrap_or(0)
    }

    #[track_caller]
    pub fn list(&self, pointer: &str) -> &[Value] {
        self.at(pointer).as_array().unwrap_or_else(|| panic!("{pointer} is no list: {}", self.at(pointer)))
    }

    #[track_caller]
    pub fn fault(&self, name: &str) -> u64 {
        self.count(&format!("/faults/{name}"))
    }

    /// No fault has happened, but for one.
    #[track_caller]
    pub fn assert_no_fault_but(&self, allowed: &str) {
        for name in FAULTS.iter().filter(|name| **name != allowed) {
            assert_eq!(self.fault(name), 0, "{name}: {}", self.described());
        }
    }

    #[track_caller]
    pub fn assert_no_fault(&self) {
        self.assert_no_fault_but("");
        assert_eq!(self.list("/faulty_rooms").len(), 0, "{}", self.described());
    }

    /// Everything was delivered to all members of its room.
    #[track_caller]
    pub fn assert_delivered_to(&self, members: u64) {
        let published = self.count("/counts/published");
        assert!(published > 0, "{}", self.described());
        assert_eq!(self.count("/counts/delivered"), published * members, "{}", self.described());
    }

    /// An operation's histogram says what the results say of it in short.
    #[track_caller]
    pub fn assert_histogram(&self, operation: &str) {
        let shown = self.at(&format!("/operations/{operation}"));
        let histogram = BASE64_STANDARD.decode(shown["histogram"].as_str().expect("text")).expect("base64");
        let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &histogram[..]).expect("V2");
        assert_eq!((histogram.len(), histogram.max()), (self.done(operation), shown["max"].as_u64().expect("a time")));
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            assert_eq!(histogram.value_at_quantile(quantile), shown[name].as_u64().expect("a time"), "{name}");
        }
    }

    /// The result of the only threshold that begins so.
    #[track_caller]
    pub fn threshold(&self, begin: &str) -> &Value {
        let begins = |result: &&Value| result["threshold"].as_str().is_some_and(|text| text.starts_with(begin));
        let found: Vec<_> = self.list("/thresholds").iter().filter(begins).collect();
        let [only] = found[..] else { panic!("not one threshold {begin} in:\n{}", self.at("/thresholds")) };
        only
    }

    /// The thresholds that failed.
    pub fn failed_thresholds(&self) -> Vec<&str> {
        let failed = self.list("/thresholds").iter().filter(|result| result["passed"] == false);
        failed.filter_map(|result| result["threshold"].as_str()).collect()
    }

    /// What a person wants to see of them when a test fails.
    pub fn described(&self) -> String {
        let mut short = self.0.clone();
        for (_, operation) in short["operations"].as_object_mut().into_iter().flatten() {
            operation["histogram"].take();
        }
        for long in ["intervals", "steps", "nodes", "scenario"] {
            short[long].take();
        }
        format!("{short:#}")
    }
}

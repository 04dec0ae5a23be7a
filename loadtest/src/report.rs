//! Results as people look at them: a summary, a page, a comparison, a picture of capacities.

mod axis;
mod capacity;
mod compare;
mod format;
mod generator;
mod html;
mod keys;
mod nodes;
mod percentiles;
mod plot;
#[cfg(test)]
mod sample;
mod summary;
mod table;
mod tables;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;

use std::collections::BTreeMap;

use crate::results::{Latency, Operation};

pub(crate) use capacity::curve;
pub(crate) use compare::compare;
pub(crate) use format::time;
pub(crate) use html::html;
pub(crate) use summary::summary;

/// What a run is about, and what a threshold without the name of an operation means: the first of these that it has.
pub(crate) fn main_operation(operations: &BTreeMap<Operation, Latency>) -> Option<Operation> {
    use Operation::{Call, Cancel, Connect, Delivery, Join, Publish};
    [Delivery, Call, Cancel, Publish, Join, Connect].into_iter().find(|operation| operations.contains_key(operation))
}

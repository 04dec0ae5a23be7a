//! The time that a handler still takes after its call was cancelled.

use std::sync::Arc;

use crate::call::report::CallReport;
use crate::call::running::Call;

/// Held by work that goes on after its call was cancelled, such as a task that reads the rest of a
/// response. [`CallContext::grace`](crate::CallContext::grace) returns it.
///
/// While it is held, the lifecycle event `call.ended` of the call waits, and so does a
/// [drain](crate::Node::drain) of the node, within the time of its plan. Therefore, hold it for a limited
/// time. The outcome of the call is not delayed.
#[derive(Debug)]
pub struct Grace {
    call: Arc<Call>,
    /// `None` if the node does not report the ends of calls.
    report: Option<Arc<CallReport>>,
    _counted: Graces,
}

impl Grace {
    pub(crate) fn new(call: &Arc<Call>, graces: &Graces) -> Self {
        Self { call: Arc::clone(call), report: call.share_report(), _counted: graces.clone() }
    }

    /// Counts an Item that the handler has received, if the call was cancelled. The event `call.ended`
    /// contains the number as `late_items`.
    pub fn item_received(&self) {
        if let Some(report) = self.report.as_ref().filter(|_| self.call.cause().is_some()) {
            report.count_late_item();
        }
    }
}

/// All graces of a node. Each holds a clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graces(Arc<()>);

impl Graces {
    /// Returns whether any grace is held.
    pub(crate) fn are_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

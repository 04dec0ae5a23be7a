//! The lifecycle event of a call's end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use roomcast_core::{EndedCall, LocalConnection, LocalNode};
use roomcast_protocol::{CallId, Name};

use crate::end::CancelCause;
use crate::metrics::Outcome;

/// Reports the end of a call when the last of its owners drops it. They are the call, until it has an
/// outcome, and the [`Grace`](crate::Grace) of its handler.
#[derive(Debug)]
pub(crate) struct CallReport {
    node: Arc<LocalNode>,
    connection: Arc<LocalConnection>,
    call: CallId,
    method: Name,
    ended: OnceLock<Ended>,
    late_items: AtomicU64,
}

/// How a call has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) cause: Option<CancelCause>,
    pub(crate) duration: Duration,
}

impl CallReport {
    /// Returns `None` if the node does not report the ends of calls.
    pub(crate) fn new(
        node: &Arc<LocalNode>,
        connection: &Arc<LocalConnection>,
        call: CallId,
        method: &Name,
    ) -> Option<Arc<Self>> {
        node.events().filter(|events| events.reports_calls())?;
        Some(Arc::new(Self {
            node: Arc::clone(node),
            connection: Arc::clone(connection),
            call,
            method: method.clone(),
            ended: OnceLock::new(),
            late_items: AtomicU64::new(0),
        }))
    }

    /// Sets how the call has ended.
    pub(crate) fn set_ended(&self, ended: Ended) {
        let _ = self.ended.set(ended); // a call ends once
    }

    pub(crate) fn count_late_item(&self) {
        self.late_items.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        let (Some(events), Some(ended)) = (self.node.events(), self.ended.get()) else { return };
        let mut call = EndedCall::new(self.connection.id, self.call.0, &self.method);
        call.user = self.connection.user();
        call.outcome = ended.outcome.as_str();
        call.cause = ended.cause.map(CancelCause::as_str);
        call.duration = ended.duration;
        call.late_items = *self.late_items.get_mut();
        events.call_ended(&call);
    }
}

//! The lifecycle event of a call's end.

use std::sync::Arc;
use std::time::Duration;

use roomcast_core::{ConnectionId, EndedCall, LocalNode};
use roomcast_protocol::{CallId, Name};

use crate::end::CancelCause;
use crate::metrics::Outcome;

/// What the event of a call's end needs.
#[derive(Debug)]
pub(crate) struct CallReport {
    node: Arc<LocalNode>,
    method: Name,
}

impl CallReport {
    /// Returns `None` if the node does not report the ends of calls.
    pub(crate) fn new(node: &Arc<LocalNode>, method: &Name) -> Option<Box<Self>> {
        node.events().filter(|events| events.reports_calls())?;
        Some(Box::new(Self { node: Arc::clone(node), method: method.clone() }))
    }

    pub(crate) fn send(
        &self,
        connection: ConnectionId,
        call: CallId,
        outcome: Outcome,
        cause: Option<CancelCause>,
        duration: Duration,
    ) {
        let Some(events) = self.node.events() else { return };
        let cause = cause.map(CancelCause::as_str);
        events.call_ended(connection, &EndedCall::new(call.0, &self.method, outcome.as_str(), cause, duration));
    }
}

//! The lifecycle event of a call's end.

use std::sync::Arc;
use std::time::Duration;

use roomcast_core::{EndedCall, LocalConnection, LocalNode};
use roomcast_protocol::{CallId, Name};

use crate::end::CancelCause;
use crate::metrics::Outcome;

/// What the event of a call's end needs.
#[derive(Debug)]
pub(crate) struct CallReport {
    node: Arc<LocalNode>,
    connection: Arc<LocalConnection>,
    id: CallId,
    method: Name,
}

impl CallReport {
    /// Returns `None` if the node does not report the ends of calls.
    pub(crate) fn new(
        node: &Arc<LocalNode>,
        connection: &Arc<LocalConnection>,
        id: CallId,
        method: &Name,
    ) -> Option<Box<Self>> {
        node.events().filter(|events| events.reports_calls())?;
        let (node, connection, method) = (Arc::clone(node), Arc::clone(connection), method.clone());
        Some(Box::new(Self { node, connection, id, method }))
    }

    pub(crate) fn send(&self, outcome: Outcome, cause: Option<CancelCause>, duration: Duration) {
        let Some(events) = self.node.events() else { return };
        let cause = cause.map(CancelCause::as_str);
        events.call_ended(
            self.connection.id,
            &EndedCall::new(self.id.0, &self.method, outcome.as_str(), cause, duration),
        );
    }
}

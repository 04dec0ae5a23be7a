//! A connection's notifications, which are handled one at a time in the order in which they
//! arrived.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use roomcast_protocol::Name;
use tokio::task::JoinHandle;

use crate::app::handling::{Handling, catch_panic};
use crate::connection::context::ConnectionContext;
use crate::connection::inbound::Permit;
use crate::error::{CallError, Code, took_too_long};

/// How long the handling of the notifications that arrived before a connection's end may still
/// take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Notifications whose handling waits for something. Most notifications are handled at once and
/// never enter this queue, so most connections do not use it.
#[derive(Debug, Default)]
pub(crate) struct NotificationQueue {
    state: Arc<Mutex<State>>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    working: bool,
}

/// A notification that has not been handled yet.
struct Waiting {
    event: Name,
    handling: Handling,
    _memory: Permit,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("working", &self.working).finish()
    }
}

impl NotificationQueue {
    /// Returns whether no notification is being handled.
    pub(crate) fn is_idle(&self) -> bool {
        !self.state.lock().working
    }

    /// Appends a notification. Returns `false` if the queue is full.
    pub(crate) fn push(
        &mut self,
        context: &Arc<ConnectionContext>,
        event: Name,
        handling: Handling,
        cost: usize,
    ) -> bool {
        let mut state = self.state.lock();
        if state.waiting.len() >= context.options.max_waiting_notifications {
            return false;
        }
        let Some(memory) = Permit::take(&context.connection, cost, context.options.max_inbound) else { return false };
        state.waiting.push_back(Waiting { event, handling, _memory: memory });
        if !std::mem::replace(&mut state.working, true) {
            self.worker = Some(tokio::spawn(work(Arc::clone(&self.state), Arc::clone(context))));
        }
        true
    }

    /// Stops the running handler, and drops the notifications that wait.
    pub(crate) fn abort(self) {
        if let Some(worker) = &self.worker {
            worker.abort();
        }
        self.state.lock().waiting.clear();
    }

    /// Waits, for a limited time, until the notifications that arrived before the connection's end
    /// are handled.
    pub(crate) async fn finish(self) {
        if let Some(mut worker) = self.worker
            && tokio::time::timeout(FINISH_TIMEOUT, &mut worker).await.is_err()
        {
            worker.abort();
        }
    }
}

async fn work(state: Arc<Mutex<State>>, context: Arc<ConnectionContext>) {
    loop {
        let next = {
            let mut state = state.lock();
            let next = state.waiting.pop_front();
            state.working = next.is_some();
            next
        };
        let Some(Waiting { event, handling, _memory }) = next else { return };
        let timeout = context.options.call_timeout;
        match tokio::time::timeout(timeout, catch_panic(handling)).await {
            Ok(handled) => report(&context, &event, handled.into_result()),
            Err(_) => report(&context, &event, Err(took_too_long(timeout))),
        }
    }
}

/// Counts and logs a failed notification.
pub(crate) fn report(context: &ConnectionContext, event: &Name, result: Result<Bytes, CallError>) {
    let Err(error) = result else { return };
    if error.code == Code::Cancelled && context.connection.outbox.is_closed() {
        // The handler failed because its client has disconnected meanwhile.
        return;
    }
    context.metrics.on_notification_failed(error.code);
    if context.is_first_failed_notification() {
        tracing::warn!(connection = %context.connection.id, user = context.user(), ?event, %error, "a notification failed; later ones are logged at debug");
    } else {
        tracing::debug!(connection = %context.connection.id, user = context.user(), ?event, %error, "a notification failed");
    }
}

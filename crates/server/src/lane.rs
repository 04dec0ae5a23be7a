//! A connection's notifications, handled one after the other in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::handling::{Handled, Handling, catch_panic, panicked, took_too_long};
use crate::link::{Link, Permit};

/// How long the notifications that came before a connection's end may still take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Notifications whose handling waits for something. Most never come here: their handling is done at
/// once, and the lane of most connections is never used.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Arc<Mutex<State>>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Handling, Permit)>,
    working: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("waiting", &self.waiting.len()).field("working", &self.working).finish()
    }
}

impl Lane {
    /// Whether nothing is being handled.
    pub(crate) fn is_idle(&self) -> bool {
        !self.state.lock().working
    }

    /// Puts a notification behind those before it. `false`: as many wait as may.
    pub(crate) fn push(&mut self, link: &Arc<Link>, handling: Handling, cost: usize) -> bool {
        let mut state = self.state.lock();
        if !Permit::fits(link, cost) || state.waiting.len() >= link.options.max_waiting_notifications {
            return false;
        }
        state.waiting.push_back((handling, Permit::take(link, cost)));
        if !std::mem::replace(&mut state.working, true) {
            self.worker = Some(tokio::spawn(work(Arc::clone(&self.state), Arc::clone(link))));
        }
        true
    }

    /// Stops the handler that runs, and drops the notifications that wait.
    pub(crate) fn abort(self) {
        if let Some(worker) = self.worker {
            worker.abort();
        }
        self.state.lock().waiting.clear();
    }

    /// Lets what came before the connection's end be handled, for a while.
    pub(crate) async fn finish(self) {
        if let Some(mut worker) = self.worker
            && tokio::time::timeout(FINISH_TIMEOUT, &mut worker).await.is_err()
        {
            worker.abort();
        }
    }
}

async fn work(state: Arc<Mutex<State>>, link: Arc<Link>) {
    loop {
        let next = {
            let mut state = state.lock();
            let next = state.waiting.pop_front();
            state.working = next.is_some();
            next
        };
        let Some((handling, _permit)) = next else { return };
        let timeout = link.options.call_timeout;
        match tokio::time::timeout(timeout, catch_panic(handling)).await {
            Ok(handled) => report(&link, handled),
            Err(_) => report(&link, Some(Err(took_too_long(timeout)))),
        }
    }
}

/// A failed notification is counted, logged and dropped.
pub(crate) fn report(link: &Link, handled: Handled) {
    if let Err(error) = handled.unwrap_or_else(|| Err(panicked())) {
        link.metrics.on_notification_failed(error.code);
        if link.is_first_failure() {
            tracing::warn!(connection = %link.peer.id, %error, "a notification failed; later ones are logged at debug");
        } else {
            tracing::debug!(connection = %link.peer.id, %error, "a notification failed");
        }
    }
}

//! A connection's calls in flight. They ensure that no Response follows a Reset, and track when the
//! next call is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_core::LocalConnection;
use roomcast_protocol::{CallId, CallKey, CallTable, CloseFrame, StartError, Violation};

use crate::call::running::Call;
use crate::error::{CallError, Code};

/// Why a call does not start.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The call fails with this error.
    Answer(CallError),
    /// The client violated the protocol, so the connection is closed.
    Close(CloseFrame),
}

/// The calls of one connection.
#[derive(Debug)]
pub(crate) struct Calls {
    state: Mutex<State>,
    draining: AtomicBool,
    /// Shows the number of calls to operators.
    connection: Arc<LocalConnection>,
}

#[derive(Debug)]
struct State {
    table: CallTable<Arc<Call>>,
    /// The earliest deadline of the running calls, or earlier. `None` if no call was started since
    /// the last check.
    next_deadline: Option<Instant>,
}

impl Calls {
    /// Creates an empty table for at most `max` concurrent calls.
    pub(crate) fn new(max: usize, connection: Arc<LocalConnection>) -> Self {
        let state = State { table: CallTable::new(max), next_deadline: None };
        Self { state: Mutex::new(state), draining: AtomicBool::new(false), connection }
    }

    fn show(&self, state: &State) {
        self.connection.set_calls(state.table.len());
    }

    /// Returns an error if a call may not start.
    pub(crate) fn admit(&self, id: CallId) -> Result<(), Refusal> {
        let admitted = self.state.lock().table.admit(id);
        match admitted {
            Err(StartError::Duplicate(id)) => Err(Refusal::Close(Violation::DuplicateCallId(id).close_frame())),
            _ if self.draining.load(Ordering::Acquire) => {
                Err(Refusal::Answer(CallError::new(Code::Unavailable, "the node is shutting down")))
            }
            Err(error) => Err(Refusal::Answer(CallError::new(Code::ResourceExhausted, error.to_string()))),
            Ok(()) => Ok(()),
        }
    }

    /// Enters a call that was just admitted. It may run for `timeout`, which is the same for all
    /// calls.
    pub(crate) fn start(&self, id: CallId, call: &Arc<Call>, timeout: Duration) -> CallKey {
        let mut state = self.state.lock();
        state.next_deadline.get_or_insert_with(|| call.started() + timeout);
        let key = state.table.start(id, Arc::clone(call)).expect("admitted by the task that alone starts calls");
        self.show(&state);
        key
    }

    /// Removes a call and sends its Response with `respond`. Returns `false` if the call was
    /// already answered or cancelled; then nothing is sent.
    ///
    /// The lock is held until `respond` has queued the Response. A Reset therefore finds the call
    /// still running, and no Response follows, or finds that the Response is already queued.
    pub(crate) fn answer(&self, key: CallKey, respond: impl FnOnce()) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.table.answer(key).is_some();
        self.show(&state);
        if is_wanted {
            respond();
        }
        is_wanted
    }

    /// Removes a call that its client cancels.
    pub(crate) fn cancel(&self, id: CallId) -> Option<Arc<Call>> {
        let mut state = self.state.lock();
        let cancelled = state.table.cancel(id);
        self.show(&state);
        cancelled
    }

    /// Removes all calls.
    pub(crate) fn cancel_all(&self) -> Vec<Arc<Call>> {
        let mut state = self.state.lock();
        let cancelled = state.table.cancel_all().collect();
        self.show(&state);
        cancelled
    }

    /// Returns when to call [`take_overdue`](Self::take_overdue) next. One time is enough for all
    /// calls of a connection: all have the same timeout, so a later call is never due before an
    /// earlier one.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.state.lock().next_deadline
    }

    /// Removes the calls that have reached their deadline, and answers each as
    /// [`answer`](Self::answer) does.
    pub(crate) fn take_overdue(&self, now: Instant, timeout: Duration, respond: impl Fn(CallId)) -> Vec<Arc<Call>> {
        let mut overdue = Vec::new();
        let mut state = self.state.lock();
        let deadlines = state.table.running().map(|(key, call)| (key, call.started() + timeout));
        let (due, later): (Vec<_>, Vec<_>) = deadlines.partition(|(_, deadline)| *deadline <= now);
        for (key, _) in due {
            overdue.extend(state.table.answer(key));
            respond(key.id());
        }
        self.show(&state);
        state.next_deadline = later.into_iter().map(|(_, deadline)| deadline).min();
        overdue
    }

    // === drain ===

    /// Rejects all further calls.
    pub(crate) fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Returns whether the table rejects calls and the last call has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining.load(Ordering::Acquire) && self.state.lock().table.is_empty()
    }
}

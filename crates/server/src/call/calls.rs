//! A connection's calls in flight, the rule that no Response follows a Reset, and when the next call is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_protocol::{CallId, CallKey, CallTable, CloseFrame, StartError, Violation};

use crate::call::running::Call;
use crate::error::{CallError, Code};

/// Why a call does not begin.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The call is answered with this error.
    Answer(CallError),
    /// The client broke the protocol: the connection is closed.
    Close(CloseFrame),
}

/// The calls of one connection.
#[derive(Debug)]
pub(crate) struct Calls {
    state: Mutex<State>,
    draining: AtomicBool,
}

#[derive(Debug)]
struct State {
    table: CallTable<Arc<Call>>,
    /// No running call reaches its deadline before this; `None`: none was started since the last look.
    next_deadline: Option<Instant>,
}

impl Calls {
    /// No calls, of at most `max` at once.
    pub(crate) fn new(max: usize) -> Self {
        let state = State { table: CallTable::new(max), next_deadline: None };
        Self { state: Mutex::new(state), draining: AtomicBool::new(false) }
    }

    /// Whether a call may begin.
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

    /// Enters a call that was just admitted and may run for `timeout`, which is the same for all.
    pub(crate) fn start(&self, id: CallId, call: &Arc<Call>, timeout: Duration) -> CallKey {
        let mut state = self.state.lock();
        state.next_deadline.get_or_insert_with(|| call.started() + timeout);
        state.table.start(id, Arc::clone(call)).expect("admitted by the task that alone starts calls")
    }

    /// Takes a call out and has it answered; `false`: it was answered or cancelled before, and nothing is done.
    ///
    /// The lock is held until `respond` has queued the Response: a Reset that is processed finds the call either
    /// running, and nothing follows, or its Response already on its way.
    pub(crate) fn answer(&self, key: CallKey, respond: impl FnOnce()) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.table.answer(key).is_some();
        if is_wanted {
            respond();
        }
        is_wanted
    }

    /// Takes a call that the client no longer wants out.
    pub(crate) fn cancel(&self, id: CallId) -> Option<Arc<Call>> {
        self.state.lock().table.cancel(id)
    }

    /// Takes all calls out.
    pub(crate) fn cancel_all(&self) -> Vec<Arc<Call>> {
        self.state.lock().table.cancel_all().collect()
    }

    /// When to call [`take_overdue`](Self::take_overdue) next. One time for all of a connection's calls: since they all
    /// get the same, a later call is never due before an earlier one.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.state.lock().next_deadline
    }

    /// Takes the calls that have reached their deadline out, and has each answered as in [`answer`](Self::answer).
    pub(crate) fn take_overdue(&self, now: Instant, timeout: Duration, respond: impl Fn(CallId)) -> Vec<Arc<Call>> {
        let mut overdue = Vec::new();
        let mut state = self.state.lock();
        let deadlines = state.table.running().map(|(key, call)| (key, call.started() + timeout));
        let (due, later): (Vec<_>, Vec<_>) = deadlines.partition(|(_, deadline)| *deadline <= now);
        for (key, _) in due {
            overdue.extend(state.table.answer(key));
            respond(key.id());
        }
        state.next_deadline = later.into_iter().map(|(_, deadline)| deadline).min();
        overdue
    }

    // === drain ===

    /// From now on, calls are refused.
    pub(crate) fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether calls are refused and the last has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining.load(Ordering::Acquire) && self.state.lock().table.is_empty()
    }
}

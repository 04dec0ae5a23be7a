//! One connection, as everything but its driver sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use roomcast_core::{LocalConnection, Outgoing, Rejected};
use roomcast_protocol::{CallId, CallTable, CloseCode, CloseFrame, Frame, Name, StartError, Violation, encode_frame};
use thiserror::Error;

use crate::call::{Call, CancelCause, Responder};
use crate::error::{CallError, Code};
use crate::handling::took_too_long;
use crate::metrics::{Metrics, Outcome};
use crate::options::Options;
use crate::publishing::PublishShare;

/// How long output to an ended connection is accepted, and dropped, by those who can't know of its end yet.
const END_GRACE: Duration = Duration::from_secs(1);

/// Longer times mean the same: a later instant may not exist.
pub(crate) const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Memory that a notification takes beside its name and payload while it waits: its handler's future and its place
/// in the lane. Measured with a handler that holds nothing of its own.
const NOTIFICATION_OVERHEAD: usize = 256;

/// The same for a call: its handler's future and task, its cancellation and its entry in the table.
const CALL_OVERHEAD: usize = 1024;

/// The memory that a notification takes while it waits.
pub(crate) fn notification_cost(name: &Name, payload: &Bytes) -> usize {
    NOTIFICATION_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// The memory that a call takes until it is answered.
pub(crate) fn call_cost(name: &Name, payload: &Bytes) -> usize {
    CALL_OVERHEAD + name.as_bytes().len() + payload.len()
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
// Quoted and escaped: a client's reason may contain line breaks and control characters.
#[error("the connection has ended: {code} {reason:?}")]
pub struct Disconnected {
    /// The close code; 1005 if the client gave none, 1006 if the connection was lost.
    pub code: CloseCode,
    /// The close frame's reason, or what was observed.
    pub reason: String,
}

/// Why a notification was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The event's name is over 255 bytes.
    #[error(transparent)]
    NameTooLong(#[from] roomcast_protocol::NameError),
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

/// What the driver, handlers and notifiers of one connection share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Arc<LocalConnection>,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) calls: Mutex<CallTable<Arc<Call>>>,
    /// No running call reaches its deadline before this; `None`: none was started since the last look.
    next_deadline: Mutex<Option<Instant>>,
    /// Created for the first publish that the broker does not accept at once.
    pub(crate) publish_share: OnceLock<Arc<PublishShare>>,
    draining: AtomicBool,
    ended: OnceLock<Instant>,
    /// The connection's handler was told that it has ended.
    handler_knows_end: AtomicBool,
    /// A failed notification was logged; a client can't fill the log with more.
    logged_failure: AtomicBool,
}

impl Link {
    pub(crate) fn new(
        peer: Arc<LocalConnection>,
        peer_addr: Option<SocketAddr>,
        options: Arc<Options>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::new(CallTable::new(options.max_calls)),
            peer,
            peer_addr,
            options,
            metrics,
            next_deadline: Mutex::default(),
            publish_share: OnceLock::new(),
            draining: AtomicBool::new(false),
            ended: OnceLock::new(),
            handler_knows_end: AtomicBool::new(false),
            logged_failure: AtomicBool::new(false),
        })
    }

    // === output ===

    /// Queues a notification. It never waits: a client that reads too slowly is closed, alone.
    pub(crate) fn notify(&self, event: &str, payload: Bytes) -> Result<(), NotifyError> {
        let frame = Frame::Notify { name: Name::new(event)?, payload };
        match self.push(&frame) {
            Ok(()) => Ok(()),
            Err(_) => self.check_end_is_unknown(),
        }
    }

    /// As [`notify`](Self::notify), by somebody whom nobody tells of the connection's end: they get time to
    /// learn of it. The tutorial's room, which unwraps, depends on it.
    pub(crate) fn notify_from_afar(&self, event: &str, payload: Bytes) -> Result<(), NotifyError> {
        match self.notify(event, payload) {
            Err(NotifyError::Closed) if !self.ended_long_ago() => Ok(()),
            result => result,
        }
    }

    /// Queues a Response. Whether it is still wanted is the caller's to know.
    pub(crate) fn respond(&self, id: CallId, result: Result<Bytes, CallError>) {
        let payload = result.unwrap_or_else(|error| error.payload());
        // On a connection that ends the answer is dropped; the call's outcome is what it is.
        let _ = self.push(&Frame::Response { id, payload });
    }

    fn push(&self, frame: &Frame) -> Result<(), Rejected> {
        let mut bytes = BytesMut::new();
        encode_frame(&mut bytes, frame);
        self.peer.outbox.push(Outgoing { bytes: bytes.freeze(), accepted_at: None })
    }

    /// What a handler sends before it can know of the end is lost without an error, as what is on the
    /// wire is.
    pub(crate) fn check_end_is_unknown(&self) -> Result<(), NotifyError> {
        match self.handler_knows_end.load(Ordering::Acquire) || self.ended_long_ago() {
            true => Err(NotifyError::Closed),
            false => Ok(()),
        }
    }

    fn ended_long_ago(&self) -> bool {
        self.ended.get().is_some_and(|ended| ended.elapsed() > END_GRACE)
    }

    /// The connection's handler was told of its end.
    pub(crate) fn set_handler_knows_end(&self) {
        self.handler_knows_end.store(true, Ordering::Release);
    }

    /// Whether this is the connection's first failed notification.
    pub(crate) fn is_first_failure(&self) -> bool {
        !self.logged_failure.swap(true, Ordering::AcqRel)
    }

    // === calls ===

    /// Whether a call may begin; if not, what to answer it.
    ///
    /// # Errors
    /// The Close to send if the client broke the protocol.
    pub(crate) fn admit_call(&self, id: CallId, cost: usize) -> Result<Result<(), CallError>, CloseFrame> {
        let admitted = match self.calls.lock().admit(id) {
            Err(StartError::Duplicate(id)) => return Err(Violation::DuplicateCallId(id).close_frame()),
            admitted => admitted.map_err(|error| CallError::new(Code::ResourceExhausted, error.to_string())),
        };
        if self.draining.load(Ordering::Acquire) {
            return Ok(Err(CallError::new(Code::Unavailable, "the node is going away")));
        }
        if !Permit::fits(self, cost) {
            let max = self.options.max_inbound;
            let message = format!("calls and notifications in progress take more than {max} bytes of memory");
            return Ok(Err(CallError::new(Code::ResourceExhausted, message)));
        }
        Ok(admitted)
    }

    /// Enters a call that was just admitted and is not answered at once.
    pub(crate) fn start_call(self: &Arc<Self>, id: CallId, call: &Arc<Call>, cost: usize) -> Responder {
        let key = self.calls.lock().start(id, Arc::clone(call)).expect("admitted by the task that alone starts calls");
        self.next_deadline.lock().get_or_insert_with(|| self.deadline_of(call));
        Responder::new(Arc::clone(self), key, call, Permit::take(self, cost))
    }

    fn deadline_of(&self, call: &Call) -> Instant {
        call.started() + self.options.call_timeout.min(FAR)
    }

    /// When to call [`end_overdue_calls`](Self::end_overdue_calls) next. One time for all of a connection's
    /// calls: since they all get the same, a later call is never due before an earlier one.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        *self.next_deadline.lock()
    }

    /// Cancels the calls that have reached their deadline, and answers them.
    pub(crate) fn end_overdue_calls(&self, now: Instant) {
        let mut overdue = Vec::new();
        let mut calls = self.calls.lock();
        let (due, later): (Vec<_>, Vec<_>) = calls
            .running()
            .map(|(key, call)| (key, self.deadline_of(call)))
            .partition(|(_, deadline)| *deadline <= now);
        for (key, _) in due {
            overdue.extend(calls.answer(key));
            self.respond(key.id(), Err(took_too_long(self.options.call_timeout)));
        }
        drop(calls);
        *self.next_deadline.lock() = later.into_iter().map(|(_, deadline)| deadline).min();
        for call in overdue {
            call.count(Outcome::Failed(Code::DeadlineExceeded));
            call.stop(CancelCause::Deadline);
        }
    }

    /// Answers a call that never entered the table.
    pub(crate) fn answer_at_once(&self, id: CallId, call: &Call, result: Result<Bytes, CallError>) {
        let outcome = Outcome::of(&result);
        self.respond(id, result);
        call.count(outcome);
    }

    /// A Reset came.
    pub(crate) fn reset_call(&self, id: CallId) {
        let cancelled = self.calls.lock().cancel(id);
        if let Some(call) = cancelled {
            call.cancel(CancelCause::Reset);
        }
    }

    // === the end ===

    /// From now on, calls are refused: the connection closes when those in flight have ended.
    pub(crate) fn start_drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the connection waits for its last calls before it closes.
    pub(crate) fn is_drained(&self) -> bool {
        self.draining.load(Ordering::Acquire) && self.calls.lock().is_empty()
    }

    /// The connection has ended: no more output is taken, and every call is cancelled.
    pub(crate) fn end(&self, cause: CancelCause) {
        let _ = self.ended.set(Instant::now());
        self.peer.outbox.seal();
        let cancelled = self.calls.lock().cancel_all();
        for call in cancelled {
            call.cancel(cause);
        }
    }
}

/// A share of what a connection may have received and not dealt with; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    link: Arc<Link>,
    bytes: usize,
}

impl Permit {
    /// Whether so many bytes are within the bound. A share alone always is. Called while bytes are handled, when no
    /// unfinished message is counted.
    pub(crate) fn fits(link: &Link, bytes: usize) -> bool {
        let held = link.peer.inbound();
        held == 0 || held + bytes <= link.options.max_inbound
    }

    /// Takes a share. Only the driver's task does, so what fitted a moment ago still does.
    pub(crate) fn take(link: &Arc<Link>, bytes: usize) -> Self {
        link.peer.charge_inbound(bytes);
        Self { link: Arc::clone(link), bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.link.peer.release_inbound(self.bytes);
    }
}

/// A client sends notifications faster than they are handled, and there is no place to keep more.
pub(crate) fn overloaded() -> CloseFrame {
    CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "notifications come faster than they are handled; try again later")
}

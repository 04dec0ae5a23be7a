//! One connection, as everything but its driver sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use roomcast_core::{Outgoing, Peer, Rejected};
use roomcast_protocol::{CallId, CallTable, CloseCode, CloseFrame, Frame, Name, StartError, encode_frame};
use thiserror::Error;

use crate::call::{Call, CancelCause, Responder};
use crate::error::{CallError, Code};
use crate::metrics::{MethodMetrics, Metrics, Outcome};
use crate::options::Options;

/// How long output to an ended connection is accepted, and dropped, while its handler has not been told.
const UNTOLD_GRACE: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the connection has ended: {code} {reason}")]
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
    pub(crate) peer: Arc<Peer>,
    pub(crate) peer_addr: Option<SocketAddr>,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) calls: Mutex<CallTable<Arc<Call>>>,
    /// Bytes received that handlers have not dealt with yet.
    inbound: AtomicUsize,
    draining: AtomicBool,
    ended: OnceLock<Instant>,
    /// The handler knows that the connection has ended.
    told: AtomicBool,
}

impl Link {
    pub(crate) fn new(
        peer: Arc<Peer>,
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
            inbound: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            ended: OnceLock::new(),
            told: AtomicBool::new(false),
        })
    }

    // === output ===

    /// Queues a notification. It never waits: a client that reads too slowly is closed, alone.
    pub(crate) fn notify(&self, event: &str, payload: Bytes) -> Result<(), NotifyError> {
        let frame = Frame::Notify { name: Name::new(event)?, payload };
        match self.push(&frame) {
            Ok(()) => Ok(()),
            // What a handler sends before it can know of the end is lost, as what is on the wire is.
            Err(_) => self.check_not_known_to_have_ended(),
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

    fn is_known_to_have_ended(&self) -> bool {
        self.told.load(Ordering::Acquire) || self.ended.get().is_some_and(|ended| ended.elapsed() > UNTOLD_GRACE)
    }

    pub(crate) fn check_not_known_to_have_ended(&self) -> Result<(), NotifyError> {
        match self.is_known_to_have_ended() {
            true => Err(NotifyError::Closed),
            false => Ok(()),
        }
    }

    pub(crate) fn set_told(&self) {
        self.told.store(true, Ordering::Release);
    }

    // === calls ===

    /// Starts a call that is not answered at once. `None`: it was refused, and answered with why.
    ///
    /// # Errors
    /// The Close to send if the client broke the protocol.
    pub(crate) fn start_call(
        self: &Arc<Self>,
        id: CallId,
        payload_len: usize,
        method: &Arc<MethodMetrics>,
    ) -> Result<Option<Responder>, CloseFrame> {
        let refusal = if self.draining.load(Ordering::Acquire) {
            CallError::new(Code::Unavailable, "the node is going away")
        } else {
            let call = Call::new(Arc::clone(method), Arc::clone(&self.metrics));
            let started = self.calls.lock().start(id, Arc::clone(&call));
            match (started, Permit::take(self, payload_len)) {
                (Ok(key), Some(permit)) => {
                    return Ok(Some(Responder::new(Arc::clone(self), key, &call, Some(permit))));
                }
                (Ok(key), None) => {
                    self.calls.lock().answer(key);
                    CallError::new(
                        Code::ResourceExhausted,
                        format!("this connection's calls already hold {} bytes", self.options.max_inbound),
                    )
                }
                (Err(StartError::Duplicate(id)), _) => return Err(duplicate(id)),
                (Err(error), _) => CallError::new(Code::ResourceExhausted, error.to_string()),
            }
        };
        self.answer_at_once(id, Err(refusal), method, Instant::now());
        Ok(None)
    }

    /// Refuses an id that is in flight; for calls that are answered at once and never enter the table.
    ///
    /// # Errors
    /// The Close to send if the client broke the protocol.
    pub(crate) fn check_call_id(&self, id: CallId) -> Result<(), CloseFrame> {
        match self.calls.lock().contains(id) {
            true => Err(duplicate(id)),
            false => Ok(()),
        }
    }

    /// Answers a call that never entered the table.
    pub(crate) fn answer_at_once(
        &self,
        id: CallId,
        result: Result<Bytes, CallError>,
        method: &MethodMetrics,
        started: Instant,
    ) {
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Failed(error.code),
        };
        self.respond(id, result);
        method.on_end(outcome, started.elapsed());
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

fn duplicate(id: CallId) -> CloseFrame {
    roomcast_protocol::Violation::DuplicateCallId(id).close_frame()
}

/// A share of what a connection may have received and not dealt with; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    link: Arc<Link>,
    bytes: usize,
}

impl Permit {
    /// `None`: it would be over the bound. A share alone is always granted.
    pub(crate) fn take(link: &Arc<Link>, bytes: usize) -> Option<Self> {
        let before = link.inbound.fetch_add(bytes, Ordering::AcqRel);
        let permit = Self { link: Arc::clone(link), bytes };
        (before == 0 || before + bytes <= link.options.max_inbound).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.link.inbound.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

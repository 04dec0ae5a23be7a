//! What the driver, handlers and notifiers of a connection share: its identity, its output and its
//! calls.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use roomcast_core::{Access, ExpiryEvent, LocalConnection, Names, Outgoing, Rejected, Right, RoomName};
use roomcast_protocol::{CallId, CloseCode, CloseFrame, Frame, Name, encode_frame};
use serde_json::json;

use crate::call::calls::{Calls, Refusal};
use crate::call::running::Call;
use crate::connection::client_info::ClientInfo;
use crate::connection::inbound::Permit;
use crate::connection::publish_share::PublishShare;
use crate::connection::rates::{Rates, TooOften};
use crate::end::CancelCause;
use crate::error::{CallError, Code, NotifyError, took_too_long};
use crate::metrics::{Metrics, Outcome};
use crate::options::{FAR, Options};
use crate::rate::Action;

/// The event that a client gets before its credential expires.
const EXPIRING: &str = "auth/expiring";

/// How long the tutorial's API drops output to an ended connection without an error.
const END_GRACE: Duration = Duration::from_secs(1);

/// What the driver, handlers and notifiers of one connection share.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    pub(crate) connection: Arc<LocalConnection>,
    pub(crate) client: ClientInfo,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) calls: Calls,
    /// Created for the first message.
    rates: OnceLock<Box<Rates>>,
    /// Created for the first publish. Most connections never publish.
    pub(crate) publish_share: OnceLock<Box<PublishShare>>,
    ended: OnceLock<Instant>,
    /// Whether a failed call was logged. This and the same flag for notifications prevent a client
    /// from filling the log.
    logged_call: AtomicBool,
    logged_notification: AtomicBool,
}

impl ConnectionContext {
    pub(crate) fn new(
        connection: Arc<LocalConnection>,
        client: ClientInfo,
        options: Arc<Options>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            calls: Calls::new(options.max_calls, Arc::clone(&connection)),
            rates: OnceLock::new(),
            connection,
            client,
            options,
            metrics,
            publish_share: OnceLock::new(),
            ended: OnceLock::new(),
            logged_call: AtomicBool::new(false),
            logged_notification: AtomicBool::new(false),
        })
    }

    // === output ===

    /// Queues a notification without waiting. A client that reads too slowly is disconnected; other
    /// clients are not affected.
    pub(crate) fn notify(&self, event: &str, payload: Bytes) -> Result<(), NotifyError> {
        let frame = Frame::Notify { name: Name::new(event)?, payload };
        self.push(&frame).map_err(|rejected| match rejected {
            Rejected::Full => NotifyError::SlowConsumer,
            Rejected::Closed => NotifyError::Closed,
        })
    }

    /// Queues a Response, whether or not its call was cancelled.
    pub(crate) fn respond(&self, id: CallId, result: Result<Bytes, CallError>) {
        let payload = result.unwrap_or_else(|error| error.payload());
        // On a connection that is ending, the Response is dropped. The call's outcome is already
        // decided.
        let _ = self.push(&Frame::Response { id, payload });
    }

    fn push(&self, frame: &Frame) -> Result<(), Rejected> {
        let mut bytes = BytesMut::new();
        encode_frame(&mut bytes, frame);
        self.connection.outbox.push(Outgoing::own(bytes.freeze()))
    }

    /// Returns whether the connection ended longer ago than the tutorial's API tolerates.
    pub(crate) fn ended_long_ago(&self) -> bool {
        self.ended.get().is_some_and(|ended| ended.elapsed() > END_GRACE)
    }

    /// Returns whether this is the connection's first failed notification.
    pub(crate) fn is_first_failed_notification(&self) -> bool {
        !self.logged_notification.swap(true, Ordering::AcqRel)
    }

    // === calls ===

    /// Returns an error if a call may not start.
    pub(crate) fn admit_call(&self, id: CallId, cost: usize, now: Instant) -> Result<(), Refusal> {
        self.calls.admit(id)?;
        self.take(Action::Call, now).map_err(|error| Refusal::Answer(error.into()))?;
        let max = self.options.max_inbound;
        if !Permit::fits(&self.connection, cost, max) {
            let message = format!("calls and notifications in progress take more than {max} bytes of memory");
            return Err(Refusal::Answer(CallError::new(Code::ResourceExhausted, message)));
        }
        Ok(())
    }

    /// Answers a call that may not start.
    ///
    /// # Errors
    /// Returns the Close to send if the client violated the protocol.
    pub(crate) fn refuse_call(&self, id: CallId, call: &Call, refusal: Refusal) -> Result<(), CloseFrame> {
        match refusal {
            Refusal::Answer(error) => {
                self.answer_at_once(id, call, Err(error));
                Ok(())
            }
            Refusal::Close(close) => Err(close),
        }
    }

    /// Returns how long a call may run.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.options.call_timeout.min(FAR)
    }

    /// Answers the calls that have reached their deadline, and stops them.
    pub(crate) fn end_overdue_calls(&self, now: Instant) {
        let too_long = |id| self.respond(id, Err(took_too_long(self.options.call_timeout)));
        for call in self.calls.take_overdue(now, self.call_timeout(), too_long) {
            call.count(Outcome::Failed(Code::DeadlineExceeded));
            call.stop(CancelCause::Deadline);
        }
    }

    /// Answers a call that never entered the table.
    pub(crate) fn answer_at_once(&self, id: CallId, call: &Call, result: Result<Bytes, CallError>) {
        let outcome = Outcome::of(&result);
        self.log_fault(call, &result);
        self.respond(id, result);
        call.count(outcome);
    }

    /// Logs a call that failed because of a fault of the server, for its developer.
    pub(crate) fn log_fault(&self, call: &Call, result: &Result<Bytes, CallError>) {
        let Err(error) = result else { return };
        if !error.code.is_fault() {
            return;
        }
        let (connection, user, method) = (self.connection.id, self.user(), call.method());
        let (call, trace_id) = (call.id().0, call.trace_id());
        if !self.logged_call.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                %connection, user, call, trace_id, method, %error, "a call failed; later ones are logged at debug"
            );
        } else {
            tracing::debug!(%connection, user, call, trace_id, method, %error, "a call failed");
        }
    }

    /// Cancels a call because its Reset arrived. Returns whether the call was in flight.
    pub(crate) fn reset_call(&self, id: CallId) -> bool {
        let call = self.calls.cancel(id);
        let was_in_flight = call.is_some();
        if let Some(call) = call {
            call.cancel(CancelCause::Reset);
        }
        was_in_flight
    }

    // === what the client may do ===

    /// Returns the client's user, for the log.
    pub(crate) fn user(&self) -> Option<&str> {
        self.connection.user().map(|user| &**user)
    }

    /// Returns what the client may do. `None` if the router has no authorizer.
    pub(crate) fn access(&self) -> Option<&Access> {
        self.connection.access.as_deref()
    }

    /// Counts something that the client does.
    ///
    /// # Errors
    /// Returns [`TooOften`] if the client does it too often.
    pub(crate) fn take(&self, action: Action, now: Instant) -> Result<(), TooOften> {
        let taken = self.rates.get_or_init(|| Box::new(Rates::new(now))).take(action, &self.options.rates, now);
        if taken.is_err() {
            self.metrics.on_limit_reached(action.limit_name());
        }
        taken
    }

    /// Checks that the client has a right on a room or a method.
    ///
    /// # Errors
    /// Returns `PERMISSION_DENIED` with the missing right.
    pub(crate) fn check_right(&self, right: Right, name: &str) -> Result<(), CallError> {
        let Some(access) = self.access() else { return Ok(()) };
        if access.allows(right, name) { Ok(()) } else { Err(self.right_is_missing(right, name)) }
    }

    /// Counts a denial, and returns the error for the client.
    pub(crate) fn right_is_missing(&self, right: Right, name: &str) -> CallError {
        let connection = self.connection.id;
        let user = self.user();
        match right.names() {
            Names::Rooms => tracing::debug!(%connection, user, %right, room = name, "the client lacks a right"),
            Names::Calls => tracing::debug!(%connection, user, %right, method = name, "the client lacks a right"),
        }
        self.metrics.on_not_granted(right);
        if let Some(access) = self.access() {
            access.deny(right, name);
        }
        let (kind, key) = match right.names() {
            Names::Rooms => ("room", "room"),
            Names::Calls => ("method", "call"),
        };
        let error = CallError::new(Code::PermissionDenied, format!("the right {right} on {kind} {name:?} is missing"));
        error.with_details(json!({ "right": right, key: name }))
    }

    /// Counts a publish that was denied because the client is not in the room, and returns the error
    /// for the client.
    pub(crate) fn is_not_a_member(&self, room: &RoomName) -> CallError {
        tracing::debug!(connection = %self.connection.id, user = self.user(), %room, "only members may publish");
        self.metrics.on_not_a_member();
        let error = CallError::new(Code::PermissionDenied, format!("only members may publish to room {room:?}"));
        error.with_details(json!({ "members_only": true, "room": room }))
    }

    /// Reminds the client that its credential expires, or returns the Close that ends the connection.
    pub(crate) fn on_expiry(&self, now: Instant) -> Option<CloseFrame> {
        match self.access()?.on_time(now)? {
            ExpiryEvent::Remind { expires_in } => {
                let in_ms = u64::try_from(expires_in.as_millis()).unwrap_or(u64::MAX);
                // If the client reads too slowly, its connection is already being closed.
                let _ = self.notify(EXPIRING, json!({ "in_ms": in_ms }).to_string().into());
                None
            }
            ExpiryEvent::End => {
                let is_pending = self.access()?.identity().is_pending;
                let reason = if is_pending { "no credential was sent in time" } else { "the credential has expired" };
                Some(CloseFrame::new(CloseCode::TOKEN_EXPIRED, reason))
            }
        }
    }

    // === the end ===

    /// Ends the connection: it accepts no more output, and every call is cancelled.
    pub(crate) fn end(&self, cause: CancelCause) {
        let _ = self.ended.set(Instant::now());
        self.connection.outbox.seal();
        for call in self.calls.cancel_all() {
            call.cancel(cause);
        }
    }
}

//! The handle that answers one call.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{CallId, CallKey};

use crate::call::running::{Call, Work};
use crate::connection::context::ConnectionContext;
use crate::connection::inbound::Permit;
use crate::end::CancelCause;
use crate::error::{CallError, Code};
use crate::metrics::Outcome;

/// Answers one call, once. If it is dropped unused, the call fails with an error, so every call has
/// an outcome.
#[derive(Debug)]
pub(crate) struct Responder {
    context: Arc<ConnectionContext>,
    key: CallKey,
    work: Work,
    answered: bool,
    _payload: Permit,
}

impl Responder {
    /// Creates the responder of a call that was just admitted and is not answered at once.
    pub(crate) fn start(context: &Arc<ConnectionContext>, id: CallId, call: &Arc<Call>, cost: usize) -> Self {
        let key = context.calls.start(id, call, context.call_timeout());
        let payload = Permit::take_admitted(&context.connection, cost);
        Self { context: Arc::clone(context), key, work: Work::begin(call), answered: false, _payload: payload }
    }

    pub(crate) fn context(&self) -> &Arc<ConnectionContext> {
        &self.context
    }

    /// Answers the call. If the call was cancelled, nothing is sent.
    pub(crate) fn answer(mut self, result: Result<Bytes, CallError>) {
        self.send(result);
    }

    /// Like [`answer`](Self::answer), for a handler that did not end by itself. The tasks in the
    /// call's scope stop too.
    pub(crate) fn fail(mut self, cause: CancelCause, error: CallError) {
        if self.send(Err(error)) {
            self.work.call().stop(cause);
        }
    }

    fn send(&mut self, result: Result<Bytes, CallError>) -> bool {
        self.answered = true;
        let outcome = Outcome::of(&result);
        self.context.log_fault(self.work.call(), &result);
        let wanted = self.context.calls.answer(self.key, || self.context.respond(self.key.id(), result));
        if wanted {
            self.work.call().count(outcome);
        }
        wanted
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered && self.work.call().cause().is_none() {
            self.send(Err(CallError::new(Code::Internal, "the handler ended without a response")));
        }
    }
}

//! What a connection's bytes mean. A session does no I/O: the driver passes it the bytes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::{CallId, CloseFrame, Event, Name, Opcode, ServerConnection, Unfinished, encode_message};

use crate::connection::context::ConnectionContext;
use crate::end::End;
use crate::rate::Action;

/// Interprets a client's bytes.
pub(crate) trait Session: Send {
    /// Handles bytes without waiting, because a Reset may follow them.
    fn on_bytes(&mut self, context: &Arc<ConnectionContext>, input: &[u8]) -> Result<(), End>;

    /// Returns whether a message is unfinished.
    fn unfinished(&mut self) -> Unfinished;

    /// Prepares for the connection's end: drops an unfinished message, and keeps no more input.
    fn on_end(&mut self, context: &ConnectionContext);

    /// Handles bytes that arrive after this side's Close. They have no effect. Returns whether they
    /// contain the client's Close, after which the connection can end.
    fn on_late_bytes(&mut self, input: &[u8]) -> bool;
}

/// Handles a client's calls and notifications. The tutorial's loop and the router implement it.
pub(crate) trait App: Send {
    /// Handles a notification.
    ///
    /// # Errors
    /// Returns the Close to send if the connection must end.
    fn on_notify(
        &mut self,
        context: &Arc<ConnectionContext>,
        now: Instant,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame>;

    /// Handles a call.
    ///
    /// # Errors
    /// Returns the Close to send if the connection must end.
    fn on_request(
        &mut self,
        context: &Arc<ConnectionContext>,
        now: Instant,
        id: CallId,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame>;
}

/// The protocol `websocket.io-rpc-v0.1`.
#[derive(Debug)]
pub(crate) struct Rpc<A> {
    /// `None` after the client violated the protocol, when further bytes have no meaning.
    protocol: Option<ServerConnection>,
    pub(crate) app: A,
}

impl<A: App> Rpc<A> {
    pub(crate) fn new(context: &ConnectionContext, app: A) -> Self {
        Self { protocol: Some(ServerConnection::new(context.options.limits())), app }
    }
}

impl<A: App> Session for Rpc<A> {
    fn on_bytes(&mut self, context: &Arc<ConnectionContext>, input: &[u8]) -> Result<(), End> {
        // An unfinished message counts only between reads, so that it is not counted twice once it
        // is complete.
        context.connection.release_inbound(self.buffered());
        let handled = self.handle(context, input);
        context.connection.charge_inbound(self.buffered());
        handled
    }

    fn unfinished(&mut self) -> Unfinished {
        self.protocol.as_mut().map_or(Unfinished::Nothing, ServerConnection::unfinished)
    }

    fn on_end(&mut self, context: &ConnectionContext) {
        context.connection.release_inbound(self.buffered());
        if let Some(protocol) = &mut self.protocol {
            protocol.skip_messages();
        }
    }

    fn on_late_bytes(&mut self, mut input: &[u8]) -> bool {
        while let Ok(Some(event)) = self.receive(&mut input) {
            if matches!(event, Event::Close(_)) {
                return true;
            }
        }
        false
    }
}

impl<A: App> Rpc<A> {
    fn handle(&mut self, context: &Arc<ConnectionContext>, mut input: &[u8]) -> Result<(), End> {
        // One time for all that was read together. The clock would cost more than the limits do.
        let now = tokio::time::Instant::now().into_std();
        let take = |action| context.take(action, now).map_err(|error| End::ByServer(error.close_frame()));
        while let Some(event) = self.receive(&mut input)? {
            context.connection.count_message();
            match event {
                Event::Notify { name, payload } => {
                    take(Action::Frame)?;
                    context.metrics.notifications_received.inc();
                    self.app.on_notify(context, now, name, payload).map_err(End::ByServer)?;
                }
                Event::Request { id, name, payload } => {
                    take(Action::Frame)?;
                    self.app.on_request(context, now, id, name, payload).map_err(End::ByServer)?;
                }
                Event::Reset { id } => {
                    if !context.reset_call(id) {
                        take(Action::Frame)?;
                    }
                }
                Event::Ping(payload) => {
                    take(Action::ControlFrame)?;
                    context.connection.outbox.pong(encode_message(Opcode::Pong, &payload));
                }
                Event::Pong => take(Action::ControlFrame)?,
                Event::Close(close) => return Err(End::ByClient(close)),
            }
        }
        Ok(())
    }
}

impl<A> Rpc<A> {
    /// Returns the memory of unfinished messages, in bytes.
    fn buffered(&self) -> usize {
        self.protocol.as_ref().map_or(0, ServerConnection::buffered)
    }

    fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Event>, End> {
        let Some(protocol) = &mut self.protocol else { return Ok(None) };
        protocol.receive(input).map_err(|violation| {
            self.protocol = None;
            End::ByServer(violation.close_frame())
        })
    }
}

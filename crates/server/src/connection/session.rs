//! What the bytes of a connection mean. No I/O: the driver feeds it.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{CallId, CloseFrame, Event, Name, Opcode, ServerConnection, Unfinished, encode_message};

use crate::connection::context::ConnectionContext;
use crate::end::End;

/// The meaning of a client's bytes.
pub(crate) trait Session: Send {
    /// Bytes came. They must be dealt with without waiting: behind them a Reset may come.
    fn on_bytes(&mut self, context: &Arc<ConnectionContext>, input: &[u8]) -> Result<(), End>;

    /// Whether a message is unfinished.
    fn unfinished(&mut self) -> Unfinished;

    /// The connection is ending: drops an unfinished message and keeps no more input.
    fn on_end(&mut self, context: &ConnectionContext);

    /// Bytes came after this side's Close; nothing is done for them any more. Whether the client's Close
    /// is among them: then the connection can end.
    fn on_late_bytes(&mut self, input: &[u8]) -> bool;
}

/// What is done with a client's calls and notifications: the tutorial's loop, or a router.
pub(crate) trait App: Send {
    /// A notification came.
    ///
    /// # Errors
    /// The Close to send if the connection can't go on.
    fn on_notify(&mut self, context: &Arc<ConnectionContext>, name: Name, payload: Bytes) -> Result<(), CloseFrame>;

    /// A call came.
    ///
    /// # Errors
    /// The Close to send if the connection can't go on.
    fn on_request(
        &mut self,
        context: &Arc<ConnectionContext>,
        id: CallId,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame>;
}

/// The protocol `websocket.io-rpc-v0.1`.
#[derive(Debug)]
pub(crate) struct Rpc<A> {
    /// `None` once the client broke it: what comes then has no meaning.
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
        // An unfinished message counts only between reads, so that it is not counted twice once it is complete.
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
        while let Some(event) = self.receive(&mut input)? {
            match event {
                Event::Notify { name, payload } => {
                    context.metrics.notifications_received.inc();
                    self.app.on_notify(context, name, payload).map_err(End::ByServer)?;
                }
                Event::Request { id, name, payload } => {
                    self.app.on_request(context, id, name, payload).map_err(End::ByServer)?;
                }
                Event::Reset { id } => context.reset_call(id),
                Event::Ping(payload) => context.connection.outbox.pong(encode_message(Opcode::Pong, &payload)),
                Event::Close(close) => return Err(End::ByClient(close)),
            }
        }
        Ok(())
    }
}

impl<A> Rpc<A> {
    /// Memory of what is unfinished, in bytes.
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

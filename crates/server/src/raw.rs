//! The WebSocket layer alone, without a protocol: an echo that conformance suites test.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use roomcast_core::Outgoing;
use roomcast_protocol::{Decoder, Incoming, Opcode, Unfinished, Violation, encode_message};

use crate::connection::context::ConnectionContext;
use crate::connection::handshake::{Handshake, UpgradeRejection};
use crate::connection::session::Session;
use crate::end::End;
use crate::options::Options;
use crate::tutorial::standalone;

/// Conformance suites send messages of 16 MiB in fragments of 64 bytes.
const MAX_FRAGMENTS: u32 = 16 * 1024 * 1024 / 64;

/// Extractor that accepts a WebSocket client, whatever subprotocol it offers.
#[derive(Debug)]
pub struct EchoUpgrade(Handshake);

impl<S: Sync> FromRequestParts<S> for EchoUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UpgradeRejection> {
        Handshake::from_parts(parts).map(Self)
    }
}

impl EchoUpgrade {
    /// Returns every message to the client. It uses the same reader, writer and closing handshake
    /// as all connections.
    pub fn echo(self, options: Options) -> Response {
        let (response, upgraded) = self.0.accept(None);
        tokio::spawn(async move {
            let Some(transport) = upgraded.await else { return };
            let session = Echo { decoder: Some(Decoder::new(options.max_payload, MAX_FRAGMENTS)) };
            let context = standalone::context(Some(Arc::new(options)), None, None);
            let mut driver = standalone::driver(transport, Arc::clone(&context), session);
            let end = driver.run().await;
            context.end(end.cancel_cause());
            driver.close(&end).await;
        });
        response
    }
}

#[derive(Debug)]
struct Echo {
    /// `None` after the client violated RFC 6455.
    decoder: Option<Decoder>,
}

impl Echo {
    fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, End> {
        let Some(decoder) = &mut self.decoder else { return Ok(None) };
        decoder.decode(input).map_err(|error| {
            self.decoder = None;
            End::ByServer(Violation::WebSocket(error).close_frame())
        })
    }
}

impl Session for Echo {
    fn on_bytes(&mut self, context: &Arc<ConnectionContext>, mut input: &[u8]) -> Result<(), End> {
        while let Some(incoming) = self.decode(&mut input)? {
            let (opcode, payload) = match incoming {
                Incoming::Text(text) => (Opcode::Text, text),
                Incoming::Binary(payload) => (Opcode::Binary, payload),
                Incoming::Ping(payload) => (Opcode::Pong, payload),
                Incoming::Close(close) => return Err(End::ByClient(close)),
                Incoming::Pong(_) => continue,
            };
            // Queues every Pong, not only the latest, because the suites count them.
            let echoed = Outgoing::own(encode_message(opcode, &payload));
            if context.connection.outbox.push(echoed).is_err() {
                tracing::debug!("an echo found no place in the outbox");
            }
        }
        Ok(())
    }

    fn unfinished(&mut self) -> Unfinished {
        self.decoder.as_mut().map_or(Unfinished::Nothing, Decoder::unfinished)
    }

    fn on_end(&mut self, _link: &ConnectionContext) {
        if let Some(decoder) = &mut self.decoder {
            decoder.skip_messages();
        }
    }

    fn on_late_bytes(&mut self, mut input: &[u8]) -> bool {
        while let Ok(Some(incoming)) = self.decode(&mut input) {
            if matches!(incoming, Incoming::Close(_)) {
                return true;
            }
        }
        false
    }
}

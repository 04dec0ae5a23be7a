//! The WebSocket layer alone, under no protocol: an echo for conformance suites to judge it by.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use roomcast_core::Outgoing;
use roomcast_protocol::{Decoder, Incoming, Opcode, Violation, encode_message};

use crate::driver::End;
use crate::link::Link;
use crate::options::Options;
use crate::session::{Session, pong};
use crate::standalone;
use crate::upgrade::{Handshake, UpgradeRejection};

/// Extractor: a WebSocket client, whatever subprotocol it offers.
#[derive(Debug)]
pub struct EchoUpgrade(Handshake);

impl<S: Sync> FromRequestParts<S> for EchoUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UpgradeRejection> {
        Handshake::from_parts(parts).map(Self)
    }
}

impl EchoUpgrade {
    /// Sends every message back as it came, through the same reader, writer and closing handshake as
    /// all connections.
    pub fn echo(self, options: Options) -> Response {
        let (response, upgraded) = self.0.accept(None);
        tokio::spawn(async move {
            let Some(transport) = upgraded.await else { return };
            let session = Echo { decoder: Decoder::new(options.max_payload) };
            let link = standalone::link(Some(Arc::new(options)), None, None);
            let mut driver = standalone::driver(transport, Arc::clone(&link), session);
            let end = driver.run().await;
            link.end(end.cancel_cause());
            driver.close(&end).await;
        });
        response
    }
}

#[derive(Debug)]
struct Echo {
    decoder: Decoder,
}

impl Session for Echo {
    fn on_bytes(&mut self, link: &Arc<Link>, mut input: &[u8]) -> Result<(), End> {
        let violated = |error| End::ByServer(Violation::WebSocket(error).close_frame());
        while let Some(incoming) = self.decoder.decode(&mut input).map_err(violated)? {
            let (opcode, payload) = match incoming {
                Incoming::Text(text) => (Opcode::Text, text),
                Incoming::Binary(payload) => (Opcode::Binary, payload),
                Incoming::Close(close) => return Err(End::ByClient(close)),
                Incoming::Ping(payload) => {
                    pong(link, &payload);
                    continue;
                }
                Incoming::Pong(_) => continue,
            };
            let echoed = Outgoing { bytes: encode_message(opcode, &payload), accepted_at: None };
            if link.peer.outbox.push(echoed).is_err() {
                tracing::debug!("an echo found no place in the outbox");
            }
        }
        Ok(())
    }
}

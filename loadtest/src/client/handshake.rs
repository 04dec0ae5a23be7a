//! The opening handshake (RFC 6455, section 4.1), as bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use roomcast_protocol::SUBPROTOCOL;
use thiserror::Error;

use super::target::Target;

/// A response's head may have so many bytes and headers.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Why the handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum HandshakeError {
    #[error("HTTP {0}")]
    Status(u16),
    #[error("invalid HTTP response")]
    NotHttp,
    #[error("subprotocol not accepted")]
    Subprotocol,
}

/// The request for an upgrade.
pub(crate) fn request(target: &Target, token: Option<&str>) -> Vec<u8> {
    let mut key = [0; 16];
    fastrand::fill(&mut key);
    let (path, authority, key) = (&target.path, &target.authority, BASE64.encode(key));
    let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{authorization}\r\n"
    )
    .into_bytes()
}

/// Reads the response's head: its length once it is whole and says that this is a WebSocket now.
pub(crate) fn response(received: &[u8]) -> Result<Option<usize>, HandshakeError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(received).map_err(|_| HandshakeError::NotHttp)?;
    let httparse::Status::Complete(len) = status else {
        return if received.len() > MAX_HEAD { Err(HandshakeError::NotHttp) } else { Ok(None) };
    };
    match response.code {
        Some(101) => {}
        other => return Err(HandshakeError::Status(other.unwrap_or_default())),
    }
    let is_ours = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("sec-websocket-protocol") && header.value == SUBPROTOCOL.as_bytes()
    };
    if response.headers.iter().any(is_ours) { Ok(Some(len)) } else { Err(HandshakeError::Subprotocol) }
}

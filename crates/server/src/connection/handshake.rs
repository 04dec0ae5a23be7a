//! The opening handshake (RFC 6455, section 4).

use std::time::Duration;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::upgrade::OnUpgrade;
use roomcast_protocol::SUBPROTOCOL;
use sha1::{Digest, Sha1};
use thiserror::Error;

use crate::connection::transport::Transport;
use crate::metrics::refusals;

/// The GUID that is hashed with a client's key (RFC 6455, section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is not upgraded to a WebSocket. As a response, it has the HTTP status that RFC
/// 6455 and the protocol require.
///
/// ```
/// use axum::response::IntoResponse;
/// use roomcast::UpgradeRejection;
///
/// assert_eq!(UpgradeRejection::NoUpgrade.into_response().status(), 426);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UpgradeRejection {
    /// The request's method is not GET.
    #[error("open a WebSocket with GET")]
    MethodNotGet,
    /// The request does not ask for an upgrade to WebSocket.
    #[error("this is a WebSocket endpoint: send Upgrade: websocket")]
    NoUpgrade,
    /// The `Connection` header does not contain the word `Upgrade`.
    #[error("send Connection: Upgrade")]
    NoConnectionUpgrade,
    /// The request's HTTP version is not 1.1.
    #[error("the request must use HTTP/1.1")]
    HttpVersion,
    /// The request has no `Host` header, or more than one.
    #[error("send exactly one Host header")]
    Host,
    /// The request has a body, or a header that announces one. The bytes after the request could be
    /// read as a body or as frames.
    #[error("send no body, and neither Content-Length nor Transfer-Encoding")]
    Body,
    /// The WebSocket version is not 13.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// The request has no key, more than one, or a key that is not 16 bytes of base64.
    #[error("send exactly one Sec-WebSocket-Key: 16 random bytes, encoded as base64")]
    Key,
    /// The request offers no supported subprotocol.
    #[error("offer a supported subprotocol in Sec-WebSocket-Protocol: {SUBPROTOCOL}")]
    Subprotocol,
    /// The HTTP server cannot hand over the connection.
    #[error("this connection cannot be upgraded")]
    NotUpgradable,
    /// The client's address has too many connections, or opens them too often.
    #[error("your address has reached a limit ({limit}); try again later")]
    TooManyFromAddress {
        /// The limit: `max_connections_per_address`, or `connections` for the rate of new ones.
        limit: &'static str,
        /// The time after which the client may try again.
        retry_after: Duration,
    },
    /// The node already has `max_connections` connections.
    #[error("the node has reached its limit of {max} connections; try again later")]
    TooManyConnections {
        /// The maximum.
        max: usize,
    },
    /// The open connections exceed a memory budget of the node.
    #[error("the node has no memory left for connections; try again later")]
    ShortOfMemory,
}

impl UpgradeRejection {
    /// Returns the reason's name in metrics. For a limit of addresses, it is the name of the option.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::MethodNotGet
            | Self::NoUpgrade
            | Self::NoConnectionUpgrade
            | Self::HttpVersion
            | Self::Host
            | Self::Body
            | Self::Key => refusals::HANDSHAKE,
            Self::Version => refusals::VERSION,
            Self::Subprotocol => refusals::SUBPROTOCOL,
            Self::NotUpgradable => refusals::NOT_UPGRADABLE,
            Self::TooManyFromAddress { limit, .. } => limit,
            Self::TooManyConnections { .. } => refusals::MAX_CONNECTIONS,
            Self::ShortOfMemory => refusals::MEMORY,
        }
    }
}

impl IntoResponse for UpgradeRejection {
    fn into_response(self) -> Response {
        let hint = |name: HeaderName, value: &'static str| Some((name, HeaderValue::from_static(value)));
        let retry_after = |time: Duration| (header::RETRY_AFTER, (time.as_secs_f64().ceil() as u64).into());
        let (status, header) = match self {
            Self::MethodNotGet => (StatusCode::METHOD_NOT_ALLOWED, hint(header::ALLOW, "GET")),
            Self::NoUpgrade => (StatusCode::UPGRADE_REQUIRED, hint(header::UPGRADE, "websocket")),
            Self::Version => (StatusCode::UPGRADE_REQUIRED, hint(header::SEC_WEBSOCKET_VERSION, "13")),
            Self::NoConnectionUpgrade | Self::HttpVersion | Self::Host | Self::Body | Self::Key | Self::Subprotocol => {
                (StatusCode::BAD_REQUEST, None)
            }
            Self::NotUpgradable => (StatusCode::INTERNAL_SERVER_ERROR, None),
            Self::TooManyFromAddress { retry_after: time, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, Some(retry_after(time)))
            }
            Self::TooManyConnections { .. } | Self::ShortOfMemory => {
                (StatusCode::SERVICE_UNAVAILABLE, hint(header::RETRY_AFTER, "5"))
            }
        };
        let mut response = (status, format!("{self}\n")).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A valid handshake, whose subprotocol is not checked yet.
#[derive(Debug)]
pub(crate) struct Handshake {
    on_upgrade: OnUpgrade,
    accept: HeaderValue,
}

impl Handshake {
    pub(crate) fn from_parts(parts: &mut Parts) -> Result<Self, UpgradeRejection> {
        let headers = &parts.headers;
        if parts.method != Method::GET {
            return Err(UpgradeRejection::MethodNotGet);
        }
        if !has_token(headers, header::UPGRADE, "websocket") {
            return Err(UpgradeRejection::NoUpgrade);
        }
        if !has_token(headers, header::CONNECTION, "upgrade") {
            return Err(UpgradeRejection::NoConnectionUpgrade);
        }
        if parts.version != Version::HTTP_11 {
            return Err(UpgradeRejection::HttpVersion);
        }
        only(headers, header::HOST).ok_or(UpgradeRejection::Host)?;
        let is_empty = headers.get_all(header::CONTENT_LENGTH).iter().all(|length| length == "0");
        if !is_empty || headers.contains_key(header::TRANSFER_ENCODING) {
            return Err(UpgradeRejection::Body);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(UpgradeRejection::Version);
        }
        let accept = only(headers, header::SEC_WEBSOCKET_KEY).and_then(accept).ok_or(UpgradeRejection::Key)?;
        let on_upgrade = parts.extensions.remove::<OnUpgrade>().ok_or(UpgradeRejection::NotUpgradable)?;
        Ok(Self { on_upgrade, accept })
    }

    /// Returns the response that switches protocols, and a future of the stream that becomes
    /// available then.
    pub(crate) fn accept(
        self,
        subprotocol: Option<&'static str>,
    ) -> (Response, impl Future<Output = Option<Transport>> + Send + use<>) {
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        let on_upgrade = self.on_upgrade;
        let upgraded = async move {
            match on_upgrade.await {
                Ok(upgraded) => Some(Transport::new(upgraded)),
                Err(error) => {
                    tracing::debug!(%error, "a client left during its handshake");
                    None
                }
            }
        };
        (response, upgraded)
    }
}

/// Returns the value of `Sec-WebSocket-Accept` for a key, or `None` if the key is invalid.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let key = key.as_bytes();
    let mut decoded = [0; 18];
    if BASE64.decode_slice(key, &mut decoded) != Ok(16) {
        return None;
    }
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    HeaderValue::from_str(&BASE64.encode(digest)).ok()
}

/// Returns the value of a header that occurs exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns whether a comma-separated header, over all its lines, has a token. Case does not matter.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|offered| offered.eq_ignore_ascii_case(token))
}

pub(crate) fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|value| value.split(',')).map(str::trim)
}

//! Delivers lifecycle events to a backend: a signed POST for each batch.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::uri::{Authority, Scheme};
use axum::http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use roomcast::{BoxFuture, EVENTS_CONTENT_TYPE, EventBatch, EventSink};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::signature::{Request as Signed, SigningSecrets};

/// How the names of hooks begin. A backend never gets a call of a method whose name begins with it,
/// because a client could otherwise forge a hook.
pub const HOOK_PREFIX: &str = "roomcast.";

/// The name of this hook. A batch is POSTed to the backend's URL, followed by `/` and this name.
const HOOK: &str = "roomcast.events";

/// The most bytes of a response's head.
const MAX_HEAD: usize = 16 * 1024;

/// Delivers lifecycle events to a backend over HTTP/1.1, with a connection for each batch. A status
/// of 2xx accepts the batch. Redirects are not followed.
///
/// ```
/// use roomcast_backends::EventDelivery;
///
/// let secrets = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?;
/// let delivery = EventDelivery::new("http://chat.internal:8080/rpc", Some(secrets))?;
/// # let _ = delivery;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventDelivery(Arc<Target>);

struct Target {
    authority: Authority,
    path: String,
    secrets: Option<SigningSecrets>,
}

/// Why events cannot be delivered to a URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{url:?} is not a URL that events can be sent to: it must be http://HOST[:PORT][/PATH], without a query")]
pub struct InvalidEventUrl {
    url: String,
}

impl EventDelivery {
    /// Creates a delivery to the hook `roomcast.events` below a URL.
    ///
    /// # Errors
    /// Returns [`InvalidEventUrl`] if the URL does not begin with `http://`, or has a query.
    pub fn new(url: &str, secrets: Option<SigningSecrets>) -> Result<Self, InvalidEventUrl> {
        let invalid = || InvalidEventUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| invalid())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(invalid)?;
        if uri.scheme() != Some(&Scheme::HTTP) || uri.query().is_some() {
            return Err(invalid());
        }
        let path = format!("{}/{HOOK}", uri.path().trim_end_matches('/'));
        Ok(Self(Arc::new(Target { authority: authority.clone(), path, secrets })))
    }
}

impl EventSink for EventDelivery {
    fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
        let target = Arc::clone(&self.0);
        Box::pin(async move { target.post(batch).await })
    }
}

impl Target {
    async fn post(&self, batch: EventBatch) -> Result<(), String> {
        let request = self.request(batch, SystemTime::now())?;
        let address = (self.authority.host(), self.authority.port_u16().unwrap_or(80));
        let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
        let failed = |error: hyper::Error| format!("the request failed: {error}");
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // Ends with this function, however that ends.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let response = sender.send_request(request).await.map_err(failed)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(refused(status)),
        }
    }

    fn request(&self, batch: EventBatch, now: SystemTime) -> Result<Request<Full<bytes::Bytes>>, String> {
        let EventBatch { id, body, .. } = batch;
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = Request::post(self.path.as_str())
            .header(header::HOST, self.authority.as_str())
            .header(header::CONTENT_TYPE, EVENTS_CONTENT_TYPE)
            .header(header::CONNECTION, "close")
            .header("roomcast-hook", "events")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp);
        if let Some(secrets) = &self.secrets {
            let signatures = secrets.sign(&Signed {
                id: &id,
                timestamp,
                method: "POST",
                path: &self.path,
                roomcast_headers: &[("roomcast-hook", "events")],
                body: &body,
            });
            request = request
                .header("webhook-signature", signatures.webhook)
                .header("roomcast-signature", signatures.request);
        }
        request.body(Full::new(body)).map_err(|error| format!("the request cannot be made: {error}"))
    }
}

fn refused(status: StatusCode) -> String {
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    format!("the response has status {status}{hint}")
}

impl fmt::Debug for EventDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventDelivery").field("authority", &self.0.authority).field("path", &self.0.path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sent_below_the_url_of_the_backend() {
        let path = |url: &str| EventDelivery::new(url, None).unwrap().0.path.clone();
        assert_eq!(path("http://chat:8080"), "/roomcast.events");
        assert_eq!(path("http://chat:8080/rpc/"), "/rpc/roomcast.events");
        for url in ["https://chat/rpc", "http://chat/rpc?x=1", "chat:8080", "http://ann:secret@chat/", ""] {
            let error = EventDelivery::new(url, None).unwrap_err().to_string();
            assert!(error.contains("must be http://HOST[:PORT][/PATH]"), "{error}");
        }
    }
}

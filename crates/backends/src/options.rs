//! What can be configured about a backend.

use std::time::Duration;

use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Uri};
use thiserror::Error;

use crate::signature::SigningSecrets;

/// The longest [`cancel_grace`](BackendOptions::cancel_grace). A longer one counts as this one.
pub const MAX_CANCEL_GRACE: Duration = Duration::from_secs(60);

/// How a node calls a backend.
///
/// ```
/// use std::time::Duration;
///
/// use roomcast_backends::BackendOptions;
///
/// # fn main() -> Result<(), roomcast_backends::InvalidUrl> {
/// let mut options = BackendOptions::new("chat", "http://127.0.0.1:8080/rpc".parse()?);
/// options.timeout = Duration::from_secs(5);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackendOptions {
    /// The name, in metrics and logs.
    pub name: String,
    /// Where the backend is. The method is appended to the path.
    pub url: BackendUrl,
    /// Whether requests use HTTP/2, without an upgrade: with prior knowledge over `http`, and with
    /// ALPN over `https`. Otherwise, they use HTTP/1.1.
    pub http2: bool,
    /// The CA certificates (PEM) that are trusted over `https`. `None`: those of the system.
    pub ca_certificates: Option<Vec<u8>>,
    /// How long a request waits for the head of the response. 30 s by default.
    pub timeout: Duration,
    /// How long a request waits for the next part of the response's body. 60 s by default.
    pub idle_timeout: Duration,
    /// The largest number of concurrent requests. 256 by default.
    pub concurrency: usize,
    /// The largest number of calls that wait for others to end. 1,024 by default.
    pub queue: usize,
    /// How long a call waits for others to end. 1 s by default.
    pub queue_time: Duration,
    /// The largest response, in bytes. 1 MiB by default.
    pub max_response: usize,
    /// Whether responses can be [streams](crate#streams). `true` by default.
    pub streams: bool,
    /// Headers of all requests.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers of the request that opened the client's connection, which the backend gets. The
    /// upgrade must [keep the request](roomcast::SocketIoUpgrade::keep_request).
    pub forward: Vec<HeaderName>,
    /// Where the backend gets a notice of each cancelled call whose request was in flight, for backends
    /// that cannot see that a request has ended. The path must not be empty. `None`: there are no
    /// notices.
    pub cancel_url: Option<BackendUrl>,
    /// How long a request goes on after its call was cancelled, so that the backend can finish. Until then,
    /// the request keeps its slot. At most [`MAX_CANCEL_GRACE`]. By default 0: the request ends with the call.
    pub cancel_grace: Duration,
    /// The secrets that sign requests. `None`: requests are not signed.
    pub signing_secrets: Option<SigningSecrets>,
}

impl BackendOptions {
    /// Creates options with the defaults.
    pub fn new(name: impl Into<String>, url: BackendUrl) -> Self {
        Self {
            name: name.into(),
            url,
            http2: false,
            ca_certificates: None,
            timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            concurrency: 256,
            queue: 1024,
            queue_time: Duration::from_secs(1),
            max_response: 1024 * 1024,
            streams: true,
            headers: Vec::new(),
            forward: Vec::new(),
            cancel_url: None,
            cancel_grace: Duration::ZERO,
            signing_secrets: None,
        }
    }
}

/// The URL of a backend: `http://` or `https://`, a host, and perhaps a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendUrl {
    scheme: Scheme,
    host: String,
    authority: String,
    port: u16,
    /// Without a `/` at the end.
    path: String,
}

/// Why a text is not the URL of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// The scheme is missing or another one.
    #[error("it must begin with http:// or https://")]
    Scheme,
    /// There is no host.
    #[error("it must contain a host")]
    Host,
    /// It contains a user or a password.
    #[error(
        "it must not contain a user or a password; sign requests with signing_secret_file, or set a header in headers"
    )]
    Credentials,
    /// It contains a query, which would follow the method.
    #[error("it must not contain a query, because the method is appended to the path")]
    Query,
}

impl std::str::FromStr for BackendUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Scheme)?;
        let scheme = uri.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let scheme = scheme.ok_or(InvalidUrl::Scheme)?.clone();
        let authority = uri.authority().ok_or(InvalidUrl::Host)?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl::Credentials);
        }
        if authority.host().is_empty() {
            return Err(InvalidUrl::Host);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidUrl::Query);
        }
        let port = authority.port_u16().unwrap_or(if scheme == Scheme::HTTPS { 443 } else { 80 });
        Ok(Self {
            scheme,
            host: authority.host().to_owned(),
            authority: authority.to_string(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl std::fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl BackendUrl {
    /// Splits the last segment from the path. Returns `None` if the path is empty.
    ///
    /// ```
    /// use roomcast_backends::BackendUrl;
    ///
    /// let url: BackendUrl = "http://chat:8080/rpc/chat.send".parse()?;
    /// let (backend, method) = url.split_last().expect("it has a path");
    /// assert_eq!((backend.to_string().as_str(), method.as_str()), ("http://chat:8080/rpc", "chat.send"));
    /// # Ok::<(), roomcast_backends::InvalidUrl>(())
    /// ```
    pub fn split_last(&self) -> Option<(Self, String)> {
        let (path, last) = self.path.rsplit_once('/')?;
        Some((Self { path: path.to_owned(), ..self.clone() }, last.to_owned()))
    }

    /// Returns the path of a method, whose name is a part of a path.
    pub(crate) fn path_of(&self, method: &str) -> String {
        format!("{}/{method}", self.path)
    }

    /// Returns the URL with another path.
    pub(crate) fn with_path(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.authority)
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_perhaps_a_path() {
        for (text, path, host, port) in [
            ("http://chat.internal:8080/rpc", "/rpc/a.b", "chat.internal", 8080),
            ("https://chat.internal/", "/a.b", "chat.internal", 443),
            ("http://[::1]", "/a.b", "[::1]", 80),
        ] {
            let url: BackendUrl = text.parse().unwrap();
            assert_eq!((&*url.path_of("a.b"), url.host(), url.port()), (path, host, port), "{text}");
            assert_eq!(url.to_string(), text.trim_end_matches('/'));
        }
        for (text, error) in [
            ("", InvalidUrl::Scheme),
            ("chat.internal", InvalidUrl::Scheme),
            ("ftp://chat.internal", InvalidUrl::Scheme),
            ("http://ann:secret@chat.internal", InvalidUrl::Credentials),
            ("http://chat.internal/rpc?key=1", InvalidUrl::Query),
        ] {
            assert_eq!(text.parse::<BackendUrl>().unwrap_err(), error, "{text}");
        }
    }
}

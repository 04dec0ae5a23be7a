//! How the JWK set at a URL is fetched: one GET without redirects, with bounds for its size and time.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use axum::http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::keys::{Keys, KeysError};

/// The largest JWK set that is fetched, in bytes.
pub const MAX_JWKS_LEN: usize = 256 * 1024;

/// How long a fetch may take, from the look-up of the host's address to the last byte.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The memory for the unread part of a response, in bytes. The head of a response must fit in it.
const MAX_BUFFER: usize = 64 * 1024;

const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// The URL of an issuer's JWK set. Its scheme is `https`, or `http` if the host is `localhost` or a
/// loopback address.
///
/// ```
/// use roomcast_auth::JwksUrl;
///
/// let url: JwksUrl = "https://id.example.org/jwks.json".parse()?;
/// assert_eq!(url.to_string(), "https://id.example.org/jwks.json");
/// assert!("http://id.example.org/jwks.json".parse::<JwksUrl>().is_err());
/// # Ok::<(), roomcast_auth::InvalidJwksUrl>(())
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct JwksUrl {
    uri: Uri,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    is_https: bool,
}

/// The error of a text that cannot be the URL of a JWK set. It does not quote the text, which could
/// contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidJwksUrl {
    /// The text is not an absolute URL, or its scheme is not `https` or `http`.
    #[error("not an https URL; write a URL such as https://id.example.org/jwks.json")]
    NotHttps,
    /// An `http` URL has a host that is not on this machine.
    #[error("http is allowed only for localhost and loopback addresses; write https")]
    Unencrypted,
    /// The URL contains a user name or a password.
    #[error("the URL of a JWK set must not contain a user name or a password")]
    Credentials,
}

impl FromStr for JwksUrl {
    type Err = InvalidJwksUrl;

    fn from_str(text: &str) -> Result<Self, InvalidJwksUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidJwksUrl::NotHttps)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidJwksUrl::NotHttps);
        };
        if authority.as_str().contains('@') {
            return Err(InvalidJwksUrl::Credentials);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (is_https, default_port) = match scheme {
            "https" => (true, HTTPS_PORT),
            "http" => (false, HTTP_PORT),
            _ => return Err(InvalidJwksUrl::NotHttps),
        };
        let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !is_https && !is_loopback {
            return Err(InvalidJwksUrl::Unencrypted);
        }
        let port = authority.port_u16().unwrap_or(default_port);
        Ok(Self { uri, host, port, is_https })
    }
}

impl TryFrom<String> for JwksUrl {
    type Error = InvalidJwksUrl;

    fn try_from(text: String) -> Result<Self, InvalidJwksUrl> {
        text.parse()
    }
}

/// Omits the query, which could contain a secret.
impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.uri.to_string();
        f.write_str(uri.split('?').next().unwrap_or_default())
    }
}

/// Like [`Display`](fmt::Display).
impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwksUrl({self})")
    }
}

/// Fetches JWK sets. Cheap to clone.
///
/// It never follows a redirect, accepts at most 256 KiB, and gives up after 5 s.
#[derive(Clone)]
pub struct JwksClient {
    tls: TlsConnector,
    /// The trusted CA certificates in PEM. `None`: those of the system.
    trusted: Option<Arc<[u8]>>,
}

impl fmt::Debug for JwksClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwksClient")
    }
}

/// Two clients are equal if they trust the same CA certificates.
impl PartialEq for JwksClient {
    fn eq(&self, other: &Self) -> bool {
        self.trusted == other.trusted
    }
}

/// The error of CA certificates that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidCaCertificates {
    /// The text contains no certificate.
    #[error("it contains no certificate in PEM")]
    Empty,
    /// A certificate is malformed.
    #[error("it contains a certificate that cannot be read: {0}")]
    Malformed(String),
}

impl JwksClient {
    /// Creates a client that trusts the system's CA certificates.
    pub fn new() -> Self {
        let mut roots = RootCertStore::empty();
        // Without any, each fetch fails with an error that shows the reason.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self::with_roots(roots, None)
    }

    /// Creates a client that trusts only these CA certificates, in PEM.
    ///
    /// # Errors
    /// Returns [`InvalidCaCertificates`] if a certificate is malformed, or if there is none.
    pub fn trusting(pem: &[u8]) -> Result<Self, InvalidCaCertificates> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| InvalidCaCertificates::Malformed(error.to_string()))?;
            roots.add(certificate).map_err(|error| InvalidCaCertificates::Malformed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(InvalidCaCertificates::Empty);
        }
        Ok(Self::with_roots(roots, Some(pem.into())))
    }

    fn with_roots(roots: RootCertStore, trusted: Option<Arc<[u8]>>) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(config)), trusted }
    }

    /// Fetches the keys at a URL.
    ///
    /// # Errors
    /// Returns [`FetchError`] for every response that is not a JWK set with usable keys.
    ///
    /// # Cancel safety
    /// If the future is dropped, the connection closes.
    pub async fn fetch(&self, url: &JwksUrl) -> Result<Keys, FetchError> {
        let body = tokio::time::timeout(FETCH_TIMEOUT, self.get(url)).await.map_err(|_| FetchError::Timeout)??;
        Ok(Keys::from_jwks(&body)?)
    }

    async fn get(&self, url: &JwksUrl) -> Result<Bytes, FetchError> {
        let stream =
            TcpStream::connect((&*url.host, url.port)).await.map_err(|error| FetchError::Connect(cause(&error)))?;
        if !url.is_https {
            return get_over(stream, url).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|error| FetchError::Tls(cause(&error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| FetchError::Tls(cause(&error)))?;
        get_over(stream, url).await
    }
}

impl Default for JwksClient {
    fn default() -> Self {
        Self::new()
    }
}

async fn get_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &JwksUrl,
) -> Result<Bytes, FetchError> {
    let failed = |error: hyper::Error| FetchError::Http(cause(&error));
    let authority = url.uri.authority().map_or("", |authority| authority.as_str());
    let path = url.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("roomcast/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Http(cause(&error)))?;

    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function, however that ends.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    match Limited::new(response.into_body(), MAX_JWKS_LEN).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(FetchError::Http(cause(&*error))),
    }
}

/// The reason why an issuer's keys cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The host has no address, or does not accept the connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The TLS handshake failed, for example because the certificate is not trusted.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// The exchange of the request and the response failed.
    #[error("the HTTP request failed: {0}")]
    Http(String),
    /// The response has a status other than 200.
    #[error("the response has status {0} instead of 200{hint}", hint = if .0.is_redirection() { "; redirects are not followed" } else { "" })]
    Status(StatusCode),
    /// The response is too large.
    #[error("the response has more than {MAX_JWKS_LEN} bytes")]
    TooLarge,
    /// The response is not a JWK set with usable keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The response did not arrive in time.
    #[error("there was no complete response within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
}

impl FetchError {
    /// Returns the kind of error as a label of a metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Http(_) => "http",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Keys(_) => "keys",
            Self::Timeout => "timeout",
        }
    }
}

/// Returns an error with its causes.
fn cause(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Many errors repeat their cause.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_https_or_on_this_machine() {
        for (text, expected) in [
            ("https://id.example/jwks", Ok(("id.example", 443))),
            ("https://id.example:8443", Ok(("id.example", 8443))),
            ("http://127.0.0.2:8080/jwks?a=b", Ok(("127.0.0.2", 8080))),
            ("http://[::1]/jwks", Ok(("::1", 80))),
            ("http://localhost/jwks", Ok(("localhost", 80))),
            ("http://id.example/jwks", Err(InvalidJwksUrl::Unencrypted)),
            ("http://localhost.id.example/jwks", Err(InvalidJwksUrl::Unencrypted)),
            ("http://127.0.0.1@id.example/jwks", Err(InvalidJwksUrl::Credentials)),
            ("https://user:secret@id.example/jwks", Err(InvalidJwksUrl::Credentials)),
            ("ftp://id.example/jwks", Err(InvalidJwksUrl::NotHttps)),
            ("file:///etc/passwd", Err(InvalidJwksUrl::NotHttps)),
            ("id.example/jwks", Err(InvalidJwksUrl::NotHttps)),
            ("/jwks", Err(InvalidJwksUrl::NotHttps)),
            ("", Err(InvalidJwksUrl::NotHttps)),
        ] {
            let url = text.parse::<JwksUrl>();
            assert_eq!(url.as_ref().map(|url| (&*url.host, url.port)).map_err(|error| *error), expected, "{text}");
        }
        let with_secret: JwksUrl = "https://id.example/jwks?key=secret".parse().unwrap();
        assert_eq!(with_secret.to_string(), "https://id.example/jwks");
    }
}

//! The HTTP client of one backend: its pool of connections, its limits, and what its errors mean.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus::Histogram;
use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::connector::Connector;
use crate::in_flight::RequestBody;
use crate::options::BackendOptions;

/// How long it may take to open a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept. It is shorter than the 5 s after which common servers close
/// idle connections, so that a request seldom meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The largest head of a response, and the largest part of its body that waits to be read, in bytes.
const MAX_BUFFER: usize = 64 * 1024;

/// A connection over HTTP/2 with requests in flight is closed if it has been silent for so long and
/// then does not answer a ping within the same time.
const PING: Duration = Duration::from_secs(10);

/// The client of a backend, over one version of HTTP.
#[derive(Debug, Clone)]
pub(crate) enum HttpClient {
    Http1(Client<HttpsConnector<Connector>, RequestBody>),
    Http2(Client<HttpsConnector<HttpConnector>, RequestBody>),
}

/// The error of CA certificates that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it contains no CA certificate in PEM that can be read")]
pub struct InvalidCaCertificates;

/// Why there is no response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The backend has certainly not executed the request.
    NotExecuted,
    /// The connection was lost, and the backend may have executed the request.
    Lost,
    /// The response is not valid HTTP, or its head is too large.
    Invalid,
}

impl HttpClient {
    pub(crate) fn new(options: &BackendOptions, stop_seconds: Histogram) -> Result<Self, InvalidCaCertificates> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls =
            HttpsConnectorBuilder::new().with_tls_config(tls(options.ca_certificates.as_deref())?).https_or_http();
        let mut client = builder(options.concurrency);
        Ok(match options.http2 {
            false => Self::Http1(client.build(tls.enable_http1().wrap_connector(Connector::new(tcp, stop_seconds)))),
            true => Self::Http2(client.http2_only(true).build(tls.enable_http2().wrap_connector(tcp))),
        })
    }

    /// Sends a request, and returns when the head of the response has arrived.
    ///
    /// # Cancel safety
    /// If the future is dropped, the request is cancelled. So it is if the response's body is dropped
    /// before its end.
    pub(crate) async fn send(&self, request: Request<RequestBody>) -> Result<Response<Incoming>, legacy::Error> {
        match self {
            Self::Http1(client) => client.request(request).await,
            Self::Http2(client) => client.request(request).await,
        }
    }
}

fn builder(concurrency: usize) -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    let window = u32::try_from(MAX_BUFFER).unwrap_or(u32::MAX);
    let streams = u32::try_from(concurrency.min(1024)).unwrap_or(1024);
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(concurrency)
        .http1_max_buf_size(MAX_BUFFER)
        .http2_max_header_list_size(window)
        .http2_initial_stream_window_size(window)
        .http2_initial_connection_window_size(window.saturating_mul(streams))
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING);
    builder
}

pub(crate) fn tls(ca_certificates: Option<&[u8]>) -> Result<ClientConfig, InvalidCaCertificates> {
    let mut roots = RootCertStore::empty();
    match ca_certificates {
        // Without any, each handshake fails with an error that shows the reason.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = roots.add(certificate.map_err(|_| InvalidCaCertificates)?);
                added.map_err(|_| InvalidCaCertificates)?;
            }
            if roots.is_empty() {
                return Err(InvalidCaCertificates);
            }
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl From<&legacy::Error> for SendError {
    fn from(error: &legacy::Error) -> Self {
        if error.is_connect() {
            return Self::NotExecuted;
        }
        let mut cause: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = cause {
            if error.downcast_ref::<h2::Error>().is_some_and(|error| error.reason() == Some(h2::Reason::REFUSED_STREAM))
            {
                return Self::NotExecuted;
            }
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::Invalid;
            }
            cause = error.source();
        }
        Self::Lost
    }
}

/// Returns an error with its causes, for logs.
pub(crate) fn with_causes(error: &dyn Error) -> String {
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

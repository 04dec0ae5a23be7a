//! A server that publishes the keys of an issuer, over TLS or on plain loopback.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::certificate;
use crate::program::Directory;

/// What the server does with a request.
#[derive(Debug, Clone)]
pub enum JwksReply {
    /// It replies with status 200 and this body.
    Body(String),
    /// It replies with this status and an empty body.
    Status(u16),
    /// It replies with a redirect to this URL.
    Redirect(String),
    /// It never replies, and keeps the connection open.
    Silence,
    /// It closes the connection.
    Close,
}

/// A running server for 127.0.0.1. It ends when dropped.
#[derive(Debug)]
pub struct JwksServer {
    /// The URL of the keys.
    pub url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
    directory: Directory,
}

#[derive(Debug)]
struct State {
    reply: Mutex<JwksReply>,
    requests: AtomicUsize,
}

impl JwksServer {
    /// Starts a server with TLS. Its certificate is signed by [`ca_certificate`](Self::ca_certificate).
    ///
    /// # Panics
    /// Panics if openssl is missing.
    pub async fn start(reply: JwksReply) -> Self {
        let directory = Directory::create();
        certificate::create(&directory);
        let chain = CertificateDer::pem_file_iter(directory.file("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(directory.file("server.key")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain.flatten().collect(), key));
        Self::serve(Some(TlsAcceptor::from(Arc::new(config.expect("a key pair")))), directory, reply).await
    }

    /// Starts a server without TLS.
    ///
    /// # Panics
    /// Panics if loopback has no free port.
    pub async fn start_plain(reply: JwksReply) -> Self {
        Self::serve(None, Directory::create(), reply).await
    }

    async fn serve(tls: Option<TlsAcceptor>, directory: Directory, reply: JwksReply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let state = Arc::new(State { reply: Mutex::new(reply), requests: AtomicUsize::new(0) });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self { url: format!("{scheme}://{address}/jwks.json"), state, task, directory }
    }

    /// Changes what the server does with later requests.
    pub fn reply(&self, reply: JwksReply) {
        *self.state.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Returns the path of the CA certificate that signed the server's certificate.
    pub fn ca_certificate(&self) -> PathBuf {
        self.directory.file("ca.pem")
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(handshake(stream, tls.clone(), Arc::clone(&state)));
    }
}

async fn handshake(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) -> Option<()> {
    match tls {
        Some(tls) => respond(tls.accept(stream).await.ok()?, &state).await,
        None => respond(stream, &state).await,
    }
}

/// Returns `None` if the client has disconnected.
async fn respond(stream: impl AsyncRead + AsyncWrite + Unpin, state: &State) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let reply = state.reply.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, headers, body) = match reply {
        JwksReply::Body(body) => (200, String::new(), body),
        JwksReply::Status(status) => (status, String::new(), String::new()),
        JwksReply::Redirect(to) => (302, format!("Location: {to}\r\n"), String::new()),
        JwksReply::Silence => std::future::pending().await,
        JwksReply::Close => return None,
    };
    let head = format!("HTTP/1.1 {status} Reply\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

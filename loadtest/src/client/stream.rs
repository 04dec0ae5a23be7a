//! A byte stream that never blocks: TCP, or TLS over it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::target::Target;

/// Why `wss://` can't be used.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    #[error("--ca: invalid PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("--ca: invalid certificate: {0}")]
    Certificate(rustls::Error),
    #[error("cannot set up TLS: {0}")]
    Config(rustls::Error),
}

/// TLS that trusts the CA certificates of the system, and `ca` (PEM).
pub(crate) fn tls_config(ca: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    // A system may have certificates that can't be parsed. If a server needs one of them, its handshake fails.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in rustls::pki_types::CertificateDer::pem_slice_iter(ca.unwrap_or_default().as_bytes()) {
        roots.add(certificate?).map_err(TlsError::Certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Begins a connection; it is open when it can be written to.
    pub(crate) fn connect(
        target: &Target,
        address: SocketAddr,
        source: Option<IpAddr>,
        tls: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let tcp = connect(address, source)?;
        if !target.is_tls {
            return Ok(Self::Plain(tcp));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(tls.clone(), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }

    pub(crate) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &mut tls.sock,
        }
    }

    /// Makes the end a reset, as of a client that has vanished.
    pub(crate) fn reset_when_dropped(&mut self) {
        // Without it, it is a proper end: the connection is gone anyway.
        let _ = SockRef::from(&*self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }
}

fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        result => result?,
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

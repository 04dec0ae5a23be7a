//! TLS of the public listener.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::unreadable;

/// A certificate chain, and what accepts connections with it.
#[derive(Clone)]
pub(crate) struct Tls {
    chain: Vec<CertificateDer<'static>>,
    acceptor: TlsAcceptor,
}

/// How a listener accepts its next connection; `None` is without TLS.
pub(crate) type CurrentTls = watch::Receiver<Option<TlsAcceptor>>;

/// A [`CurrentTls`] for a listener that never speaks TLS.
pub(crate) fn off() -> CurrentTls {
    watch::channel(None).1
}

impl Tls {
    /// The error completes "cannot use CERT: ".
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain.clone(), key))
            .map_err(|error| format!("the certificate and the key do not work together: {error}"))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { chain, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    pub(crate) fn has_chain_of(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

/// Reads a certificate chain. The error completes "cannot use FILE: ".
pub(crate) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match chain {
        Ok(chain) if chain.is_empty() => {
            let is_key = PrivateKeyDer::from_pem_file(file).is_ok();
            Err(format!("{} contains no certificate{}", file.display(), hint(is_key)))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("cannot read the certificates: {}", reason(error))),
    }
}

/// Reads a private key. The error completes "cannot use FILE: ".
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let is_certificate = CertificateDer::from_pem_file(file).is_ok();
            format!("{} contains no key{}", file.display(), hint(is_certificate))
        }
        error => format!("cannot read the key: {}", reason(error)),
    })
}

/// The error of the file, without the words of the PEM parser around it.
fn reason(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => unreadable(&error),
        error => error.to_string(),
    }
}

fn hint(is_other_kind: bool) -> &'static str {
    if is_other_kind { "; did you swap the certificate and the key?" } else { "" }
}

//! TLS of the public listener.

use std::path::Path;
use std::sync::Arc;

use prometheus::{GaugeVec, Opts, Registry};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;

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

    pub(crate) fn has_chain_of(&self, other: &Self) -> bool {
        self.chain == other.chain
    }

    /// When the node's own certificate expires, in seconds since 1970. `NaN` if its form is one that clients may accept
    /// and this parser does not.
    fn expiry(&self) -> f64 {
        let certificate = self.chain.first().and_then(|der| Certificate::from_der(der).ok());
        certificate.map_or(f64::NAN, |certificate| {
            certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs_f64()
        })
    }
}

/// How a listener serves its next connections, which a reload changes.
pub(crate) struct ServedTls {
    acceptor: watch::Sender<Option<TlsAcceptor>>,
    /// A vector without labels, because a node without TLS has no such series.
    expiry: GaugeVec,
}

impl ServedTls {
    /// Serves with this certificate, or without TLS.
    pub(crate) fn new(tls: Option<&Tls>, registry: &Registry) -> Result<(Self, CurrentTls), prometheus::Error> {
        let help = "When the certificate of the public listener expires, in seconds since 1970";
        let expiry = GaugeVec::new(Opts::new("roomcast_tls_certificate_expiry_timestamp_seconds", help), &[])?;
        registry.register(Box::new(expiry.clone()))?;
        let (acceptor, current) = watch::channel(None);
        let served = Self { acceptor, expiry };
        served.replace(tls);
        Ok((served, current))
    }

    /// Serves later connections with this certificate, or without TLS.
    pub(crate) fn replace(&self, tls: Option<&Tls>) {
        match tls {
            Some(tls) => self.expiry.with_label_values::<&str>(&[]).set(tls.expiry()),
            None => self.expiry.reset(),
        }
        self.acceptor.send_replace(tls.map(|tls| tls.acceptor.clone()));
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

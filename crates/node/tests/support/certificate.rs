//! Certificates for the public listener, and connections that require them.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::in_time;

/// Writes a new certificate for 127.0.0.1, signed by itself, and its key over those of this name; their paths.
pub fn write_certificate(name: &str) -> [String; 2] {
    write_certificate_for(name, 2)
}

/// Like [`write_certificate`], for so many days.
pub fn write_certificate_for(name: &str, days: u32) -> [String; 2] {
    let path = |kind: &str| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{kind}"));
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let (certificate, key) = (path("pem"), path("key"));
    let openssl = Command::new("openssl")
        .args(["req", "-x509", "-days", &days.to_string(), "-subj", "/CN=node", "-newkey", "ec", "-nodes"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &key, "-out", &certificate])
        .output();
    assert!(openssl.expect("openssl starts").status.success());
    [certificate, key]
}

/// The certificate that [`write_certificate`] has written last under this name.
pub fn read_certificate(name: &str) -> CertificateDer<'static> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.pem"));
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// Connects if the node at this address has this certificate.
pub async fn connect_tls(address: &str, certificate: &CertificateDer<'static>) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = in_time("a connection is there", TcpStream::connect(address)).await?;
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    in_time("the handshake is over", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

//! Traces over TLS, to a collector whose certificate the machine trusts.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::server::TlsStream;

use crate::collector::Collector;
use crate::connect;
use crate::support::certificate::{read_certificate, write_certificate};
use crate::support::{BINARY, start_node_by, wait_until};

/// Accepts only connections over TLS.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl TlsListener {
    /// Listens with a certificate that [`write_certificate`] has written.
    async fn bind(name: &str, key_file: &str, protocol: &str) -> Self {
        let key = PrivateKeyDer::from_pem_file(key_file).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![read_certificate(name)], key)
            .expect("the key belongs to the certificate");
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.expect("it listens");
            // A client that does not trust the certificate ends the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_sent_over_tls_to_a_collector_that_the_machine_trusts() {
    let collector = Collector::default();
    let [trusted, key] = write_certificate("collector");
    let [other, _] = write_certificate("other-collector");
    for (protocol, alpn, service) in
        [("grpc", "h2", collector.grpc_service()), ("http", "http/1.1", collector.http_service())]
    {
        let listener = TlsListener::bind("collector", &key, alpn).await;
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, service).await });
        let start = async |ca: &str| {
            let mut command = Command::new(BINARY);
            // What the machine trusts.
            command.env("SSL_CERT_FILE", ca).env_remove("SSL_CERT_DIR");
            let traces = ["--trace-ratio=1", "--trace-protocol", protocol, "--trace-endpoint", &url];
            start_node_by(command, &[&["--demo"], &traces[..]].concat()).await
        };
        let distrustful = start(&other).await;
        drop(connect(&distrustful).await);
        let refused = "roomcast_trace_spans_dropped_total{reason=\"export\"}";
        let is_refused = async || distrustful.metric(refused).await > 0.0;
        wait_until("the node refuses the collector", is_refused).await;
        assert_eq!(collector.all().len(), 0, "{protocol}");

        let trustful = start(&trusted).await;
        drop(connect(&trustful).await);
        collector.wait_for("connect", 1).await;
        collector.clear();
    }
}

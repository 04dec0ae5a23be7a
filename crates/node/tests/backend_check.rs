//! `roomcast backend check`: whether and how fast a service notices that a call is cancelled.

mod support;

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::HeaderMap;
use axum::routing::post;
use support::certificate::write_certificate;
use support::{run, wait_until, write_file};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const EXIT_FAILURE: i32 = 1;
const EXIT_USAGE: i32 = 2;

/// The times of most checks, of which a service that notices never needs the second.
const TIMES: [&str; 4] = ["--after", "100ms", "--within", "15s"];

/// Runs the command outside the runtime that runs the service.
async fn check(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = ["backend", "check"].iter().chain(arguments).map(|&text| text.to_owned()).collect();
    let command = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    tokio::task::spawn_blocking(command).await.expect("it does not panic")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Serves an application, and returns its address.
async fn listen(app: axum::Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address.to_string()
}

/// Reads a connection to its end, and then keeps it open without a response.
async fn never_close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
    std::future::pending::<()>().await;
}

/// Sends Items until the connection ends.
async fn stream_items(mut stream: TcpStream) {
    let (mut reading, mut writing) = stream.split();
    let mut request = Vec::new();
    let write = async {
        let mut part: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        while writing.write_all(part).await.is_ok() {
            part = b"data: more\n\n";
        }
    };
    tokio::select! {
        _ = reading.read_to_end(&mut request) => {}
        () = write => {}
    }
}

fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    TlsAcceptor::from(Arc::new(config.expect("the key belongs to the certificate")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_closes_the_connection_has_noticed() {
    let stopped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&stopped);
    let wait = async move |headers: HeaderMap, payload: String| {
        let is_signed = headers.contains_key("webhook-signature") && headers.contains_key("roomcast-signature");
        let _stop = (payload == "hello" && is_signed).then_some(Stop(counted));
        std::future::pending::<()>().await;
    };
    let address = listen(axum::Router::new().route("/rpc/svc.waits", post(wait))).await;
    let secret = write_file("check-secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let url = format!("http://{address}/rpc/svc.waits");
    let output = check(&[&[&*url, "--payload", "hello", "--signing-secret-file", &secret], &TIMES[..]].concat()).await;
    assert!(
        output.status.success() && text(&output.stdout).starts_with("The service noticed the cancellation after "),
        "{output:?}"
    );
    wait_until("its handler has stopped", async || stopped.load(Ordering::SeqCst) == 1).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move { stream_items(listener.accept().await.expect("the check connects").0).await });
    let output = check(&[&[&*format!("http://{address}/rpc/svc.streams")], &TIMES[..]].concat()).await;
    assert!(
        output.status.success() && text(&output.stdout).starts_with("The service noticed the cancellation after "),
        "{output:?}"
    );
}

/// Counts a handler that has stopped.
struct Stop(Arc<AtomicUsize>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_notice_is_reported_over_tcp_and_tls() {
    let [certificate, key] = write_certificate("check-tls");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let acceptor = acceptor(&certificate, &key);
    tokio::spawn(async move {
        let (plain, _) = listener.accept().await.expect("the first check connects");
        tokio::spawn(never_close(plain));
        let (encrypted, _) = listener.accept().await.expect("the second check connects");
        never_close(acceptor.accept(encrypted).await.expect("the handshake succeeds")).await;
    });
    for url in [format!("http://{address}/svc.waits"), format!("https://{address}/svc.waits")] {
        let arguments = [&*url, "--ca-file", &certificate, "--after", "100ms", "--within", "200ms"];
        let output = check(&arguments).await;
        assert_eq!(output.status.code(), Some(EXIT_FAILURE), "{output:?}");
        assert!(
            text(&output.stdout).starts_with("The service did not notice the cancellation within 200ms"),
            "{output:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_shows_nothing_fails_with_the_reason() {
    let address = listen(axum::Router::new()).await;
    let unused = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("it is bound");
    for (arguments, status, expected) in [
        (vec![format!("http://{address}/svc.none"), "--after".to_owned(), "15s".to_owned()], 1, "status 404"),
        (vec![format!("http://{unused}/svc.waits")], 1, "cannot connect"),
        (vec!["http://chat".to_owned()], EXIT_USAGE, "it must end with the name of a method"),
        (vec!["chat/svc.waits".to_owned()], EXIT_USAGE, "it must begin with http://"),
        (vec!["http://ann:s3cret@chat/a".to_owned()], EXIT_USAGE, "it must not contain a user"),
        (vec!["http://chat/a".to_owned(), "--within".to_owned(), "0s".to_owned()], EXIT_USAGE, "a time over 0"),
        (vec!["http://chat/a".to_owned(), "--ca-file".to_owned(), "/no".to_owned()], EXIT_USAGE, "cannot read /no"),
    ] {
        let output = check(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {printed}");
        assert!(printed.contains(expected) && !printed.contains("s3cret"), "{arguments:?}: {printed}");
    }
}

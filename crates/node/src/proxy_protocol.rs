//! The PROXY protocol: the header with which a load balancer that forwards TCP names the client.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::error::Elapsed;

use crate::client_address::TrustedProxies;

/// How long a load balancer may take for the header. It sends the header before anything else.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest header is that of version 1 without addresses, `PROXY UNKNOWN` and a line's end.
const MIN_HEADER: usize = 15;

/// The longest header of version 1.
const MAX_HEADER_V1: usize = 107;

/// Version 2 begins with these bytes, followed by the version, the family and the length of the rest.
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_LEN_V2: usize = 16;

/// The longest header of version 2 that is accepted. Load balancers add details of TLS, and identifiers, of a few
/// hundred bytes.
const MAX_HEADER_V2: usize = 2048;

/// Why a connection does not begin with a usable header.
#[derive(Debug, Error)]
pub(crate) enum HeaderError {
    #[error("it comes from a host that is not in trusted_proxies")]
    NotTrusted,
    #[error("it does not begin with a valid header of the PROXY protocol")]
    Invalid,
    #[error("its header is longer than {max} bytes")]
    TooLong { max: usize },
    #[error("its header was not there after {HEADER_TIMEOUT:?}")]
    Late(#[from] Elapsed),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Accepts connections only from trusted proxies that send the header.
#[derive(Debug)]
pub(crate) struct ProxyProtocol {
    proxies: TrustedProxies,
    /// Whether a refused connection was logged as a warning.
    warned: AtomicBool,
}

impl ProxyProtocol {
    pub(crate) fn new(proxies: TrustedProxies) -> Self {
        Self { proxies, warned: AtomicBool::new(false) }
    }

    /// Reads the header, and not one byte more. Returns the client's address, or that of the proxy if the connection is
    /// the proxy's own, such as a health check. `None` if the connection must be closed.
    pub(crate) async fn client(&self, stream: &mut (impl AsyncRead + Unpin), peer: SocketAddr) -> Option<SocketAddr> {
        let error = match self.read(stream, peer).await {
            Ok(client) => return Some(client.unwrap_or(peer)),
            Err(error) => error,
        };
        // A load balancer without the header could not serve a single client, and nobody would know why.
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(%peer, %error, "closed a connection without the PROXY protocol");
        } else {
            tracing::warn!(%peer, %error, "closed a connection without the PROXY protocol; others are logged at debug");
        }
        None
    }

    async fn read(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        peer: SocketAddr,
    ) -> Result<Option<SocketAddr>, HeaderError> {
        if !self.proxies.contain(peer.ip()) {
            return Err(HeaderError::NotTrusted);
        }
        let header = tokio::time::timeout(HEADER_TIMEOUT, read_header(stream)).await??;
        let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
        let (header, _) = ProxyHeader::parse(&header, config).map_err(|_| HeaderError::Invalid)?;
        Ok(header.proxied_address().map(|address| address.source))
    }
}

async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HeaderError> {
    let mut header = Vec::new();
    loop {
        let missing = missing(&header)?;
        if missing == 0 {
            return Ok(header);
        }
        let start = header.len();
        header.resize(start + missing, 0);
        stream.read_exact(&mut header[start..]).await?;
    }
}

/// Returns how many further bytes certainly belong to the header that begins like this; 0 if it is complete.
fn missing(header: &[u8]) -> Result<usize, HeaderError> {
    if header.len() < MIN_HEADER {
        return Ok(MIN_HEADER - header.len());
    }
    if header.starts_with(b"PROXY ") {
        return match header {
            [.., b'\n'] => Ok(0),
            _ if header.len() >= MAX_HEADER_V1 => Err(HeaderError::TooLong { max: MAX_HEADER_V1 }),
            _ => Ok(1),
        };
    }
    if !header.starts_with(SIGNATURE_V2) {
        return Err(HeaderError::Invalid);
    }
    let Some([high, low]) = header.get(FIXED_LEN_V2 - 2..FIXED_LEN_V2) else { return Ok(FIXED_LEN_V2 - header.len()) };
    match FIXED_LEN_V2 + usize::from(u16::from_be_bytes([*high, *low])) {
        len if len > MAX_HEADER_V2 => Err(HeaderError::TooLong { max: MAX_HEADER_V2 }),
        len => Ok(len - header.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PROXY: &str = "10.0.0.1:5";

    fn v2(source: &str) -> Vec<u8> {
        let [source, destination] = [source, source].map(|address| address.parse().expect("an address"));
        let mut header = vec![0; 256];
        let encoded = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
        let len = encoded.encode_to_slice_v2(&mut header).expect("it fits");
        header.truncate(len);
        header
    }

    /// A header of version 2 of which only the length is meant.
    fn v2_of_len(len: u16) -> Vec<u8> {
        [SIGNATURE_V2, &[0x21, 0x11], &len.to_be_bytes()].concat()
    }

    /// The client of a connection that begins with these bytes, and what is left of them.
    async fn client(peer: &str, sent: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let protocol = ProxyProtocol::new(TrustedProxies::parse("10.0.0.0/8").expect("a list"));
        let (mut proxy, mut stream) = tokio::io::duplex(8 * 1024);
        proxy.write_all(sent).await.expect("the pipe takes it");
        let read = protocol.read(&mut stream, peer.parse().expect("an address")).await;
        drop(proxy);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("a pipe");
        (read, rest)
    }

    #[tokio::test(start_paused = true)]
    async fn both_versions_name_the_client_and_nothing_behind_the_header_is_read() {
        let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n".to_vec();
        let v4 = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n".to_vec();
        for (header, source) in [
            (v4, "203.0.113.9:4711"),
            (v6, "[2001:db8::1]:4711"),
            (v2("203.0.113.9:4711"), "203.0.113.9:4711"),
            (v2("[2001:db8::1]:4711"), "[2001:db8::1]:4711"),
        ] {
            let (client, rest) = client(PROXY, &[&header[..], b"GET /"].concat()).await;
            assert_eq!(client.expect("a header"), Some(source.parse().expect("an address")));
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_the_proxy_s_own_names_nobody() {
        let local = [SIGNATURE_V2, &[0x20, 0, 0, 0]].concat();
        for header in [&local[..], b"PROXY UNKNOWN\r\n"] {
            let (client, rest) = client(PROXY, &[header, b"GET /"].concat()).await;
            assert_eq!(client.expect("a header"), None);
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_trusted_names_nobody_and_nothing_is_read() {
        let header = v2("203.0.113.9:4711");
        let (client, rest) = client("11.0.0.1:5", &header).await;
        assert!(matches!(client, Err(HeaderError::NotTrusted)), "{client:?}");
        assert_eq!(rest, header);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_is_missing_long_or_late_is_an_error() {
        for (sent, name) in [
            (b"GET /socket HTTP/1.1\r\n".to_vec(), "Invalid"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a handshake of TLS".to_vec(), "Invalid"),
            (b"PROXY TCP4 1.2.3 10.0.0.1 1 2\r\n".to_vec(), "Invalid"),
            ([b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(), "TooLong"),
            ([v2_of_len(2033), vec![0; 3000]].concat(), "TooLong"),
            (v2("203.0.113.9:4711")[..20].to_vec(), "Late"),
            (Vec::new(), "Late"),
        ] {
            let (client, _) = client(PROXY, &sent).await;
            let error = format!("{:?}", client.expect_err("no header"));
            assert!(error.starts_with(name), "{error} of {sent:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_a_bounded_number_of_bytes_is_read(
            beginning in prop_oneof![Just(SIGNATURE_V2.to_vec()), Just(b"PROXY ".to_vec()), Just(Vec::new())],
            rest in proptest::collection::vec(any::<u8>(), 3000),
        ) {
            let sent = [beginning, rest].concat();
            let mut read = 0;
            while let Ok(more) = missing(&sent[..read]) && more > 0 {
                read += more;
            }
            prop_assert!(read <= MAX_HEADER_V2);
        }
    }
}

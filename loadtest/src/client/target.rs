//! Where connections go: URLs as users write them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::http::Uri;

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Resolved once, before the run.
    pub(crate) addresses: Vec<SocketAddr>,
    /// For TLS and the Host header.
    pub(crate) host: String,
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) is_tls: bool,
}

/// What is wrong with a `--url`.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    #[error("invalid --url {url}: write it like ws://127.0.0.1:3000/socket or wss://example.org/socket")]
    NotAUrl { url: String },
    #[error("--url {url}: cannot resolve the host: {error}")]
    Unresolved { url: String, error: io::Error },
}

impl Target {
    /// Reads a URL and looks its host up.
    pub(crate) fn parse(url: &str) -> Result<Self, TargetError> {
        let not_a_url = || TargetError::NotAUrl { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            _ => return Err(not_a_url()),
        };
        let authority = uri.authority().ok_or_else(not_a_url)?;
        // An IPv6 address stands in brackets in a URL only.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(default_port);
        let unresolved = |error| TargetError::Unresolved { url: url.to_owned(), error };
        let addresses: Vec<_> = (host.as_str(), port).to_socket_addrs().map_err(unresolved)?.collect();
        if addresses.is_empty() {
            return Err(unresolved(io::Error::other("no address")));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { addresses, host, authority: authority.to_string(), path, is_tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("wss://[::1]:9000/socket?room=1").expect("it is a URL");
        assert_eq!((target.host.as_str(), target.authority.as_str()), ("::1", "[::1]:9000"));
        assert_eq!((target.path.as_str(), target.is_tls), ("/socket?room=1", true));
        assert_eq!(target.addresses, ["[::1]:9000".parse().expect("an address")]);
        assert_eq!(Target::parse("ws://127.0.0.1").expect("it is a URL").addresses[0].port(), 80);
    }

    #[test]
    fn what_is_no_url_of_a_socket_is_refused() {
        for url in ["127.0.0.1:3000", "http://127.0.0.1/", "ws://", ""] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}

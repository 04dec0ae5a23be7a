//! Keeps web pages away from the API. A hostile page can make a browser that reaches the internal listener send requests
//! to it: from the page's own origin (CSRF), or to a name of the page's own that it gives the address of the listener
//! (DNS rebinding).

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};
use roomcast_auth::Origins;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request could come from a page of another origin; `None` if it cannot.
///
/// A page that has rebound its name sends its own name as the host, and is of the same origin. Such a page does not know
/// a key. Without keys, a host name must therefore be one that no page can have.
pub(super) fn suspicion(request: &Request, has_keys: bool) -> Option<String> {
    let headers = request.headers();
    if Origins::Same.allow(headers) == Some(false) || is_from_another_site(headers) {
        return Some("the request comes from a web page of another origin; call the API from a program".to_owned());
    }
    let hosts = headers.get_all(header::HOST).into_iter().map(|host| String::from_utf8_lossy(host.as_bytes()));
    let mut hosts = hosts.chain(request.uri().authority().map(|authority| authority.as_str().into()));
    let named = hosts.find(|host| !has_keys && !is_of_no_page(host))?;
    Some(format!(
        "a hostile web page could send the host name {named:?}; use an IP address or localhost, or set api_key on the node"
    ))
}

/// Browsers send this header to loopback and over TLS, also with requests that have no `Origin`.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none")
}

/// Whether nobody can give the name in a `Host` header another address.
fn is_of_no_page(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn is_suspicious(headers: &[(&str, &str)], has_keys: bool) -> bool {
        let mut request = Request::builder().uri("/v1/nodes");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        suspicion(&request.body(Body::empty()).expect("a request"), has_keys).is_some()
    }

    #[test]
    fn a_host_that_a_page_could_have_is_suspicious_without_keys() {
        for host in ["127.0.0.1:3001", "10.0.0.1", "[::1]:3001", "[fd00::1]", "localhost:3001", "LOCALHOST"] {
            assert!(!is_suspicious(&[("host", host)], false), "{host}");
        }
        let names =
            ["evil.example:3001", "roomcast-internal.default.svc:3001", "localhost.evil.example", "127.0.0.1.nip.io"];
        for host in names {
            assert!(is_suspicious(&[("host", host)], false), "{host}");
            assert!(!is_suspicious(&[("host", host)], true), "{host}: a page does not know a key");
        }
        for host in ["", "[::1", "a b", "127.0.0.1:3001/"] {
            assert!(is_suspicious(&[("host", host)], false), "{host:?} is malformed");
        }
        assert!(!is_suspicious(&[], false), "a browser always sends a host");
        assert!(is_suspicious(&[("host", "localhost"), ("host", "evil.example")], false));
        let absolute = Request::get("http://evil.example/v1/nodes").header("host", "localhost").body(Body::empty());
        assert!(suspicion(&absolute.expect("a request"), false).is_some());
    }
}

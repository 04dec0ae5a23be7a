//! Where a request contains its token, and from which pages requests may come.

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use thiserror::Error;

/// The prefix of an entry of `Sec-WebSocket-Protocol` that contains a token. Browsers let a page set
/// no other header.
const SUBPROTOCOL_PREFIX: &str = "roomcast.token.";

/// The parameter of the URL that contains a token.
const PARAMETER: &str = "token";

/// Returns the token in a request: from `Authorization`, otherwise from `Sec-WebSocket-Protocol`,
/// otherwise from the URL if that is permitted. A cookie is never a token.
pub(crate) fn token(request: &Parts, from_query: bool) -> Option<&str> {
    let headers = &request.headers;
    if headers.get_all(header::AUTHORIZATION).iter().count() > 1 {
        // Which of them counts is not for the node to guess: no text is a token.
        return Some("");
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
    });
    let offered = || {
        let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).find_map(|entry| entry.trim().strip_prefix(SUBPROTOCOL_PREFIX))
    };
    let in_query = || {
        let parameters = request.uri.query().filter(|_| from_query)?.split('&');
        parameters.filter_map(|parameter| parameter.split_once('=')).find(|(name, _)| *name == PARAMETER)
    };
    bearer.or_else(offered).or_else(|| in_query().map(|(_, token)| token))
}

/// The pages from which browsers may open connections.
///
/// ```
/// use roomcast_auth::Origins;
///
/// let origins = Origins::listed(["https://app.example.org", "http://localhost:5173"])?;
/// assert!(Origins::listed(["https://app.example.org/page"]).is_err());
/// # let _ = origins;
/// # Ok::<(), roomcast_auth::InvalidOrigin>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// Pages of the node's own host: the host and the port in `Origin` must be those in `Host`.
    #[default]
    Same,
    /// Pages of these origins. Create the list with [`listed`](Self::listed).
    Listed(Vec<String>),
    /// All pages.
    Any,
}

/// The error of a text that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not an origin; write a scheme and a host, without a path, such as https://app.example.org or http://localhost:5173"
)]
pub struct InvalidOrigin(pub String);

impl Origins {
    /// Checks a list of origins.
    ///
    /// # Errors
    /// Returns [`InvalidOrigin`] with the first text that is not an origin.
    pub fn listed(origins: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, InvalidOrigin> {
        let parsed = origins.into_iter().map(|origin| {
            let origin = origin.as_ref();
            Origin::parse(origin).map(Origin::normalized).ok_or_else(|| InvalidOrigin(origin.to_owned()))
        });
        parsed.collect::<Result<_, _>>().map(Self::Listed)
    }

    /// Returns whether the origin of a request is allowed, or `None` if the request has no `Origin`,
    /// such as that of a program.
    pub fn allow(&self, headers: &HeaderMap) -> Option<bool> {
        let mut values = headers.get_all(header::ORIGIN).into_iter();
        let first = values.next()?;
        if *self == Self::Any {
            return Some(true);
        }
        let origin = first.to_str().ok().filter(|_| values.next().is_none()).and_then(Origin::parse);
        let Some(origin) = origin else { return Some(false) };
        Some(match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(&origin.normalized()),
            Self::Same if !matches!(&*origin.scheme, "http" | "https") => false,
            Self::Same => only(headers, header::HOST)
                .and_then(|host| Authority::parse(host.to_str().ok()?, origin.default_port()))
                .is_some_and(|host| host == origin.authority),
        })
    }
}

/// An origin (RFC 6454), such as `https://app.example.org:8443`, but not `null`.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

/// A host and a port.
#[derive(Debug, PartialEq, Eq)]
struct Authority {
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let authority = Authority::parse(authority, default_port(&scheme)).filter(|_| is_scheme)?;
        Some(Self { scheme, authority })
    }

    fn default_port(&self) -> u16 {
        default_port(&self.scheme)
    }

    fn normalized(self) -> String {
        format!("{}://{}:{}", self.scheme, self.authority.host, self.authority.port)
    }
}

/// Returns 0 for schemes without a default port, such as those of browser extensions.
fn default_port(scheme: &str) -> u16 {
    match scheme {
        "http" => 80,
        "https" => 443,
        _ => 0,
    }
}

impl Authority {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        // An IPv6 address contains colons, and is in brackets.
        let end_of_host = text.rfind(']').map_or(0, |end| end + 1);
        let (host, port) = match text[end_of_host..].rfind(':') {
            Some(colon) => {
                let (host, port) = text.split_at(end_of_host + colon);
                let digits = Some(&port[1..]).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
                (host, digits.parse().ok()?)
            }
            None => (text, default_port),
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:%".contains(c);
        (!host.is_empty() && host.chars().all(is_host)).then(|| Self { host: host.to_ascii_lowercase(), port })
    }
}

/// Returns the value of a header that occurs exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::get(uri), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_token_is_found_where_it_may_be() {
        let bearer = ("authorization", "bearer one");
        let offered = ("sec-websocket-protocol", "websocket.io-rpc-v0.1, roomcast.token.two");
        for (uri, headers, from_query, expected) in [
            ("/", &[bearer, offered][..], true, Some("one")),
            ("/?token=three", &[offered], true, Some("two")),
            ("/?a=b&token=three&c", &[], true, Some("three")),
            ("/?token=three", &[], false, None),
            ("/", &[("authorization", "Basic one")], false, None),
            ("/", &[("authorization", "Bearer one"), ("authorization", "Bearer two"), offered], false, Some("")),
            ("/", &[("cookie", "token=one; authorization=one")], true, None),
        ] {
            assert_eq!(token(&parts(uri, headers), from_query), expected, "{uri} {headers:?}");
        }
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let allow = |origins: &Origins, headers: &[(&str, &str)]| origins.allow(&parts("/", headers).headers);
        let host = ("host", "app.example.org");
        let same = |origin| allow(&Origins::Same, &[host, ("origin", origin)]);
        for origin in ["https://app.example.org", "http://app.example.org:80", "HTTPS://APP.example.org:443"] {
            assert_eq!(same(origin), Some(true), "{origin}");
        }
        for origin in [
            "null",
            "",
            "app.example.org",
            "https://app.example.org.evil.example",
            "https://evil.example",
            "https://app.example.org:8443",
            "https://user@app.example.org",
            "https://app.example.org/",
            "://app.example.org",
            "ftp://app.example.org",
            "https://app.example.org:+443",
        ] {
            assert_eq!(same(origin), Some(false), "{origin}");
        }
        let twice = [host, ("origin", "https://app.example.org"), ("origin", "https://app.example.org")];
        assert_eq!(allow(&Origins::Same, &twice), Some(false));
        assert_eq!(allow(&Origins::Same, &[("origin", "https://app.example.org")]), Some(false), "no Host");
        assert_eq!(allow(&Origins::Same, &[host]), None);
        assert_eq!(allow(&Origins::Same, &[("host", "[::1]:3000"), ("origin", "http://[::1]:3000")]), Some(true));

        let listed = Origins::listed(["https://app.example.org", "http://localhost:5173"]).unwrap();
        let from = |origin| allow(&listed, &[host, ("origin", origin)]);
        assert_eq!(from("https://app.example.org:443"), Some(true));
        assert_eq!(from("http://localhost:5173"), Some(true));
        for origin in ["http://app.example.org", "http://localhost", "https://localhost:5173", "null"] {
            assert_eq!(from(origin), Some(false), "{origin}");
        }
        assert_eq!(allow(&Origins::Any, &[("origin", "null")]), Some(true));
        assert!(Origins::listed(["*"]).is_err() && Origins::listed(["https://a/b"]).is_err());
    }
}

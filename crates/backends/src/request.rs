//! What a request to a backend consists of. No I/O.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use roomcast::{CallError, Code, ConnectionId, Identity, NodeId, UserId, trace};
use tracing::Span;

use crate::options::BackendOptions;
use crate::signature;

/// What a percent-encoded value cannot contain: what is not printable ASCII, and `%` itself.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The largest identity data that fits into a header, in bytes before the encoding.
pub(crate) const MAX_META: usize = 4 * 1024;

/// The header with the kind of a request that is not a call.
pub(crate) const HOOK_HEADER: HeaderName = HeaderName::from_static("roomcast-hook");

/// What a request consists of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// Appended to the backend's path.
    pub(crate) method: &'a str,
    /// Headers of this request, without those that identify the node and the request.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Unique in the cluster.
    pub(crate) id: &'a str,
    pub(crate) node: NodeId,
    /// How long the node waits for the head of the response.
    pub(crate) timeout: Duration,
    /// Seconds since 1970.
    pub(crate) timestamp: u64,
}

/// The headers of the trace that a request belongs to (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Creates a request in the trace of a span, and signs it if the backend has secrets.
pub(crate) fn build(options: &BackendOptions, parts: Parts<'_>, span: &Span) -> Result<Request<Bytes>, CallError> {
    let Parts { method, mut headers, body, id, node, timeout, timestamp } = parts;
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
    let user_agent = HeaderValue::from_static(concat!("roomcast/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(user_agent);
    set(&mut headers, "roomcast-node", &node.to_string())?;
    set(&mut headers, "roomcast-timeout-ms", &timeout.as_millis().to_string())?;
    for (name, value) in &options.headers {
        headers.insert(name, value.clone());
    }
    continue_trace(span, &mut headers);
    let path = options.url.path_of(method);
    if let Some(secrets) = &options.signing_secrets {
        let mut covered: Vec<_> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("roomcast-"))
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        covered.sort_unstable();
        let request =
            signature::Request { id, timestamp, method: "POST", path: &path, roomcast_headers: &covered, body: &body };
        let signatures = secrets.sign(&request);
        set(&mut headers, "webhook-id", id)?;
        set(&mut headers, "webhook-timestamp", &timestamp.to_string())?;
        set(&mut headers, "webhook-signature", &signatures.webhook)?;
        set(&mut headers, "roomcast-signature", &signatures.request)?;
    }
    let mut request = Request::post(options.url.with_path(&path)).body(body).map_err(|error| {
        tracing::error!(backend = options.name, %error, "a request cannot be created");
        CallError::new(Code::Internal, "the request to the backend cannot be created")
    })?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Sets the headers of a span's trace, if it is sampled. Otherwise removes them, because a client must
/// not decide what a backend traces.
fn continue_trace(span: &Span, headers: &mut HeaderMap) {
    let trace = trace::headers_of(span);
    let (parent, state) = trace.map_or((None, None), |trace| (Some(trace.traceparent), trace.tracestate));
    for (name, value) in [(TRACEPARENT, parent), (TRACESTATE, state)] {
        match value.and_then(|value| HeaderValue::try_from(value).ok()) {
            Some(value) => drop(headers.insert(name, value)),
            None => drop(headers.remove(name)),
        }
    }
}

/// Returns the time in seconds since 1970.
pub(crate) fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Sets the header that names a call.
pub(crate) fn identify_call(id: &str, headers: &mut HeaderMap) -> Result<(), CallError> {
    set(headers, "roomcast-call", id)
}

/// Sets the headers that describe a client. A client that connects has no connection yet.
pub(crate) fn identify_client(
    connection: Option<ConnectionId>,
    user: Option<&UserId>,
    identity: Option<&Identity>,
    headers: &mut HeaderMap,
) -> Result<(), CallError> {
    if let Some(connection) = connection {
        set(headers, "roomcast-connection", &connection.to_string())?;
    }
    if let Some(user) = user {
        set(headers, "roomcast-user", &percent_encoded(user))?;
    }
    if let Some(meta) = identity.map(|identity| &identity.meta).filter(|meta| !meta.is_null()) {
        let json = meta.to_string();
        if json.len() > MAX_META {
            let message =
                format!("the data of the client's identity take {} bytes; at most {MAX_META} can be sent", json.len());
            return Err(CallError::new(Code::ResourceExhausted, message));
        }
        set(headers, "roomcast-meta", &URL_SAFE_NO_PAD.encode(json))?;
    }
    Ok(())
}

/// Copies the headers that a backend gets from the request that opened the connection.
pub(crate) fn forward(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}

/// Encodes a text as printable ASCII. A name of ASCII letters, digits and punctuation except `%`
/// stays as it is.
pub(crate) fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Sets a header of a request.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), CallError> {
    let value = HeaderValue::from_str(value).map_err(|_| {
        CallError::invalid_argument(format!("the value of the header {name} contains a control character"))
    })?;
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        headers.get(name).unwrap().to_str().unwrap()
    }

    #[test]
    fn headers_describe_the_client_and_contain_only_printable_ascii() {
        let mut identity = Identity::default();
        identity.meta = json!({ "team": "ü" });
        let user = UserId::new("josé5%").unwrap();
        let connection: ConnectionId = "0000000000000001-7".parse().unwrap();
        let mut headers = HeaderMap::new();
        identify_client(Some(connection), Some(&user), Some(&identity), &mut headers).unwrap();
        assert_eq!(header(&headers, "roomcast-user"), "jos%C3%A95%25");
        assert_eq!(header(&headers, "roomcast-connection"), connection.to_string());
        let meta = URL_SAFE_NO_PAD.decode(header(&headers, "roomcast-meta")).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&meta).unwrap(), identity.meta);

        identity.meta = json!("x".repeat(MAX_META));
        let error = identify_client(None, None, Some(&identity), &mut headers).unwrap_err();
        assert_eq!(error.code, Code::ResourceExhausted);
    }

    #[test]
    fn a_request_is_signed_and_configured_headers_override_others() {
        let mut options = BackendOptions::new("chat", "http://127.0.0.1:8080/rpc".parse().unwrap());
        options.headers = vec![(HeaderName::from_static("x-app"), HeaderValue::from_static("roomcast"))];
        options.signing_secrets = Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap());
        let mut from = HeaderMap::new();
        from.insert("x-app", HeaderValue::from_static("forged"));
        from.insert("accept-language", HeaderValue::from_static("de"));
        let mut headers = HeaderMap::new();
        from.insert(TRACEPARENT, HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-1234567812345678-01"));
        let forwarded = [HeaderName::from_static("x-app"), HeaderName::from_static("accept-language"), TRACEPARENT];
        forward(&forwarded, &from, &mut headers);
        set(&mut headers, "roomcast-call", "c1").unwrap();
        let parts = Parts {
            method: "chat.send",
            headers,
            body: Bytes::from_static(b"hello"),
            id: "c1",
            node: NodeId::from_u64(1),
            timeout: Duration::from_secs(30),
            timestamp: 1_614_265_330,
        };
        let request = build(&options, parts, &Span::none()).unwrap();
        assert_eq!(request.uri(), "http://127.0.0.1:8080/rpc/chat.send");
        let headers = request.headers();
        assert!(!headers.contains_key(TRACEPARENT), "a client does not decide what a backend traces");
        for (name, value) in [
            ("x-app", "roomcast"),
            ("accept-language", "de"),
            ("content-type", "application/octet-stream"),
            ("roomcast-timeout-ms", "30000"),
            ("webhook-id", "c1"),
            ("webhook-timestamp", "1614265330"),
            // The example of the reference.
            ("webhook-signature", "v1,Aa8UREcSFinn3m/24Br5m2l7s7mgrgbRMkRUvhMI2cE="),
            ("roomcast-signature", "v1,moVd2YK+W05xdl5uz7qWMhEEwmhqA8DtPxEGy9T6sQc="),
        ] {
            assert!(header(headers, name).starts_with(value), "{name}: {}", header(headers, name));
        }
    }
}

//! The backends that the tables `backend` describe, and the calls that they answer.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use axum::http::{HeaderName, HeaderValue, header};
use prometheus::Registry;
use roomcast::{CallPattern, Router};
use roomcast_backends::{Backend, BackendMetrics, BackendOptions, BackendUrl, InvalidUrl, SigningSecrets};

use crate::config::{BackendTable, Config, ConfigError, Layers, unreadable};
use crate::permission::BUILT_IN;

/// Where the tables are in the configuration.
pub(crate) const TABLES: &str = "backend";

/// The largest number of backends. Each has its own connections, queue and series of metrics.
const MAX_BACKENDS: usize = 64;

/// The largest number of patterns of all backends together. Each call looks at all of them.
const MAX_PATTERNS: usize = 1000;

/// The largest number of configured headers of a backend, and of headers that it gets from clients.
const MAX_HEADERS: usize = 32;

/// The headers that describe the connection or the body, or that only a node may set.
const FORBIDDEN: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// The backends of a node.
pub(crate) struct Backends {
    backends: Vec<(Vec<CallPattern>, Backend)>,
    metrics: BackendMetrics,
}

impl Backends {
    pub(crate) fn load(config: &Config, layers: &Layers) -> Result<Self, ConfigError> {
        let metrics = BackendMetrics::new().map_err(|error| layers.wrong(TABLES, error.to_string()))?;
        let (mut names, mut known) = (BTreeSet::new(), BTreeSet::new());
        if config.backend.len() > MAX_BACKENDS {
            let problem = format!("there are {} backends; at most {MAX_BACKENDS} are allowed", config.backend.len());
            return Err(layers.wrong(TABLES, problem));
        }
        let mut backends = Vec::new();
        for (at, table) in config.backend.iter().enumerate() {
            let wrong = |key: &str, problem: String| layers.wrong(format!("{TABLES}.{at}.{key}"), problem);
            if !names.insert(&*table.name) {
                return Err(wrong("name", format!("the backend {:?} is configured twice", table.name)));
            }
            let mut patterns = Vec::new();
            for text in &table.calls {
                let pattern: CallPattern = text.parse().map_err(|error| wrong("calls", format!("{error}")))?;
                if let Some(built_in) = BUILT_IN.iter().find(|name| text.starts_with(**name)) {
                    let problem = format!("the node itself answers all methods {built_in}…; remove {text:?}");
                    return Err(wrong("calls", problem));
                }
                if !known.insert(text) {
                    return Err(wrong("calls", format!("the pattern {text:?} is configured twice")));
                }
                patterns.push(pattern);
            }
            if known.len() > MAX_PATTERNS {
                return Err(wrong("calls", format!("all backends have more than {MAX_PATTERNS} patterns together")));
            }
            let options = options(table, config).map_err(|(key, problem)| wrong(key, problem))?;
            let backend = Backend::new(options, &metrics).map_err(|error| wrong("ca_file", error.to_string()))?;
            backends.push((patterns, backend));
        }
        Ok(Self { backends, metrics })
    }

    /// Whether a backend answers calls.
    pub(crate) fn answer_calls(&self) -> bool {
        self.backends.iter().any(|(patterns, _)| !patterns.is_empty())
    }

    /// Whether a backend gets headers of the request that opened a connection.
    pub(crate) fn forward_headers(&self) -> bool {
        self.backends.iter().any(|(_, backend)| !backend.options().forward.is_empty())
    }

    /// Returns the backend with a name.
    ///
    /// # Errors
    /// Returns what is wrong if there is no such backend.
    pub(crate) fn find(&self, name: &str) -> Result<&Backend, String> {
        let mut backends = self.backends.iter().map(|(_, backend)| backend);
        backends
            .find(|backend| backend.options().name == name)
            .ok_or_else(|| format!("there is no backend {name:?}; add a table [[backend]] with this name"))
    }

    /// Adds the calls that backends answer, and registers the metrics.
    pub(crate) fn add_to(&self, mut router: Router, registry: &Registry) -> Result<Router, prometheus::Error> {
        self.metrics.register(registry)?;
        for (patterns, backend) in &self.backends {
            let name = &backend.options().name;
            router = router.calls(name, patterns.iter().cloned(), backend.clone());
        }
        Ok(router)
    }

    /// Returns a line for each backend, for a person.
    pub(crate) fn summary(&self) -> String {
        let mut summary = String::new();
        for (patterns, backend) in &self.backends {
            let options = backend.options();
            let calls = patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let calls = if calls.is_empty() { "no calls".to_owned() } else { calls };
            let version = if options.http2 { "HTTP/2" } else { "HTTP/1.1" };
            let signed = if options.signing_secrets.is_some() { "signed" } else { "not signed" };
            let (name, url) = (&options.name, &options.url);
            let _ =
                writeln!(summary, "Backend {name} at {url} answers {calls}, over {version}. Requests are {signed}.");
        }
        summary
    }
}

/// Returns the options of a backend, or the key of the table that is wrong, and why.
fn options(table: &BackendTable, config: &Config) -> Result<BackendOptions, (&'static str, String)> {
    let is_name = |name: &str| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !is_name(&table.name) {
        let problem = format!("{:?} is not a name of 1 to 64 letters, digits, '-', '_' and '.'", table.name);
        return Err(("name", problem));
    }
    let url = table.url.parse().map_err(|error| ("url", format!("cannot use {:?}: {error}", table.url)))?;
    let mut options = BackendOptions::new(&table.name, url);
    options.http2 = table.http2;
    options.streams = table.streams();
    options.max_response = config.max_payload.bytes();
    let times = [
        ("timeout", &table.timeout, &mut options.timeout),
        ("idle_timeout", &table.idle_timeout, &mut options.idle_timeout),
        ("queue_time", &table.queue_time, &mut options.queue_time),
    ];
    for (key, text, time) in times {
        if let Some(text) = text {
            *time = BackendTable::time(text).map_err(|allowed| (key, format!("cannot use {text:?}: {allowed}")))?;
        }
    }
    let counts =
        [("concurrency", table.concurrency, &mut options.concurrency), ("queue", table.queue, &mut options.queue)];
    for (key, given, count) in counts {
        if let Some(given) = given {
            *count = BackendTable::count(given).map_err(|allowed| (key, format!("cannot use {given}: {allowed}")))?;
        }
    }
    for (key, count) in [("headers", table.headers.len()), ("forward", table.forward.len())] {
        if count > MAX_HEADERS {
            return Err((key, format!("there are {count} headers; at most {MAX_HEADERS} are allowed")));
        }
    }
    for (name, value) in &table.headers {
        let value = HeaderValue::from_str(value)
            .map_err(|_| ("headers", format!("the value of {name:?} contains a control character")))?;
        options.headers.push((header_name("headers", name)?, value));
    }
    options.forward = table.forward.iter().map(|name| header_name("forward", name)).collect::<Result<_, _>>()?;
    if options.forward.contains(&header::CONTENT_TYPE) {
        return Err(("forward", "\"content-type\" describes the body of a call, which clients cannot do".to_owned()));
    }
    if let Some(text) = &table.cancel_url {
        let problem = |problem: &str| ("cancel_url", format!("cannot use {text:?}: {problem}"));
        let url: BackendUrl = text.parse().map_err(|error: InvalidUrl| problem(&error.to_string()))?;
        if url.split_last().is_none() {
            return Err(problem("it must contain a path, such as /rpc/roomcast.cancel"));
        }
        options.cancel_url = Some(url);
    }
    if let Some(text) = &table.cancel_grace {
        let problem = |allowed| ("cancel_grace", format!("cannot use {text:?}: {allowed}"));
        options.cancel_grace = BackendTable::grace(text).map_err(problem)?;
    }
    if let Some(path) = &table.ca_file {
        let pem = std::fs::read(path)
            .map_err(|error| ("ca_file", format!("cannot read {}: {}", path.display(), unreadable(&error))))?;
        options.ca_certificates = Some(pem);
    }
    if let Some(path) = &table.signing_secret_file {
        options.signing_secrets = Some(signing_secrets(path).map_err(|problem| ("signing_secret_file", problem))?);
    }
    Ok(options)
}

/// Reads a file with the secrets that sign requests.
pub(crate) fn signing_secrets(path: &std::path::Path) -> Result<SigningSecrets, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {}", path.display(), unreadable(&error)))?;
    text.parse().map_err(|error: roomcast_backends::SecretError| error.to_string())
}

fn header_name(key: &'static str, name: &str) -> Result<HeaderName, (&'static str, String)> {
    let parsed: HeaderName = name.parse().map_err(|_| (key, format!("{name:?} is not the name of a header")))?;
    let is_reserved = ["roomcast-", "webhook-"].iter().any(|prefix| parsed.as_str().starts_with(prefix));
    match is_reserved || FORBIDDEN.contains(&parsed) {
        true => Err((key, format!("{name:?} is a header that the node sets itself; remove it"))),
        false => Ok(parsed),
    }
}

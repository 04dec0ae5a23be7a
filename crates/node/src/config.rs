//! The configuration as the node uses it: parsed once, valid from then on.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use roomcast::Options;
use roomcast_redis::RedisOptions;
use tokio_rustls::TlsAcceptor;
use tracing_subscriber::filter::Targets;

use crate::api::ApiKey;
use crate::client_address::TrustedProxies;
use crate::settings::{AUTO, ConfigError, OFF, Settings};
use crate::telemetry::LogFormat;
use crate::{machine, telemetry, tls};

/// A valid configuration.
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Of the public listener. `None`: a client is where its connection comes from.
    pub(crate) trusted_proxies: Option<TrustedProxies>,
    pub(crate) internal_listen: Option<SocketAddr>,
    /// `None`: a cluster of this node alone.
    pub(crate) redis: Option<RedisOptions>,
    pub(crate) redis_unready_after: Duration,
    pub(crate) api_key: Option<ApiKey>,
    /// Requests a second.
    pub(crate) api_rate: u32,
    pub(crate) demo: bool,
    pub(crate) options: Options,
    pub(crate) drain: Drain,
    /// 0: one for each CPU.
    pub(crate) worker_threads: usize,
    pub(crate) log: Targets,
    pub(crate) log_format: LogFormat,
    /// As it was said, for `roomcast check`.
    said: String,
}

/// When a drain does what, from the signal on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) delay: Duration,
    pub(crate) spread: Duration,
    pub(crate) timeout: Duration,
}

const ADDRESS: &str = "it must be an IP address and a port, such as 127.0.0.1:3000 or [::]:3000";
const COUNT: &str = "it must be a number of at least 1";
const SIZE: &str = "it must be a size of at least 1 byte, such as 65536, 64KiB or 1MiB";
const WORKER_THREADS: &str = "it must be a number, at most 1024; 0 means one thread for each CPU";
const PAYLOAD: &str = "it must be a size from 1 byte to 64MiB, such as 65536, 64KiB or 1MiB";
const TIME: &str = "it must be a time over 0, such as 500ms, 25s or 2m";

/// Input may take one part in this many of the memory, and output as much: half is left for connections, rooms and the
/// process itself.
const CONNECTIONS_SHARE: usize = 4;

/// The longest time that an option may have: a longer one would overflow when added to the current time.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// The largest `max_payload`. Messages between nodes must fit in what one batch to Redis may hold, and a connection
/// keeps a whole message in memory.
const MAX_PAYLOAD: usize = 64 << 20;

impl Config {
    /// Checks every option, and those that belong together.
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let count = |key| settings.get(key, COUNT, |value| value.parse().ok().filter(|count| *count > 0));
        let size = |key| settings.get(key, SIZE, parse_size);
        let defaults = Options::default();
        let memory = |key, default| {
            settings.get(key, &format!("{SIZE}, or auto"), |value| match value {
                AUTO => Some(machine::memory().map_or(default, |memory| memory / CONNECTIONS_SHARE)),
                size => parse_size(size),
            })
        };
        let time = |key| settings.get(key, TIME, |value| parse_time(value).filter(|time| !time.is_zero()));
        let time_or_0 = |key| settings.get(key, "it must be a time, such as 0s, 500ms or 25s", parse_time);

        let drain = Drain {
            delay: time_or_0("drain.delay")?,
            spread: time_or_0("drain.spread")?,
            timeout: time_or_0("drain.timeout")?,
        };
        if drain.delay + drain.spread > drain.timeout {
            let [delay, spread] = ["drain.delay", "drain.spread"].map(|key| settings.given(key).to_string());
            return Err(settings
                .given("drain.timeout")
                .refuse(format!("it must be at least the sum of drain.delay ({delay}) and drain.spread ({spread})")));
        }
        let internal_listen = internal_listen(settings)?;
        let api_key = api_key(settings)?;
        if internal_listen.is_some_and(|address| !address.ip().is_loopback()) && api_key.is_none() {
            return Err(settings.given("internal_listen").refuse(
                "who reaches it may do everything, so it needs an api_key (ROOMCAST_API_KEY), \
                 or it must be on loopback, such as 127.0.0.1:3001",
            ));
        }
        Ok(Self {
            listen: settings.get("listen", ADDRESS, |value| value.parse().ok())?,
            tls: tls(settings)?,
            trusted_proxies: trusted_proxies(settings)?,
            redis: redis(settings)?,
            redis_unready_after: time_or_0("redis_unready_after")?,
            internal_listen,
            api_key,
            api_rate: settings.get("api_rate", COUNT, |value| value.parse().ok().filter(|rate| *rate > 0))?,
            demo: settings.get("demo", "it must be true or false", |value| value.parse().ok())?,
            options: Options {
                max_connections: count("max_connections")?,
                max_payload: settings
                    .get("max_payload", PAYLOAD, |value| parse_size(value).filter(|size| *size <= MAX_PAYLOAD))?,
                max_inbound: size("max_inbound")?,
                max_outbound: size("max_outbound")?,
                inbound_memory: memory("inbound_memory", defaults.inbound_memory)?,
                outbound_memory: memory("outbound_memory", defaults.outbound_memory)?,
                max_calls: count("max_calls")?,
                max_rooms: count("max_rooms")?,
                ping_interval: time("ping_interval")?,
                pong_timeout: time("pong_timeout")?,
                call_timeout: time("call_timeout")?,
                ..defaults
            },
            drain,
            worker_threads: settings
                .get("worker_threads", WORKER_THREADS, |value| value.parse().ok().filter(|count| *count <= 1024))?,
            log: log(settings)?,
            log_format: settings.get("log_format", "it must be text or json", |value| match value {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            said: settings.to_string(),
        })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

fn redis(settings: &Settings) -> Result<Option<RedisOptions>, ConfigError> {
    let (url, authorities) = (settings.given("redis"), settings.given("redis_ca"));
    if url.value == OFF {
        return Ok(None);
    }
    roomcast_redis::check_url(&url.value).map_err(|why| url.refuse(why))?;
    let read =
        |path: &String| std::fs::read(path).map_err(|error| authorities.refuse(format!("it can't be read: {error}")));
    let history = settings.given("redis_history");
    let history = history.value.parse().map_err(|error: roomcast_redis::BadRule| history.refuse(error.to_string()))?;
    let options = RedisOptions {
        prefix: settings.get("redis_prefix", "it must be letters, digits, '-', '_' or '.'", |prefix| {
            let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            (!prefix.is_empty() && prefix.chars().all(valid)).then(|| prefix.to_owned())
        })?,
        history,
        cluster_secrets: cluster_secrets(settings)?,
        unsubscribe_delay: settings.get(
            "redis_unsubscribe_delay",
            "it must be a time, such as 0s or 5s",
            parse_time,
        )?,
        ca_certificates: (authorities.value != OFF).then(|| read(&authorities.value)).transpose()?,
        ..RedisOptions::new(&url.value)
    };
    Ok(Some(options))
}

/// The first one signs. A short secret could be guessed from a message and its MAC.
fn cluster_secrets(settings: &Settings) -> Result<Vec<String>, ConfigError> {
    const MIN_LENGTH: usize = 16;
    let allowed =
        "it must have at least 16 printable ASCII characters and no spaces; separate several secrets by commas";
    settings.get("cluster_secret", allowed, |value| match value {
        OFF => Some(Vec::new()),
        list => {
            let valid = |secret: &str| secret.len() >= MIN_LENGTH && secret.bytes().all(|byte| byte.is_ascii_graphic());
            list.split(',').map(|secret| valid(secret).then(|| secret.to_owned())).collect()
        }
    })
}

fn internal_listen(settings: &Settings) -> Result<Option<SocketAddr>, ConfigError> {
    settings.get("internal_listen", &format!("{ADDRESS}, or off"), |value| match value {
        OFF => Some(None),
        address => address.parse().ok().map(Some),
    })
}

/// What can stand in a header.
fn api_key(settings: &Settings) -> Result<Option<ApiKey>, ConfigError> {
    settings.get("api_key", "it must be of ASCII letters, digits and signs, without white space", |value| match value {
        OFF => Some(None),
        key => key.bytes().all(|byte| byte.is_ascii_graphic()).then(|| Some(ApiKey::new(key))),
    })
}

fn tls(settings: &Settings) -> Result<Option<TlsAcceptor>, ConfigError> {
    let (cert, key) = (settings.given("tls_cert"), settings.given("tls_key"));
    match (cert.value.as_str(), key.value.as_str()) {
        (OFF, OFF) => Ok(None),
        (OFF, _) => Err(key.refuse("a key needs its certificate: say tls_cert, too")),
        (_, OFF) => Err(cert.refuse("a certificate needs its key: say tls_key, too")),
        (chain, private) => {
            let acceptor = tls::acceptor(Path::new(chain), Path::new(private));
            acceptor.map(Some).map_err(|why| cert.refuse(why))
        }
    }
}

fn trusted_proxies(settings: &Settings) -> Result<Option<TrustedProxies>, ConfigError> {
    let allowed = "it must be addresses and networks, such as 10.0.0.0/8,fd00::/8,192.0.2.1, or off";
    settings.get("trusted_proxies", allowed, |value| match value {
        OFF => Some(None),
        list => TrustedProxies::parse(list).map(Some),
    })
}

fn log(settings: &Settings) -> Result<Targets, ConfigError> {
    let filter = settings.given("log");
    telemetry::parse_filter(&filter.value).map_err(|why| filter.refuse(why))
}

fn parse_time(value: &str) -> Option<Duration> {
    humantime::parse_duration(value).ok().filter(|time| *time <= MAX_TIME)
}

fn parse_size(value: &str) -> Option<usize> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("65536"), Some(65536));
        assert_eq!(parse_size("64KiB"), Some(65536));
        assert_eq!(parse_size("2 GiB"), Some(2 << 30));
        for bad in ["", "0", "1MB", "-1", "KiB", "99999999999GiB", "1.5MiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}

//! What can be configured, and by which of flag, environment, file and default it was.

use std::env::VarError;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches};
use thiserror::Error;

/// One option. It is a flag (`--drain-delay`), a variable (`ROOMCAST_DRAIN_DELAY`) and a key of the
/// file (`drain.delay`); the first of these that is given wins.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The key in the file; a `.` is a table.
    pub(crate) key: &'static str,
    /// In the form that a user would write.
    pub(crate) default: &'static str,
    /// What a value looks like, in `--help`.
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    shown: Shown,
}

/// How much of an option's value may be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    All,
    /// Of a Redis URL, only the parts that are certainly not secret.
    Url,
    Nothing,
}

/// Printed in place of a hidden value.
const HIDDEN: &str = "(hidden)";

/// A value that stands for "no such thing".
pub(crate) const OFF: &str = "off";

/// A value that stands for "as the machine allows".
pub(crate) const AUTO: &str = "auto";

/// The flag that names the file; not itself a key of the file.
pub(crate) const CONFIG: &str = "config";

const fn setting(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, value, help, shown: Shown::All }
}

/// An option whose value is never printed.
const fn secret(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { shown: Shown::Nothing, ..setting(key, value, default, help) }
}

/// An option whose value may contain a password.
const fn redis_url(key: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { shown: Shown::Url, ..setting(key, value, default, help) }
}

/// All options, in the order of `--help`.
pub(crate) const OPTIONS: &[Setting] = &[
    setting("listen", "ADDR", "127.0.0.1:3000", "Public listener: WebSocket at /socket"),
    setting("tls_cert", "FILE", OFF, "Certificate chain (PEM) of the public listener; with tls_key, it speaks TLS"),
    setting("tls_key", "FILE", OFF, "Private key (PEM) of the public listener"),
    setting(
        "trusted_proxies",
        "LIST",
        OFF,
        "Load balancers whose X-Forwarded-For says where a client is: 10.0.0.0/8,fd00::/8,192.0.2.1; \
         who connects from there can say anything",
    ),
    setting(
        "internal_listen",
        "ADDR",
        "127.0.0.1:3001",
        "Health, metrics and the HTTP API; never exposed to the public; 'off' for none",
    ),
    redis_url(
        "redis",
        "URL",
        OFF,
        "The cluster's Redis: redis://, redis-cluster:// or redis-sentinel://, with rediss… for TLS; 'off': one node",
    ),
    setting("redis_ca", "FILE", OFF, "Authorities (PEM) that sign Redis' certificates; 'off' for the system's"),
    setting("redis_prefix", "TEXT", "roomcast", "With what all keys and channels in Redis begin"),
    setting(
        "redis_history",
        "RULES",
        "100/30s",
        "Events kept to repair what a node misses: at least so many of a room's last, until so long after the last; \
         'off' for none; for some rooms: 'chat-*=500/5m ticks=off 100/30s'",
    ),
    setting(
        "redis_unsubscribe_delay",
        "TIME",
        "5s",
        "How long a node stays subscribed to a room after its last local member leaves",
    ),
    secret(
        "cluster_secret",
        "SECRET",
        OFF,
        "Secret that signs messages between nodes; the same on all nodes, at least 16 characters; 'NEW,OLD' signs with \
         NEW and accepts both",
    ),
    setting("redis_unready_after", "TIME", "10s", "How long a node may be cut off from Redis and stay ready"),
    secret(
        "api_key",
        "KEY",
        OFF,
        "Bearer token for the HTTP API; required unless the internal listener is on loopback; prefer the variable",
    ),
    setting("api_rate", "N", "10000", "Requests a second to the HTTP API; over it they are answered 429"),
    setting("demo", "BOOL", "false", "The tutorial's procedures and its page at /; everybody may do everything"),
    setting("max_connections", "N", "100000", "Concurrent connections; beyond that, upgrades are answered 503"),
    setting(
        "max_payload",
        "SIZE",
        "1MiB",
        "Largest payload of a frame, at most 64MiB; a larger one closes the connection with 1009",
    ),
    setting(
        "max_inbound",
        "SIZE",
        "8MiB",
        "Memory that a client's calls in progress and waiting notifications may take; over it calls are refused, notifications close with 1013",
    ),
    setting(
        "max_outbound",
        "SIZE",
        "4MiB",
        "Memory that a client's unread output may take; beyond that, the connection is closed with 4408",
    ),
    setting(
        "inbound_memory",
        "SIZE",
        AUTO,
        "Memory that the input of all clients may take; beyond that, the connections that hold the most are closed \
         with 1013 and upgrades are answered 503; 'auto': a quarter of the container's or machine's memory",
    ),
    setting(
        "outbound_memory",
        "SIZE",
        AUTO,
        "Memory that the unread output of all clients may take; beyond that, the connections that hold the most are \
         closed with 4408 and upgrades are answered 503; 'auto': a quarter of the container's or machine's memory",
    ),
    setting("max_calls", "N", "1024", "Calls that a client may have in flight; further ones are refused"),
    setting("max_rooms", "N", "1000", "Rooms that a connection may be in"),
    setting("ping_interval", "TIME", "25s", "How often a client is pinged"),
    setting("pong_timeout", "TIME", "10s", "How long after a ping a client may be silent before it counts as lost"),
    setting("call_timeout", "TIME", "15m", "How long a call may run before it is cancelled"),
    setting("drain.delay", "TIME", "5s", "From SIGTERM until no connection is accepted: load balancers need it"),
    setting("drain.spread", "TIME", "10s", "Over how long the closes of a drain are spread"),
    setting("drain.timeout", "TIME", "25s", "From SIGTERM until calls that are still in flight are cancelled"),
    setting("worker_threads", "N", "0", "Threads that serve connections; 0 for one for each CPU"),
    setting("log", "FILTER", "info", "Log filter, such as debug or roomcast=debug,info"),
    setting("log_format", "FORMAT", "text", "text or json"),
];

impl Setting {
    fn flag(&self) -> String {
        self.key.replace(['_', '.'], "-")
    }

    fn variable(&self) -> String {
        format!("ROOMCAST_{}", self.key.replace('.', "_").to_uppercase())
    }

    pub(crate) fn arg(&self) -> Arg {
        let arg = Arg::new(self.key)
            .long(self.flag())
            .value_name(self.value)
            .help(format!("{} [env: {}] [default: {}]", self.help, self.variable(), self.default))
            .action(ArgAction::Set);
        if self.value == "BOOL" { arg.num_args(0..=1).default_missing_value("true").require_equals(true) } else { arg }
    }
}

/// A value, and where it was said: `None` for a default.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) value: String,
    source: Option<String>,
    setting: &'static Setting,
}

impl Given {
    /// Its value, as it may be printed: without secrets.
    fn shown(&self) -> String {
        match self.setting.shown {
            _ if self.value == OFF => self.value.clone(),
            Shown::All => self.value.clone(),
            Shown::Url => roomcast_redis::check_url(&self.value).unwrap_or_else(|_| HIDDEN.to_owned()),
            Shown::Nothing => HIDDEN.to_owned(),
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.shown(), self.source.as_deref().unwrap_or("the default"))
    }
}

/// What is wrong with the configuration: which option, its value, and what is allowed.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("{source_name}: {value:?} is not allowed; {allowed}")]
    Value { source_name: String, value: String, allowed: String },
    #[error("{}: unknown key {key:?}; known are {} (a dot is a table: [drain] delay = \"5s\")", path.display(), known_keys())]
    UnknownKey { path: PathBuf, key: String },
    #[error("{}: {key} is {found}; write it as text, a number, true or false", path.display())]
    NotAScalar { path: PathBuf, key: String, found: &'static str },
    #[error("--config: {} can't be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    // Without the line itself, which toml's error would print: it may contain a secret.
    #[error("{}, line {line}, column {column}: invalid TOML: {message}", path.display())]
    NotToml { path: PathBuf, line: usize, column: usize, message: String },
    #[error("{variable} is not UTF-8")]
    NotUtf8 { variable: String },
}

fn known_keys() -> String {
    OPTIONS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
}

/// Every option with its value.
#[derive(Debug)]
pub(crate) struct Settings(Vec<Given>);

impl Settings {
    /// Flag before environment before file before default.
    pub(crate) fn load(arguments: &ArgMatches) -> Result<Self, ConfigError> {
        let path = match arguments.get_one::<String>(CONFIG) {
            Some(path) => Some(path.clone()),
            None => variable("ROOMCAST_CONFIG")?,
        };
        let file = path.map(|path| read_file(Path::new(&path))).transpose()?.unwrap_or_default();
        let given = OPTIONS.iter().map(|setting| {
            if let Some(value) = arguments.get_one::<String>(setting.key) {
                return Ok(Given { value: value.clone(), source: Some(format!("--{}", setting.flag())), setting });
            }
            if let Some(value) = variable(&setting.variable())? {
                return Ok(Given { value, source: Some(setting.variable()), setting });
            }
            let in_file = file.iter().find(|(key, _)| key == setting.key).map(|(_, given)| given.clone());
            let default = || Given { value: setting.default.to_owned(), source: None, setting };
            Ok(in_file.unwrap_or_else(default))
        });
        given.collect::<Result<_, _>>().map(Self)
    }

    /// An option's value, read by `parse`; `allowed` completes the sentence of its error.
    pub(crate) fn get<T>(
        &self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let given = self.given(key);
        parse(&given.value).ok_or_else(|| given.refuse(allowed))
    }

    /// Where an option's value was said, for errors about several options together.
    pub(crate) fn given(&self, key: &str) -> &Given {
        let index = OPTIONS.iter().position(|setting| setting.key == key).expect("the option is in the list");
        &self.0[index]
    }
}

impl Given {
    pub(crate) fn refuse(&self, allowed: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            source_name: self.source.clone().unwrap_or_else(|| self.setting.key.to_owned()),
            value: self.shown(),
            allowed: allowed.into(),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (setting, given) in OPTIONS.iter().zip(&self.0) {
            let origin = given.source.as_deref().unwrap_or("default");
            writeln!(f, "{:<20} = {:<16} ({origin})", setting.key, given.shown())?;
        }
        Ok(())
    }
}

/// An environment variable; an empty one counts as not given.
fn variable(name: &str) -> Result<Option<String>, ConfigError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ConfigError::NotUtf8 { variable: name.to_owned() }),
    }
}

fn read_file(path: &Path) -> Result<Vec<(String, Given)>, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let table: toml::Table = text.parse().map_err(|error| not_toml(path, &text, &error))?;
    let mut flat = Vec::new();
    flatten(path, "", table, &mut flat)?;
    Ok(flat)
}

fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.split('\n').count(), before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    ConfigError::NotToml { path: path.to_owned(), line, column, message: error.message().to_owned() }
}

fn flatten(path: &Path, prefix: &str, table: toml::Table, flat: &mut Vec<(String, Given)>) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let known = OPTIONS.iter().find(|setting| setting.key == key);
        let value = match value {
            toml::Value::Table(table) if OPTIONS.iter().any(|setting| setting.key.starts_with(&format!("{key}."))) => {
                flatten(path, &format!("{key}."), table, flat)?;
                continue;
            }
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            _ if known.is_none() => return Err(ConfigError::UnknownKey { path: path.to_owned(), key }),
            other => {
                let found = other.type_str();
                return Err(ConfigError::NotAScalar { path: path.to_owned(), key, found });
            }
        };
        let Some(setting) = known else { return Err(ConfigError::UnknownKey { path: path.to_owned(), key }) };
        let source = Some(format!("{}: {key}", path.display()));
        flat.push((key, Given { value, source, setting }));
    }
    Ok(())
}

//! The configuration of the Redis broker.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::time::Duration;

use fred::types::config::Config;
use thiserror::Error;

/// The options of a node's Redis broker.
///
/// ```
/// use std::time::Duration;
/// use roomcast_redis::RedisOptions;
///
/// let mut options = RedisOptions::new("rediss-cluster://app:secret@redis-1:6379?node=redis-2:6379");
/// options.prefix = "acme".to_owned();
/// options.history = "chat-*=500/5m ticks=off 100/30s".parse()?;
/// options.unsubscribe_delay = Duration::from_secs(10);
/// # Ok::<(), roomcast_redis::BadRule>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The URL of Redis. Its scheme is `redis`, `redis-cluster` or `redis-sentinel`, or one of
    /// `rediss`, `rediss-cluster` and `rediss-sentinel` for TLS. Add `user:password@` if Redis
    /// requires it. Name further cluster nodes or sentinels with `?node=HOST:PORT&node=…`. Sentinel
    /// requires `sentinelServiceName=NAME`.
    pub url: String,
    /// The prefix of all keys and channels. Default `roomcast`.
    pub prefix: String,
    /// How many of a room's events Redis keeps, and for how long. By default, it keeps the last 100
    /// events, for 30 s.
    pub history: HistoryRules,
    /// How many bytes of messages the history of a room has at most, from [`MIN_HISTORY_BYTES`] to
    /// [`MAX_HISTORY_BYTES`]. Beyond that, a publish removes the oldest messages. Give all nodes the
    /// same number. Default 1 MiB.
    pub history_bytes: usize,
    /// How long a node stays subscribed to a room after its last local member has left. Default 5
    /// s.
    pub unsubscribe_delay: Duration,
    /// Secrets that prove that messages come from nodes of this cluster. The node signs its
    /// messages with the first secret, and accepts messages that are signed with any of them. To
    /// replace a secret, make sure that each node accepts the secret with which the other nodes
    /// sign. Without secrets, messages are not signed, and anyone who may publish to Redis'
    /// channels can forge events and requests. Default: no secrets.
    pub cluster_secrets: Vec<String>,
    /// The CA certificates (PEM) to trust, for the `rediss…` schemes. By default, the system's CA
    /// certificates are trusted.
    pub ca_certificates: Option<Vec<u8>>,
}

impl RedisOptions {
    /// Creates options for the Redis at this URL, with the defaults for everything else.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "roomcast".into(),
            history: HistoryRules::default(),
            history_bytes: 1024 * 1024,
            unsubscribe_delay: Duration::from_secs(5),
            cluster_secrets: Vec::new(),
            ca_certificates: None,
        }
    }

    pub(crate) fn check_history_bytes(&self) -> Result<(), String> {
        let allowed = MIN_HISTORY_BYTES..=MAX_HISTORY_BYTES;
        if allowed.contains(&self.history_bytes) {
            return Ok(());
        }
        let Self { history_bytes, .. } = self;
        Err(format!("history_bytes is {history_bytes}; it must be from {MIN_HISTORY_BYTES} to {MAX_HISTORY_BYTES}"))
    }
}

/// The fewest bytes to which [`RedisOptions::history_bytes`] can limit a history, 256 KiB. A history
/// then has room for each message that is kept at all.
pub const MIN_HISTORY_BYTES: usize = 256 * 1024;

/// The most bytes to which [`RedisOptions::history_bytes`] can limit a history, 16 MiB. After an
/// interruption, Redis returns the whole history in one reply, and it closes a subscriber's
/// connection if more than 32 MiB wait there.
pub const MAX_HISTORY_BYTES: usize = 16 * 1024 * 1024;

impl fmt::Debug for RedisOptions {
    /// Omits the URL, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Checks a Redis URL. Returns the URL in a form that is safe to show: `***` replaces everything
/// that may be secret.
///
/// # Errors
/// Returns what is wrong with the URL. The text does not quote the URL, because any part of a
/// malformed URL may belong to a password.
///
/// ```
/// use roomcast_redis::check_url;
///
/// assert_eq!(check_url("rediss://app:secret@redis:6379"), Ok("rediss://***@redis:6379".to_owned()));
/// assert!(check_url("redis://app:p@ss@redis:6379").is_err(), "write p%40ss");
/// ```
pub fn check_url(url: &str) -> Result<String, String> {
    const SCHEMES: [&str; 6] =
        ["redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel", "rediss-sentinel"];
    const FORM: &str = "it must have the form redis://USER:PASSWORD@HOST:PORT/DATABASE?node=HOST:PORT; percent-encode \
                        reserved characters such as @ : / ? # &";
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !SCHEMES.contains(&scheme) {
        return Err(format!("it must begin with one of {}://", SCHEMES.join("://, ")));
    }
    let shown = take_apart(rest).ok_or(FORM)?;
    if scheme.ends_with("sentinel") && !shown.contains(&format!("{SERVICE_NAME}=")) {
        return Err(format!("Sentinel needs the name of the master: add ?{SERVICE_NAME}=NAME"));
    }
    Config::from_url(url).map_err(|_| FORM)?;
    Ok(format!("{scheme}://{shown}"))
}

const SERVICE_NAME: &str = "sentinelServiceName";

/// Returns the part of a URL after the scheme, in a form that is safe to show. Returns `None` if a
/// part is malformed. A reserved character in a password makes the next part begin too early.
fn take_apart(url: &str) -> Option<String> {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_server = |text: &str| {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let is_ipv6 = |host: &str| {
            host.strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok())
        };
        (is_name(host) || is_ipv6(host)) && port.is_none_or(|port| is_number(port) && port.parse::<u16>().is_ok())
    };

    let (server, query) = url.split_once('?').map_or((url, None), |(server, query)| (server, Some(query)));
    let (server, database) = server.split_once('/').map_or((server, None), |(server, path)| (server, Some(path)));
    let (credentials, server) = server.split_once('@').map_or((None, server), |(all, server)| (Some(all), server));
    let is_clean = |text: &str| !text.contains(|c: char| "@#".contains(c) || c.is_whitespace() || c.is_control());
    if !is_server(server)
        || !database.is_none_or(is_number)
        || ![credentials, query].into_iter().flatten().all(is_clean)
    {
        return None;
    }
    let mut shown = format!("{}{server}", if credentials.is_some() { "***@" } else { "" });
    if let Some(database) = database {
        shown += &format!("/{database}");
    }
    for (number, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if number == 0 { '?' } else { '&' });
        shown += match parameter.split_once('=') {
            Some(("node", server)) if is_server(server) => parameter,
            Some((SERVICE_NAME, name)) if is_name(name) => parameter,
            _ => "***",
        };
    }
    Some(shown)
}

/// How much of a room's history Redis keeps. [`HistoryRules`] contains one for each rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Redis keeps at least this many of the last events, if they have at most
    /// [`RedisOptions::history_bytes`]. 0 means none.
    pub events: u32,
    /// How long Redis keeps the events after the last one.
    pub age: Duration,
}

impl Retention {
    /// Keeps no history.
    pub const NONE: Self = Self { events: 0, age: Duration::ZERO };
}

/// The [`Retention`] of each room, as a text of rules that are separated by white space: for
/// example `chat-*=500/5m` and `prices=off`, and `100/30s` for all other rooms. The first rule that
/// matches a room applies.
///
/// ```
/// use roomcast_redis::{HistoryRules, Retention};
///
/// let rules: HistoryRules = "chat-*=500/5m prices=off 100/30s".parse()?;
/// assert_eq!(rules.of("chat-1").events, 500);
/// assert_eq!(rules.of("prices"), Retention::NONE);
/// assert_eq!(rules.of("lobby").age.as_secs(), 30);
/// # Ok::<(), roomcast_redis::BadRule>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRules {
    rules: Vec<(Pattern, Retention)>,
    other: Retention,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    BeginsWith(String),
}

impl Default for HistoryRules {
    fn default() -> Self {
        Self { rules: Vec::new(), other: Retention { events: 100, age: Duration::from_secs(30) } }
    }
}

impl HistoryRules {
    /// Returns the retention of a room.
    pub fn of(&self, room: &str) -> Retention {
        let fits = |(pattern, _): &&(Pattern, Retention)| match pattern {
            Pattern::Exactly(name) => room == name,
            Pattern::BeginsWith(start) => room.starts_with(start.as_str()),
        };
        self.rules.iter().find(fits).map_or(self.other, |(_, retention)| *retention)
    }
}

/// The error of a history rule that cannot be parsed.
///
/// ```
/// use roomcast_redis::HistoryRules;
///
/// let error = "chat-*=500".parse::<HistoryRules>().unwrap_err();
/// assert!(error.to_string().starts_with("invalid history rule \"chat-*=500\": write off, EVENTS/TIME"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "invalid history rule {0:?}: write off, EVENTS/TIME such as 100/30s (1 to {MAX_EVENTS} events, 1s to 1h), or \
     PATTERN=EVENTS/TIME such as chat-*=500/5m"
)]
pub struct BadRule(String);

impl FromStr for HistoryRules {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let mut all = Self::default();
        for rule in text.split_whitespace() {
            let bad = || BadRule(rule.to_owned());
            match rule.rsplit_once('=') {
                None => all.other = parse_retention(rule).ok_or_else(bad)?,
                Some((pattern, retention)) => {
                    let pattern = parse_pattern(pattern).ok_or_else(bad)?;
                    all.rules.push((pattern, parse_retention(retention).ok_or_else(bad)?));
                }
            }
        }
        Ok(all)
    }
}

fn parse_pattern(pattern: &str) -> Option<Pattern> {
    match pattern.strip_suffix('*') {
        Some(start) if !start.contains('*') => Some(Pattern::BeginsWith(start.to_owned())),
        None if !pattern.is_empty() && !pattern.contains('*') => Some(Pattern::Exactly(pattern.to_owned())),
        _ => None,
    }
}

/// The most events that a history may keep. After an interruption, Redis returns all of them in one
/// reply.
const MAX_EVENTS: u32 = 10_000;

fn parse_retention(text: &str) -> Option<Retention> {
    if text == "off" {
        return Some(Retention::NONE);
    }
    let (events, age) = text.split_once('/')?;
    let (events, age) = (events.parse().ok()?, parse_age(age)?);
    (1..=MAX_EVENTS).contains(&events).then_some(Retention { events, age })
}

fn parse_age(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_a_room_holds() {
        let rules: HistoryRules = "chat-vip=500/5m chat-*=10/1s prices=off 50/2m".parse().expect("valid rules");
        let of = |room| {
            let Retention { events, age } = rules.of(room);
            (events, age.as_secs())
        };
        assert_eq!([of("chat-vip"), of("chat-1"), of("prices"), of("x")], [(500, 300), (10, 1), (0, 0), (50, 120)]);
        assert_eq!(HistoryRules::default().of("x"), Retention { events: 100, age: Duration::from_secs(30) });
        for bad in ["100", "0/30s", "100/30", "a*b=off", "=off", "chat-*", "100/2h", "99999/30s", "-1/3s"] {
            assert!(bad.parse::<HistoryRules>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_checked_before_anything_is_connected() {
        for (good, shown) in [
            ("redis://h", "redis://h"),
            ("rediss://u:p@h:1/2", "rediss://***@h:1/2"),
            ("redis://p@[::1]:1/", "redis://***@[::1]:1/"),
            ("redis://:p%40%2F@h", "redis://***@h"),
            ("redis-cluster://h:1?node=i:2&node=j:3", "redis-cluster://h:1?node=i:2&node=j:3"),
            (
                "redis-sentinel://h:1?sentinelServiceName=m&sentinelUsername=u&sentinelPassword=p",
                "redis-sentinel://h:1?sentinelServiceName=m&***&***",
            ),
        ] {
            assert_eq!(check_url(good), Ok(shown.to_owned()), "{good}");
        }
        let bad = ["", "h:6379", "http://h", "redis://", "redis-sentinel://h:1", "redis://h:port", "redis://h/x/y"];
        let in_password =
            ["redis://u:1@p@h", "redis://u:1/p@h", "redis://u:1?p@h", "redis://u:1#p@h", "redis://u:1 p@h"];
        for bad in bad.into_iter().chain(in_password) {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}

//! What a single value looks like in a flag, a variable and the file, and in the JSON Schema. Numbers, sizes and times are
//! in `quantity`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;

use roomcast::RoomPatterns;
use roomcast_redis::HistoryRules;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use tracing_subscriber::filter::Targets;

use crate::api::{ApiKeys, MIN_KEY_LENGTH};
use crate::client_address::TrustedProxies;
use crate::log_filter::Followed;
use crate::otlp::{TraceEndpoint, TraceProtocol, TraceRatio};
use crate::telemetry::{self, LogFormat};

/// Stands for "no such thing".
pub(crate) const OFF: &str = "off";

/// In the schema, the formats of values that may contain a password but can be shown without it.
pub(super) const REDIS_URL_FORMAT: &str = "redis-url";
pub(super) const COLLECTOR_URL_FORMAT: &str = "collector-url";

/// A short secret could be guessed from a message and its MAC.
const MIN_SECRET_LENGTH: usize = 16;

/// What a value is. Flags and variables are text; the file may also have a number or a boolean.
pub(crate) trait Value: Sized {
    /// Reads it. The error completes the sentence "cannot use VALUE: ".
    fn parse(text: &str) -> Result<Self, String>;

    /// With the value's kind as the title, which `--help` shows in its place.
    fn schema() -> Schema;
}

/// A value of an option.
#[derive(Debug)]
pub(crate) struct Scalar<T>(T);

impl<T> Deref for Scalar<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Value> Deserialize<'de> for Scalar<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor(PhantomData)).map(Self)
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Value> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
}

impl<T: Value> JsonSchema for Scalar<T> {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    /// Without a definition of its own: each value is described where it is used.
    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// A value, or `off`.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            OFF => Ok(None),
            text => T::parse(text).map(Some).map_err(|allowed| format!("{allowed}, or off")),
        }
    }

    fn schema() -> Schema {
        or(OFF, T::schema())
    }
}

/// A schema that also allows a word. What is not about a single form of the value stays at the top.
pub(super) fn or(word: &str, mut schema: Schema) -> Schema {
    let [title, write_only, format] = ["title", "writeOnly", "format"].map(|key| schema.remove(key));
    let mut either = json_schema!({ "anyOf": [{ "const": word }, schema] });
    for (key, value) in [("title", title), ("writeOnly", write_only), ("format", format)] {
        if let Some(value) = value {
            either.insert(key.to_owned(), value);
        }
    }
    either
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be an IP address and a port, such as 127.0.0.1:3000 or [::]:3000";
        text.parse().map_err(|_| allowed.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "address", "type": "string", "minLength": 1 })
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("it must be the path of a file".to_owned()) } else { Ok(text.into()) }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "file", "type": "string", "minLength": 1 })
    }
}

impl Value for TrustedProxies {
    fn parse(text: &str) -> Result<Self, String> {
        let allowed = "it must be a list of addresses and networks, such as 10.0.0.0/8,fd00::/8,192.0.2.1";
        Self::parse(text).ok_or_else(|| allowed.to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "list", "type": "string", "minLength": 1 })
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "it must be true or false".to_owned())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "bool", "type": "boolean" })
    }
}

/// Where Redis is, perhaps with a password.
pub(crate) struct RedisUrl(String);

impl RedisUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for RedisUrl {
    fn parse(text: &str) -> Result<Self, String> {
        roomcast_redis::check_url(text).map(|_| Self(text.to_owned()))
    }

    fn schema() -> Schema {
        json_schema!({ "title": "url", "type": "string", "format": REDIS_URL_FORMAT, "minLength": 1 })
    }
}

/// With what names in Redis begin.
#[derive(Debug)]
pub(crate) struct Prefix(String);

impl Prefix {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Prefix {
    fn parse(text: &str) -> Result<Self, String> {
        let is_valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err("it must consist of letters, digits, '-', '_' and '.'".to_owned())
        }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "text", "type": "string", "pattern": "^[A-Za-z0-9._-]+$" })
    }
}

impl Value for HistoryRules {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: roomcast_redis::BadRule| error.to_string())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "rules", "type": "string", "minLength": 1 })
    }
}

impl Value for RoomPatterns {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: roomcast::PatternError| error.to_string())
    }

    fn schema() -> Schema {
        json_schema!({ "title": "patterns", "type": "string", "minLength": 1 })
    }
}

/// The secrets of the cluster. The first one signs.
pub(crate) struct ClusterSecrets(pub(crate) Vec<String>);

impl Value for ClusterSecrets {
    fn parse(text: &str) -> Result<Self, String> {
        let is_valid =
            |secret: &str| secret.len() >= MIN_SECRET_LENGTH && secret.bytes().all(|byte| byte.is_ascii_graphic());
        let secrets: Option<Vec<_>> =
            text.split(',').map(|secret| is_valid(secret).then(|| secret.to_owned())).collect();
        secrets.map(Self).ok_or_else(|| {
            format!(
                "it must be at least {MIN_SECRET_LENGTH} printable ASCII characters without spaces; separate several \
                 secrets with commas"
            )
        })
    }

    fn schema() -> Schema {
        json_schema!({ "title": "secret", "type": "string", "minLength": MIN_SECRET_LENGTH, "writeOnly": true })
    }
}

impl Value for ApiKeys {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Schema {
        json_schema!({
            "title": "keys", "type": "string", "minLength": MIN_KEY_LENGTH, "pattern": "^[!-~]+$", "writeOnly": true
        })
    }
}

impl Value for Targets {
    fn parse(text: &str) -> Result<Self, String> {
        telemetry::parse_filter(text)
    }

    fn schema() -> Schema {
        json_schema!({ "title": "filter", "type": "string", "minLength": 1 })
    }
}

impl Value for Followed {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Schema {
        json_schema!({ "title": "list", "type": "string", "pattern": "^ *(user|connection|room)=.+$" })
    }
}

impl Value for TraceEndpoint {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Schema {
        json_schema!({
            "title": "url", "type": "string", "format": COLLECTOR_URL_FORMAT, "pattern": "^https?://.+$",
        })
    }
}

impl Value for TraceProtocol {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" => Ok(Self::Http),
            _ => Err("it must be grpc or http".to_owned()),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "protocol", "enum": ["grpc", "http"] })
    }
}

impl Value for TraceRatio {
    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }

    fn schema() -> Schema {
        json_schema!({ "title": "ratio", "type": "number", "minimum": 0, "maximum": 1 })
    }
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it must be text or json".to_owned()),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "format", "enum": ["text", "json"] })
    }
}

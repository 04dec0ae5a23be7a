//! What can be configured. [`Config`] is the only list of options: `schema` derives flags, variables, `--help` and the
//! file's JSON Schema from it; `layers` fills it from flags, variables, the `file` and defaults. `value` defines what values
//! look like, `error` what is reported about wrong ones. What the values refer to, such as certificates, is read in `setup`.

mod auth;
mod backend;
mod error;
mod file;
mod layers;
mod quantity;
mod schema;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use roomcast::{RateLimit, RoomPatterns};
use roomcast_redis::HistoryRules;
use schemars::JsonSchema;
use serde::Deserialize;
use tracing_subscriber::filter::Targets;

pub(crate) use auth::IssuerTable;
pub(crate) use backend::{BackendTable, EventsTable, RoomHookTable, room_patterns};
pub(crate) use error::{ConfigError, unreadable};
pub(crate) use layers::{CONFIG, Layers};
pub(crate) use quantity::{Count, Memory};
pub(crate) use schema::{Setting, of_file as file_schema, settings};

use crate::api::ApiKeys;
use crate::client_address::TrustedProxies;
use crate::config::auth::{Auth, RoleTable};
use crate::config::backend::Hooks;
use crate::config::quantity::{HistorySize, NonZeroTime, PayloadSize, Rate, Size, Threads};
use crate::config::value::{ClusterSecrets, Prefix, RedisUrl, Scalar};
use crate::log_filter::{Followed, LogRules};
use crate::otlp::{TraceEndpoint, TraceOptions, TraceProtocol, TraceRatio};
use crate::telemetry::{LogFormat, LogOptions};

/// The configuration of a node. A field's name is its key in the file, its comment the text of `--help`, and its default
/// what a user would write. `x-reloads`: `reload` takes over a new value. A table is a struct of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Address of the public listener, which serves WebSocket connections at /socket
    #[schemars(extend("default" = "127.0.0.1:3000"))]
    pub(crate) listen: Scalar<SocketAddr>,
    /// Certificate chain (PEM) for TLS on the public listener; set the private key as well
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) tls_cert: Scalar<Option<PathBuf>>,
    /// Private key (PEM) that belongs to the certificate for TLS on the public listener
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) tls_key: Scalar<Option<PathBuf>>,
    /// Load balancers that the node trusts to name its clients, by X-Forwarded-For or the PROXY protocol, such as
    /// 10.0.0.0/8,fd00::/8,192.0.2.1; any host in these ranges can spoof client addresses
    #[schemars(extend("default" = "off"))]
    pub(crate) trusted_proxies: Scalar<Option<TrustedProxies>>,
    /// Expect the PROXY protocol (version 1 or 2) before TLS and HTTP on the public listener; the node then accepts
    /// connections only from trusted_proxies
    #[schemars(extend("default" = false))]
    pub(crate) proxy_protocol: Scalar<bool>,
    /// Private address of the internal listener for health checks, metrics and the HTTP API; 'off' disables this
    /// listener
    #[schemars(extend("default" = "127.0.0.1:3001"))]
    pub(crate) internal_listen: Scalar<Option<SocketAddr>>,
    /// URL of the Redis that connects the nodes, beginning with redis://, redis-cluster:// or redis-sentinel://; for
    /// TLS, write rediss instead of redis
    #[schemars(extend("default" = "off"))]
    pub(crate) redis: Scalar<Option<RedisUrl>>,
    /// CA certificates (PEM) that the node trusts for Redis; 'off' uses the CA certificates of the system
    #[schemars(extend("default" = "off"))]
    pub(crate) redis_ca: Scalar<Option<PathBuf>>,
    /// Prefix of all keys and channels in Redis; clusters that share a Redis need different prefixes
    #[schemars(extend("default" = "roomcast"))]
    pub(crate) redis_prefix: Scalar<Prefix>,
    /// Events that Redis keeps so that nodes can catch up; 'chat-*=500/5m 100/30s' keeps 500 events for 5 min in each
    /// room whose name begins with chat-, and 100 events for 30 s in all other rooms
    #[schemars(extend("default" = "100/30s"))]
    pub(crate) redis_history: Scalar<HistoryRules>,
    /// Bytes of events that Redis keeps for each room at most; beyond that, it drops the oldest events
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) redis_history_bytes: Scalar<HistorySize>,
    /// How long a node stays subscribed to a room after the last member on this node has left
    #[schemars(extend("default" = "5s"))]
    pub(crate) redis_unsubscribe_delay: Scalar<Duration>,
    /// Secret of at least 16 characters, shared by all nodes, that signs messages between nodes; 'NEW,OLD' signs with
    /// NEW and accepts both secrets
    #[schemars(extend("default" = "off"))]
    pub(crate) cluster_secret: Scalar<Option<ClusterSecrets>>,
    /// How long a node stays ready after it has lost its connection to Redis
    #[schemars(extend("default" = "10s"))]
    pub(crate) redis_unready_after: Scalar<Duration>,
    /// Key of at least 16 characters that permits all operations of the HTTP API, required unless the internal listener
    /// is on loopback; 'NEW,OLD' accepts both keys; set keys with variables or in the file, because other users of the
    /// machine can read flags
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) api_key: Scalar<Option<ApiKeys>>,
    /// Like 'api_key', but the key only permits publishing events and notifying users and connections
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) api_publish_key: Scalar<Option<ApiKeys>>,
    /// Like 'api_key', but the key only permits operations that change nothing
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) api_read_key: Scalar<Option<ApiKeys>>,
    /// Requests per second that the HTTP API accepts; further requests fail with status 429
    #[schemars(extend("default" = 10_000, "x-reloads" = true))]
    pub(crate) api_rate: Scalar<Rate>,
    /// Serve a demo page at / and the methods that the page calls; without issuers, any client may then call all
    /// methods and use all rooms
    #[schemars(extend("default" = false))]
    pub(crate) demo: Scalar<bool>,
    /// Connections that may be open at the same time; further upgrades fail with status 503
    #[schemars(extend("default" = 100_000, "x-reloads" = true))]
    pub(crate) max_connections: Scalar<Count>,
    /// Connections from one public address, where an IPv6 network of 64 bits counts as one address; further
    /// upgrades fail with status 429
    #[schemars(extend("default" = 1000, "x-reloads" = true))]
    pub(crate) max_connections_per_address: Scalar<Option<Count>>,
    /// Largest payload of a frame, at most 64MiB; a larger payload closes the connection with code 1009
    #[schemars(extend("default" = "1MiB", "x-reloads" = true))]
    pub(crate) max_payload: Scalar<PayloadSize>,
    /// Memory for one client's calls in flight and queued notifications; beyond this limit, calls fail, and a
    /// notification closes the connection with code 1013
    #[schemars(extend("default" = "8MiB", "x-reloads" = true))]
    pub(crate) max_inbound: Scalar<Size>,
    /// Memory for one client's unread output; beyond this limit, the node closes the connection with code 4408
    #[schemars(extend("default" = "4MiB"))]
    pub(crate) max_outbound: Scalar<Size>,
    /// Memory for the input of all clients, where 'auto' is a quarter of the memory of the container or machine; beyond
    /// this limit, the connections that hold the most memory close with code 1013
    #[schemars(extend("default" = "auto"))]
    pub(crate) inbound_memory: Scalar<Memory>,
    /// Memory for the unread output of all clients, where 'auto' is a quarter of the memory of the container or
    /// machine; beyond this limit, the connections that hold the most memory close with code 4408
    #[schemars(extend("default" = "auto"))]
    pub(crate) outbound_memory: Scalar<Memory>,
    /// Calls that one client may have in flight; further calls fail
    #[schemars(extend("default" = 1024, "x-reloads" = true))]
    pub(crate) max_calls: Scalar<Count>,
    /// Rooms that one connection may be in at the same time
    #[schemars(extend("default" = 1000))]
    pub(crate) max_rooms: Scalar<Count>,
    /// Rooms that have members on the node, or that the node has not unsubscribed from yet; further joins of other rooms
    /// fail
    #[schemars(extend("default" = 1_000_000))]
    pub(crate) max_node_rooms: Scalar<Count>,
    /// Rooms to which only members may publish: patterns separated by commas, such as 'game:*,chat:**', where * matches
    /// one segment and ** the rest
    #[schemars(extend("default" = "off"))]
    pub(crate) members_only: Scalar<Option<RoomPatterns>>,
    /// Time between pings to a client
    #[schemars(extend("default" = "25s", "x-reloads" = true))]
    pub(crate) ping_interval: Scalar<NonZeroTime>,
    /// How long a client may stay silent after a ping before the node closes its connection
    #[schemars(extend("default" = "10s", "x-reloads" = true))]
    pub(crate) pong_timeout: Scalar<NonZeroTime>,
    /// How long a call may run before the node cancels it
    #[schemars(extend("default" = "15m", "x-reloads" = true))]
    pub(crate) call_timeout: Scalar<NonZeroTime>,
    pub(crate) rates: Rates,
    pub(crate) drain: Drain,
    pub(crate) auth: Auth,
    /// What clients whose tokens name a role may do
    #[serde(default)]
    pub(crate) role: Vec<RoleTable>,
    /// The services to which the node sends requests
    #[serde(default)]
    pub(crate) backend: Vec<BackendTable>,
    pub(crate) hooks: Hooks,
    /// Threads that serve connections; 0 starts one thread per CPU
    #[schemars(extend("default" = 0))]
    pub(crate) worker_threads: Scalar<Threads>,
    /// Log filter, such as debug or roomcast=debug,info
    #[schemars(extend("default" = "info", "x-reloads" = true))]
    pub(crate) log: Scalar<Targets>,
    /// Log lines per second about single clients, and at the levels debug and trace; the node drops further ones, and
    /// counts them in a metric
    #[schemars(extend("default" = 100, "x-reloads" = true))]
    pub(crate) log_rate: Scalar<Option<Rate>>,
    /// Users, connections and rooms whose lines down to the level debug are logged whatever log and log_rate are, such
    /// as user=ann,room=lobby; at most 16
    #[schemars(extend("default" = "off", "x-reloads" = true))]
    pub(crate) log_follow: Scalar<Option<Followed>>,
    /// URL of a collector to which traces are sent over OTLP, such as http://127.0.0.1:4317; 'off' disables traces
    #[schemars(extend("default" = "off"))]
    pub(crate) trace_endpoint: Scalar<Option<TraceEndpoint>>,
    /// Protocol of the collector: grpc, usually on port 4317, or http, usually on port 4318
    #[schemars(extend("default" = "grpc"))]
    pub(crate) trace_protocol: Scalar<TraceProtocol>,
    /// Part of all traces that are sampled, from 0 to 1
    #[schemars(extend("default" = 0.01))]
    pub(crate) trace_ratio: Scalar<TraceRatio>,
    /// Continue the sampled traces of clients that send the header traceparent with their handshakes, whatever
    /// trace_ratio is
    #[schemars(extend("default" = false, "x-reloads" = true))]
    pub(crate) trace_clients: Scalar<bool>,
    /// Format of the log: text or json
    #[schemars(extend("default" = "text"))]
    pub(crate) log_format: Scalar<LogFormat>,
    /// Log each request, WebSocket upgrades included, and each connection that has ended, as lines of JSON with the
    /// target access
    #[schemars(extend("default" = false))]
    pub(crate) access_log: Scalar<bool>,
}

impl Config {
    /// Where traces go. `None`: there are none.
    pub(crate) fn traces(&self) -> Option<TraceOptions> {
        let endpoint = self.trace_endpoint.clone()?;
        Some(TraceOptions { endpoint, protocol: *self.trace_protocol, ratio: *self.trace_ratio })
    }

    /// What is logged, and how.
    pub(crate) fn logs(&self) -> LogOptions {
        LogOptions { rules: self.log_rules(), format: *self.log_format, access_log: *self.access_log }
    }

    /// Which lines are logged.
    pub(crate) fn log_rules(&self) -> LogRules {
        let followed = self.log_follow.clone().unwrap_or_default();
        LogRules { targets: self.log.clone(), followed, rate: self.log_rate.map(Rate::per_second) }
    }
}

/// How often one client or address may do what costs the node work; each limit is a number per second and the number that may
/// happen at once
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rates {
    /// Calls and notifications of one client; beyond this limit, the node closes the connection with code 1008
    #[schemars(extend("default" = "2000/s burst 4000", "x-reloads" = true))]
    pub(crate) frames: Scalar<RateLimit>,
    /// Pings and pongs of one client; beyond this limit, the node closes the connection with code 1008
    #[schemars(extend("default" = "50/s burst 200", "x-reloads" = true))]
    pub(crate) control_frames: Scalar<RateLimit>,
    /// Calls of one client; further calls fail
    #[schemars(extend("default" = "1000/s burst 2000", "x-reloads" = true))]
    pub(crate) calls: Scalar<RateLimit>,
    /// Joins of one client; further joins fail
    #[schemars(extend("default" = "100/s burst 1000", "x-reloads" = true))]
    pub(crate) joins: Scalar<RateLimit>,
    /// Joins of one client to rooms that have no member on the node yet; further joins of such rooms fail
    #[schemars(extend("default" = "10/s burst 1000", "x-reloads" = true))]
    pub(crate) new_rooms: Scalar<RateLimit>,
    /// Events that one client publishes; further publishes fail
    #[schemars(extend("default" = "200/s burst 1000", "x-reloads" = true))]
    pub(crate) publishes: Scalar<RateLimit>,
    /// Connections that the clients of one public address open, even if they close them or are not
    /// authenticated; further upgrades fail with status 429
    #[schemars(extend("default" = "50/s burst 1000", "x-reloads" = true))]
    pub(crate) connections: Scalar<RateLimit>,
}

/// The times of a drain
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// How long the node still accepts connections after SIGTERM, so that load balancers can detect that the node is
    /// not ready
    #[schemars(extend("default" = "5s", "x-reloads" = true))]
    pub(crate) delay: Scalar<Duration>,
    /// Longest time over which the node closes its connections in a drain; with few clients, the drain takes less time
    #[schemars(extend("default" = "10s", "x-reloads" = true))]
    pub(crate) duration: Scalar<Duration>,
    /// Time after SIGTERM at which the node cancels the calls that are still in flight; at least the delay plus the
    /// duration of the drain
    #[schemars(extend("default" = "25s", "x-reloads" = true))]
    pub(crate) timeout: Scalar<Duration>,
}

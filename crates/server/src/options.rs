//! All limits and timeouts of a connection.

use std::time::Duration;

use roomcast_core::HubOptions;
use roomcast_protocol::{DEFAULT_MAX_PAYLOAD, Limits};

use crate::rate::{Action, RateLimit};

/// Longer durations are reduced to this one, because a later instant may not be representable.
pub(crate) const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Limits and timeouts for the connections of a [`Node`](crate::Node), or for one upgraded
/// connection.
///
/// One connection can make the process hold at most about 2 × `max_payload` + `max_inbound` +
/// `max_outbound` bytes. All connections together can make it hold at most `inbound_memory` +
/// `outbound_memory`. For a moment, they can exceed that sum by what arrives while the node closes
/// the largest connections. Memberships are extra: about 140 bytes for each, and 700 bytes for the
/// first one of a room.
///
/// ```
/// use roomcast::Options;
///
/// let options = Options::default().with(|options| {
///     options.max_calls = 100;
///     options.max_payload = 64 * 1024;
/// });
/// assert_eq!(options.max_calls, 100);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Largest payload of a client's frame, in bytes. A larger one closes the connection with 1009.
    /// Default 1 MiB.
    ///
    /// If a message is not complete within 30 s of its first byte, the connection is closed with
    /// 1008. For a `max_payload` above 1 MiB, the time is one second longer for each further 64
    /// KiB.
    pub max_payload: usize,
    /// Memory that a client's unfinished calls and waiting notifications may take, in bytes. Each
    /// counts its name and payload, plus 1,024 bytes for a call and 256 for a notification. Beyond
    /// the limit, calls fail with `RESOURCE_EXHAUSTED`, and a notification closes the connection
    /// with 1013. Default 8 MiB.
    pub max_inbound: usize,
    /// Most notifications of a client that may wait for a handler. One more closes the connection
    /// with 1013. Default 16,384.
    pub max_waiting_notifications: usize,
    /// Memory that a client's unread output may take, in bytes. Each frame counts its size plus 128
    /// bytes. Beyond the limit, the connection is closed with 4408. Default 4 MiB.
    pub max_outbound: usize,
    /// Memory that the input of all connections may take, in bytes: unfinished messages, and what
    /// `max_inbound` counts. Beyond the limit, the node closes the connections that hold the most,
    /// with the code 1013, and rejects upgrades with the status 503, until memory is within the
    /// limit again. Default 1 GiB.
    pub inbound_memory: usize,
    /// Memory that the unread output of all connections may take, in bytes. An event for a whole
    /// room counts once. Beyond the limit, the node closes the connections that hold the most, with
    /// the code 4408, and rejects upgrades with the status 503, until memory is within the limit
    /// again. Default 1 GiB.
    pub outbound_memory: usize,
    /// Most calls that a client may have in flight. Further calls fail with `RESOURCE_EXHAUSTED`.
    /// Default 1,024.
    pub max_calls: usize,
    /// How often one client may do what costs the node work.
    pub rates: RateLimits,
    /// Most rooms that a connection may be in. Further joins fail with `RESOURCE_EXHAUSTED`.
    /// Default 1,000.
    pub max_rooms: usize,
    /// Most rooms that have members on the node, or have had some lately. A join of another room
    /// fails with `RESOURCE_EXHAUSTED`. Joins that happen at the same time can exceed the limit by a
    /// few rooms. Default 1,000,000.
    pub max_node_rooms: usize,
    /// Most concurrent connections. The node rejects further upgrades with the status 503. Default
    /// 100,000.
    pub max_connections: usize,
    /// Most connections from one public address, where an IPv6 network of 64 bits counts as
    /// one address. The node rejects further upgrades with the status 429. The limit does not apply
    /// if the address is inside a private network, or if the server does not
    /// [provide](crate::SocketIoUpgrade::peer_addr) it. Default 1,000.
    pub max_connections_per_address: usize,
    /// Interval between Pings to a client. Default 25 s.
    pub ping_interval: Duration,
    /// Time after a Ping within which the client must send something. Otherwise its connection
    /// counts as lost. Default 10 s.
    pub pong_timeout: Duration,
    /// How long a call may run before it is cancelled and fails with `DEADLINE_EXCEEDED`. It also
    /// limits how long the handling of one notification may delay later ones. Default 15 minutes.
    pub call_timeout: Duration,
    /// Whether the trace of a handshake may continue the trace that the client names in the header
    /// `traceparent`. A client then decides that its handshakes are sampled. Default `false`.
    pub trace_clients: bool,
}

/// How often one client may do what costs the node work. Beyond a limit, a call fails with
/// `RESOURCE_EXHAUSTED`, and its details contain `limit`, the limit's name, and `retry_after_ms`, the
/// time after which the client may try again. What has no reply closes the connection with 1008.
///
/// The limits are for clients only. What your handlers do is not limited.
///
/// ```
/// use roomcast::{RateLimit, RateLimits};
///
/// let mut rates = RateLimits::default();
/// rates.calls = RateLimit::per_second(50);
/// assert_ne!(rates, RateLimits::default());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimits {
    /// Calls, notifications, and cancellations of calls that are not in flight. To cancel a call in
    /// flight is free. A client that exceeds this limit is disconnected with 1008, even if it could
    /// get a reply: it has ignored the replies to all that exceeded the limits below. Default 2,000
    /// per second, and 4,000 at once.
    pub frames: RateLimit,
    /// Pings and Pongs. Default 50 per second, and 200 at once.
    pub control_frames: RateLimit,
    /// Joins of rooms with `rooms/join`. Default 100 per second, and 1,000 at once.
    pub joins: RateLimit,
    /// Calls, including those of built-in methods. Default 1,000 per second, and 2,000 at once.
    pub calls: RateLimit,
    /// Events that the client publishes with `rooms/publish`. Default 200 per second, and 1,000 at
    /// once.
    pub publishes: RateLimit,
    /// Joins of rooms that have no member on the node yet. Default 10 per second, and 1,000 at once.
    pub new_rooms: RateLimit,
    /// Connections that the clients of one address open, even if they close them or are not
    /// authenticated. The node rejects further upgrades with the status 429. The limit applies to
    /// the same addresses as [`Options::max_connections_per_address`]. Default 50 per second, and
    /// 1,000 at once, so that all clients of an address can reconnect at the same time.
    pub connections: RateLimit,
}

impl RateLimits {
    pub(crate) fn of(&self, action: Action) -> RateLimit {
        match action {
            Action::Frame => self.frames,
            Action::ControlFrame => self.control_frames,
            Action::Join => self.joins,
            Action::Call => self.calls,
            Action::Publish => self.publishes,
            Action::NewRoom => self.new_rooms,
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            frames: RateLimit::per_second(2000).burst(4000),
            control_frames: RateLimit::per_second(50).burst(200),
            joins: RateLimit::per_second(100).burst(1000),
            calls: RateLimit::per_second(1000).burst(2000),
            publishes: RateLimit::per_second(200).burst(1000),
            new_rooms: RateLimit::per_second(10).burst(1000),
            connections: RateLimit::per_second(50).burst(1000),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_payload: DEFAULT_MAX_PAYLOAD,
            max_inbound: 8 * 1024 * 1024,
            max_waiting_notifications: 16_384,
            max_outbound: 4 * 1024 * 1024,
            inbound_memory: 1024 * 1024 * 1024,
            outbound_memory: 1024 * 1024 * 1024,
            max_calls: 1024,
            rates: RateLimits::default(),
            max_rooms: 1000,
            max_node_rooms: 1_000_000,
            max_connections: 100_000,
            max_connections_per_address: 1000,
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(15 * 60),
            trace_clients: false,
        }
    }
}

impl Options {
    /// Returns these options after `change` has modified them.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits::new(self.max_payload)
    }

    pub(crate) fn hub(&self) -> HubOptions {
        let mut hub = HubOptions::default();
        hub.max_rooms = self.max_rooms;
        hub.max_node_rooms = self.max_node_rooms;
        hub.max_outbound = self.max_outbound;
        hub.inbound_memory = self.inbound_memory;
        hub.outbound_memory = self.outbound_memory;
        hub
    }
}

//! Rooms that a node publishes to and reads, one on each server, to prove that the server can be used: that it runs the
//! script, and delivers what is published.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::config::Server;
use futures_util::FutureExt;
use roomcast_core::{BoxFuture, BrokerError, NodeId, Publish, RoomName};
use roomcast_protocol::Name;
use tokio::sync::oneshot;

use crate::io::publisher::Publisher;
use crate::state::keys::{Keys, PROBES, SLOTS};
use crate::state::subscriptions::{Known, Subscriptions};
use crate::state::topology::Topology;

/// How often each server is probed, and how long an echo may be missing before the connection is opened anew.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_PATIENCE: Duration = Duration::from_millis(3500);

/// How many names are tried to find one that a server owns: even a server with a single slot very likely owns one of
/// them.
const MAX_PROBE_NAMES: u32 = 8 * SLOTS as u32;

/// How long an echo may be missing before the server counts as not working, although it accepts probes.
const ECHO_PATIENCE: Duration = Duration::from_millis(4500);

/// How often a server is probed until it echoes a probe.
const FIRST_PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// A node's probes, by the servers that own their rooms.
pub(crate) struct Probes {
    by_server: HashMap<Server, Probe>,
    prefix: String,
    origin: NodeId,
}

/// What is known of one server's room.
struct Probe {
    room: RoomName,
    /// The last publish, until its outcome is known.
    publishing: Option<BoxFuture<'static, Result<(), BrokerError>>>,
    /// When the first publish was sent that was accepted and has not come back.
    missing_since: Option<Instant>,
    sent_at: Instant,
    /// When the last one came back over this connection.
    echoed_at: Option<Instant>,
    /// Why the last publish was not accepted.
    refusal: Option<String>,
}

impl Probe {
    fn new(room: RoomName, now: Instant) -> Self {
        Self { room, publishing: None, missing_since: None, sent_at: now, echoed_at: None, refusal: None }
    }

    /// A probe came back.
    fn on_echo(&mut self, now: Instant) {
        self.echoed_at = Some(now);
        self.missing_since = None;
        self.refusal = None;
    }

    fn on_paused(&mut self, now: Instant) {
        self.missing_since = None;
        self.echoed_at = self.echoed_at.map(|_| now);
    }

    fn on_connected(&mut self) {
        self.missing_since = None;
        self.echoed_at = None;
    }

    /// Whether the server has delivered a probe recently.
    fn is_proven(&self, now: Instant) -> bool {
        self.echoed_at.is_some_and(|at| now.duration_since(at) < ECHO_PATIENCE)
    }

    /// Whether it is time to publish another probe. Records the outcome of the last one.
    fn is_due(&mut self, now: Instant) -> bool {
        let interval = if self.is_proven(now) { PROBE_INTERVAL } else { FIRST_PROBE_INTERVAL };
        if now.duration_since(self.sent_at) < interval {
            return false;
        }
        match self.publishing.as_mut().map(FutureExt::now_or_never) {
            Some(None) => return false, // it is under way
            Some(Some(Ok(()))) if self.echoed_at.is_none_or(|at| at < self.sent_at) => {
                self.missing_since.get_or_insert(self.sent_at);
            }
            Some(Some(Err(BrokerError::Unavailable { reason }))) => self.refusal = Some(reason),
            Some(Some(Err(error))) => self.refusal = Some(error.to_string()),
            Some(Some(Ok(()))) | None => {}
        }
        self.publishing = None;
        true
    }
}

impl Probes {
    /// None yet.
    pub(crate) fn new() -> Self {
        let origin = NodeId::random();
        Self { by_server: HashMap::new(), prefix: format!("{PROBES}{origin}"), origin }
    }

    /// Chooses a room for each server that owns something.
    pub(crate) fn choose(&mut self, topology: &Topology, subscriptions: &mut Subscriptions, now: Instant) {
        let owns = |server: &Server, room: &RoomName| topology.owner(Keys::slot(room)) == Some(server);
        self.by_server.retain(|server, probe| {
            let keeps = owns(server, &probe.room);
            if !keeps {
                subscriptions.unsubscribe(&probe.room, now);
            }
            keeps
        });
        for server in topology.servers() {
            if self.by_server.contains_key(&server) {
                continue;
            }
            let rooms = (0..MAX_PROBE_NAMES).map(|number| RoomName::internal(&self.prefix, number));
            if let Some(room) = rooms.into_iter().find(|room| owns(&server, room)) {
                // The probes show whether the subscription works.
                subscriptions.subscribe(&room, oneshot::channel().0, now);
                self.by_server.insert(server, Probe::new(room, now));
            }
        }
    }

    /// Publishes to the rooms that are due. Returns the servers that accept publishes but do not deliver them: the
    /// connection may be half open, or the server no longer the master.
    pub(crate) fn publish_due<'a>(
        &mut self,
        publisher: &Arc<Publisher>,
        owners: impl Iterator<Item = &'a Known>,
        now: Instant,
    ) -> Vec<&'a Known> {
        let mut silent = Vec::new();
        for known in owners {
            let Some(probe) = self.by_server.get_mut(&known.server) else { continue };
            if !probe.is_due(now) {
                continue;
            }
            probe.sent_at = now;
            probe.publishing = Some(publisher.probe(Publish {
                origin: self.origin,
                room: probe.room.clone(),
                event: Name::default(),
                payload: Bytes::new(),
                accepted_at: now,
            }));
            if probe.missing_since.is_some_and(|since| now.duration_since(since) > PROBE_PATIENCE) {
                probe.missing_since = None;
                silent.push(known);
            }
        }
        silent
    }

    /// An event of one of the rooms came.
    pub(crate) fn on_echo(&mut self, room: &RoomName, now: Instant) {
        if let Some(probe) = self.by_server.values_mut().find(|probe| probe.room == *room) {
            probe.on_echo(now);
        }
    }

    /// The connection to a server is new and proves nothing yet.
    pub(crate) fn on_connected(&mut self, server: &Server) {
        if let Some(probe) = self.by_server.get_mut(server) {
            probe.on_connected();
        }
    }

    /// Nothing was read, so silence proves nothing.
    pub(crate) fn on_paused(&mut self, now: Instant) {
        self.by_server.values_mut().for_each(|probe| probe.on_paused(now));
    }

    /// `Some` if a server has not delivered a probe recently, with its answer if it refused the last one.
    pub(crate) fn missing(&self, server: &Server, now: Instant) -> Option<Option<&String>> {
        let probe = self.by_server.get(server).filter(|probe| !probe.is_proven(now))?;
        Some(probe.refusal.as_ref())
    }
}

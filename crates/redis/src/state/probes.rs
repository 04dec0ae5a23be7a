//! Tracks which servers work. On each server, a node publishes to a room of its own and reads it.
//! This proves that the server runs the script and delivers what is published.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fred::types::config::Server;
use roomcast_core::{BrokerError, NodeId, Publish, RoomName};
use roomcast_protocol::Name;
use tokio::sync::oneshot;

use crate::state::keys::{Keys, PROBES, SLOTS};
use crate::state::session::Known;
use crate::state::subscriptions::Subscriptions;
use crate::state::topology::Topology;

/// How often each server is probed, and how long an echo may be missing before the connection is
/// reopened.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_PATIENCE: Duration = Duration::from_millis(3500);

/// How many names are tried in order to find one that a server owns. Even a server with a single
/// slot very likely owns one of them.
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

/// The state of one server's probe room.
struct Probe {
    room: RoomName,
    /// Whether the last publish has no outcome yet.
    is_publishing: bool,
    sent_at: Instant,
    /// When the first probe was sent that was accepted and has not come back.
    missing_since: Option<Instant>,
    /// When the last probe came back over this connection.
    echoed_at: Option<Instant>,
    /// Why the last publish was not accepted.
    refusal: Option<String>,
}

/// The probes to publish, and the servers that do not deliver theirs.
#[derive(Default)]
pub(crate) struct Due<'a> {
    /// The probes to publish. Pass each outcome to [`Probes::on_published`].
    pub(crate) probes: Vec<Publish>,
    /// Servers that accept publishes but do not deliver them. The connection may be half open, or
    /// the server may no longer be the master.
    pub(crate) silent: Vec<&'a Known>,
}

/// What happened to the last probe that a server has not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing<'a> {
    /// The server rejected it, for this reason.
    Refused(&'a str),
    /// The server accepted it, or has not replied yet.
    Silent,
}

impl Probe {
    fn new(room: RoomName, now: Instant) -> Self {
        Self { room, is_publishing: false, sent_at: now, missing_since: None, echoed_at: None, refusal: None }
    }

    /// Returns whether the server has delivered a probe recently.
    fn is_proven(&self, now: Instant) -> bool {
        self.echoed_at.is_some_and(|at| now.duration_since(at) < ECHO_PATIENCE)
    }

    fn is_due(&self, now: Instant) -> bool {
        let interval = if self.is_proven(now) { PROBE_INTERVAL } else { FIRST_PROBE_INTERVAL };
        !self.is_publishing && now.duration_since(self.sent_at) >= interval
    }
}

impl Probes {
    /// Creates an empty set of probes.
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

    /// Returns the probes to publish now, and the servers that have not echoed theirs.
    pub(crate) fn due<'a>(&mut self, owners: impl Iterator<Item = &'a Known>, now: Instant) -> Due<'a> {
        let mut due = Due::default();
        for known in owners {
            let Some(probe) = self.by_server.get_mut(&known.server).filter(|probe| probe.is_due(now)) else { continue };
            (probe.is_publishing, probe.sent_at) = (true, now);
            due.probes.push(Publish {
                origin: self.origin,
                room: probe.room.clone(),
                event: Name::default(),
                payload: Bytes::new(),
                published_at: now,
                trace: None,
            });
            if probe.missing_since.is_some_and(|since| now.duration_since(since) > PROBE_PATIENCE) {
                probe.missing_since = None;
                due.silent.push(known);
            }
        }
        due
    }

    /// Records the outcome of the last publish to a room.
    pub(crate) fn on_published(&mut self, room: &RoomName, outcome: Result<(), BrokerError>) {
        let Some(probe) = self.of_room(room) else { return };
        probe.is_publishing = false;
        match outcome {
            Ok(()) if probe.echoed_at.is_none_or(|at| at < probe.sent_at) => {
                probe.missing_since.get_or_insert(probe.sent_at);
            }
            Ok(()) => {}
            Err(BrokerError::Unavailable { reason }) => probe.refusal = Some(reason),
            Err(error) => probe.refusal = Some(error.to_string()),
        }
    }

    /// Records that a probe came back.
    pub(crate) fn on_echo(&mut self, room: &RoomName, now: Instant) {
        if let Some(probe) = self.of_room(room) {
            (probe.echoed_at, probe.missing_since, probe.refusal) = (Some(now), None, None);
        }
    }

    /// Records that the connection to a server is new, so that earlier echoes prove nothing.
    pub(crate) fn on_connected(&mut self, server: &Server) {
        if let Some(probe) = self.by_server.get_mut(server) {
            (probe.missing_since, probe.echoed_at) = (None, None);
        }
    }

    /// Records that nothing was read for a while, so that silence proves nothing.
    pub(crate) fn on_paused(&mut self, now: Instant) {
        for probe in self.by_server.values_mut() {
            (probe.missing_since, probe.echoed_at) = (None, probe.echoed_at.map(|_| now));
        }
    }

    /// Returns why a server does not count as working, or `None` if it has delivered a probe
    /// recently.
    pub(crate) fn missing(&self, server: &Server, now: Instant) -> Option<Missing<'_>> {
        let probe = self.by_server.get(server).filter(|probe| !probe.is_proven(now))?;
        Some(probe.refusal.as_deref().map_or(Missing::Silent, Missing::Refused))
    }

    fn of_room(&mut self, room: &RoomName) -> Option<&mut Probe> {
        self.by_server.values_mut().find(|probe| probe.room == *room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::RedisMetrics;
    use crate::state::seal::Seal;

    /// The probes of one server over time.
    struct Scene {
        probes: Probes,
        server: Known,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            let mut subscriptions =
                Subscriptions::new(Keys::new("test", 0), Seal::default(), Duration::ZERO, RedisMetrics::new());
            let topology = Topology::Single(Server::new("server", 6379));
            subscriptions.set_topology(topology.clone(), now);
            let mut probes = Probes::new();
            probes.choose(&topology, &mut subscriptions, now);
            Self { probes, server: subscriptions.servers().remove(0), now }
        }

        /// Returns the probes that are due after this time has passed, and whether the server is
        /// silent.
        fn pass(&mut self, millis: u64) -> (Vec<Publish>, bool) {
            self.now += Duration::from_millis(millis);
            let Due { probes, silent } = self.probes.due(std::iter::once(&self.server), self.now);
            (probes, !silent.is_empty())
        }

        fn missing(&self) -> Option<Missing<'_>> {
            self.probes.missing(&self.server.server, self.now)
        }
    }

    #[test]
    fn a_server_works_while_its_probes_come_back() {
        let mut scene = Scene::new();
        assert_eq!(scene.missing(), Some(Missing::Silent), "nothing is proven yet");
        for _ in 0..10 {
            let (probes, is_silent) = scene.pass(1000);
            assert!(probes.len() == 1 && !is_silent);
            assert!(scene.pass(1000).0.is_empty(), "one at a time");
            scene.probes.on_echo(&probes[0].room, scene.now);
            scene.probes.on_published(&probes[0].room, Ok(()));
            assert_eq!(scene.missing(), None);
        }
        scene.pass(4500);
        assert_eq!(scene.missing(), Some(Missing::Silent));
    }

    #[test]
    fn a_server_that_accepts_probes_and_delivers_none_is_silent() {
        let mut scene = Scene::new();
        let mut silent_after = 0;
        for probe in 0.. {
            let (probes, is_silent) = scene.pass(250);
            if is_silent {
                silent_after = probe * 250;
                break;
            }
            scene.probes.on_published(&probes[0].room, Ok(()));
        }
        assert_eq!(silent_after, 3750, "the first tick after 3.5 s");
    }

    #[test]
    fn a_refusal_is_the_reason_until_a_probe_comes_back() {
        let mut scene = Scene::new();
        let (probes, _) = scene.pass(250);
        let reason = "NOPERM".to_owned();
        scene.probes.on_published(&probes[0].room, Err(BrokerError::Unavailable { reason }));
        assert_eq!(scene.missing(), Some(Missing::Refused("NOPERM")));
        let (probes, is_silent) = scene.pass(5000);
        assert!(!is_silent, "nothing that was accepted is missing");
        scene.probes.on_published(&probes[0].room, Ok(()));
        scene.probes.on_echo(&probes[0].room, scene.now);
        assert_eq!(scene.missing(), None);
    }
}

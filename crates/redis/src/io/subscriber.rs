//! The task that maintains a node's subscriptions: connections, time and topology around
//! [`Subscriptions`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use roomcast_core::{BoxFuture, BrokerError, BrokerStatus, PublicationQueue, RoomName};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::io::commands::Commands;
use crate::io::connection::{Credentials, Fitness, Report};
use crate::io::links::Links;
use crate::io::publisher::Publisher;
use crate::io::topology_requests::TopologyRequests;
use crate::metrics::RedisMetrics;
use crate::state::keys::PROBES;
use crate::state::probes::{Due, Missing, Probes};
use crate::state::room::SessionIndex;
use crate::state::session::Known;
use crate::state::subscriptions::Subscriptions;
use crate::state::topology::Topology;

/// How often timeouts and due actions are checked.
const TICK: Duration = Duration::from_millis(250);

/// How long after a change of masters publishers start to use the new master. By then, all nodes
/// read it, so they miss none of its events.
const NEW_MASTER_PATIENCE: Duration = Duration::from_secs(2);

/// After that, how long the new master may take to prove that it works.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// How long a closing node waits for events that Redis has accepted.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the task and the broker share.
pub(crate) struct Shared {
    pub(crate) subscriptions: Mutex<Subscriptions>,
    pub(crate) events: Mutex<PublicationQueue>,
    /// Notified when there is output to write, or when the task must end.
    pub(crate) wake: Notify,
    /// Notified when the hub has taken events.
    pub(crate) taken: Notify,
    pub(crate) status: watch::Sender<BrokerStatus>,
    /// Why the status is down.
    pub(crate) problem: Mutex<String>,
    /// Whether the broker was closed. It is set only once.
    pub(crate) closing: AtomicBool,
    pub(crate) metrics: RedisMetrics,
}

/// The state that only the task uses.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    commands: Arc<Commands>,
    phase: Phase,
    links: Links,
    /// How many connections have ended and have not been replaced, by one to the same server or to
    /// another one.
    lost_links: usize,
    topology: TopologyRequests,
    probes: Probes,
    /// Probes whose publish has no outcome yet, at most one for each server.
    publishing: FuturesUnordered<BoxFuture<'static, (RoomName, Result<(), BrokerError>)>>,
    /// Whether most of the servers have ever been usable at the same time. After that, a server
    /// that evicts keys causes only a warning.
    has_worked: bool,
    /// Until when the node moves from a former master, which works, to a new one.
    changes_master_until: Option<Instant>,
}

/// The phase of the task between its start and its end.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Serving,
    /// The broker was closed. Events that servers have accepted are still delivered, until this
    /// time at the latest.
    Closing {
        until: Instant,
    },
}

impl Subscriber {
    pub(crate) fn new(
        shared: Arc<Shared>,
        publisher: Arc<Publisher>,
        commands: Arc<Commands>,
        credentials: Credentials,
    ) -> Self {
        Self {
            shared,
            publisher,
            phase: Phase::Serving,
            links: Links::new(credentials),
            lost_links: 0,
            topology: TopologyRequests::new(Arc::clone(&commands)),
            commands,
            probes: Probes::new(),
            publishing: FuturesUnordered::new(),
            has_worked: false,
            changes_master_until: None,
        }
    }

    /// Runs until the broker is closed. Even if it panics, it ends the stream of events, so that
    /// the hub notices.
    pub(crate) async fn run(self) {
        let _end = End(Arc::clone(&self.shared));
        self.serve().await;
    }

    async fn serve(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_done() {
            self.flush();
            let is_full = self.shared.events.lock().is_full();
            tokio::select! {
                Some((session, report)) = self.links.next_report(), if !is_full => self.on_report(session, report),
                topology = self.topology.response() => self.on_topology(topology),
                Some((room, outcome)) = self.publishing.next() => self.probes.on_published(&room, outcome),
                () = self.shared.wake.notified() => {}
                () = self.shared.taken.notified(), if is_full => {}
                () = self.publisher.failed.notified() => return,
                _ = ticks.tick() => self.on_tick(),
            }
        }
        self.flush();
    }

    /// Moves to the next phase when it is time. Returns whether the last phase is over.
    fn is_done(&mut self) -> bool {
        let now = Instant::now();
        if matches!(self.phase, Phase::Serving) && self.shared.closing.load(Ordering::Acquire) {
            self.shared.subscriptions.lock().ping_all(now);
            self.phase = Phase::Closing { until: now + CLOSE_TIMEOUT };
        }
        match self.phase {
            Phase::Serving => false,
            Phase::Closing { until } => now >= until || self.shared.subscriptions.lock().has_all_responses(),
        }
    }

    /// Passes output of the subscriptions to the servers, and events to the hub.
    fn flush(&mut self) {
        let mut subscriptions = self.shared.subscriptions.lock();
        for session in 0..self.links.len() {
            if let Some(permit) = self.links.output(session)
                && let Some(bytes) = subscriptions.take_output(session)
            {
                permit.send(bytes);
            }
        }
        let events = subscriptions.take_events();
        let is_moved = subscriptions.take_topology_wanted() | self.publisher.take_topology_wanted();
        drop(subscriptions);
        let mut queue = self.shared.events.lock();
        for event in events {
            match event.room.starts_with(PROBES) {
                false => queue.push(event),
                true => self.probes.on_echo(&event.room, Instant::now()),
            }
        }
        drop(queue);
        if is_moved {
            self.topology.want();
        }
        self.topology.send_due(Instant::now());
    }

    // === connections ===

    fn on_report(&mut self, session: SessionIndex, report: Report) {
        let now = Instant::now();
        let mut subscriptions = self.shared.subscriptions.lock();
        match report {
            Report::Connected(Fitness { evicts }) => {
                if self.lost_links > 0 {
                    self.lost_links -= 1;
                    self.shared.metrics.reconnects.inc();
                }
                subscriptions.on_connected(session, now);
                let server = subscriptions.server(session);
                tracing::info!(%server, "connected to Redis");
                if let Some(policy) = &evicts {
                    tracing::warn!(%server, policy, "Redis may evict rooms' positions; set maxmemory-policy to noeviction");
                }
                self.links.on_connected(session, evicts, now);
                self.probes.on_connected(server);
            }
            Report::Received(all) => {
                subscriptions.on_heard(session, now);
                for incoming in all {
                    subscriptions.on_incoming(session, incoming, now);
                }
                return;
            }
            Report::Ended(error) => {
                let server = subscriptions.server(session);
                if self.links.on_ended(session, error.to_string(), now) {
                    tracing::warn!(%server, %error, "the subscriber connection to Redis ended");
                } else {
                    tracing::debug!(%server, %error, "the subscriber connection to Redis was not opened");
                }
                self.lost_links += usize::from(subscriptions.on_disconnected(session));
            }
        }
        drop(subscriptions);
        self.update_status();
    }

    /// Ends a connection that has become useless.
    fn give_up(&mut self, Known { index, server, .. }: &Known, why: &str) {
        tracing::warn!(%server, "{why}; closing the subscriber connection to Redis");
        self.links.give_up(*index, why, Instant::now());
        self.lost_links += usize::from(self.shared.subscriptions.lock().on_disconnected(*index));
        self.update_status();
    }

    // === time ===

    fn on_tick(&mut self) {
        let now = Instant::now();
        // While the hub has no place for events, connections are not read.
        let is_paused = self.shared.events.lock().is_full();
        let (lost, servers) = {
            let mut subscriptions = self.shared.subscriptions.lock();
            if is_paused {
                subscriptions.on_paused(now);
                self.probes.on_paused(now);
            }
            (subscriptions.on_tick(now), subscriptions.servers())
        };
        for session in lost {
            self.give_up(&servers[session], "Redis does not reply");
        }
        for (known, why) in self.links.to_give_up(&servers, !self.has_worked, now) {
            self.give_up(known, why);
        }
        self.links.open_due(&servers, now);
        let Due { probes, silent } = self.probes.due(servers.iter().filter(|known| known.owns), now);
        for probe in probes {
            let (room, published) = (probe.room.clone(), self.publisher.probe(probe));
            self.publishing.push(Box::pin(async move { (room, published.await.map(drop)) }));
        }
        for known in silent {
            self.shared.metrics.probes_lost.inc();
            self.give_up(known, "probes do not come back");
        }
        self.update_status();
    }

    /// Updates the status. It is up while most of the servers work, like the status of a Redis
    /// Cluster. If one server does not work, only its rooms fail.
    fn update_status(&mut self) {
        let subscriptions = self.shared.subscriptions.lock();
        let (mut owners, mut working, mut reason) = (0, 0, self.commands.no_topology());
        for known in subscriptions.servers().iter().filter(|known| known.owns) {
            owners += 1;
            match self.problem_of(known, &subscriptions) {
                Some(problem) => reason = format!("{}: {problem}", known.server),
                None => working += 1,
            }
        }
        drop(subscriptions);
        let status = if working * 2 > owners { BrokerStatus::Up } else { BrokerStatus::Down };
        if status == BrokerStatus::Down && self.changes_master_until.is_some_and(|until| Instant::now() < until) {
            return; // the former master worked, and the new one has not been tested yet
        }
        self.has_worked |= status == BrokerStatus::Up;
        let changed = self.shared.status.send_if_modified(|current| std::mem::replace(current, status) != status);
        match status {
            BrokerStatus::Up if changed => tracing::info!(working, owners, "Redis works"),
            BrokerStatus::Down if changed => {
                tracing::warn!(working, owners, reason, "Redis cannot be used; this node is cut off from the cluster");
            }
            _ => {}
        }
        *self.shared.problem.lock() = reason;
    }

    /// Returns why a server cannot be used, or `None` if it can. A server must be connected, accept
    /// publishes and deliver them.
    fn problem_of(&self, known: &Known, subscriptions: &Subscriptions) -> Option<String> {
        let Known { index, server, is_connected, .. } = known;
        // This check comes first, because the node repeatedly reconnects to a server that evicts
        // keys.
        if let Some(policy) = self.links.eviction_policy(*index).filter(|_| !self.has_worked) {
            return Some(format!(
                "its maxmemory-policy is {policy}, so rooms' positions may be evicted; set the policy to noeviction"
            ));
        }
        if !is_connected {
            let error = self.links.error(*index).cloned();
            return Some(error.unwrap_or_else(|| "no connection has been opened yet".to_owned()));
        }
        if let Some(reason) = self.publisher.is_down(server) {
            return Some(reason);
        }
        let reason = match self.probes.missing(server, Instant::now())? {
            Missing::Refused(reason) => reason,
            Missing::Silent => {
                let refusal = subscriptions.refusal(*index).map(String::as_str);
                refusal.unwrap_or("test publishes do not come back over the subscription")
            }
        };
        Some(reason.to_owned())
    }

    // === topology ===

    fn on_topology(&mut self, topology: Option<Topology>) {
        let Some(topology) = topology else { return };
        let now = Instant::now();
        self.commands.keep_only(&topology.servers());
        self.publisher.set_topology(topology.clone());
        let mut subscriptions = self.shared.subscriptions.lock();
        subscriptions.set_topology(topology.clone(), now);
        self.probes.choose(&topology, &mut subscriptions, now);
        let servers = subscriptions.servers();
        drop(subscriptions);
        // When a member of a cluster gives away its slots, it ends the subscriptions itself. A
        // former master that is still alive does not. The node leaves it in an order in which no
        // member misses events of either master.
        if !topology.has_slots() && self.links.note_former_masters(&servers, now) {
            self.publisher.hold_until(now + NEW_MASTER_PATIENCE);
            self.changes_master_until = Some(now + NEW_MASTER_PATIENCE + PROOF_PATIENCE);
        }
        self.links.open_due(&servers, now);
        self.update_status();
    }
}

/// Ends the stream of events when the task ends.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.events.lock().close();
        self.0.status.send_replace(BrokerStatus::Down);
    }
}

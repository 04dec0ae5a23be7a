//! The task that keeps a node's subscriptions: connections, time and topology around [`Subscriptions`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::types::config::Server;
use parking_lot::Mutex;
use roomcast_core::{BrokerStatus, PublicationQueue};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::io::commands::Commands;
use crate::io::connection::{self, Credentials, Fitness, Report};
use crate::io::link::Link;
use crate::io::probes::Probes;
use crate::io::publisher::Publisher;
use crate::metrics::RedisMetrics;
use crate::state::keys::PROBES;
use crate::state::room::SessionIndex;
use crate::state::subscriptions::{Known, Subscriptions};
use crate::state::topology::Topology;

/// How often time is looked at.
const TICK: Duration = Duration::from_millis(250);

/// A former master may live on as one. Nodes learn of the new one within 0.8 s of each other, and publish to neither
/// from then on. For so long the former one is read, until the publishers of all nodes have left it.
const FORMER_MASTER_PATIENCE: Duration = Duration::from_secs(1);

/// When publishers begin with the new master: all nodes read it by then, so nothing that it takes is missed.
const NEW_MASTER_PATIENCE: Duration = Duration::from_secs(2);

/// How long the new master may take then to prove that it works.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// How often a server is asked again whether it evicts keys, while that keeps the node from working.
const EVICTION_INTERVAL: Duration = Duration::from_secs(5);

/// How soon the topology is asked for again when something is not where it says.
const MIN_TOPOLOGY_AGE: Duration = Duration::from_millis(200);

/// How long a closing node waits for events that Redis has accepted.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many reports of connections may wait: each is one read.
const MAX_REPORTS: usize = 64;

/// What the task shares with the broker.
pub(crate) struct Shared {
    pub(crate) subscriptions: Mutex<Subscriptions>,
    pub(crate) events: Mutex<PublicationQueue>,
    /// There is something to write, or to end.
    pub(crate) wake: Notify,
    /// The hub has taken events.
    pub(crate) taken: Notify,
    pub(crate) status: watch::Sender<BrokerStatus>,
    /// Why the status is down.
    pub(crate) problem: Mutex<String>,
    /// The broker was closed; set once.
    pub(crate) closing: AtomicBool,
    pub(crate) metrics: RedisMetrics,
}

/// The task's own.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    commands: Arc<Commands>,
    credentials: Arc<Credentials>,
    links: Vec<Link>,
    /// Connections that ended and have not been replaced, to the same server or another.
    lost_links: usize,
    reports: mpsc::Sender<(SessionIndex, u64, Report)>,
    inbox: mpsc::Receiver<(SessionIndex, u64, Report)>,
    probes: Probes,
    /// Whether most of the servers have been usable at some time. From then on, one that evicts keys only causes a
    /// warning.
    has_worked: bool,
    /// A former master that works is being left for a new one.
    changes_master_until: Option<Instant>,
    topologies: mpsc::Sender<Option<Topology>>,
    topology_inbox: mpsc::Receiver<Option<Topology>>,
    topology_wanted: bool,
    topology_asked_at: Option<Instant>,
    is_asking_topology: bool,
}

impl Subscriber {
    pub(crate) fn new(
        shared: Arc<Shared>,
        publisher: Arc<Publisher>,
        commands: Arc<Commands>,
        credentials: Credentials,
    ) -> Self {
        let (reports, inbox) = mpsc::channel(MAX_REPORTS);
        let (topologies, topology_inbox) = mpsc::channel(1);
        Self {
            shared,
            publisher,
            commands,
            credentials: Arc::new(credentials),
            links: Vec::new(),
            lost_links: 0,
            reports,
            inbox,
            probes: Probes::new(),
            has_worked: false,
            changes_master_until: None,
            topologies,
            topology_inbox,
            topology_wanted: true,
            topology_asked_at: None,
            is_asking_topology: false,
        }
    }

    /// Runs until the broker is closed. However it ends, even by a panic, it ends the stream of events, so that the hub
    /// notices.
    pub(crate) async fn run(self) {
        let _end = End(Arc::clone(&self.shared));
        self.serve().await;
    }

    async fn serve(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut close_by = None;
        loop {
            self.flush();
            if self.shared.closing.load(Ordering::Acquire) {
                let now = Instant::now();
                let close_by = *close_by.get_or_insert_with(|| {
                    self.shared.subscriptions.lock().ask_whether_all_came(now);
                    now + CLOSE_TIMEOUT
                });
                self.flush();
                if now >= close_by || self.shared.subscriptions.lock().has_all_answers() {
                    break;
                }
            }
            let is_full = self.shared.events.lock().is_full();
            tokio::select! {
                Some((session, generation, report)) = self.inbox.recv(), if !is_full => self.on_report(session, generation, report),
                Some(topology) = self.topology_inbox.recv() => self.on_topology(topology),
                () = self.shared.wake.notified() => {}
                () = self.shared.taken.notified(), if is_full => {}
                () = self.publisher.failed.notified() => return,
                _ = ticks.tick() => self.on_tick(),
            }
        }
    }

    /// Hands on what the subscriptions have to say.
    fn flush(&mut self) {
        let mut subscriptions = self.shared.subscriptions.lock();
        for (session, link) in self.links.iter().enumerate() {
            if let Some(output) = &link.output
                && let Some(bytes) = subscriptions.take_output(session)
            {
                // A connection that has just ended will report it.
                let _ = output.send(bytes);
            }
        }
        let events = subscriptions.take_events();
        self.topology_wanted |= subscriptions.take_topology_wanted() | self.publisher.take_topology_wanted();
        drop(subscriptions);
        let mut queue = self.shared.events.lock();
        for event in events {
            match event.room.starts_with(PROBES) {
                false => queue.push(event),
                true => self.probes.on_echo(&event.room, Instant::now()),
            }
        }
        drop(queue);
        if self.topology_wanted {
            self.ask_topology(MIN_TOPOLOGY_AGE);
        }
    }

    // === connections ===

    fn on_report(&mut self, session: SessionIndex, generation: u64, report: Report) {
        let link = &mut self.links[session];
        if link.generation != generation {
            return;
        }
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
                link.on_connected(evicts, now);
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
                if link.was_open() {
                    tracing::warn!(%server, %error, "the subscriber connection to Redis ended");
                } else {
                    tracing::debug!(%server, %error, "the subscriber connection to Redis was not opened");
                }
                link.on_ended(error.to_string(), now);
                self.lost_links += usize::from(subscriptions.on_disconnected(session));
            }
        }
        drop(subscriptions);
        self.update_status();
    }

    /// Opens the connections that are due, to servers that own something.
    fn connect_due(&mut self) {
        let now = Instant::now();
        let leaving = self.is_leaving();
        for Known { index: session, server, owns, .. } in self.shared.subscriptions.lock().servers() {
            if self.links.len() <= session {
                self.links.push(Link::new(now));
            }
            let link = &mut self.links[session];
            if owns && !leaving && link.output.is_none() && link.retry_at <= now {
                link.generation += 1;
                let (output, to_write) = mpsc::unbounded_channel();
                link.output = Some(output);
                let (reports, generation) = (self.reports.clone(), link.generation);
                let report = async move |report| {
                    // The task may have ended.
                    let _ = reports.send((session, generation, report)).await;
                };
                tokio::spawn(connection::run(server, Arc::clone(&self.credentials), to_write, report));
            }
        }
    }

    /// Gives a connection up that seems to be alive and is not.
    fn give_up(&mut self, session: SessionIndex, server: &Server, why: &str) {
        tracing::warn!(%server, "{why}; closing the subscriber connection to Redis");
        self.links[session].give_up(why, Instant::now());
        self.lost_links += usize::from(self.shared.subscriptions.lock().on_disconnected(session));
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
            self.give_up(session, &servers[session].server, "Redis does not answer");
        }
        self.give_up_due(&servers);
        self.connect_due();
        self.ask_topology(self.commands.max_topology_age());
        let owners = servers.iter().filter(|known| known.owns);
        for Known { index, server, .. } in self.probes.publish_due(&self.publisher, owners, now) {
            self.shared.metrics.probes_lost.inc();
            self.give_up(*index, server, "probes do not come back");
        }
        self.update_status();
    }

    /// Up while most of the servers work, as a Redis Cluster is itself. If one server does not work, only its rooms
    /// fail.
    fn update_status(&mut self) {
        let subscriptions = self.shared.subscriptions.lock();
        let (mut owners, mut working, mut reason) = (0, 0, "no Redis server has been found yet".to_owned());
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
            return; // the former master worked, and the new one has not been asked yet
        }
        self.has_worked |= status == BrokerStatus::Up;
        let changed = self.shared.status.send_if_modified(|current| std::mem::replace(current, status) != status);
        match status {
            BrokerStatus::Up if changed => tracing::info!(working, owners, "Redis works"),
            BrokerStatus::Down if changed => {
                tracing::warn!(working, owners, reason, "Redis can't be used; this node is cut off from the cluster");
            }
            _ => {}
        }
        *self.shared.problem.lock() = reason;
    }

    /// Why a server can't be used, if so: it must be connected, accept publishes and deliver them.
    fn problem_of(&self, known: &Known, subscriptions: &Subscriptions) -> Option<String> {
        let Known { index, server, is_connected, .. } = known;
        let link = self.links.get(*index);
        // First, since a server that evicts keys is connected anew, to read its policy again.
        if let Some(policy) = link.and_then(|link| link.evicts.as_ref()).filter(|_| !self.has_worked) {
            return Some(format!(
                "its maxmemory-policy is {policy}, so rooms' positions may be evicted; set the policy to noeviction"
            ));
        }
        if !is_connected {
            let error = link.and_then(|link| link.error.clone());
            return Some(error.unwrap_or_else(|| "no connection has been opened yet".to_owned()));
        }
        if let Some(reason) = self.publisher.is_down(server) {
            return Some(reason);
        }
        let refusal = self.probes.missing(server, Instant::now())?.or_else(|| subscriptions.refusal(*index)).cloned();
        Some(refusal.unwrap_or_else(|| "test publishes do not come back over the subscription".to_owned()))
    }

    // === topology ===

    /// Asks for the topology, unless it was asked just now; then the next tick does.
    fn ask_topology(&mut self, max_age: Duration) {
        let now = Instant::now();
        let is_fresh = self.topology_asked_at.is_some_and(|at| now.duration_since(at) < max_age);
        if is_fresh || self.is_asking_topology {
            return;
        }
        self.topology_asked_at = Some(now);
        self.topology_wanted = false;
        self.is_asking_topology = true;
        let (commands, answers) = (Arc::clone(&self.commands), self.topologies.clone());
        tokio::spawn(async move {
            // The task may have ended.
            let _ = answers.send(commands.topology().await).await;
        });
    }

    fn on_topology(&mut self, topology: Option<Topology>) {
        self.is_asking_topology = false;
        let Some(topology) = topology else {
            self.topology_wanted = true;
            return;
        };
        self.commands.keep_only(&topology.servers());
        self.publisher.set_topology(topology.clone());
        let servers = {
            let mut subscriptions = self.shared.subscriptions.lock();
            subscriptions.set_topology(topology.clone(), Instant::now());
            subscriptions.servers()
        };
        self.note_former_master(&topology, &servers);
        self.probes.choose(&topology, &mut self.shared.subscriptions.lock(), Instant::now());
        self.connect_due();
        self.update_status();
    }

    /// A member of a cluster that gives its slots away ends the subscriptions itself. A former master that is alive does
    /// not: it is left, in an order in which no member misses what either master takes.
    fn note_former_master(&mut self, topology: &Topology, servers: &[Known]) {
        if topology.has_slots() {
            return;
        }
        let now = Instant::now();
        for Known { index, owns, is_connected, .. } in servers {
            let Some(link) = self.links.get_mut(*index) else { continue };
            if *owns || link.output.is_none() {
                link.leave_at = None;
            } else if *is_connected && link.leave_at.is_none() {
                link.leave_at = Some(now + FORMER_MASTER_PATIENCE);
                self.publisher.hold_until(now + NEW_MASTER_PATIENCE);
                self.changes_master_until = Some(now + NEW_MASTER_PATIENCE + PROOF_PATIENCE);
            }
        }
    }

    /// Whether a former master is still read.
    fn is_leaving(&self) -> bool {
        self.links.iter().any(|link| link.leave_at.is_some() && link.output.is_some())
    }

    /// Ends connections that are of no more use.
    fn give_up_due(&mut self, servers: &[Known]) {
        let now = Instant::now();
        for Known { index, server, owns, is_connected } in servers {
            let Some(link) = self.links.get_mut(*index) else { continue };
            let evicts = link.evicts.is_some() && !self.has_worked;
            if link.leave_at.is_some_and(|at| at <= now) {
                link.leave_at = None;
                self.give_up(*index, server, "another server is the master now");
            } else if *owns && *is_connected && evicts && now.duration_since(link.connected_at) > EVICTION_INTERVAL {
                self.give_up(*index, server, "the maxmemory-policy is not noeviction");
            }
        }
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

//! Nodes with publishers, members and callers on each, and a fault in their midst.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_testkit::{Client, Node};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::DEADLINE;
use crate::actors::{Calls, be_member, call_echo, cancel_calls, join, publish_at_a_pace};
use crate::board::{Board, EVENT, room_name};
use crate::judge::{judge, normal_since, slowest_since};
use crate::report::{IN_FLIGHT, Report};
use crate::support::Scrape;

pub(crate) const ROOMS: usize = 8;

const PUBLISHERS_PER_NODE: usize = 2;

/// Events a second in each room.
pub(crate) const RATE: f64 = 10.0;

/// So many events pass through each room before a fault, and after it.
const EVENTS_BEFORE: usize = 5;
const EVENTS_AFTER: usize = 20;

/// How often the board is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A cluster in use.
pub(crate) struct Scene {
    pub(crate) nodes: Vec<Node>,
    board: Arc<Board>,
    /// By node; of a node that was killed there are none.
    calls: BTreeMap<usize, Arc<Mutex<Calls>>>,
    publishers: JoinSet<()>,
    others: JoinSet<()>,
    stop_publishers: watch::Sender<bool>,
    stop_others: watch::Sender<bool>,
    has_redis: bool,
    /// When the fault's cause ended.
    over: Option<Duration>,
}

impl Scene {
    /// A node at each of these Redis URLs.
    pub(crate) async fn start(urls: &[String]) -> Self {
        Self::start_at_rate(urls, RATE).await
    }

    /// As [`start`](Self::start), with so many events a second in each room.
    pub(crate) async fn start_at_rate(urls: &[String], rate: f64) -> Self {
        let mut nodes = Vec::new();
        for url in urls {
            nodes.push(crate::start_node(url).await);
        }
        Self::of(nodes, rate, true).await
    }

    /// These nodes, which may have no Redis.
    pub(crate) async fn of(nodes: Vec<Node>, rate: f64, has_redis: bool) -> Self {
        let publishers = nodes.len() * PUBLISHERS_PER_NODE;
        let places = (0..nodes.len()).flat_map(|node| (0..ROOMS).map(move |room| (node, room)));
        // One publisher more, for the end.
        let board = Arc::new(Board::new(publishers + 1, places.clone()));
        let mut scene = Self {
            board,
            calls: BTreeMap::new(),
            publishers: JoinSet::new(),
            others: JoinSet::new(),
            stop_publishers: watch::Sender::new(false),
            stop_others: watch::Sender::new(false),
            has_redis,
            over: None,
            nodes,
        };
        for (member, (node, room)) in places.enumerate() {
            let client = join(&scene.nodes[node].url(), room).await;
            scene.others.spawn(be_member(scene.board.clone(), member, client, scene.stop_others.subscribe()));
        }
        for (node, url) in scene.nodes.iter().map(Node::url).enumerate() {
            let calls = Arc::new(Mutex::new(Calls::default()));
            scene.others.spawn(call_echo(calls.clone(), url.clone(), scene.stop_others.subscribe()));
            scene.others.spawn(cancel_calls(calls.clone(), url, scene.stop_others.subscribe()));
            scene.calls.insert(node, calls);
        }
        let pace = Duration::from_secs_f64(publishers as f64 / (rate * ROOMS as f64));
        for publisher in 0..publishers {
            let client = Client::connect(&scene.nodes[publisher / PUBLISHERS_PER_NODE].url()).await;
            let (client, stop) = (client.expect("the node serves"), scene.stop_publishers.subscribe());
            let publishing = publish_at_a_pace(scene.board.clone(), publisher, client, ROOMS, pace, stop);
            scene.publishers.spawn(publishing);
        }
        scene
    }

    /// Kills a node.
    pub(crate) fn kill_node(&mut self, node: usize) {
        self.board.node_ends(node);
        self.calls.remove(&node);
        self.nodes[node].signal("KILL");
    }

    /// Notes that the cause of a fault has ended, though the fault's story goes on.
    pub(crate) fn fault_is_over(&mut self) {
        self.over = Some(self.board.now());
    }

    /// Waits until so many more events in each room were answered and arrived everywhere.
    pub(crate) async fn wait_for_events(&self, events: usize) {
        self.wait_for_events_since(events, self.board.now()).await;
    }

    async fn wait_for_events_since(&self, events: usize, since: Duration) {
        let started = Instant::now();
        while !self.board.has_completed(ROOMS, events, since) {
            let described = || self.board.describe(ROOMS, since);
            assert!(started.elapsed() < DEADLINE, "events do not flow: {}", described());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Goes through a fault and reports. The fault is over when the test has ended its cause, such as when
    /// Redis is there again; that is at its story's end unless it says so before.
    #[expect(clippy::print_stderr, reason = "the figures are a result too")]
    pub(crate) async fn go_through(mut self, title: &str, fault: impl AsyncFnOnce(&mut Self)) -> Report {
        self.wait_for_events(EVENTS_BEFORE).await;
        let members_before = self.board.present();
        let began = self.board.now();
        fault(&mut self).await;
        let over = self.over.unwrap_or_else(|| self.board.now());
        self.wait_for_events_since(EVENTS_AFTER, over).await;
        self.stop_publishers.send_replace(true);
        while self.publishers.join_next().await.transpose().expect("publishers don't panic").is_some() {}
        self.flush().await;
        self.stop_others.send_replace(true);
        while self.others.join_next().await.transpose().expect("nobody panics").is_some() {}

        let (published, logs) = (self.board.published(), self.board.logs());
        let on_running_nodes = logs.iter().filter(|log| self.calls.contains_key(&log.node)).count();
        let report = Report {
            title: title.to_owned(),
            verdict: judge(&published, &logs),
            normal: normal_since(began, &published, &logs),
            slowest: slowest_since(began.saturating_sub(IN_FLIGHT), &published, &logs),
            published,
            refusals: self.board.refusals(),
            announced: self.counts("roomcast_broker_events_lost_total").await,
            repaired: self.counts("roomcast_broker_events_repaired_total").await,
            reconnects: self.counts("roomcast_broker_reconnects_total").await.values().sum(),
            disconnected: on_running_nodes.min(members_before) - self.board.present(),
            fault: began,
            over,
            calls: self.calls.into_iter().map(|(node, calls)| (node, std::mem::take(&mut *calls.lock()))).collect(),
        };
        eprintln!("{report}\n");
        report
    }

    /// Publishes a last event to each room until everybody has it: what was published before will not come
    /// any more if it has not by then.
    async fn flush(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let publisher = self.nodes.len() * PUBLISHERS_PER_NODE;
        let mut client = Client::connect(&self.nodes[0].url()).await.expect("the node serves");
        let (started, since) = (Instant::now(), self.board.now());
        while !self.board.has_completed(ROOMS, 1, since) {
            assert!(started.elapsed() < DEADLINE, "last events: {}", self.board.describe(ROOMS, since));
            for room in 0..ROOMS {
                let (number, payload) = self.board.send(publisher, room);
                let method = format!("rooms/publish/{}/{EVENT}", room_name(room));
                let answer = client.call(&method, payload).await.expect("calls are answered");
                self.board.answered((publisher, number), &answer);
            }
            let sent = Instant::now();
            while sent.elapsed() < PATIENCE && !self.board.has_completed(ROOMS, 1, since) {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// A counter's value by node that runs.
    async fn counts(&self, metric: &str) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for node in self.calls.keys().filter(|_| self.has_redis) {
            let scrape = Scrape::of(&self.nodes[*node]).await;
            let value = scrape.value(metric).unwrap_or_else(|| panic!("no metric {metric} in:\n{}", scrape.text));
            counts.insert(*node, value as usize);
        }
        counts
    }
}

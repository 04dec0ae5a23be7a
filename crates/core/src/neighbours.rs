//! This node among the others: it says that it lives, hears who else does, asks, and is asked.
//!
//! All of it are events of internal rooms, over the broker: `nodes/all`, and `node/<id>` for each node.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use roomcast_protocol::Name;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::broker::{BoxFuture, BrokerError, BrokerStatus};
use crate::envelope::Envelope;
use crate::hub::{Hub, JoinError};
use crate::id::{NodeId, RoomName};
use crate::message::{Message, Question};
use crate::nodes::{HEARTBEAT_INTERVAL, NodeInfo, Nodes};
use crate::operations::Members;
use crate::requests::{Answers, MAX_REQUESTS, REQUEST_TIMEOUT, Requests};
use crate::sharing::Sharing;

/// The version that a node tells the others.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a node that leaves waits for the broker to take its goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Questions of others that may be dealt with at once in tasks of their own; more are not answered.
const MAX_ANSWERING: usize = 1024;

/// Why nodes could not be asked, or what was asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is no such connection, or user, on any node.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The connection did not become a member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The broker did not say that it took the question. It may have, all the same, if it was cut off then.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Nodes did not answer in time. Whether they did what they were asked is not known.
    #[error("no answer from {}", nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", "))]
    NoAnswer {
        /// Which.
        nodes: Vec<NodeId>,
    },
    /// More questions wait for answers than may.
    #[error("{MAX_REQUESTS} requests wait for other nodes already, the most that may; try again later")]
    TooManyRequests,
}

/// What a hub knows of the other nodes.
#[derive(Debug)]
pub(crate) struct Neighbours {
    nodes: Mutex<Nodes>,
    requests: Mutex<Requests>,
    /// Looks at a room's members.
    pub(crate) looks: Sharing<Result<Arc<Members>, AskError>>,
    answering: Arc<Semaphore>,
    started_at: Instant,
    /// Whether a heartbeat of its own has come back since the last was sent.
    heard_itself: AtomicBool,
    said_goodbye: AtomicBool,
}

/// Who is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// One other node.
    One(NodeId),
    /// All nodes, this one included.
    All,
}

impl Neighbours {
    pub(crate) fn new() -> Self {
        Self {
            nodes: Mutex::default(),
            requests: Mutex::default(),
            looks: Sharing::new(),
            answering: Arc::new(Semaphore::new(MAX_ANSWERING)),
            started_at: now(),
            heard_itself: AtomicBool::new(false),
            said_goodbye: AtomicBool::new(false),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The runtime's clock, which tests can turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Hub {
    // === who is there ===

    /// The live nodes of the cluster by id, this one included. While the broker is down nobody can be
    /// heard, and who was there last counts as live.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<_> = self.neighbours.nodes.lock().live().cloned().collect();
        nodes.push(self.own_info());
        nodes.sort_unstable_by_key(|node| node.node);
        nodes
    }

    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        self.neighbours.nodes.lock().is_live(node)
    }

    fn own_info(&self) -> NodeInfo {
        NodeInfo {
            node: self.node(),
            version: VERSION.to_owned(),
            connections: self.connection_count(),
            uptime_seconds: self.clock().as_secs(),
        }
    }

    /// This node's clock, by which other nodes' requests to it expire.
    fn clock(&self) -> Duration {
        now().saturating_duration_since(self.neighbours.started_at)
    }

    fn heartbeat(&self) -> Message {
        Message::Heartbeat { info: self.own_info(), clock_ms: millis(self.clock()) }
    }

    /// Says again and again that this node lives, and forgets others that no longer do.
    pub(crate) async fn keep_in_touch(&self) {
        let mut status = self.broker.status();
        let mut subscribed = false;
        self.count_nodes();
        loop {
            if *status.borrow() == BrokerStatus::Down {
                if status.wait_for(|status| *status == BrokerStatus::Up).await.is_err() {
                    std::future::pending::<()>().await; // it stays down
                }
                self.neighbours.nodes.lock().restart_clocks(now());
            }
            // Over time, the next turn tries again.
            let _ = tokio::time::timeout(HEARTBEAT_INTERVAL, self.say_that_it_lives(&mut subscribed)).await;
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let mut nodes = self.neighbours.nodes.lock();
            if self.neighbours.heard_itself.swap(false, Ordering::AcqRel) {
                nodes.expire(now());
            } else {
                nodes.restart_clocks(now()); // who does not hear itself can't tell who else is silent
            }
            drop(nodes);
            self.count_nodes();
        }
    }

    async fn say_that_it_lives(&self, subscribed: &mut bool) -> Result<(), BrokerError> {
        if !*subscribed {
            // Before the first heartbeat, because the others answer it.
            self.broker.subscribe(&RoomName::of_node(self.node())).await?;
            self.broker.subscribe(&RoomName::of_all_nodes()).await?;
            *subscribed = true;
        }
        if self.neighbours.said_goodbye.load(Ordering::Acquire) {
            return Ok(());
        }
        self.tell(RoomName::of_all_nodes(), &self.heartbeat()).await
    }

    /// Tells the others that this node is gone, before its broker is closed. Its connections should have
    /// ended: from now on nobody asks it.
    pub async fn say_goodbye(&self) {
        let goodbye = self.start_goodbye();
        // Should it not get through, the others miss its heartbeats.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }

    pub(crate) fn start_goodbye(&self) -> BoxFuture<'static, Result<(), BrokerError>> {
        match self.neighbours.said_goodbye.swap(true, Ordering::AcqRel) {
            true => Box::pin(std::future::ready(Ok(()))),
            false => self.tell(RoomName::of_all_nodes(), &Message::Goodbye),
        }
    }

    fn count_nodes(&self) {
        let others = self.neighbours.nodes.lock().live().count();
        self.metrics().nodes.set(1 + others as i64);
    }

    // === messages ===

    fn tell(&self, to: RoomName, message: &Message) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.tell_with(to, message, &[])
    }

    fn tell_with(
        &self,
        room: RoomName,
        message: &Message,
        payload: &[u8],
    ) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (origin, accepted_at) = (self.node(), Instant::now());
        // Which message it is, its head says.
        let (event, payload) = (Name::default(), message.encode(payload));
        self.broker.publish(Envelope { origin, room, event, payload, accepted_at })
    }

    /// Deals with a message from another node. `Some`: it was none, but an event for members.
    pub(crate) fn take_message(self: &Arc<Self>, event: Envelope) -> Option<Envelope> {
        if !event.room.is_of_nodes() {
            return Some(event);
        }
        if event.origin == self.node() {
            self.neighbours.heard_itself.store(true, Ordering::Release);
        } else {
            match Message::decode(event.payload, event.origin) {
                Some((message, payload)) => self.on_message(event.origin, message, payload),
                None => {
                    tracing::debug!(from = %event.origin, "dropped an unknown or invalid message from another node")
                }
            }
        }
        None
    }

    fn on_message(self: &Arc<Self>, from: NodeId, message: Message, payload: Bytes) {
        match message {
            Message::Heartbeat { info, clock_ms } => {
                let clock = Duration::from_millis(clock_ms);
                let is_new = self.neighbours.nodes.lock().on_heartbeat(info, clock, now());
                if is_new {
                    tracing::info!(node = %from, "a node has come");
                    self.count_nodes();
                    // It can't know this one either. Once for each node, so there is no need for a brake.
                    if !self.neighbours.said_goodbye.load(Ordering::Acquire) {
                        drop(self.tell(RoomName::of_node(from), &self.heartbeat()));
                    }
                }
            }
            Message::Goodbye => {
                tracing::info!(node = %from, "a node has left");
                self.neighbours.nodes.lock().on_goodbye(from, now());
                self.neighbours.requests.lock().on_goodbye(from);
                self.count_nodes();
            }
            Message::Question { id, question, sent_ms, expires_ms } => {
                let is_in_time =
                    match expires_ms.get(&self.node()) {
                        Some(until) => millis(self.clock()) <= *until,
                        None => self.neighbours.nodes.lock().clock_at(from, now()).is_some_and(|clock| {
                            clock <= Duration::from_millis(sent_ms).saturating_add(REQUEST_TIMEOUT)
                        }),
                    };
                if question.has_effect() && !is_in_time {
                    tracing::debug!(%from, "dropped an expired request: its sender no longer waits for it");
                } else {
                    self.on_question(from, id, question, payload);
                }
            }
            Message::Answer { id, answer } => {
                let is_live = self.is_live(from);
                self.neighbours.requests.lock().on_answer(id, from, is_live, answer);
            }
        }
    }

    /// Begins at once, so that one node's requests are carried out in order. What waits for something or takes long
    /// gets a task of its own, because events wait meanwhile.
    fn on_question(self: &Arc<Self>, from: NodeId, id: u64, question: Question, payload: Bytes) {
        let takes_time = question.takes_time();
        let hub = Arc::clone(self);
        let mut answering = async move {
            let answer = hub.answer(question, payload).await;
            // Who asked waits for a limited time, so there is nothing to do if it can't be told.
            drop(hub.tell(RoomName::of_node(from), &Message::Answer { id, answer }));
        }
        .boxed();
        if !takes_time && (&mut answering).now_or_never().is_some() {
            return;
        }
        match Arc::clone(&self.neighbours.answering).try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(async move {
                    answering.await;
                    drop(permit);
                });
            }
            Err(_) => tracing::warn!(%from, "too many questions of other nodes at once; one is not answered"),
        }
    }

    // === asking ===

    /// Fails at once while the broker is down.
    pub(crate) fn check_others_can_be_asked(&self) -> Result<(), BrokerError> {
        match *self.broker.status().borrow() {
            BrokerStatus::Up => Ok(()),
            BrokerStatus::Down => Err(BrokerError::Unavailable { reason: "other nodes can't be asked".into() }),
        }
    }

    /// Asks, and waits for a limited time until all have answered. A request that fails takes no effect later: nodes
    /// carry it out before that time, by their own clocks, or not at all.
    ///
    /// Dropping the future leaves nothing behind.
    pub(crate) async fn ask(&self, asked: Asked, question: Question, payload: Bytes) -> Result<Answers, AskError> {
        let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        let asks_all = matches!(asked, Asked::All);
        let (room, nodes, expires_ms) = {
            let known = self.neighbours.nodes.lock();
            let (room, nodes): (_, HashSet<_>) = match asked {
                Asked::One(node) => (RoomName::of_node(node), HashSet::from([node])),
                Asked::All => (RoomName::of_all_nodes(), known.live().map(|node| node.node).collect()),
            };
            let expiry = |node: &NodeId| Some((*node, millis(known.clock_at(*node, deadline.into_std())?)));
            let expires_ms = nodes.iter().filter(|_| question.has_effect()).filter_map(expiry).collect();
            (room, nodes, expires_ms)
        };
        self.check_others_can_be_asked()?;
        let started = self.neighbours.requests.lock().start(nodes, asks_all);
        let (id, completed) = started.ok_or(AskError::TooManyRequests)?;
        let request = Request { hub: self, id };
        let message = Message::Question { id, question: question.clone(), sent_ms: millis(self.clock()), expires_ms };
        let mut accepted = self.tell_with(room, &message, &payload);
        // First the others: should they not be asked, nothing is done here either.
        let taken = match (&mut accepted).now_or_never() {
            Some(taken) => taken, // what is refused at once was not sent
            None => match tokio::time::timeout_at(deadline, accepted).await {
                Ok(taken) => {
                    if taken.is_err() && question.has_effect() {
                        // The request may still arrive: report a failure only once it has expired.
                        tokio::time::sleep_until(deadline).await;
                    }
                    taken
                }
                Err(_) => {
                    let reason = format!("it did not accept the request within {REQUEST_TIMEOUT:?}");
                    Err(BrokerError::Unavailable { reason })
                }
            },
        };
        taken?;
        let own = match asked {
            Asked::All => Some(self.answer(question, payload).await),
            Asked::One(_) => None,
        };
        // Over time, those who have not answered are missing. The sender is in the table, where only this
        // request's end removes it.
        let _ = tokio::time::timeout_at(deadline, completed).await;
        let mut answers = request.finish();
        answers.answers.extend(own);
        Ok(answers)
    }
}

/// A question's place in the table; dropping it gives it up.
struct Request<'a> {
    hub: &'a Hub,
    id: u64,
}

impl Request<'_> {
    fn finish(&self) -> Answers {
        self.hub.neighbours.requests.lock().finish(self.id)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

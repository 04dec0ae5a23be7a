//! Sends heartbeats, requests and responses to the other nodes, over the broker.
//!
//! These messages are publications to internal rooms: `nodes/all`, and `node/<id>` for each node.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt, TryFutureExt};
use parking_lot::Mutex;
use roomcast_protocol::Name;
use thiserror::Error;

use crate::broker::contract::{self, BoxFuture, Broker, BrokerError, BrokerStatus};
use crate::broker::publication::{Publication, Publish};
use crate::cluster::message::{NodeMessage, Request, Response};
use crate::cluster::nodes::{HEARTBEAT_INTERVAL, NodeInfo, Nodes};
use crate::cluster::pending::{MAX_REQUESTS, PendingRequests, REQUEST_TIMEOUT, Responses};
use crate::id::{NodeId, RoomName};
use crate::rooms::local_node::LocalNode;

/// The version that this node announces.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a leaving node waits for the broker to accept its message.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a request to other nodes failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SendError {
    /// The broker failed. It may have accepted the request nevertheless, if its connection was lost
    /// meanwhile.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("{MAX_REQUESTS} requests to other nodes are pending, which is the limit; try again later")]
    TooManyRequests,
}

/// The nodes that a request goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    One(NodeId),
    /// All other nodes.
    All,
}

/// A request of another node, which this node must respond to.
#[derive(Debug)]
pub(crate) struct IncomingRequest {
    pub(crate) from: NodeId,
    pub(crate) id: u64,
    pub(crate) request: Request,
    pub(crate) payload: Bytes,
}

/// The other nodes of the cluster, and the messages to them.
#[derive(Debug)]
pub(crate) struct Peers {
    local: Arc<LocalNode>,
    broker: Arc<dyn Broker>,
    nodes: Mutex<Nodes>,
    requests: Mutex<PendingRequests>,
    started_at: Instant,
    /// Whether one of this node's own heartbeats has come back since it sent the last one.
    own_heartbeat_arrived: AtomicBool,
    has_left: AtomicBool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time of the runtime's clock, which tests can control.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Peers {
    pub(crate) fn new(local: Arc<LocalNode>, broker: Arc<dyn Broker>) -> Self {
        Self {
            local,
            broker,
            nodes: Mutex::default(),
            requests: Mutex::default(),
            started_at: now(),
            own_heartbeat_arrived: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        }
    }

    // === which nodes are live ===

    /// Returns the live nodes, including this one. While the broker is down, no heartbeat can
    /// arrive, and the nodes that were live before stay in the list.
    pub(crate) fn nodes(&self) -> Vec<NodeInfo> {
        let mut nodes: Vec<_> = self.nodes.lock().live().cloned().collect();
        nodes.push(self.own_info());
        nodes.sort_unstable_by_key(|node| node.node);
        nodes
    }

    pub(crate) fn is_live(&self, node: NodeId) -> bool {
        self.nodes.lock().is_live(node)
    }

    fn own_info(&self) -> NodeInfo {
        NodeInfo {
            node: self.local.id(),
            version: VERSION.to_owned(),
            connections: self.local.connection_count(),
            uptime_seconds: self.clock().as_secs(),
        }
    }

    /// Returns this node's clock, which determines when other nodes' requests to it expire.
    fn clock(&self) -> Duration {
        now().saturating_duration_since(self.started_at)
    }

    /// Sends heartbeats, and removes nodes that no longer send any. Never returns.
    pub(crate) async fn keep_in_touch(&self) {
        let mut status = self.broker.status();
        let mut subscribed = false;
        loop {
            self.count_nodes();
            if *status.borrow() == BrokerStatus::Down {
                if status.wait_for(|status| *status == BrokerStatus::Up).await.is_err() {
                    std::future::pending::<()>().await; // the broker has ended
                }
                self.nodes.lock().restart_clocks(now());
            }
            // If this takes longer, the next iteration tries again.
            let _ = tokio::time::timeout(HEARTBEAT_INTERVAL, self.send_heartbeat(&mut subscribed)).await;
            tokio::time::sleep(HEARTBEAT_INTERVAL).await;
            let mut nodes = self.nodes.lock();
            if self.own_heartbeat_arrived.swap(false, Ordering::AcqRel) {
                nodes.expire(now());
            } else {
                nodes.restart_clocks(now()); // the others' heartbeats may be missing for the same reason
            }
        }
    }

    fn count_nodes(&self) {
        let others = self.nodes.lock().live().count();
        self.local.metrics().nodes.set(1 + others as i64);
    }

    async fn send_heartbeat(&self, subscribed: &mut bool) -> Result<(), BrokerError> {
        if !*subscribed {
            // This must precede the first heartbeat, because other nodes respond to it with theirs.
            self.broker.subscribe(&RoomName::of_node(self.local.id())).await?;
            self.broker.subscribe(&RoomName::of_all_nodes()).await?;
            *subscribed = true;
        }
        if self.has_left.load(Ordering::Acquire) {
            return Ok(());
        }
        self.send(RoomName::of_all_nodes(), &self.heartbeat(), &[]).await
    }

    fn heartbeat(&self) -> NodeMessage {
        let NodeInfo { version, connections, uptime_seconds, .. } = self.own_info();
        NodeMessage::Heartbeat { version, connections, uptime_seconds, clock_ms: millis(self.clock()) }
    }

    /// Announces that this node leaves, before its broker is closed. Its connections should have
    /// ended, because other nodes send it no more requests.
    pub(crate) async fn leave(&self) {
        // If the message is lost, the other nodes notice that the heartbeats are missing.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.start_leaving()).await;
    }

    pub(crate) fn start_leaving(&self) -> BoxFuture<'static, Result<(), BrokerError>> {
        match self.has_left.swap(true, Ordering::AcqRel) {
            true => Box::pin(std::future::ready(Ok(()))),
            false => Box::pin(self.send(RoomName::of_all_nodes(), &NodeMessage::Leave, &[])),
        }
    }

    // === messages ===

    fn send(
        &self,
        room: RoomName,
        message: &NodeMessage,
        payload: &[u8],
    ) -> impl Future<Output = Result<(), BrokerError>> + Send + Unpin + use<> {
        // The message itself is in the head.
        let (event, payload) = (Name::default(), message.encode(payload));
        let publish =
            Publish { origin: self.local.id(), room, event, payload, published_at: Instant::now(), trace: None };
        contract::publish(&*self.broker, publish).map_ok(drop)
    }

    /// Processes a message of another node. Returns the request in it, if it is one.
    pub(crate) fn on_message(&self, publication: Publication) -> Option<IncomingRequest> {
        let from = publication.origin;
        if from == self.local.id() {
            self.own_heartbeat_arrived.store(true, Ordering::Release);
            return None;
        }
        let Some((message, payload)) = NodeMessage::decode(publication.payload) else {
            tracing::debug!(%from, "dropped a message of another node: unknown version or invalid");
            return None;
        };
        match message {
            NodeMessage::Heartbeat { version, connections, uptime_seconds, clock_ms } => {
                let info = NodeInfo { node: from, version, connections, uptime_seconds };
                self.on_heartbeat(info, Duration::from_millis(clock_ms));
            }
            NodeMessage::Leave => {
                tracing::info!(node = %from, "a node has left");
                self.nodes.lock().on_leave(from, now());
                self.requests.lock().on_leave(from);
                self.count_nodes();
            }
            NodeMessage::Request { request, sent_ms, expires_ms, .. }
                if request.has_effect() && !self.is_in_time(from, sent_ms, expires_ms.get(&self.local.id())) =>
            {
                tracing::debug!(%from, "dropped an expired request: its sender no longer waits for it");
            }
            NodeMessage::Request { id, request, .. } => return Some(IncomingRequest { from, id, request, payload }),
            NodeMessage::Response { id, response } => {
                let is_live = self.is_live(from);
                self.requests.lock().on_response(id, from, is_live, response);
            }
            NodeMessage::Unknown => tracing::debug!(%from, "ignored a message of a newer node"),
        }
        None
    }

    fn on_heartbeat(&self, info: NodeInfo, clock: Duration) {
        let from = info.node;
        if self.nodes.lock().on_heartbeat(info, clock, now()) {
            tracing::info!(node = %from, "a node has joined");
            self.count_nodes();
            // The response makes this node live on the new node at once. There is only one such
            // message for each new node, so its rate needs no limit.
            if !self.has_left.load(Ordering::Acquire) {
                drop(self.send(RoomName::of_node(from), &self.heartbeat(), &[]));
            }
        }
    }

    fn is_in_time(&self, from: NodeId, sent_ms: u64, expires_ms: Option<&u64>) -> bool {
        match expires_ms {
            Some(until) => millis(self.clock()) <= *until,
            None => self
                .nodes
                .lock()
                .clock_at(from, now())
                .is_some_and(|clock| clock <= Duration::from_millis(sent_ms).saturating_add(REQUEST_TIMEOUT)),
        }
    }

    /// Responds to a request. The requester waits for a limited time, so nothing is done if the
    /// response is lost.
    pub(crate) fn respond(&self, to: NodeId, id: u64, response: Response) {
        drop(self.send(RoomName::of_node(to), &NodeMessage::Response { id, response }, &[]));
    }

    // === requests ===

    /// Returns an error at once while the broker is down.
    pub(crate) fn check_reachable(&self) -> Result<(), BrokerError> {
        match *self.broker.status().borrow() {
            BrokerStatus::Up => Ok(()),
            BrokerStatus::Down => {
                Err(BrokerError::Unavailable { reason: "other nodes cannot be reached without it".into() })
            }
        }
    }

    /// Sends a request. Once the broker has accepted it, use the result to wait for the responses.
    /// If this fails, the request has no effect later: nodes carry it out before the failure is
    /// reported, by their own clocks, or not at all.
    ///
    /// If the future or the result is dropped, nothing is left behind.
    pub(crate) async fn request(
        &self,
        target: Target,
        request: Request,
        payload: Bytes,
    ) -> Result<SentRequest<'_>, SendError> {
        let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
        let has_effect = request.has_effect();
        let (room, nodes, expires_ms) = {
            let known = self.nodes.lock();
            let (room, nodes): (_, HashSet<_>) = match target {
                Target::One(node) => (RoomName::of_node(node), HashSet::from([node])),
                Target::All => (RoomName::of_all_nodes(), known.live().map(|node| node.node).collect()),
            };
            let expiry = |node: &NodeId| Some((*node, millis(known.clock_at(*node, deadline.into_std())?)));
            let expires_ms = nodes.iter().filter(|_| has_effect).filter_map(expiry).collect();
            (room, nodes, expires_ms)
        };
        self.check_reachable()?;
        let started = self.requests.lock().start(nodes, matches!(target, Target::All));
        let (id, completed) = started.ok_or(SendError::TooManyRequests)?;
        let sent = SentRequest { peers: self, id, completed, deadline };
        let message = NodeMessage::Request { id, request, sent_ms: millis(self.clock()), expires_ms };
        let mut accepted = self.send(room, &message, &payload);
        if let Some(accepted) = (&mut accepted).now_or_never() {
            accepted?; // a request that is rejected at once was not sent
            return Ok(sent);
        }
        match tokio::time::timeout_at(deadline, accepted).await {
            Ok(Ok(())) => Ok(sent),
            Ok(Err(error)) => {
                if has_effect {
                    // The request may still arrive, so the failure is reported only after the
                    // request has expired.
                    tokio::time::sleep_until(deadline).await;
                }
                Err(error.into())
            }
            Err(_) => {
                let reason = format!("it did not accept the request within {REQUEST_TIMEOUT:?}");
                Err(BrokerError::Unavailable { reason }.into())
            }
        }
    }
}

/// A request that was sent, with its entry in the table. Dropping it removes the entry.
#[derive(Debug)]
pub(crate) struct SentRequest<'a> {
    peers: &'a Peers,
    id: u64,
    completed: tokio::sync::oneshot::Receiver<()>,
    deadline: tokio::time::Instant,
}

impl SentRequest<'_> {
    /// Waits until all nodes have responded, or until the deadline.
    pub(crate) async fn responses(mut self) -> Responses {
        // After the deadline, nodes that have not responded count as unresponsive. The channel's
        // sender is in the table until this request ends.
        let _ = tokio::time::timeout_at(self.deadline, &mut self.completed).await;
        self.peers.requests.lock().finish(self.id)
    }
}

impl Drop for SentRequest<'_> {
    fn drop(&mut self) {
        self.peers.requests.lock().finish(self.id);
    }
}

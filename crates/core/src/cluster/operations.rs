//! What a node does with all nodes of the cluster: lists members, rooms and nodes; notifies, moves and closes connections
//! and users on any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_protocol::{CloseFrame, Name};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::broker::contract::{Broker, BrokerError};
use crate::broker::publication::Publication;
use crate::cluster::message::{JoinFailure, MAX_LISTED_ROOMS, Request, Response};
use crate::cluster::nodes::NodeInfo;
use crate::cluster::peers::{IncomingRequest, Peers, SendError, Target};
use crate::cluster::pending::{MAX_REQUESTS, Responses};
use crate::cluster::respond::respond;
use crate::cluster::shared_queries::SharedQueries;
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::rooms::local_node::{JoinError, LocalNode, Member};

/// Requests of other nodes that may be responded to at once in tasks of their own; more get no response.
const MAX_RESPONDING: usize = 1024;

/// Why something could not be done on other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no such connection, or user, on any node.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The connection did not become a member.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The broker failed. It may have accepted the request all the same, if its connection was lost meanwhile.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Nodes did not respond in time, or are of a version that does not support the request. It is unknown whether
    /// those that did not respond in time carried it out.
    #[error("no response from {}", nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", "))]
    NoResponse {
        /// Which.
        nodes: Vec<NodeId>,
    },
    /// More requests wait for responses than may.
    #[error("{MAX_REQUESTS} requests to other nodes are pending, which is the limit; try again later")]
    TooManyRequests,
}

impl From<SendError> for RequestError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Broker(error) => Self::Broker(error),
            SendError::TooManyRequests => Self::TooManyRequests,
        }
    }
}

/// A room's members over the cluster.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Members, UserId};
///
/// /// Whether a user is in the room. `None`: some nodes did not respond, so that is unknown.
/// fn has_user(members: &Members, user: &UserId) -> Option<bool> {
///     let is_member = members.members.iter().any(|member| member.user.as_ref() == Some(user));
///     (is_member || members.unresponsive_nodes.is_empty()).then_some(is_member)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Members {
    /// How many there are on the nodes that responded.
    pub count: usize,
    /// Who they are, up to 10,000 of each node.
    pub members: Vec<Member>,
    /// Live nodes that did not respond in time, so that their members are missing.
    pub unresponsive_nodes: Vec<NodeId>,
}

/// Which rooms to list.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::RoomsQuery;
///
/// let mut query = RoomsQuery::default();
/// query.prefix = "chat-".to_owned();
/// query.limit = 100;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomsQuery {
    /// The prefix of their names.
    pub prefix: String,
    /// Only those whose names come after this one: the last of the list before.
    pub after: String,
    /// How many, at most 1,000.
    pub limit: usize,
}

impl Default for RoomsQuery {
    /// The first 1,000 of all.
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), limit: MAX_LISTED_ROOMS }
    }
}

/// One room of a list: see [`Rooms`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomCount {
    /// Its name.
    pub room: RoomName,
    /// How many members it has on the nodes that responded.
    pub members: usize,
}

/// Rooms over the cluster.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::{Rooms, RoomsQuery};
///
/// /// Adds a page of rooms to a list, and returns the query for the next page, if there is one.
/// fn take_page(query: &RoomsQuery, page: Rooms, list: &mut Vec<String>) -> Option<RoomsQuery> {
///     list.extend(page.rooms.iter().map(|room| format!("{}: {} members", room.room, room.members)));
///     let mut next = query.clone();
///     next.after = page.next?.to_string();
///     Some(next)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rooms {
    /// By name.
    pub rooms: Vec<RoomCount>,
    /// If there are more rooms: the name to continue after.
    pub next: Option<RoomName>,
    /// Live nodes that did not respond in time, so that their rooms and members are missing.
    pub unresponsive_nodes: Vec<NodeId>,
}

/// The connections of a user that an operation was done to.
///
/// ```
/// # use roomcast_core as roomcast;
/// use roomcast::Reached;
///
/// fn is_complete(reached: &Reached) -> bool {
///     reached.connections > 0 && reached.unresponsive_nodes.is_empty()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// To how many it was done, at least one.
    pub connections: usize,
    /// Live nodes that did not respond in time. It is unknown whether they have connections of the user, and whether it
    /// was done to them.
    pub unresponsive_nodes: Vec<NodeId>,
}

/// All nodes of a cluster, as one of them reaches them.
#[derive(Debug)]
pub struct Cluster {
    local: Arc<LocalNode>,
    peers: Arc<Peers>,
    members: SharedQueries<Result<Arc<Members>, RequestError>>,
    responding: Arc<Semaphore>,
}

impl Cluster {
    pub(crate) fn new(local: Arc<LocalNode>, broker: Arc<dyn Broker>) -> Self {
        let peers = Arc::new(Peers::new(Arc::clone(&local), broker));
        Self { local, peers, members: SharedQueries::new(), responding: Arc::new(Semaphore::new(MAX_RESPONDING)) }
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The live nodes of the cluster by id, this one included. While the broker is down no heartbeat can arrive, and
    /// the nodes that were live before stay so.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.peers.nodes()
    }

    /// Announces that this node leaves, before its broker is closed. Its connections should have ended: from now on
    /// other nodes send it no requests. Waits at most one second for the broker.
    ///
    /// # Cancel safety
    /// Dropping the future may lose the announcement; the other nodes then miss the heartbeats for 10 s.
    pub async fn leave(&self) {
        self.peers.leave().await;
    }

    /// A room's members, on all nodes. Concurrent calls for the same room share the result.
    ///
    /// # Errors
    /// [`RequestError`] if the nodes could not be reached.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn members(&self, room: &RoomName) -> Result<Arc<Members>, RequestError> {
        self.members.get(room, || self.query_members(room)).await
    }

    async fn query_members(&self, room: &RoomName) -> Result<Arc<Members>, RequestError> {
        let responses = self.request_all(Request::Members { room: room.clone() }, Bytes::new()).await?;
        let mut all = Members { count: 0, members: Vec::new(), unresponsive_nodes: responses.unresponsive };
        for response in responses.responses {
            if let Response::Members { count, members } = response {
                all.count += count;
                let members =
                    members.into_iter().map(|member| Member { connection: member.connection, user: member.user });
                all.members.extend(members);
            }
        }
        Ok(Arc::new(all))
    }

    /// Rooms that have members on any node.
    ///
    /// # Errors
    /// [`RequestError`] if the nodes could not be reached.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn rooms(&self, query: RoomsQuery) -> Result<Rooms, RequestError> {
        let limit = query.limit.min(MAX_LISTED_ROOMS);
        // If a room is among the first of all, it is among the first of each node that has it: so the
        // lists together are exact.
        let request = Request::Rooms { prefix: query.prefix, after: query.after, limit: limit + 1 };
        let responses = self.request_all(request, Bytes::new()).await?;
        let mut counts = BTreeMap::<RoomName, usize>::new();
        for response in responses.responses {
            if let Response::Rooms { rooms } = response {
                for room in rooms {
                    *counts.entry(room.room).or_default() += room.members;
                }
            }
        }
        let has_more = counts.len() > limit;
        let rooms: Vec<_> = counts.into_iter().take(limit).map(|(room, members)| RoomCount { room, members }).collect();
        let next = rooms.last().filter(|_| has_more).map(|last| last.room.clone());
        Ok(Rooms { rooms, next, unresponsive_nodes: responses.unresponsive })
    }

    /// Sends an event to one connection, on any node. When this returns, the event is queued there.
    ///
    /// # Errors
    /// [`RequestError`]; unless it is [`NoResponse`](RequestError::NoResponse) or [`Broker`](RequestError::Broker), the
    /// event was not queued.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the event is queued.
    pub async fn notify_connection(&self, to: ConnectionId, event: Name, payload: Bytes) -> Result<(), RequestError> {
        self.request_owner(to, Request::NotifyConnection { connection: to, event }, payload).await
    }

    /// Sends an event to all connections of a user. When this returns, the event is queued to
    /// [`Reached::connections`].
    ///
    /// # Errors
    /// [`RequestError`]; unless it is [`NoResponse`](RequestError::NoResponse) or [`Broker`](RequestError::Broker), the
    /// event was not queued.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the event is queued.
    pub async fn notify_user(&self, user: &UserId, event: Name, payload: Bytes) -> Result<Reached, RequestError> {
        reached("user", self.request_all(Request::NotifyUser { user: user.clone(), event }, payload).await?)
    }

    /// Closes one connection, on any node.
    ///
    /// # Errors
    /// [`RequestError`]; a connection that is being closed already is not found.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the connection is closed.
    pub async fn close_connection(&self, id: ConnectionId, close: CloseFrame) -> Result<(), RequestError> {
        let request = Request::CloseConnection { connection: id, code: close.code.0, reason: close.reason };
        self.request_owner(id, request, Bytes::new()).await
    }

    /// Closes all connections of a user, and returns how many.
    ///
    /// # Errors
    /// [`RequestError`]; connections that are being closed already are not found.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open which connections are closed.
    pub async fn close_user(&self, user: &UserId, close: CloseFrame) -> Result<Reached, RequestError> {
        let request = Request::CloseUser { user: user.clone(), code: close.code.0, reason: close.reason };
        reached("user", self.request_all(request, Bytes::new()).await?)
    }

    /// Makes a connection a member of a room, on any node. When this returns, every event that
    /// is published later reaches it.
    ///
    /// # Errors
    /// [`RequestError`]; unless it is [`NoResponse`](RequestError::NoResponse) or [`Broker`](RequestError::Broker),
    /// this did not make the connection a member.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the connection becomes a member.
    pub async fn join_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), RequestError> {
        self.request_owner(id, Request::Join { connection: id, room: room.clone() }, Bytes::new()).await
    }

    /// Ends a connection's membership, on any node. When this returns, no event of the room is
    /// queued to it any more. A connection that is no member is not an error.
    ///
    /// # Errors
    /// [`RequestError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the membership ends.
    pub async fn leave_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), RequestError> {
        self.request_owner(id, Request::Leave { connection: id, room: room.clone() }, Bytes::new()).await
    }

    // === requests ===

    /// Has a request carried out by all nodes, this one included.
    async fn request_all(&self, request: Request, payload: Bytes) -> Result<Responses, RequestError> {
        // First the others: if they can't be reached, nothing is done here either.
        let sent = self.peers.request(Target::All, request.clone(), payload.clone()).await?;
        let own = respond(&self.local, request, payload).await;
        let mut responses = sent.responses().await;
        responses.responses.push(own);
        Ok(responses)
    }

    /// Has a request carried out by the node that owns a connection; if that is this one, the broker is not needed.
    async fn request_owner(&self, id: ConnectionId, request: Request, payload: Bytes) -> Result<(), RequestError> {
        let responses = if id.node == self.local.id() {
            Responses { responses: vec![respond(&self.local, request, payload).await], unresponsive: Vec::new() }
        } else if self.peers.is_live(id.node) {
            self.peers.request(Target::One(id.node), request, payload).await?.responses().await
        } else {
            self.peers.check_reachable()?;
            // A node that is gone has no connections; one that is cut off has, and is not found either.
            Responses::default()
        };
        reached("connection", responses).map(drop)
    }

    /// Takes a publication in if it is a message from another node; otherwise returns it: an event for members.
    pub(crate) fn take(&self, publication: Publication) -> Option<Publication> {
        if !publication.room.is_of_nodes() {
            return Some(publication);
        }
        if let Some(request) = self.peers.on_message(publication) {
            self.on_request(request);
        }
        None
    }

    /// Begins at once, so that one node's requests are carried out in order. What waits for something or takes long
    /// gets a task of its own, because publications wait meanwhile.
    fn on_request(&self, incoming: IncomingRequest) {
        let IncomingRequest { from, id, request, payload } = incoming;
        let takes_time = request.takes_time();
        let local = Arc::clone(&self.local);
        let mut responding = async move { respond(&local, request, payload).await }.boxed();
        if !takes_time && let Some(response) = (&mut responding).now_or_never() {
            return self.peers.respond(from, id, response);
        }
        let Ok(permit) = Arc::clone(&self.responding).try_acquire_owned() else {
            return tracing::warn!(%from, "too many requests of other nodes at once; one gets no response");
        };
        let peers = Arc::clone(&self.peers);
        tokio::spawn(async move {
            peers.respond(from, id, responding.await);
            drop(permit);
        });
    }
}

/// Adds up what was done.
fn reached(what: &'static str, responses: Responses) -> Result<Reached, RequestError> {
    let mut connections = 0;
    for response in responses.responses {
        match response {
            Response::Reached { count } => connections += count,
            Response::JoinFailed { error } => return Err(join_error(error).into()),
            _ => {}
        }
    }
    match (connections, responses.unresponsive) {
        (0, nodes) if nodes.is_empty() => Err(RequestError::NotFound { what }),
        (0, nodes) => Err(RequestError::NoResponse { nodes }),
        (connections, unresponsive_nodes) => Ok(Reached { connections, unresponsive_nodes }),
    }
}

fn join_error(failure: JoinFailure) -> JoinError {
    match failure {
        JoinFailure::TooManyRooms { max } => JoinError::TooManyRooms { max },
        JoinFailure::Unavailable { reason } => BrokerError::Unavailable { reason }.into(),
        JoinFailure::Unknown => {
            BrokerError::Unavailable { reason: "the connection's node reported an error of a newer version".into() }
                .into()
        }
    }
}

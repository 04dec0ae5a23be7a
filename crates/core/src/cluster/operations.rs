//! Operations of a node on all nodes of the cluster. They list members, rooms and nodes. They also
//! notify and close connections and users on any node, and change the rooms of connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_protocol::{CloseFrame, Name};
use tokio::sync::Semaphore;

use crate::access::grants::Rule;
use crate::access::revocation::Revocation;
use crate::broker::contract::{Broker, BrokerError};
use crate::broker::publication::Publication;
use crate::cluster::connections::{
    self, ConnectionDetails, ConnectionOrder, ConnectionSummary, Connections, ConnectionsQuery, MAX_LISTED_CONNECTIONS,
};
use crate::cluster::message::{JoinFailure, MAX_LISTED_ROOMS, Request, Response};
use crate::cluster::nodes::NodeInfo;
use crate::cluster::peers::{IncomingRequest, Peers, Target};
use crate::cluster::pending::Responses;
use crate::cluster::respond::respond;
use crate::cluster::results::{Members, Reached, RequestError, RoomCount, Rooms, RoomsQuery};
use crate::cluster::revoker::Revoker;
use crate::cluster::shared_queries::SharedQueries;
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::rooms::local_node::{JoinError, LocalNode, Member};

/// How many requests of other nodes this node processes concurrently in tasks of their own. Further
/// requests get no response.
const MAX_RESPONDING: usize = 1024;

/// All nodes of a cluster, as seen from one of them.
#[derive(Debug)]
pub struct Cluster {
    local: Arc<LocalNode>,
    peers: Arc<Peers>,
    revoker: Arc<Revoker>,
    members: SharedQueries<Result<Arc<Members>, RequestError>>,
    responding: Arc<Semaphore>,
}

impl Cluster {
    pub(crate) fn new(local: Arc<LocalNode>, broker: Arc<dyn Broker>) -> Self {
        let peers = Arc::new(Peers::new(Arc::clone(&local), Arc::clone(&broker)));
        let revoker = Arc::new(Revoker::new(Arc::clone(&local), broker));
        let responding = Arc::new(Semaphore::new(MAX_RESPONDING));
        Self { local, peers, revoker, members: SharedQueries::new(), responding }
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Returns the revocations of this node.
    pub fn revoker(&self) -> &Revoker {
        &self.revoker
    }

    /// Returns the live nodes of the cluster, including this one, ordered by id. While the broker
    /// is down, no heartbeat can arrive, and the nodes that were live before stay in the list.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.peers.nodes()
    }

    /// Announces that this node leaves, before its broker is closed. Its connections should have
    /// ended, because other nodes send it no more requests. This waits at most one second for the
    /// broker.
    ///
    /// # Cancel safety
    /// If you drop the future, the announcement may be lost. The other nodes then list this node for
    /// up to 13 s.
    pub async fn leave(&self) {
        self.peers.leave().await;
    }

    /// Lists a room's members, on all nodes. Concurrent calls for the same room share a result.
    ///
    /// # Errors
    /// Returns [`RequestError`] if the other nodes could not be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
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

    /// Lists rooms that have members on any node.
    ///
    /// # Errors
    /// Returns [`RequestError`] if the other nodes could not be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn rooms(&self, query: RoomsQuery) -> Result<Rooms, RequestError> {
        let limit = query.limit.min(MAX_LISTED_ROOMS);
        // If a room is among the first of all rooms, it is among the first of each node that has
        // it. The combined lists are therefore exact.
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

    /// Lists connections, on all nodes or on one. If they are ordered by their rate, this takes a
    /// second.
    ///
    /// # Errors
    /// Returns [`RequestError`] if the other nodes could not be reached, or if the node of the query
    /// does not exist.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn connections(&self, query: ConnectionsQuery) -> Result<Connections, RequestError> {
        let limit = query.limit.min(MAX_LISTED_CONNECTIONS);
        let (order, node) = (query.order, query.node);
        let request = Request::Connections { query: Box::new(ConnectionsQuery { limit: limit + 1, ..query }) };
        let responses = match node {
            Some(node) => self.request_node(node, request, Bytes::new()).await?,
            None => self.request_all(request, Bytes::new()).await?,
        };
        let listed = responses.responses.into_iter().flat_map(|response| match response {
            Response::Connections { connections } => connections,
            _ => Vec::new(),
        });
        let mut connections = connections::first(listed.collect(), order, limit + 1);
        let has_more = connections.len() > limit;
        connections.truncate(limit);
        let next =
            connections.last().filter(|_| has_more && order == ConnectionOrder::Age).map(ConnectionSummary::place);
        Ok(Connections { connections, next, unresponsive_nodes: responses.unresponsive })
    }

    /// Describes a connection, on any node.
    ///
    /// # Errors
    /// Returns [`RequestError`] if the connection does not exist or its node could not be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn describe_connection(&self, id: ConnectionId) -> Result<ConnectionDetails, RequestError> {
        let Responses { responses, unresponsive } =
            self.request_node(id.node, Request::Connection { connection: id }, Bytes::new()).await?;
        let details = responses.into_iter().find_map(|response| match response {
            Response::Connection { details } => Some(*details),
            _ => None,
        });
        details.ok_or(match unresponsive.is_empty() {
            true => RequestError::NotFound { what: "connection" },
            false => RequestError::NoResponse { nodes: unresponsive },
        })
    }

    /// Sends an event to a connection, on any node. When this returns, the event is queued there.
    ///
    /// # Errors
    /// Returns [`RequestError`]. The event was not queued, except perhaps if the error is
    /// [`NoResponse`](RequestError::NoResponse) or [`Broker`](RequestError::Broker).
    ///
    /// # Cancel safety
    /// If you drop the future, the event may or may not be queued.
    pub async fn notify_connection(&self, to: ConnectionId, event: Name, payload: Bytes) -> Result<(), RequestError> {
        self.request_owner(to, Request::NotifyConnection { connection: to, event }, payload).await
    }

    /// Sends an event to all connections of a user. When this returns, the event is queued for
    /// [`Reached::connections`] of them.
    ///
    /// # Errors
    /// Returns [`RequestError`]. The event was not queued, except perhaps if the error is
    /// [`NoResponse`](RequestError::NoResponse) or [`Broker`](RequestError::Broker).
    ///
    /// # Cancel safety
    /// If you drop the future, the event may or may not be queued.
    pub async fn notify_user(&self, user: &UserId, event: Name, payload: Bytes) -> Result<Reached, RequestError> {
        reached("user", self.request_all(Request::NotifyUser { user: user.clone(), event }, payload).await?)
    }

    /// Closes a connection, on any node.
    ///
    /// # Errors
    /// Returns [`RequestError`]. A connection that is already being closed is not found.
    ///
    /// # Cancel safety
    /// If you drop the future, the connection may or may not be closed.
    pub async fn close_connection(&self, id: ConnectionId, close: CloseFrame) -> Result<(), RequestError> {
        let request = Request::CloseConnection { connection: id, code: close.code.0, reason: close.reason };
        self.request_owner(id, request, Bytes::new()).await
    }

    /// Closes all connections of a user, and returns how many were closed.
    ///
    /// # Errors
    /// Returns [`RequestError`]. Connections that are already being closed are not found.
    ///
    /// # Cancel safety
    /// If you drop the future, some of the connections may be closed.
    pub async fn close_user(&self, user: &UserId, close: CloseFrame) -> Result<Reached, RequestError> {
        let request = Request::CloseUser { user: user.clone(), code: close.code.0, reason: close.reason };
        reached("user", self.request_all(request, Bytes::new()).await?)
    }

    /// Revokes credentials on all nodes, and closes the connections that have them with 4401. Returns
    /// how many connections were closed, which may be none.
    ///
    /// The broker keeps the revocation until it ends. Each node that reaches the broker enforces it
    /// within a second, also if it did not respond to the request, or starts later.
    ///
    /// # Errors
    /// Returns [`RequestError`]. After [`Broker`](RequestError::Broker), the revocation may take
    /// effect nevertheless.
    ///
    /// # Cancel safety
    /// If you drop the future, the revocation may or may not take effect.
    pub async fn revoke(&self, revocation: Revocation) -> Result<Reached, RequestError> {
        self.revoker.store(&revocation).await?;
        let responses = self.request_all(Request::Revoke { revocation }, Bytes::new()).await?;
        Ok(Reached { connections: count_reached(&responses), unresponsive_nodes: responses.unresponsive })
    }

    /// Replaces the grants that were added to those of a user's connections, and ends the
    /// memberships that the connections have lost the right to. It applies to the connections that
    /// are open now. `{claim.…}` in a rule has no value.
    ///
    /// # Errors
    /// Returns [`RequestError`]. Connections whose clients are not authorized are not found.
    ///
    /// # Cancel safety
    /// If you drop the future, some of the connections may have the new grants.
    pub async fn set_grants(&self, user: &UserId, rules: Vec<Rule>) -> Result<Reached, RequestError> {
        reached("user", self.request_all(Request::SetGrants { user: user.clone(), rules }, Bytes::new()).await?)
    }

    /// Makes a connection a member of a room, on any node. When this returns, the connection
    /// receives every event published later.
    ///
    /// # Errors
    /// Returns [`RequestError`]. The operation did not make the connection a member, except perhaps
    /// if the error is [`NoResponse`](RequestError::NoResponse) or
    /// [`Broker`](RequestError::Broker).
    ///
    /// # Cancel safety
    /// If you drop the future, the connection may or may not become a member.
    pub async fn join_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), RequestError> {
        self.request_owner(id, Request::Join { connection: id, room: room.clone() }, Bytes::new()).await
    }

    /// Ends a connection's membership, on any node. When this returns, no further event of the room
    /// is queued for the connection. It succeeds even if the connection is not a member.
    ///
    /// # Errors
    /// Returns [`RequestError`] if the connection does not exist or its node could not be reached.
    ///
    /// # Cancel safety
    /// If you drop the future, the membership may or may not end.
    pub async fn leave_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), RequestError> {
        self.request_owner(id, Request::Leave { connection: id, room: room.clone() }, Bytes::new()).await
    }

    // === requests ===

    /// Sends a request to all other nodes, and carries it out on this one.
    async fn request_all(&self, request: Request, payload: Bytes) -> Result<Responses, RequestError> {
        // The other nodes come first. If they cannot be reached, the request is not carried out
        // here either.
        let sent = self.peers.request(Target::All, request.clone(), payload.clone()).await?;
        let own = respond(&self.local, &self.revoker, request, payload).await;
        let mut responses = sent.responses().await;
        responses.responses.push(own);
        Ok(responses)
    }

    /// Sends a request to the node that owns a connection, and returns whether the node has it.
    async fn request_owner(&self, id: ConnectionId, request: Request, payload: Bytes) -> Result<(), RequestError> {
        reached("connection", self.request_node(id.node, request, payload).await?).map(drop)
    }

    /// Sends a request to one node. If it is this node, the broker is not needed. A node that does
    /// not exist sends no response.
    async fn request_node(&self, node: NodeId, request: Request, payload: Bytes) -> Result<Responses, RequestError> {
        if node == self.local.id() {
            let response = respond(&self.local, &self.revoker, request, payload).await;
            Ok(Responses { responses: vec![response], unresponsive: Vec::new() })
        } else if self.peers.is_live(node) {
            Ok(self.peers.request(Target::One(node), request, payload).await?.responses().await)
        } else {
            self.peers.check_reachable()?;
            // A dead node has no connections. A node that is cut off has connections, but they
            // cannot be found.
            Ok(Responses::default())
        }
    }

    /// Processes a publication if it is a message from another node. Otherwise returns it, because
    /// it is an event for members.
    pub(crate) fn take(&self, publication: Publication) -> Option<Publication> {
        if !publication.room.is_of_nodes() {
            return Some(publication);
        }
        if let Some(request) = self.peers.on_message(publication) {
            self.on_request(request);
        }
        None
    }

    /// Starts a request at once, so that the requests of one node are carried out in order. A
    /// request that waits for something or takes long continues in a task of its own, because
    /// publications wait meanwhile.
    fn on_request(&self, incoming: IncomingRequest) {
        let IncomingRequest { from, id, request, payload } = incoming;
        let takes_time = request.takes_time();
        let (local, revoker) = (Arc::clone(&self.local), Arc::clone(&self.revoker));
        let mut responding = async move { respond(&local, &revoker, request, payload).await }.boxed();
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

fn count_reached(responses: &Responses) -> usize {
    let count = |response: &Response| match response {
        Response::Reached { count } => *count,
        _ => 0,
    };
    responses.responses.iter().map(count).fold(0, usize::saturating_add)
}

/// Adds up the number of connections in the responses.
fn reached(what: &'static str, responses: Responses) -> Result<Reached, RequestError> {
    let connections = count_reached(&responses);
    for response in responses.responses {
        if let Response::JoinFailed { error } = response {
            return Err(join_error(error).into());
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
        JoinFailure::NodeFull { max } => JoinError::NodeFull { max },
        JoinFailure::Unavailable { reason } => BrokerError::Unavailable { reason }.into(),
        JoinFailure::Unknown => {
            BrokerError::Unavailable { reason: "the connection's node reported an error of a newer version".into() }
                .into()
        }
    }
}

//! Carries out other nodes' requests on this node.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, CloseFrame, Name};
use serde_json::Value;

use crate::access::grants::{Grants, Rule, Subject};
use crate::access::revocation::Revoked;
use crate::broker::contract::BrokerError;
use crate::cluster::connections::{self, ConnectionsQuery, MAX_LISTED_CONNECTIONS};
use crate::cluster::message::{
    JoinFailure, MAX_LISTED_MEMBERS, MAX_LISTED_ROOMS, Member, Request, Response, RoomCount,
};
use crate::cluster::revoker::Revoker;
use crate::id::{ConnectionId, RoomName, UserId};
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::{JoinError, LocalNode};
use crate::rooms::outbox::Rejected;

impl Request {
    /// Returns whether the response takes so long that the node's publications should not wait for
    /// it.
    pub(crate) fn takes_time(&self) -> bool {
        let visits_all_connections =
            matches!(self, Self::Revoke { revocation } if !matches!(revocation.revoked(), Revoked::User { .. }));
        visits_all_connections || !self.has_effect()
    }
}

/// Carries out a request on this node.
pub(crate) async fn respond(node: &LocalNode, revoker: &Revoker, request: Request, payload: Bytes) -> Response {
    let reached = |count| Response::Reached { count };
    match request {
        Request::NotifyConnection { connection, event } => {
            reached(notify(node.connection(connection), &event, &payload))
        }
        Request::NotifyUser { user, event } => reached(notify(node.connections_of(&user), &event, &payload)),
        Request::CloseConnection { connection, code, reason } => {
            reached(close(node.connection(connection), code, &reason))
        }
        Request::CloseUser { user, code, reason } => reached(close(node.connections_of(&user), code, &reason)),
        Request::Join { connection, room } => join(node, connection, &room).await,
        Request::Leave { connection, room } => {
            let connection = node.connection(connection);
            reached(connection.iter().map(|connection| node.leave(connection, &room)).count())
        }
        Request::Revoke { revocation } => reached(revoker.enforce(&revocation)),
        Request::SetGrants { user, rules } => reached(set_grants(node, &user, &rules)),
        Request::Members { room } => {
            let (count, members) = node.list_members(&room, MAX_LISTED_MEMBERS);
            let members = members.into_iter().map(|member| Member { connection: member.connection, user: member.user });
            Response::Members { count, members: members.collect() }
        }
        Request::Connections { query } => {
            // As for rooms, one more shows that there are more.
            let limit = query.limit.min(MAX_LISTED_CONNECTIONS + 1);
            let connections = connections::list(node, &ConnectionsQuery { limit, ..*query }).await;
            Response::Connections { connections }
        }
        Request::Connection { connection } => match node.connection(connection) {
            Some(connection) => Response::Connection { details: Box::new(connections::describe(&connection)) },
            None => reached(0),
        },
        Request::Rooms { prefix, after, limit } => {
            // The list may have one room more than the requester returns, which shows that there
            // are more rooms.
            let rooms = node.list_rooms(&prefix, &after, limit.min(MAX_LISTED_ROOMS + 1)).into_iter();
            Response::Rooms { rooms: rooms.map(|(room, members)| RoomCount { room, members }).collect() }
        }
        Request::Unknown => Response::Unsupported,
    }
}

async fn join(node: &LocalNode, connection: ConnectionId, room: &RoomName) -> Response {
    let Some(connection) = node.connection(connection) else { return Response::Reached { count: 0 } };
    match node.join(&connection, room).await {
        Ok(()) => Response::Reached { count: 1 },
        Err(JoinError::Closed) => Response::Reached { count: 0 },
        Err(JoinError::TooManyRooms { max }) => Response::JoinFailed { error: JoinFailure::TooManyRooms { max } },
        Err(JoinError::NodeFull { max }) => Response::JoinFailed { error: JoinFailure::NodeFull { max } },
        Err(JoinError::Broker(BrokerError::Unavailable { reason })) => {
            Response::JoinFailed { error: JoinFailure::unavailable(reason) }
        }
        Err(JoinError::Broker(error)) => Response::JoinFailed { error: JoinFailure::unavailable(error.to_string()) },
    }
}

/// Replaces the added grants of a user's connections, and returns how many connections have grants.
fn set_grants(node: &LocalNode, user: &UserId, rules: &[Rule]) -> usize {
    let grants = Grants::resolve(rules, Subject { user: Some(user), claims: &Value::Null });
    let set = |connection: &Arc<LocalConnection>| {
        let Some(access) = &connection.access else { return false };
        node.apply(connection, &access.set_added_grants(grants.clone()));
        true
    };
    node.connections_of(user).iter().filter(|connection| set(connection)).count()
}

/// Queues an event for connections, and returns for how many it was queued.
fn notify(connections: impl IntoIterator<Item = Arc<LocalConnection>>, event: &Name, payload: &Bytes) -> usize {
    let queued = connections.into_iter().filter(|connection| match connection.notify(event.clone(), payload.clone()) {
        Ok(()) => true,
        Err(Rejected::Full) => {
            connection.log_slow_consumer(None);
            false
        }
        Err(Rejected::Closed) => false,
    });
    queued.count()
}

/// Closes connections, and returns how many of them were not already being closed.
fn close(connections: impl IntoIterator<Item = Arc<LocalConnection>>, code: u16, reason: &str) -> usize {
    let close = CloseFrame::new(CloseCode(code), reason);
    connections.into_iter().filter(|connection| connection.outbox.close(close.clone())).count()
}

//! `/v1/connections`: the connections of the cluster, and one of them.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use roomcast::{
    CallError, ConnectionId, ConnectionOrder, ConnectionPlace, ConnectionsQuery, MAX_LISTED_CONNECTIONS, Node,
    RoomName, UserId,
};
use serde::Deserialize;

use crate::api::Failure;
use crate::api::connection_body::{ConnectionBody, ConnectionsBody};
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{CloseParams, InPath, InQuery, Payload};

/// Connections on a page, if the request does not say how many.
const DEFAULT_PAGE: usize = 100;

/// Which connections to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only connections of this user
    user: Option<String>,
    /// Only connections from this IP address
    #[param(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// Only connections of the node with this id
    node: Option<String>,
    /// Only members of this room
    room: Option<String>,
    /// The order: `age` (the oldest first), `outbound_bytes`, `message_rate` or `calls` (the most first). By
    /// `message_rate`, the response takes a second, because the nodes count messages meanwhile
    #[param(value_type = String, default = "age")]
    sort: Sort,
    /// By `age`: only connections after this place, which is the `next` of the previous page
    after: Option<String>,
    /// Number of connections on a page
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl Default for ListParams {
    fn default() -> Self {
        Self { user: None, address: None, node: None, room: None, sort: Sort::Age, after: None, limit: DEFAULT_PAGE }
    }
}

/// The order of connections.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Sort {
    Age,
    OutboundBytes,
    MessageRate,
    Calls,
}

impl ListParams {
    fn query(self) -> Result<ConnectionsQuery, CallError> {
        let mut query = ConnectionsQuery::default();
        if !(1..=MAX_LISTED_CONNECTIONS).contains(&self.limit) {
            let message = format!("limit must be from 1 to {MAX_LISTED_CONNECTIONS}, not {}", self.limit);
            return Err(CallError::invalid_argument(message));
        }
        query.limit = self.limit;
        query.user = self.user.map(|user| UserId::new(&user)).transpose()?;
        query.room = self.room.map(|room| RoomName::new(&room)).transpose()?;
        query.node = self.node.map(|node| node.parse()).transpose()?;
        query.address = self.address;
        query.order = match self.sort {
            Sort::Age => ConnectionOrder::Age,
            Sort::OutboundBytes => ConnectionOrder::OutboundBytes,
            Sort::MessageRate => ConnectionOrder::MessageRate,
            Sort::Calls => ConnectionOrder::Calls,
        };
        query.after = self.after.map(|after| place(self.sort, &after)).transpose()?;
        Ok(query)
    }
}

/// Reads the `next` of a page, which [`ConnectionsBody`] writes.
fn place(sort: Sort, after: &str) -> Result<ConnectionPlace, CallError> {
    if sort != Sort::Age {
        return Err(CallError::invalid_argument("after needs sort=age; the other orders have one page".to_owned()));
    }
    let parse = || {
        let (connected_ms, connection) = after.split_once('.')?;
        Some(ConnectionPlace::new(connected_ms.parse().ok()?, connection.parse().ok()?))
    };
    parse().ok_or_else(|| CallError::invalid_argument(format!("after must be the next of a page, not {after:?}")))
}

/// List the connections of all nodes
#[utoipa::path(
    get,
    path = "/connections",
    operation_id = "listConnections",
    tag = "connections",
    params(ListParams),
    responses((status = OK, description = "A page of connections", body = ConnectionsBody), Always, Asking, Finding)
)]
pub(super) async fn list(
    State(node): State<Node>,
    InQuery(params): InQuery<ListParams>,
) -> Result<Json<ConnectionsBody>, Failure> {
    Ok(Json(node.connections(params.query()?).await?.into()))
}

/// Show a connection: its rooms, its rights, and its recent denials
#[utoipa::path(
    get,
    path = "/connections/{id}",
    operation_id = "showConnection",
    tag = "connections",
    params(("id" = String, Path, description = "The connection's id")),
    responses((status = OK, description = "The connection", body = ConnectionBody), Always, Asking, Finding)
)]
pub(super) async fn describe(
    State(node): State<Node>,
    InPath(id): InPath<String>,
) -> Result<Json<ConnectionBody>, Failure> {
    Ok(Json(node.connection(id.parse::<ConnectionId>()?).describe().await?.into()))
}

/// Send an event to a connection, on any node
#[utoipa::path(
    post,
    path = "/connections/{id}/events/{event}",
    operation_id = "notifyConnection",
    tag = "connections",
    params(("id" = String, Path, description = "The connection's id"), ("event" = String, Path, description = "The event's name")),
    request_body(content = Payload, content_type = "application/octet-stream", description = "The event's payload: any bytes"),
    responses((status = NO_CONTENT, description = "The event is queued on the connection's node"), Always, Asking, Finding, Sending)
)]
pub(super) async fn notify(
    State(node): State<Node>,
    InPath((id, event)): InPath<(String, String)>,
    Payload(payload): Payload,
) -> Result<StatusCode, Failure> {
    node.connection(id.parse::<ConnectionId>()?).notify(&event, payload).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disconnect a connection, on any node
#[utoipa::path(
    delete,
    path = "/connections/{id}",
    operation_id = "disconnectConnection",
    tag = "connections",
    params(("id" = String, Path, description = "The connection's id"), CloseParams),
    responses((status = NO_CONTENT, description = "The connection is closing"), Always, Asking, Finding)
)]
pub(super) async fn disconnect(
    State(node): State<Node>,
    InPath(id): InPath<String>,
    InQuery(close): InQuery<CloseParams>,
) -> Result<StatusCode, Failure> {
    node.connection(id.parse::<ConnectionId>()?).close(close.code(), &close.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

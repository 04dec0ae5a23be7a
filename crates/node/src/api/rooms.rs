//! `/v1/rooms`: publishing to rooms, and who is in them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use roomcast::{CallError, ConnectionId, Node, RoomsQuery};
use serde::Deserialize;

use crate::api::Failure;
use crate::api::body::{MembersBody, PositionBody, RoomsBody};
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{InPath, InQuery, Payload};

/// Rooms on a page, if nothing is said, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Publish an event to all members of a room, on all nodes
#[utoipa::path(
    post,
    path = "/rooms/{room}/events/{event}",
    operation_id = "publish",
    tag = "rooms",
    params(("room" = String, Path, description = "The room's name"), ("event" = String, Path, description = "The event's name")),
    request_body(content = Payload, content_type = "application/octet-stream", description = "The event's payload: any bytes"),
    responses((status = OK, description = "The broker accepted the event, at this position", body = PositionBody), Always, Asking, Sending)
)]
pub(super) async fn publish(
    State(node): State<Node>,
    InPath((room, event)): InPath<(String, String)>,
    Payload(payload): Payload,
) -> Result<Json<PositionBody>, Failure> {
    Ok(Json(node.room(&room).publish(&event, payload).await?.into()))
}

/// Which rooms to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only rooms whose names begin with this text
    prefix: String,
    /// Only rooms that sort after this name: the `next` of the previous page
    after: String,
    /// Number of rooms on a page
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl Default for ListParams {
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), limit: DEFAULT_PAGE }
    }
}

/// List the rooms that have members on any node
#[utoipa::path(
    get,
    path = "/rooms",
    operation_id = "listRooms",
    tag = "rooms",
    params(ListParams),
    responses((status = OK, description = "A page of rooms", body = RoomsBody), Always, Asking)
)]
pub(super) async fn list(
    State(node): State<Node>,
    InQuery(ListParams { prefix, after, limit }): InQuery<ListParams>,
) -> Result<Json<RoomsBody>, Failure> {
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(CallError::invalid_argument(format!("limit must be from 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let mut query = RoomsQuery::default();
    (query.prefix, query.after, query.limit) = (prefix, after, limit);
    Ok(Json(node.rooms(query).await?.into()))
}

/// List the members of a room, on all nodes
#[utoipa::path(
    get,
    path = "/rooms/{room}",
    operation_id = "listMembers",
    tag = "rooms",
    params(("room" = String, Path, description = "The room's name")),
    responses((status = OK, description = "The members of the room; the list is empty if the room has none", body = MembersBody), Always, Asking)
)]
pub(super) async fn members(
    State(node): State<Node>,
    InPath(room): InPath<String>,
) -> Result<Json<MembersBody>, Failure> {
    Ok(Json((&*node.room(&room).members().await?).into()))
}

/// Add a connection to a room
#[utoipa::path(
    put,
    path = "/rooms/{room}/members/{connection}",
    operation_id = "join",
    tag = "rooms",
    params(("room" = String, Path, description = "The room's name"), ("connection" = String, Path, description = "The connection's id")),
    responses(
        (status = NO_CONTENT, description = "The connection is a member, and receives every event that is published later"),
        Always, Asking, Finding
    )
)]
pub(super) async fn join(
    State(node): State<Node>,
    InPath((room, connection)): InPath<(String, String)>,
) -> Result<StatusCode, Failure> {
    node.connection(connection.parse::<ConnectionId>()?).join(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a connection from a room
#[utoipa::path(
    delete,
    path = "/rooms/{room}/members/{connection}",
    operation_id = "leave",
    tag = "rooms",
    params(("room" = String, Path, description = "The room's name"), ("connection" = String, Path, description = "The connection's id")),
    responses(
        (status = NO_CONTENT, description = "The connection is not a member, and receives no further events of the room"),
        Always, Asking, Finding
    )
)]
pub(super) async fn leave(
    State(node): State<Node>,
    InPath((room, connection)): InPath<(String, String)>,
) -> Result<StatusCode, Failure> {
    node.connection(connection.parse::<ConnectionId>()?).leave(&room).await?;
    Ok(StatusCode::NO_CONTENT)
}

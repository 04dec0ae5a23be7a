//! `/v1/rooms`: publishing to rooms, and who is in them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use roomcast::{CallError, ConnectionId, Node, RoomsQuery};
use serde::Deserialize;

use crate::api::Failure;
use crate::api::body::{MembersBody, RoomsBody};
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{InPath, InQuery, Payload};

/// Rooms on a page, if nothing is said, and at most.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Send an event to all members of a room, on all nodes
#[utoipa::path(
    post,
    path = "/rooms/{room}/events/{event}",
    operation_id = "publish",
    tag = "rooms",
    params(("room" = String, Path, description = "The room"), ("event" = String, Path, description = "The event's name")),
    request_body(content = Payload, content_type = "application/octet-stream", description = "The payload, as it is"),
    responses((status = NO_CONTENT, description = "The broker has taken it"), Always, Asking, Sending)
)]
pub(super) async fn publish(
    State(node): State<Node>,
    InPath((room, event)): InPath<(String, String)>,
    Payload(payload): Payload,
) -> Result<StatusCode, Failure> {
    node.room(&room).publish(&event, payload).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which rooms to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// With what the names begin
    prefix: String,
    /// Only names after this one, in the order of their bytes: the `next` of the page before
    after: String,
    /// How many at most
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: usize,
}

impl Default for ListParams {
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), limit: DEFAULT_PAGE }
    }
}

/// The rooms that have members on any node, with their numbers of members
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
        return Err(CallError::invalid_argument(format!("limit is 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let mut query = RoomsQuery::default();
    (query.prefix, query.after, query.limit) = (prefix, after, limit);
    Ok(Json(node.rooms(query).await?.into()))
}

/// A room's members, on all nodes
#[utoipa::path(
    get,
    path = "/rooms/{room}",
    operation_id = "listMembers",
    tag = "rooms",
    params(("room" = String, Path, description = "The room")),
    responses((status = OK, description = "Its members; none if nobody is there", body = MembersBody), Always, Asking)
)]
pub(super) async fn members(
    State(node): State<Node>,
    InPath(room): InPath<String>,
) -> Result<Json<MembersBody>, Failure> {
    Ok(Json((&*node.room(&room).members().await?).into()))
}

/// Make a connection a member of a room
#[utoipa::path(
    put,
    path = "/rooms/{room}/members/{connection}",
    operation_id = "join",
    tag = "rooms",
    params(("room" = String, Path, description = "The room"), ("connection" = String, Path, description = "The connection's id")),
    responses(
        (status = NO_CONTENT, description = "It is a member: every event that is published from now on reaches it"),
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

/// Take a connection out of a room
#[utoipa::path(
    delete,
    path = "/rooms/{room}/members/{connection}",
    operation_id = "leave",
    tag = "rooms",
    params(("room" = String, Path, description = "The room"), ("connection" = String, Path, description = "The connection's id")),
    responses(
        (status = NO_CONTENT, description = "It is no member, and gets no event of the room from now on"),
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

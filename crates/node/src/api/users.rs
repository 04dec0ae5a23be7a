//! `/v1/users`: all connections of a user.

use axum::Json;
use axum::extract::State;
use roomcast::{Node, Rule};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::Failure;
use crate::api::body::ReachedBody;
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{CloseParams, InBody, InPath, InQuery, Payload};

/// Send an event to all connections of a user, on all nodes
#[utoipa::path(
    post,
    path = "/users/{user}/events/{event}",
    operation_id = "notifyUser",
    tag = "users",
    params(("user" = String, Path, description = "The user's id"), ("event" = String, Path, description = "The event's name")),
    request_body(content = Payload, content_type = "application/octet-stream", description = "The event's payload: any bytes"),
    responses(
        (status = OK, description = "The number of connections that the event is queued for", body = ReachedBody),
        Always, Asking, Finding, Sending
    )
)]
pub(super) async fn notify(
    State(node): State<Node>,
    InPath((user, event)): InPath<(String, String)>,
    Payload(payload): Payload,
) -> Result<Json<ReachedBody>, Failure> {
    Ok(Json(node.user(&user).notify(&event, payload).await?.into()))
}

/// The rights to add.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AddedGrants)]
pub(super) struct GrantsBody {
    /// Rules such as `{"rooms": ["team:42:*"], "do": ["join", "publish"]}`; an empty list removes what was added
    #[schema(value_type = Vec<Object>)]
    allow: Vec<Rule>,
}

/// Replace the rights that were added to those of a user's tokens and roles
///
/// This applies to the open connections of the user, on all nodes, until they end. A connection leaves the rooms
/// that it has lost the right to be in. In the rules, `{claim.PATH}` has no value.
#[utoipa::path(
    patch,
    path = "/users/{user}/grants",
    operation_id = "setGrants",
    tag = "users",
    params(("user" = String, Path, description = "The user's id")),
    request_body(content = GrantsBody, description = "The rights to add"),
    responses(
        (status = OK, description = "The number of connections that have the new rights", body = ReachedBody),
        Always, Asking, Finding, Sending
    )
)]
pub(super) async fn set_grants(
    State(node): State<Node>,
    InPath(user): InPath<String>,
    InBody(GrantsBody { allow }): InBody<GrantsBody>,
) -> Result<Json<ReachedBody>, Failure> {
    Ok(Json(node.user(&user).set_grants(allow).await?.into()))
}

/// Disconnect all connections of a user, on all nodes
#[utoipa::path(
    delete,
    path = "/users/{user}",
    operation_id = "disconnectUser",
    tag = "users",
    params(("user" = String, Path, description = "The user's id"), CloseParams),
    responses(
        (status = OK, description = "The number of connections that are closing", body = ReachedBody),
        Always, Asking, Finding
    )
)]
pub(super) async fn disconnect(
    State(node): State<Node>,
    InPath(user): InPath<String>,
    InQuery(close): InQuery<CloseParams>,
) -> Result<Json<ReachedBody>, Failure> {
    Ok(Json(node.user(&user).disconnect(close.code(), &close.reason).await?.into()))
}

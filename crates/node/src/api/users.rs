//! `/v1/users`: all connections of a user.

use axum::Json;
use axum::extract::State;
use roomcast::Node;

use crate::api::Failure;
use crate::api::body::ReachedBody;
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{CloseParams, InPath, InQuery, Payload};

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

//! `/v1/connections`: one connection.

use axum::extract::State;
use axum::http::StatusCode;
use roomcast::{ConnectionId, Node};

use crate::api::Failure;
use crate::api::failure::{Always, Asking, Finding, Sending};
use crate::api::request::{CloseParams, InPath, InQuery, Payload};

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

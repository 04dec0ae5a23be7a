//! `/v1/explain`: why a client may or may not do something.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use roomcast::{CallError, Code, Node, Right};
use roomcast_auth::{Explanation, JwtAuthorizer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Failure;
use crate::api::failure::{Always, Sending};
use crate::api::request::InBody;
use crate::permission::Permission;

/// The authorizer of the node, if it authenticates clients.
#[derive(Debug, Clone)]
pub(super) struct Decider(pub(super) Option<JwtAuthorizer>);

/// A right on one room or method
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Question)]
pub(super) struct QuestionBody {
    /// The client's token; without it, the question is about an anonymous client
    #[serde(default)]
    token: Option<String>,
    /// The name of the room
    #[serde(default)]
    #[schema(example = "team:red:chat")]
    room: Option<String>,
    /// The name of the method, instead of a room
    #[serde(default)]
    call: Option<String>,
    /// The right: `join` (the default), `publish`, `members` or `history` on a room; `call` (the default), `attach` or `cancel` on a method
    #[serde(default, rename = "do")]
    #[schema(value_type = Option<String>)]
    right: Option<Right>,
}

/// Why a client may or may not do something.
#[derive(Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplanationBody {
    /// Whether the token was revoked. A client with a revoked token cannot connect, whatever its rights are
    revoked: bool,
    /// The decision, the rules that were considered, and the parts of the token that grant nothing
    #[schema(value_type = Object)]
    explanation: Explanation,
}

/// Explain why a client may or may not do something
///
/// The response lists every rule of the client, and the one that decided. It does not consider the page's `Origin`,
/// `members_only`, and rights that were added to open connections.
#[utoipa::path(
    post,
    path = "/explain",
    operation_id = "explain",
    tag = "access",
    request_body(content = QuestionBody, description = "The client, the room or the method, and the right"),
    responses(
        (status = OK, description = "The explanation", body = ExplanationBody),
        (status = BAD_REQUEST, description = "A name, an id or a parameter is invalid", body = super::failure::ErrorBody),
        (status = NOT_IMPLEMENTED, description = "The node does not authenticate clients", body = super::failure::ErrorBody),
        Always, Sending
    )
)]
pub(super) async fn explain(
    State(node): State<Node>,
    Extension(Decider(authorizer)): Extension<Decider>,
    InBody(QuestionBody { token, room, call, right }): InBody<QuestionBody>,
) -> Result<Json<ExplanationBody>, Failure> {
    let Some(authorizer) = authorizer else {
        let message = "the node does not authenticate clients, so every client may do everything that the node offers";
        return Err(Failure::new(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, message));
    };
    let asked = Permission::of("", room.as_deref(), call.as_deref(), right).map_err(CallError::invalid_argument)?;
    let Some(Permission { right, name }) = asked else {
        return Err(CallError::invalid_argument("name a room or a call".to_owned()).into());
    };
    let explanation = authorizer.explain(token.as_deref(), right, &name).await;
    let revoked = match &token {
        Some(token) => authorizer
            .verify(token)
            .await
            .is_ok_and(|token| node.is_revoked(&token.user, &token.credential(Duration::ZERO))),
        None => false,
    };
    Ok(Json(ExplanationBody { revoked, explanation }))
}

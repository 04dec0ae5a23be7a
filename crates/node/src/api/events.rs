//! `/v1/events`: lifecycle events that are no longer delivered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use roomcast::{BrokerError, Code, EventStore, LifecycleEvent, Node};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::Failure;
use crate::api::failure::{Always, Asking};
use crate::api::request::InQuery;

/// The most events in a response.
const MAX_LISTED: usize = 1000;

/// How many events to list.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadParams {
    /// The most events to list, 1 to 1,000
    #[param(default = 100)]
    limit: usize,
}

impl Default for DeadParams {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// Dead lifecycle events.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadEvents)]
pub(super) struct DeadEventsBody {
    /// The events as CloudEvents 1.0, the oldest first
    #[schema(value_type = Vec<Object>)]
    events: Vec<Value>,
}

/// How many events wait for delivery again.
#[derive(Serialize, ToSchema)]
#[schema(as = Replayed)]
pub(super) struct ReplayedBody {
    /// The number of events
    replayed: usize,
}

/// List lifecycle events that are no longer delivered
///
/// An event is dead after it has waited for 24 h, or at once if `hooks.events_max` events were waiting. The cluster keeps
/// the newest 10,000 dead events.
#[utoipa::path(
    get,
    path = "/events/dead",
    operation_id = "listDeadEvents",
    tag = "events",
    params(DeadParams),
    responses(
        (status = OK, description = "The oldest dead events", body = DeadEventsBody),
        (status = NOT_FOUND, description = "The node reports no lifecycle events", body = crate::api::failure::ErrorBody),
        Always, Asking
    )
)]
pub(super) async fn dead(
    State(node): State<Node>,
    InQuery(params): InQuery<DeadParams>,
) -> Result<Json<DeadEventsBody>, Failure> {
    if !(1..=MAX_LISTED).contains(&params.limit) {
        let message = format!("limit is {}; it must be 1 to {MAX_LISTED}", params.limit);
        return Err(Failure::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message));
    }
    let events = store(&node)?.dead(params.limit).await.map_err(unavailable)?;
    Ok(Json(DeadEventsBody { events: events.iter().filter_map(LifecycleEvent::to_cloud_event).collect() }))
}

/// Deliver dead lifecycle events again
///
/// They wait behind all other events, so they arrive out of order.
#[utoipa::path(
    post,
    path = "/events/dead/replay",
    operation_id = "replayDeadEvents",
    tag = "events",
    responses(
        (status = OK, description = "The events wait for delivery", body = ReplayedBody),
        (status = NOT_FOUND, description = "The node reports no lifecycle events", body = crate::api::failure::ErrorBody),
        Always, Asking
    )
)]
pub(super) async fn replay(State(node): State<Node>) -> Result<Json<ReplayedBody>, Failure> {
    Ok(Json(ReplayedBody { replayed: store(&node)?.replay().await.map_err(unavailable)? }))
}

fn store(node: &Node) -> Result<&Arc<dyn EventStore>, Failure> {
    let none = || {
        let message = "this node reports no lifecycle events; set hooks.events";
        Failure::new(StatusCode::NOT_FOUND, Code::NotFound, message)
    };
    node.event_store().ok_or_else(none)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unavailable(error: BrokerError) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, error.to_string())
}

//! `/v1/nodes`: the live nodes.

use axum::Json;
use axum::extract::State;
use roomcast::Node;

use crate::api::body::NodesBody;
use crate::api::failure::Always;

/// List the live nodes of the cluster
#[utoipa::path(
    get,
    path = "/nodes",
    operation_id = "listNodes",
    tag = "cluster",
    responses((status = OK, description = "The nodes, including the one that responds", body = NodesBody), Always)
)]
pub(super) async fn list(State(node): State<Node>) -> Json<NodesBody> {
    Json(node.nodes().into())
}

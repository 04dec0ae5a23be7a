//! The HTTP API `/v1` of the internal listener: what a backend in any language requests of the cluster.
//!
//! Its description at `/v1/openapi.json` is made from the handlers, so the two can't differ.

mod body;
mod browser;
mod connection_body;
mod connections;
mod events;
mod explain;
mod failure;
mod guard;
mod keys;
mod nodes;
mod request;
mod requests;
mod revocations;
mod rooms;
mod scope;
mod users;

use std::sync::LazyLock;

use axum::Extension;
use axum::extract::OriginalUri;
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use roomcast::{Code, Node};
use roomcast_auth::JwtAuthorizer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use explain::Decider;
pub(crate) use failure::Failure;
pub(crate) use guard::{ApiRules, Guard};
pub(crate) use keys::{ApiKeys, Keyring, MIN_KEY_LENGTH};
pub(crate) use requests::RequestMetrics;
pub(crate) use scope::Scope;

/// Where the API is.
pub(crate) const PREFIX: &str = "/v1";

/// The API of a node, to be nested at [`PREFIX`].
pub(crate) fn routes(
    node: Node,
    guard: Guard,
    requests: RequestMetrics,
    authorizer: Option<JwtAuthorizer>,
) -> axum::Router {
    let (routes, _) = described_routes().split_for_parts();
    routes
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(guard, guard::check))
        .layer(Extension(Decider(authorizer)))
        .layer(from_fn_with_state(requests, requests::observe))
        .with_state(node)
}

/// All operations, with the scope that each one requires of a request's key. Operations with one path may have different
/// scopes, in rows of their own.
fn described_routes() -> OpenApiRouter<Node> {
    let operations = [
        (Scope::Publish, routes!(rooms::publish)),
        (Scope::Read, routes!(rooms::list)),
        (Scope::Read, routes!(rooms::members)),
        (Scope::Admin, routes!(rooms::join, rooms::leave)),
        (Scope::Publish, routes!(users::notify)),
        (Scope::Admin, routes!(users::disconnect)),
        (Scope::Admin, routes!(users::set_grants)),
        (Scope::Admin, routes!(revocations::revoke)),
        (Scope::Read, routes!(revocations::list)),
        (Scope::Read, routes!(explain::explain)),
        (Scope::Read, routes!(connections::list)),
        (Scope::Publish, routes!(connections::notify)),
        (Scope::Read, routes!(connections::describe)),
        (Scope::Admin, routes!(connections::disconnect)),
        (Scope::Read, routes!(events::dead)),
        (Scope::Admin, routes!(events::replay)),
        (Scope::Read, routes!(nodes::list)),
        (Scope::Read, routes!(description)),
    ];
    operations
        .into_iter()
        .fold(OpenApiRouter::new(), |router, (scope, routes)| router.routes(scope::require(scope, routes)))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Roomcast",
        description = "The API that backends use to reach the clients of a Roomcast cluster. Any node answers for the whole cluster. \
                       Do not expose it to the internet."
    ),
    tags(
        (name = "rooms", description = "Publish to rooms, and manage their members"),
        (name = "users", description = "All connections of a user"),
        (name = "connections", description = "Connections of any node"),
        (name = "access", description = "Why clients may do something, and tokens that are no longer accepted"),
        (name = "events", description = "Lifecycle events that are no longer delivered"),
        (name = "cluster", description = "The nodes, and this description"),
    ),
    components(schemas(failure::ErrorBody)),
    security((), ("api_key" = [])),
    modifiers(&Bearer),
)]
struct Description;

/// The name of the way in which requests send a key.
const SECURITY_SCHEME: &str = "api_key";

/// How requests send a key.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "A key of the node with the scope that the operation requires. A node without keys accepts requests \
                 without a key.",
        ));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme(SECURITY_SCHEME, SecurityScheme::Http(scheme.build()));
    }
}

static DESCRIPTION: LazyLock<Result<String, String>> = LazyLock::new(|| {
    let described = Description::openapi().nest(PREFIX, described_routes().into_openapi());
    described.to_json().map_err(|error| error.to_string())
});

/// Describe this API, as OpenAPI 3.1
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "describe",
    tag = "cluster",
    responses((status = OK, description = "This document", body = Object), failure::Always)
)]
async fn description() -> Result<impl IntoResponse, Failure> {
    match &*DESCRIPTION {
        Ok(json) => Ok(([(header::CONTENT_TYPE, "application/json")], json.as_str())),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, error)),
    }
}

/// Also for paths outside the API.
pub(crate) async fn not_found(OriginalUri(uri): OriginalUri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, Code::NotFound, format!("no resource at {}", uri.path()))
}

/// Also for paths outside the API.
pub(crate) async fn not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Failure {
    let message =
        format!("{} does not support {method}; the Allow header lists the methods that it supports", uri.path());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, message)
}

//! What API keys permit. The list of operations in `api` gives each one its scope.

use std::fmt::{self, Display};

use axum::Extension;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use prometheus::IntCounter;
use roomcast::{Code, Node};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::UtoipaMethodRouter;

use crate::api::{Failure, SECURITY_SCHEME};

/// What an operation requires of the request's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Operations that change nothing.
    Read,
    /// Publishing to rooms, and notifying users and connections.
    Publish,
    /// All operations.
    Admin,
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Publish => "publish",
            Self::Admin => "admin",
        })
    }
}

/// The scopes of a key.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scopes {
    read: bool,
    publish: bool,
    admin: bool,
}

impl Scopes {
    /// Those of a request to a node without keys.
    pub(super) const ALL: Self = Self { read: true, publish: true, admin: true };

    pub(super) fn with(mut self, scope: Scope) -> Self {
        match scope {
            Scope::Read => self.read = true,
            Scope::Publish => self.publish = true,
            Scope::Admin => self = Self::ALL,
        }
        self
    }

    fn permit(self, scope: Scope) -> bool {
        match scope {
            Scope::Read => self.read,
            Scope::Publish => self.publish,
            Scope::Admin => self.admin,
        }
    }
}

/// The mark of a request that the guard let pass.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) scopes: Scopes,
    /// Requests whose key lacks the scope.
    pub(super) rejections: IntCounter,
}

/// Makes operations require a scope, and describes this. A request that did not pass the guard fails with status 500.
pub(super) fn require(
    scope: Scope,
    (schemas, mut paths, router): UtoipaMethodRouter<Node>,
) -> UtoipaMethodRouter<Node> {
    for operation in paths.paths.values_mut().flat_map(operations) {
        let with_key = SecurityRequirement::new(SECURITY_SCHEME, [scope.to_string()]);
        operation.security = Some(vec![SecurityRequirement::default(), with_key]);
    }
    let check = move |Extension(admitted): Extension<Admitted>, request: Request, next: Next| async move {
        if admitted.scopes.permit(scope) {
            return next.run(request).await;
        }
        admitted.rejections.inc();
        let message = format!("the key does not have the scope {scope}; use a key that has this scope");
        Failure::new(StatusCode::FORBIDDEN, Code::PermissionDenied, message).into_response()
    };
    (schemas, paths, router.route_layer(from_fn(check)))
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, options, head, patch, trace, query, .. } = path;
    [get, put, post, delete, options, head, patch, trace, query].into_iter().flatten()
}

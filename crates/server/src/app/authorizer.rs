//! How an application decides who may connect and what each client may do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::header::{self, HeaderValue};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use roomcast_core::{BoxFuture, Holder, Hub, Identity, NotAccepted, RefreshError, SharedGrants};
use tokio::time::Instant;

use crate::app::handling::Handling;
use crate::app::socket::Socket;
use crate::error::{CallError, Code};

/// How long an authorizer may take to decide.
const AUTHORIZE_TIMEOUT: Duration = Duration::from_secs(5);

/// The prefix of the built-in methods for identities.
pub(crate) const PREFIX: &str = "auth/";

/// The built-in method that replaces a connection's identity.
pub(crate) const REFRESH: &str = "auth/refresh";

/// Decides who may connect, and what each client may do. Set it with
/// [`Router::authorizer`](crate::Router::authorizer), which describes what the grants apply to.
///
/// ```
/// use axum::http::header::AUTHORIZATION;
/// use axum::http::request::Parts;
/// use roomcast::{Authorizer, CallError, Code, Grants, Identity, Node, Options, Router, Rule,
/// Subject, UserId};
/// use serde_json::{Value, json};
///
/// struct Passwords {
///     rules: Vec<Rule>,
/// }
///
/// impl Authorizer for Passwords {
///     async fn authorize(&self, request: &Parts) -> Result<Identity, CallError> {
///         let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
///         // Look the user up in your database here.
///         let user = match header {
///             Some("Basic YW5uOnNlY3JldA==") => UserId::new("ann")?,
///             _ => return Err(CallError::new(Code::Unauthenticated, "log in first")),
///         };
///         let subject = Subject { user: Some(&user), claims: &Value::Null };
///         Ok(Identity::new(Grants::resolve(&self.rules, subject)).with_user(user))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), serde_json::Error> {
/// let rules = serde_json::from_value(json!([
///     { "rooms": ["lobby", "user:{user}"], "do": ["join", "publish"] },
///     { "calls": ["chat.*"], "do": ["call"] },
/// ]))?;
/// let router = Router::new(Node::embedded(Options::default())).authorizer(Passwords { rules });
/// # let _ = router; Ok(()) }
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// Decides whether the client that sent this request may connect, and what it may do.
    ///
    /// If the result is an error, no connection is opened. The error becomes the response, with the
    /// HTTP status of its code, so the client learns its message.
    ///
    /// # Cancel safety
    /// The future is dropped if the client disconnects, or after 5 s. The client then gets status
    /// 503.
    fn authorize(&self, request: &Parts) -> impl Future<Output = Result<Identity, CallError>> + Send;

    /// Decides about a new credential, which the client has sent on its open connection as the
    /// payload of a call of `auth/refresh`.
    ///
    /// The returned identity replaces the current one. Its credential must be for the same user and
    /// subject, and must not be older. If the result is an error, the client gets this error, and
    /// the connection keeps its current identity.
    ///
    /// By default, clients cannot refresh their credentials.
    ///
    /// # Cancel safety
    /// The future is dropped if the client cancels the call or disconnects, or after 5 s.
    fn refresh(
        &self,
        _current: &Identity,
        _credential: &[u8],
    ) -> impl Future<Output = Result<Identity, CallError>> + Send {
        async { Err(CallError::new(Code::Unimplemented, "this server does not refresh credentials")) }
    }
}

/// An [`Authorizer`] of any type.
trait AnyAuthorizer: Send + Sync {
    fn authorize<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Identity, CallError>>;

    fn refresh<'a>(&'a self, current: &'a Identity, credential: &'a [u8])
    -> BoxFuture<'a, Result<Identity, CallError>>;
}

impl<T: Authorizer> AnyAuthorizer for T {
    fn authorize<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Identity, CallError>> {
        Box::pin(Authorizer::authorize(self, request))
    }

    fn refresh<'a>(
        &'a self,
        current: &'a Identity,
        credential: &'a [u8],
    ) -> BoxFuture<'a, Result<Identity, CallError>> {
        Box::pin(Authorizer::refresh(self, current, credential))
    }
}

/// A router's authorizer.
#[derive(Clone)]
pub(crate) struct SharedAuthorizer {
    authorizer: Arc<dyn AnyAuthorizer>,
    grants: Arc<SharedGrants>,
}

impl fmt::Debug for SharedAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedAuthorizer")
    }
}

impl SharedAuthorizer {
    pub(crate) fn new(authorizer: impl Authorizer) -> Self {
        Self { authorizer: Arc::new(authorizer), grants: Arc::default() }
    }

    /// Returns the identity for a new connection.
    pub(crate) async fn authorize(&self, request: &Parts, hub: &Hub) -> Result<Arc<Identity>, CallError> {
        let decide = async {
            let identity = self.authorizer.authorize(request).await?;
            self.accept(hub, identity).await
        };
        in_time(decide).await.map(Arc::new)
    }

    /// Checks that an identity is not revoked, and shares its grants. The client learns only that
    /// its credential is rejected.
    async fn accept(&self, hub: &Hub, mut identity: Identity) -> Result<Identity, CallError> {
        let holder = Holder {
            user: identity.user.as_ref(),
            credential: identity.credential.as_ref(),
            connected_at: SystemTime::now(),
        };
        hub.cluster().revoker().check(holder).await.map_err(|error| match error {
            NotAccepted::CutOff => CallError::new(Code::Unavailable, error.to_string()),
            _ => {
                tracing::debug!(user = holder.user.map(|user| &**user), "rejected a revoked credential");
                CallError::new(Code::Unauthenticated, "the credential was rejected")
            }
        })?;
        identity.grants = self.grants.share(identity.grants);
        Ok(identity)
    }

    /// Replaces a connection's identity, and removes the connection from the rooms that the new
    /// identity does not permit.
    pub(crate) fn refresh(&self, socket: Socket, credential: Bytes) -> Handling {
        let authorizer = self.clone();
        Box::pin(async move {
            let refused = |error: RefreshError| CallError::new(Code::Unauthenticated, error.to_string());
            let access = socket.context.access().ok_or_else(|| refused(RefreshError::NoCredential))?;
            let current = access.identity();
            if current.credential.is_none() {
                return Err(refused(RefreshError::NoCredential));
            }
            let Some(_refreshing) = access.begin_refresh(Instant::now().into_std()) else {
                let message = "too many refreshes; try again later";
                return Err(CallError::new(Code::ResourceExhausted, message));
            };
            let (hub, connection) = (socket.node.hub(), &socket.context.connection);
            let decide = async {
                let next = authorizer.authorizer.refresh(&current, &credential).await?;
                authorizer.accept(hub, next).await
            };
            let next = Arc::new(in_time(decide).await?);
            let user = next.user.clone();
            let change = access.refresh(next, Instant::now().into_std()).map_err(refused)?;
            if let Some(user) = user {
                connection.set_user(user);
            }
            hub.local().apply(connection, &change);
            // A revocation may have arrived after the check, when the connection still had its
            // previous identity.
            hub.cluster().revoker().enforce_on(connection);
            Ok(Bytes::new())
        })
    }
}

async fn in_time(deciding: impl Future<Output = Result<Identity, CallError>>) -> Result<Identity, CallError> {
    let late = || CallError::new(Code::Unavailable, "the authorization took too long; try again later");
    tokio::time::timeout(AUTHORIZE_TIMEOUT, deciding).await.map_err(|_| late())?
}

/// Returns the response to a request that the authorizer has rejected.
pub(crate) fn rejection(error: CallError) -> Response {
    let is_unauthenticated = error.code == Code::Unauthenticated;
    let mut response = error.into_response();
    if is_unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

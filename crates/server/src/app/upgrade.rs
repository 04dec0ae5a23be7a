//! The upgrade of a request to a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use roomcast_core::UserId;
use roomcast_protocol::SUBPROTOCOL;

use crate::app::authorizer;
use crate::app::lifecycle;
use crate::app::opening::{NewConnection, NotAdmitted};
use crate::app::router::Router;
use crate::connection::handshake::{Handshake, UpgradeRejection, tokens};
use crate::options::Options;
use crate::tutorial::inbox::Inbox;
use crate::tutorial::socket_io::SocketIo;
use crate::tutorial::standalone;

/// The minimum number of events that can wait for the tutorial's loop.
const MIN_INBOX: usize = 1024;

/// Extractor that upgrades a request to a `websocket.io-rpc-v0.1` connection.
///
/// Pass it to a [`Router`] with [`route`](Self::route), or to a loop of your own with
/// [`on_upgrade`](Self::on_upgrade). It rejects requests that are not a valid handshake by RFC 6455
/// and the protocol. To count these requests in the node's metrics, extract a
/// `Result<SocketIoUpgrade, UpgradeRejection>`, and pass the error to [`Router::reject`].
///
/// ```
/// use axum::http::HeaderMap;
/// use axum::response::{IntoResponse, Response};
/// use roomcast::{CallError, Code, Router, SocketIoUpgrade, UserId};
///
/// async fn upgrade(upgrade: SocketIoUpgrade, headers: HeaderMap, router: Router) -> Response {
///     match headers.get("x-user").and_then(|user| UserId::new(user.to_str().ok()?).ok()) {
///         Some(user) => upgrade.user(user).route(&router).await,
///         None => CallError::new(Code::Unauthenticated, "log in first").into_response(),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct SocketIoUpgrade {
    handshake: Handshake,
    connection: NewConnection,
    options: Option<Arc<Options>>,
}

impl<S: Sync> FromRequestParts<S> for SocketIoUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UpgradeRejection> {
        let handshake = Handshake::from_parts(parts)?;
        if !tokens(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == SUBPROTOCOL) {
            return Err(UpgradeRejection::Subprotocol);
        }
        Ok(Self { handshake, connection: NewConnection::new(parts.clone()), options: None })
    }
}

impl<S> Router<S> {
    /// Counts a request that is not upgraded in the metrics of the node, and returns the response to
    /// it. [`SocketIoUpgrade::route`](crate::SocketIoUpgrade::route) does this for the requests that
    /// it refuses. The extractor cannot, because it knows no node.
    ///
    /// ```
    /// use axum::response::Response;
    /// use roomcast::{Router, SocketIoUpgrade, UpgradeRejection};
    ///
    /// async fn open(upgrade: Result<SocketIoUpgrade, UpgradeRejection>, router: Router) -> Response {
    ///     match upgrade {
    ///         Ok(upgrade) => upgrade.route(&router).await,
    ///         Err(rejection) => router.reject(rejection),
    ///     }
    /// }
    /// ```
    pub fn reject(&self, rejection: UpgradeRejection) -> Response {
        self.node().metrics().on_upgrade_refused(rejection.reason());
        rejection.into_response()
    }
}

impl SocketIoUpgrade {
    /// Sets the connection's user. Your application must have authenticated the user, for example
    /// by a cookie or a token.
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.connection.user = Some(user);
        self
    }

    /// Attaches data of your own to the connection, one value of each type. Examples are a session,
    /// a tenant, or the value of a header. Handlers read it with the extractor
    /// [`Extension<T>`](https://docs.rs/axum/0.8/axum/struct.Extension.html) or with
    /// [`Socket::get`](crate::Socket::get).
    ///
    /// ```
    /// use axum::http::HeaderMap;
    /// use axum::response::Response;
    /// use roomcast::{Router, SocketIoUpgrade};
    ///
    /// #[derive(Clone)]
    /// struct Tenant(String);
    ///
    /// async fn upgrade(upgrade: SocketIoUpgrade, headers: HeaderMap, router: Router) -> Response {
    ///     let tenant = headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok()).unwrap_or("none");
    ///     upgrade.with(Tenant(tenant.to_owned())).route(&router).await
    /// }
    ///
    /// async fn tenant(axum::Extension(Tenant(tenant)): axum::Extension<Tenant>) -> String {
    ///     tenant
    /// }
    /// # fn add(router: Router) -> Router { router.call("tenant", tenant) }
    /// ```
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, data: T) -> Self {
        self.connection.extensions.insert(data);
        self
    }

    /// Keeps the request's headers, URI and extensions for all handlers, until the connection ends.
    /// This takes memory on each connection, typically 1 to 2 kB. Connect handlers always have the
    /// request.
    #[must_use]
    pub fn keep_request(mut self) -> Self {
        self.connection.keeps_request = true;
        self
    }

    /// Returns the client's address, if the server provides it. To provide it, serve your
    /// application with axum's `into_make_service_with_connect_info::<SocketAddr>()`.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.peer_addr()
    }

    /// Sets limits and timeouts for [`on_upgrade`](Self::on_upgrade). They do not apply to
    /// [`route`](Self::route): a router's connections have the options of its node.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = Some(Arc::new(options));
        self
    }

    /// Serves the connection with a router's handlers, and returns the response to the request. If
    /// the router has an [authorizer](Router::authorizer), the authorizer decides first, which takes
    /// at most 5 s.
    ///
    /// # Cancel safety
    /// If the future is dropped, no connection is opened.
    pub async fn route<S>(self, router: &Router<S>) -> Response {
        let opening = match self.connection.admit(router.routes()).await {
            Ok(opening) => opening,
            Err(NotAdmitted::Limit(rejection)) => return router.reject(rejection),
            Err(NotAdmitted::Authorizer(error)) => return authorizer::rejection(error),
        };
        let (response, upgraded) = self.handshake.accept(Some(SUBPROTOCOL));
        tokio::spawn(lifecycle::run(Box::pin(lifecycle::open(opening, upgraded))));
        response
    }

    /// Serves the connection with a loop of your own, as in [the tutorial](crate#the-tutorial), and returns the
    /// response to the request.
    ///
    /// Up to `buffer` calls and notifications, and at least 1,024, wait for the loop to receive
    /// them. Beyond that, calls fail with `RESOURCE_EXHAUSTED`, and a notification closes the
    /// connection with 1013.
    ///
    /// Such a connection belongs to no [`Node`](crate::Node). It has no rooms, and metrics do not
    /// count it or its calls. The limits `max_connections`, `inbound_memory` and `outbound_memory`
    /// of [`Options`] do not apply, and a drain does not close it. If you need any of these, use a
    /// [`Router`].
    pub fn on_upgrade<F, Fut>(self, buffer: usize, handler: F) -> Response
    where
        F: FnOnce(SocketIo) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let peer_addr = self.peer_addr();
        let (response, upgraded) = self.handshake.accept(Some(SUBPROTOCOL));
        let context = standalone::context(self.options, peer_addr, self.connection.user);
        let inbox = Arc::new(Inbox::new(buffer.max(MIN_INBOX)));
        let socket = SocketIo::new(Arc::clone(&context), Arc::clone(&inbox));
        tokio::spawn(async move {
            if let Some(transport) = upgraded.await {
                // A separate task, so that the connection is read whatever the handler does.
                tokio::spawn(handler(socket));
                standalone::serve(transport, context, inbox).await;
            }
        });
        response
    }
}

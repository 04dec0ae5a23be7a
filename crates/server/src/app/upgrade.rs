//! The upgrade of a request to a connection, and what handles it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, header};
use axum::response::{IntoResponse, Response};
use roomcast_core::UserId;
use roomcast_protocol::SUBPROTOCOL;

use crate::app::lifecycle;
use crate::app::router::Router;
use crate::connection::handshake::{Handshake, UpgradeRejection, tokens};
use crate::options::Options;
use crate::seed::inbox::Inbox;
use crate::seed::socket_io::SocketIo;
use crate::seed::standalone;

/// How many events wait for the tutorial's loop at least, whatever it asks for.
const MIN_INBOX: usize = 1024;

/// Extractor: a client that wants to speak `websocket.io-rpc-v0.1`.
///
/// Give it to a [`Router`] with [`route`](Self::route), or to a loop of your own with
/// [`on_upgrade`](Self::on_upgrade). Rejects what is no such handshake as RFC 6455 and the protocol have it.
#[derive(Debug)]
pub struct SocketIoUpgrade {
    handshake: Handshake,
    peer_addr: Option<SocketAddr>,
    user: Option<UserId>,
    options: Option<Arc<Options>>,
    extensions: Extensions,
}

impl<S: Sync> FromRequestParts<S> for SocketIoUpgrade {
    type Rejection = UpgradeRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UpgradeRejection> {
        let handshake = Handshake::from_parts(parts)?;
        if !tokens(&parts.headers, header::SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == SUBPROTOCOL) {
            return Err(UpgradeRejection::Subprotocol);
        }
        let peer_addr = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
        Ok(Self { handshake, peer_addr, user: None, options: None, extensions: Extensions::new() })
    }
}

impl SocketIoUpgrade {
    /// Says whose connection this is. The application knows, from a cookie or a token.
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// Gives the connection data of your own, one value of each type: a session, a tenant, what a header says. Handlers
    /// get it back with the extractor [`Extension<T>`](axum::Extension), or with [`Socket::get`](crate::Socket::get).
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
    ///     upgrade.with(Tenant(tenant.to_owned())).route(&router)
    /// }
    ///
    /// async fn tenant(axum::Extension(Tenant(tenant)): axum::Extension<Tenant>) -> String {
    ///     tenant
    /// }
    /// # fn add(router: Router) -> Router { router.call("tenant", tenant) }
    /// ```
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, data: T) -> Self {
        self.extensions.insert(data);
        self
    }

    /// The client's address, if the server was made to tell it.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer_addr
    }

    /// Bounds for [`on_upgrade`](Self::on_upgrade): of payloads, queues, calls and the keep-alive. Those of rooms and
    /// of connections at once are a router's, which takes its cluster's options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = Some(Arc::new(options));
        self
    }

    /// Gives the connection to a router's handlers. The result is the answer to the request.
    pub fn route(self, router: &Router) -> Response {
        let place = match router.take_place() {
            Ok(place) => place,
            Err(max) => return UpgradeRejection::TooManyConnections { max }.into_response(),
        };
        if router.is_short_of_memory() {
            return UpgradeRejection::ShortOfMemory.into_response();
        }
        let (response, upgraded) = self.handshake.accept(Some(SUBPROTOCOL));
        let opening = lifecycle::open(upgraded, router.routes(), self.peer_addr, self.user, self.extensions, place);
        tokio::spawn(lifecycle::run(Box::pin(opening)));
        response
    }

    /// Gives the connection to a loop of your own. Up to `buffer` requests, and at least 1,024, wait for
    /// it to receive them; the client that sends still more is answered `RESOURCE_EXHAUSTED`, or closed with
    /// 1013 if what it sends can't be answered. The result is the answer to the request.
    pub fn on_upgrade<F, Fut>(self, buffer: usize, handler: F) -> Response
    where
        F: FnOnce(SocketIo) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (response, upgraded) = self.handshake.accept(Some(SUBPROTOCOL));
        let context = standalone::link(self.options, self.peer_addr, self.user);
        let inbox = Arc::new(Inbox::new(buffer.max(MIN_INBOX)));
        let socket = SocketIo::new(Arc::clone(&context), Arc::clone(&inbox));
        tokio::spawn(async move {
            if let Some(transport) = upgraded.await {
                // A task of its own: the connection is read whatever the handler does.
                tokio::spawn(handler(socket));
                standalone::serve(transport, context, inbox).await;
            }
        });
        response
    }
}

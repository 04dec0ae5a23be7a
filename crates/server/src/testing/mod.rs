//! Clients for testing your application, in the same process and without sockets.
//!
//! [`connect`] connects a client to a [`Router`], and returns the client and the connection's
//! [`Socket`], which you can pass to handlers. [`open`] sends a complete request to an axum
//! application, through its layers and its upgrade.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::extract::State;
//! use roomcast::{CallError, Code, Node, Options, Router, Socket, Text, testing};
//!
//! struct Shop {
//!     name: &'static str,
//! }
//!
//! async fn greet(State(shop): State<Arc<Shop>>, socket: Socket, Text(name): Text) -> Result<String, CallError> {
//!     if name.is_empty() {
//!         return Err(CallError::new(Code::InvalidArgument, "who?"));
//!     }
//!     socket.notify("coupon", "10 %")?;
//!     Ok(format!("Welcome to {}, {name}!", shop.name))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let shop = Arc::new(Shop { name: "Cups" });
//! let router = Router::new(Node::embedded(Options::default())).with_state(Arc::clone(&shop)).call("greet", greet);
//!
//! let (mut client, socket) = testing::connect(&router).await.unwrap();
//! assert_eq!(client.call("greet", "Ann").await.unwrap(), "Welcome to Cups, Ann!");
//! assert_eq!(client.event().await.payload, "10 %");
//! assert_eq!(client.call("greet", "").await.unwrap_err().code, Code::InvalidArgument);
//!
//! // A handler is a function, so you can call it. If it takes a `Cancel`, create one with `testing::call`.
//! let greeting = greet(State(shop), socket, Text("Bob".to_owned())).await;
//! assert_eq!(greeting.unwrap(), "Welcome to Cups, Bob!");
//! # }
//! ```
//!
//! The pipe between a client and the server holds about 4 KiB, in addition to the server's queues.
//! A client answers Pings only while one of its methods waits. If a test with paused time sleeps
//! for longer than `ping_interval` and `pong_timeout`, the server closes the connection.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::IntoResponse;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use roomcast_core::UserId;
use roomcast_protocol::{CallId, SUBPROTOCOL};
use thiserror::Error;
use tokio::io::duplex;
use tokio::sync::oneshot;

use crate::app::context::CallContext;
use crate::app::lifecycle;
use crate::app::opening::{NewConnection, NotAdmitted};
use crate::app::router::Router;
use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::call::running::Call;
use crate::connection::transport::Transport;
use crate::end::{CancelCause, Disconnected};
use crate::metrics::UNKNOWN_METHOD;
use crate::payload::IntoPayload;
use crate::testing::client::within_patience;

mod client;

pub use client::{Client, Event, PATIENCE};

/// How many bytes each direction of a pipe holds, like the buffers of a socket.
const PIPE: usize = 4 * 1024;

/// The largest body of a rejection that is kept, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// The error of a client that could not connect. See [`open`] for an example.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The application did not upgrade the request.
    #[error("the upgrade failed with {status}: {body}")]
    Refused {
        /// The response's status.
        status: StatusCode,
        /// The response's body.
        body: String,
    },
    /// The connect handler refused the connection.
    #[error(transparent)]
    Closed(#[from] Disconnected),
}

impl From<NotAdmitted> for ConnectError {
    fn from(refusal: NotAdmitted) -> Self {
        let (body, response) = match refusal {
            NotAdmitted::Limit(rejection) => (rejection.to_string(), rejection.into_response()),
            NotAdmitted::Authorizer(error) => {
                (String::from_utf8_lossy(&error.payload()).into_owned(), error.into_response())
            }
        };
        Self::Refused { status: response.status(), body }
    }
}

/// Connects a client to a router's handlers. The returned [`Socket`] is the server's end of the
/// connection. To give the connection a user or data, use [`ClientBuilder`].
///
/// # Errors
/// Returns [`ConnectError`] if the authorizer or the connect handler refuses the connection, or if
/// the node accepts no more connections.
///
/// # Panics
/// Panics if the connect handler takes longer than [`PATIENCE`].
///
/// # Cancel safety
/// If you drop the future, the connection ends without a Close, as if the client were lost.
pub async fn connect<S>(router: &Router<S>) -> Result<(Client, Socket), ConnectError> {
    ClientBuilder::default().connect(router).await
}

/// Builds a client with the user, data and request that an upgrade would provide.
///
/// ```
/// use axum::Extension;
/// use roomcast::{Node, Options, Router, UserId, testing::ClientBuilder};
///
/// #[derive(Clone)]
/// struct Tenant(&'static str);
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let router = Router::new(Node::embedded(Options::default()))
///     .call("me", async |user: UserId, Extension(tenant): Extension<Tenant>| format!("{user} of {}", tenant.0));
/// let ann = ClientBuilder::default().user(UserId::new("ann").unwrap()).with(Tenant("acme"));
/// let (mut ann, _) = ann.connect(&router).await.unwrap();
/// assert_eq!(ann.call("me", ()).await.unwrap(), "ann of acme");
/// # }
/// ```
#[derive(Debug)]
pub struct ClientBuilder(NewConnection);

impl Default for ClientBuilder {
    fn default() -> Self {
        Self(NewConnection::new(Request::new(()).into_parts().0))
    }
}

impl ClientBuilder {
    /// Sets the connection's user, like [`SocketIoUpgrade::user`](crate::SocketIoUpgrade::user).
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.0.user = Some(user);
        self
    }

    /// Attaches data to the connection, like
    /// [`SocketIoUpgrade::with`](crate::SocketIoUpgrade::with).
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, data: T) -> Self {
        self.0.extensions.insert(data);
        self
    }

    /// Sets the request that opened the connection, for the connect handler.
    #[must_use]
    pub fn request(mut self, request: Request<()>) -> Self {
        self.0.request = request.into_parts().0;
        self
    }

    /// Keeps the request for all handlers, like
    /// [`SocketIoUpgrade::keep_request`](crate::SocketIoUpgrade::keep_request).
    #[must_use]
    pub fn keep_request(mut self) -> Self {
        self.0.keeps_request = true;
        self
    }

    /// Connects the client, as [`connect`] does.
    ///
    /// # Errors
    /// As for [`connect`].
    ///
    /// # Panics
    /// As for [`connect`].
    ///
    /// # Cancel safety
    /// As for [`connect`].
    pub async fn connect<S>(self, router: &Router<S>) -> Result<(Client, Socket), ConnectError> {
        let opening = self.0.admit(router.routes()).await?;
        let (server, client) = duplex(PIPE);
        let (opened, socket) = oneshot::channel();
        let transport = std::future::ready(Some(Transport::pipe(server)));
        tokio::spawn(lifecycle::run(Box::pin(async move {
            let open = lifecycle::open(opening, transport).await?;
            // The test may have ended.
            let _ = opened.send(open.socket().clone());
            Some(open)
        })));
        let mut client = Client::new(client);
        let socket = tokio::select! {
            biased;
            socket = socket => socket.ok(),
            // A refused connection ends once the client has read the reason.
            _ = client.closed() => None,
        };
        match socket {
            Some(socket) => Ok((client, socket)),
            None => Err(client.closed().await.into()),
        }
    }
}

/// Creates a call for unit tests of extractors and handlers. It sends nothing to a client. Only
/// [`cancel`] cancels it.
///
/// ```
/// use roomcast::testing::{self, ClientBuilder};
/// use roomcast::{Cancel, CancelCause, FromContext, Node, Options, Router, UserId};
///
/// async fn wait(cancel: Cancel) -> String {
///     cancel.reset().await.to_string()
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let router = Router::new(Node::embedded(Options::default()));
/// let ann = ClientBuilder::default().user(UserId::new("ann").unwrap());
/// let (_client, socket) = ann.connect(&router).await.unwrap();
///
/// let call = testing::call(&socket, "wait", ());
/// assert_eq!(*UserId::from_context(&call, &()).await.unwrap(), *"ann");
///
/// testing::cancel(call.cancel(), CancelCause::Reset);
/// assert_eq!(wait(call.cancel().clone()).await, "reset");
/// # }
/// ```
///
/// # Panics
/// Panics if the method's name is over 255 bytes, or if the payload cannot be serialized to JSON.
pub fn call(socket: &Socket, method: &str, payload: impl IntoPayload) -> CallContext {
    let metrics = socket.node().metrics();
    let connection = &socket.context.connection;
    let call = Call::new(CallId(0), connection, metrics.method(UNKNOWN_METHOD), Arc::clone(metrics));
    let cancel = Cancel::new(&call);
    CallContext { name: client::name(method), payload: client::bytes(payload), socket: socket.clone(), cancel }
}

/// Cancels a call, as a Reset or the end of its connection would.
pub fn cancel(cancel: &Cancel, cause: CancelCause) {
    cancel.call().cancel(cause);
}

/// Sends a request to an axum application, and upgrades the connection. Missing headers of the
/// handshake are added. If the application extracts `ConnectInfo`, add axum's `MockConnectInfo` to
/// it.
///
/// ```
/// use axum::http::{HeaderMap, Request};
/// use axum::routing::get;
/// use roomcast::{Node, Options, Router, SocketIoUpgrade, UserId, testing};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let router = Router::new(Node::embedded(Options::default())).call("me", async |user: UserId| user.to_string());
/// let app = axum::Router::new().route(
///     "/socket",
///     get(async move |upgrade: SocketIoUpgrade, headers: HeaderMap| {
///         let user = headers.get("x-user").and_then(|user| UserId::new(user.to_str().ok()?).ok());
///         match user {
///             Some(user) => Ok(upgrade.user(user).route(&router).await),
///             None => Err(axum::http::StatusCode::UNAUTHORIZED),
///         }
///     }),
/// );
/// let request = Request::get("/socket").header("x-user", "ann").body(()).unwrap();
/// let mut ann = testing::open(app.clone(), request).await.unwrap();
/// assert_eq!(ann.call("me", ()).await.unwrap(), "ann");
///
/// let refused = testing::open(app, Request::get("/socket").body(()).unwrap()).await;
/// assert!(matches!(refused, Err(testing::ConnectError::Refused { .. })));
/// # }
/// ```
///
/// # Errors
/// Returns [`ConnectError::Refused`], with the response's status and body, if the application did
/// not upgrade the request.
///
/// # Panics
/// Panics if the application takes longer than [`PATIENCE`], or if the connection fails below HTTP.
///
/// # Cancel safety
/// As for [`connect`].
pub async fn open(app: axum::Router, mut request: Request<()>) -> Result<Client, ConnectError> {
    let (server, client) = duplex(PIPE);
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(app))
        .with_upgrades();
    tokio::spawn(served);
    let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(client)).await;
    let (mut sender, connection) = handshake.expect("a pipe can be written to");
    tokio::spawn(connection.with_upgrades());
    for (name, value) in [
        (header::HOST, "localhost"),
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL),
    ] {
        request.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let response = sender.send_request(request.map(|()| Body::empty()));
    let mut response = within_patience("the application to respond", response).await.expect("a response");
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let body = axum::body::to_bytes(Body::new(response), MAX_BODY).await.unwrap_or_default();
        return Err(ConnectError::Refused { status, body: String::from_utf8_lossy(&body).into_owned() });
    }
    let upgraded = hyper::upgrade::on(&mut response).await.expect("the status is 101");
    Ok(Client::new(TokioIo::new(upgraded)))
}

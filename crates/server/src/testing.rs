//! Clients for the tests of applications: in this process, without sockets.
//!
//! [`connect`] gives a [`Router`] a client, and the connection's [`Socket`] to call handlers with. [`open`] sends a
//! whole request to an axum application, through its layers and its upgrade.
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
//! // A handler is a function: call it.
//! let greeting = greet(State(shop), socket, Text("Bob".to_owned())).await;
//! assert_eq!(greeting.unwrap(), "Welcome to Cups, Bob!");
//! # }
//! ```
//!
//! Clients wait in tokio's time for at most [`PATIENCE`]. In a test with paused time, nothing takes long to fail.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Extensions, HeaderValue, Request, StatusCode, header};
use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use roomcast_core::UserId;
use roomcast_protocol::{
    CallId, ClientConnection, ClientDecoder, ClientEvent, CloseCode, CloseFrame, DEFAULT_MAX_PAYLOAD, Frame,
    FromServer, MAX_FRAME_HEADER_LEN, Name, Opcode, SUBPROTOCOL, encode_client_frame, encode_client_message,
};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tracing::Span;

use crate::app::lifecycle::{self, Opening};
use crate::app::router::Router;
use crate::app::socket::Socket;
use crate::connection::context::ClientInfo;
use crate::connection::transport::Transport;
use crate::end::Disconnected;
use crate::error::CallError;
use crate::payload::IntoPayload;

/// How long a client waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many bytes are on their way in each direction, as in the buffers of a socket.
const PIPE: usize = 64 * 1024;

/// The largest payload that a client accepts: servers send what they like.
const MAX_MESSAGE: usize = 64 * DEFAULT_MAX_PAYLOAD + MAX_FRAME_HEADER_LEN;

/// Nothing reads along in a pipe.
const MASK: [u8; 4] = [0; 4];

/// Why a client is not connected. See [`open`] for an example.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The request was not upgraded.
    #[error("the upgrade was refused with {status}: {body}")]
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

/// Connects a client to a router's handlers. The [`Socket`] is the server's end. To give the connection a user or data,
/// [build](ClientBuilder) it.
///
/// # Errors
/// [`ConnectError`] if the connect handler refuses the connection, or if the node takes no more.
///
/// # Panics
/// If the connect handler takes longer than [`PATIENCE`].
///
/// # Cancel safety
/// Dropping the future leaves the connection, as a lost client does.
pub async fn connect<S>(router: &Router<S>) -> Result<(Client, Socket), ConnectError> {
    ClientBuilder::default().connect(router).await
}

/// A client to be, with what its upgrade would give it.
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
#[derive(Debug, Default)]
pub struct ClientBuilder {
    user: Option<UserId>,
    extensions: Extensions,
    request: Request<()>,
}

impl ClientBuilder {
    /// As [`SocketIoUpgrade::user`](crate::SocketIoUpgrade::user).
    #[must_use]
    pub fn user(mut self, user: UserId) -> Self {
        self.user = Some(user);
        self
    }

    /// As [`SocketIoUpgrade::with`](crate::SocketIoUpgrade::with).
    #[must_use]
    pub fn with<T: Clone + Send + Sync + 'static>(mut self, data: T) -> Self {
        self.extensions.insert(data);
        self
    }

    /// The request that opened the connection, as [kept](crate::SocketIoUpgrade::keep_request) for the handlers.
    #[must_use]
    pub fn request(mut self, request: Request<()>) -> Self {
        self.request = request;
        self
    }

    /// Connects it, as [`connect`] does.
    ///
    /// # Errors
    /// As [`connect`].
    ///
    /// # Panics
    /// As [`connect`].
    ///
    /// # Cancel safety
    /// As [`connect`].
    pub async fn connect<S>(self, router: &Router<S>) -> Result<(Client, Socket), ConnectError> {
        let routes = router.routes();
        let place = routes.node.take_place().map_err(|max| {
            let refused = format!("{max} connections are open, the most that may");
            ConnectError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, body: refused }
        })?;
        let (server, client) = duplex(PIPE);
        let (opened, socket) = oneshot::channel();
        let request = Arc::new(self.request.into_parts().0);
        let mut info = ClientInfo { peer_addr: None, extensions: self.extensions };
        info.keep_request(Arc::clone(&request));
        info.set_span(Span::current());
        let opening = Opening { routes, user: self.user, client: info, request, place };
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
            // A refused connection ends once the client has read why.
            _ = client.closed() => None,
        };
        match socket {
            Some(socket) => Ok((client, socket)),
            None => Err(client.closed().await.into()),
        }
    }
}

/// Sends a request to an axum application, and upgrades it. The headers of the handshake are added if they are missing.
/// Give an application that extracts `ConnectInfo` axum's `MockConnectInfo`.
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
///             Some(user) => Ok(upgrade.user(user).route(&router)),
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
/// [`ConnectError::Refused`] with the response if it is no upgrade.
///
/// # Panics
/// If the application takes longer than [`PATIENCE`], or if the connection fails below HTTP.
///
/// # Cancel safety
/// As [`connect`].
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
        let body = axum::body::to_bytes(Body::new(response), MAX_MESSAGE).await.unwrap_or_default();
        return Err(ConnectError::Refused { status, body: String::from_utf8_lossy(&body).into_owned() });
    }
    let upgraded = hyper::upgrade::on(&mut response).await.expect("the status is 101");
    Ok(Client::new(TokioIo::new(upgraded)))
}

/// An event from the server.
///
/// ```
/// use roomcast::testing::Event;
///
/// let event = Event { name: "moved".to_owned(), payload: "[4, 2]".into() };
/// assert_eq!(event.json::<(i32, i32)>(), (4, 2));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its payload.
    pub payload: Bytes,
}

impl Event {
    /// The payload as JSON.
    ///
    /// # Panics
    /// If it is not the JSON that is expected.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.payload) {
            Ok(value) => value,
            Err(error) => panic!("{self:?} is not the JSON that is expected: {error}"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client. It reads only while it waits for something. Dropped, it leaves without a Close, as a lost client does.
///
/// Its methods panic if what they wait for does not come within [`PATIENCE`], or can't come because the connection has
/// ended: in a test, both are failures. See the [module](self) for an example.
///
/// # Cancel safety
/// [`response`](Self::response), [`event`](Self::event) and [`closed`](Self::closed) are cancel safe: what they have read
/// is there for the next call. The other methods send: do not use a client after dropping one of their futures.
pub struct Client {
    stream: Box<dyn Stream>,
    decoder: ClientDecoder,
    protocol: ClientConnection,
    responses: HashMap<CallId, Bytes>,
    events: VecDeque<Event>,
    ended: Option<Disconnected>,
}

impl Client {
    fn new(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            decoder: ClientDecoder::new(MAX_MESSAGE),
            protocol: ClientConnection::new(),
            responses: HashMap::new(),
            events: VecDeque::new(),
            ended: None,
        }
    }

    /// Calls a method and waits for the response.
    ///
    /// # Errors
    /// The error that the handler returned.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn call(&mut self, method: &str, payload: impl IntoPayload) -> Result<Bytes, CallError> {
        let call = self.start(method, payload).await;
        self.response(call).await
    }

    /// Starts a call, whose response is waited for with [`response`](Self::response).
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn start(&mut self, method: &str, payload: impl IntoPayload) -> CallId {
        let (id, frame) = self.protocol.call(name(method), bytes(payload));
        self.send(&frame).await;
        id
    }

    /// Waits for the response to a call.
    ///
    /// # Errors
    /// The error that the handler returned.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn response(&mut self, call: CallId) -> Result<Bytes, CallError> {
        loop {
            if let Some(payload) = self.responses.remove(&call) {
                return CallError::from_payload(&payload).map_or(Ok(payload), Err);
            }
            self.read_more("a response").await;
        }
    }

    /// Cancels a call. No response to it arrives after this.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn cancel(&mut self, call: CallId) {
        if let Some(frame) = self.protocol.cancel(call) {
            self.send(&frame).await;
        }
    }

    /// Sends a notification.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn notify(&mut self, event: &str, payload: impl IntoPayload) {
        let frame = Frame::Notify { name: name(event), payload: bytes(payload) };
        self.send(&frame).await;
    }

    /// Waits for the next event.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.read_more("an event").await;
        }
    }

    /// Waits for the connection's end, and reads what comes before it.
    ///
    /// # Panics
    /// If the connection does not end within [`PATIENCE`].
    pub async fn closed(&mut self) -> Disconnected {
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone();
            }
            self.read("the connection's end").await;
        }
    }

    /// Closes the connection with 1000, and waits until the server has closed it too.
    ///
    /// # Panics
    /// See [`Client`].
    pub async fn close(mut self) {
        let close = encode_client_message(Opcode::Close, &CloseCode::NORMAL.0.to_be_bytes(), MASK);
        // The server may have left already.
        let _ = self.stream.write_all(&close).await;
        self.closed().await;
    }

    async fn send(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        encode_client_frame(&mut bytes, frame, MASK);
        let sent = within_patience("the server to read", self.stream.write_all(&bytes)).await;
        if let Err(error) = sent {
            panic!("the connection has ended: {error}");
        }
    }

    async fn read_more(&mut self, what: &str) {
        if let Some(ended) = &self.ended {
            panic!("waiting for {what}: {ended}");
        }
        self.read(what).await;
    }

    /// Reads what has come.
    async fn read(&mut self, what: &str) {
        let mut buffer = BytesMut::with_capacity(PIPE);
        let read = within_patience(what, self.stream.read_buf(&mut buffer)).await;
        if !matches!(read, Ok(1..)) {
            self.ended.get_or_insert_with(|| Disconnected::new(CloseCode(1006), "the server ended the stream"));
            return;
        }
        let mut input = &buffer[..];
        let mut replies = Vec::new();
        while let Some(message) = self.decoder.decode(&mut input).expect("the server follows RFC 6455") {
            match message {
                FromServer::Binary(message) => {
                    let event = self.protocol.on_message(Bytes::copy_from_slice(message));
                    match event.expect("the server follows the protocol") {
                        Some(ClientEvent::Notify { name, payload }) => {
                            self.events.push_back(Event { name: name.to_string(), payload });
                        }
                        Some(ClientEvent::Answer { id, payload }) => {
                            self.responses.insert(id, payload);
                        }
                        // The response was under way when its call was cancelled.
                        None => {}
                    }
                }
                FromServer::Ping(payload) => replies.push(encode_client_message(Opcode::Pong, payload, MASK)),
                FromServer::Close(close) => {
                    let close = close.unwrap_or_else(|| CloseFrame::new(CloseCode(1005), ""));
                    replies.push(encode_client_message(Opcode::Close, &[], MASK));
                    self.ended.get_or_insert_with(|| Disconnected::new(close.code, close.reason));
                }
                FromServer::Text(_) | FromServer::Pong(_) => {}
            }
        }
        for reply in replies {
            // The server may have left already.
            let _ = self.stream.write_all(&reply).await;
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("waiting", &self.protocol.waiting())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

async fn within_patience<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited for {what} in vain for {PATIENCE:?}"),
    }
}

fn name(name: &str) -> Name {
    match Name::new(name) {
        Ok(name) => name,
        Err(error) => panic!("the name {name:?} can't be sent: {error}"),
    }
}

fn bytes(payload: impl IntoPayload) -> Bytes {
    payload.into_payload().unwrap_or_else(|error| panic!("{error}"))
}

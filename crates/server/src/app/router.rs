//! Handlers by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::Registry;
use roomcast_core::{BoxFuture, Place};
use roomcast_protocol::{CloseCode, CloseFrame};

use crate::app::handler::{Handler, IntoAnswer, Request};
use crate::app::handling::{self, Begun, Handled, Handling, catch_panic};
use crate::app::rooms::{RoomAccess, RoomAction};
use crate::app::socket::Socket;
use crate::end::Disconnected;
use crate::error::Code;
use crate::metrics::{MethodMetrics, Metrics, UNKNOWN_METHOD};
use crate::node::handle::Node;

/// How long the application's connect handler may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the application's disconnect handler may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type HandlerFn = Arc<dyn Fn(Request) -> Handling + Send + Sync>;
type ConnectFn = Arc<dyn Fn(Socket) -> Handling + Send + Sync>;
type DisconnectFn = Arc<dyn Fn(Socket, Disconnected) -> BoxFuture<'static, ()> + Send + Sync>;

/// Handlers by name. Cheap to clone once it is built.
///
/// Calls of a connection run concurrently, each in a task of its own; its notifications are handled one
/// after the other, in their order. A handler registered as *quick* is begun on the connection's own
/// task and goes on elsewhere only if it has to wait: that saves most of the cost of a short call, but
/// until its first wait the connection's input, Resets included, is not read. So a quick handler must not
/// compute for long.
///
/// ```
/// use roomcast::{CallError, Cancel, Node, Code, Options, Router, Socket, Text};
///
/// async fn greet(Text(name): Text) -> Result<String, CallError> {
///     match name.as_str() {
///         "" => Err(CallError::new(Code::InvalidArgument, "who?")),
///         name => Ok(format!("Hello, {name}!")),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let node = Node::embedded(Options::default());
/// let router = Router::new(node.clone())
///     .quick_call("greet", greet)
///     .call("report", async |cancel: Cancel| {
///         let rows = cancel.spawn_blocking(|cancel| (0..1000).take_while(|_| !cancel.is_cancelled()).count());
///         rows.await.unwrap_or_default().to_string()
///     })
///     .notify("say", async |socket: Socket, Text(text): Text| {
///         socket.node().room("lobby").publish("said", text).await
///     })
///     .on_connect(async |socket: Socket| socket.join("lobby").await)
///     .on_disconnect(async |socket: Socket, why| println!("{} left: {why}", socket.id()));
/// # let _ = router; }
/// ```
#[derive(Clone)]
pub struct Router {
    routes: Arc<Routes>,
}

/// What a router knows, for its connections.
#[derive(Clone)]
pub(crate) struct Routes {
    pub(crate) node: Node,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) unknown: Arc<MethodMetrics>,
    calls: HashMap<String, CallRoute>,
    notifications: HashMap<String, Route>,
    /// The `rooms/…` procedures, by [`RoomAction`].
    rooms: Vec<CallRoute>,
    on_connect: Option<ConnectFn>,
    on_disconnect: Option<DisconnectFn>,
}

#[derive(Clone)]
pub(crate) struct Route {
    handler: HandlerFn,
    quick: bool,
}

#[derive(Clone)]
pub(crate) struct CallRoute {
    pub(crate) route: Route,
    pub(crate) metrics: Arc<MethodMetrics>,
}

impl Router {
    /// A router without handlers: every call is answered `NOT_FOUND`.
    pub fn new(node: Node) -> Self {
        let metrics = Metrics::new(node.options().max_connections);
        Self {
            routes: Arc::new(Routes {
                node,
                unknown: metrics.method(UNKNOWN_METHOD),
                rooms: room_procedures(RoomAccess::nobody(), &metrics),
                metrics,
                calls: HashMap::new(),
                notifications: HashMap::new(),
                on_connect: None,
                on_disconnect: None,
            }),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Routes)) -> Self {
        change(Arc::make_mut(&mut self.routes));
        self
    }

    /// A procedure, handled in a task of its own.
    #[must_use]
    pub fn call<A>(self, name: &str, handler: impl Handler<A>) -> Self {
        self.add_call(name, handler, false)
    }

    /// A procedure whose handler computes for microseconds at most before it answers or waits.
    #[must_use]
    pub fn quick_call<A>(self, name: &str, handler: impl Handler<A>) -> Self {
        self.add_call(name, handler, true)
    }

    /// An event from clients, handled in a task of the connection's.
    #[must_use]
    pub fn notify<A>(self, name: &str, handler: impl Handler<A>) -> Self {
        self.add_notification(name, handler, false)
    }

    /// An event whose handler computes for microseconds at most before it is done or waits.
    #[must_use]
    pub fn quick_notify<A>(self, name: &str, handler: impl Handler<A>) -> Self {
        self.add_notification(name, handler, true)
    }

    fn add_call<A>(self, name: &str, handler: impl Handler<A>, quick: bool) -> Self {
        self.with(|routes| {
            let metrics = routes.metrics.method(name);
            routes.calls.insert(name.to_owned(), CallRoute { route: Route::new(handler, quick), metrics });
        })
    }

    fn add_notification<A>(self, name: &str, handler: impl Handler<A>, quick: bool) -> Self {
        self.with(|routes| {
            routes.notifications.insert(name.to_owned(), Route::new(handler, quick));
        })
    }

    /// Opens the `rooms/…` procedures to clients. Without this, they are denied.
    #[must_use]
    pub fn client_rooms(self, access: RoomAccess) -> Self {
        self.with(|routes| routes.rooms = room_procedures(access, &routes.metrics))
    }

    /// What happens first on each connection; the client's messages wait until it is done, at most 10 s.
    /// An error closes the connection with its message and 1008, or 1013 if it is `UNAVAILABLE`.
    #[must_use]
    pub fn on_connect<F, Fut>(self, handler: F) -> Self
    where
        F: Fn(Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: IntoAnswer> + Send + 'static,
    {
        self.with(|routes| {
            routes.on_connect = Some(Arc::new(move |socket| {
                let connected = handler(socket);
                Box::pin(async move { connected.await.into_answer() })
            }));
        })
    }

    /// What happens last on each connection, within 10 s, when it has left its rooms, its calls are cancelled and its
    /// notifications are handled. It runs for every connection whose connect handler succeeded, also in a drain, which
    /// waits for it for up to 2 s after its time-out. The client may not have answered the Close yet.
    #[must_use]
    pub fn on_disconnect<F, Fut>(self, handler: F) -> Self
    where
        F: Fn(Socket, Disconnected) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.with(|routes| routes.on_disconnect = Some(Arc::new(move |socket, why| Box::pin(handler(socket, why)))))
    }

    /// What it counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.routes.metrics
    }

    /// Adds the metrics of connections and calls, and those of the cluster, to what a registry gathers.
    ///
    /// # Errors
    /// [`prometheus::Error`] if the registry has metrics of these names already.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.routes.metrics.register(registry)?;
        self.routes.node.register_metrics(registry)
    }

    /// Takes a place for a connection.
    ///
    /// # Errors
    /// The limit on connections, if it is reached.
    pub(crate) fn take_place(&self) -> Result<Place, usize> {
        let max = self.routes.node.options().max_connections;
        self.routes.node.hub().local().take_place(max).ok_or(max)
    }

    /// Whether the open connections exceed a memory budget.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        self.routes.node.hub().local().is_short_of_memory()
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }
}

fn room_procedures(access: RoomAccess, metrics: &Metrics) -> Vec<CallRoute> {
    let access = Arc::new(access);
    let procedure = |action: RoomAction| {
        let access = Arc::clone(&access);
        let route = Route { handler: Arc::new(move |request| action.perform(&access, request)), quick: true };
        CallRoute { route, metrics: metrics.method(action.procedure()) }
    };
    RoomAction::ALL.into_iter().map(procedure).collect()
}

impl Route {
    fn new<A>(handler: impl Handler<A>, quick: bool) -> Self {
        Self { handler: Arc::new(move |request| handler.handle(request)), quick }
    }

    /// Runs the handler up to its first wait if it is quick.
    pub(crate) fn begin(&self, request: Request) -> Begun {
        if self.quick { handling::begin(|| (self.handler)(request)) } else { Begun::Waits(self.later(request)) }
    }

    /// The handler's whole work, none of it begun.
    pub(crate) fn later(&self, request: Request) -> Handling {
        let handler = Arc::clone(&self.handler);
        Box::pin(async move { handler(request).await })
    }
}

impl Routes {
    /// The procedure that a call names.
    pub(crate) fn call(&self, name: &str) -> Option<&CallRoute> {
        self.calls.get(name).or_else(|| self.room_procedure(name))
    }

    /// What handles a notification.
    pub(crate) fn notification(&self, name: &str) -> Option<&Route> {
        self.notifications.get(name).or_else(|| self.room_procedure(name).map(|procedure| &procedure.route))
    }

    fn room_procedure(&self, name: &str) -> Option<&CallRoute> {
        RoomAction::parse(name).map(|(action, _)| &self.rooms[action as usize])
    }

    /// Asks the application whether it takes a connection.
    pub(crate) async fn connect(&self, socket: Socket) -> Result<(), CloseFrame> {
        let on_connect = self.on_connect.clone();
        let connecting = catch_panic(Box::pin(async move {
            socket.node.hub().local().join_user(&socket.context.peer).await?;
            match on_connect {
                Some(on_connect) => on_connect(socket).await,
                None => Ok(Bytes::new()),
            }
        }));
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Handled::Returned(Ok(_))) => Ok(()),
            Ok(Handled::Returned(Err(error))) if error.code == Code::Unavailable => {
                Err(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, error.message))
            }
            Ok(Handled::Returned(Err(error))) => Err(CloseFrame::new(CloseCode::POLICY_VIOLATION, error.message)),
            Ok(Handled::Panicked) => {
                Err(CloseFrame::new(CloseCode::INTERNAL_ERROR, "the server could not take the connection"))
            }
            Err(_) => Err(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the server takes too long; try again later")),
        }
    }

    /// Tells the application of a connection's end.
    pub(crate) async fn disconnect(&self, socket: Socket, why: Disconnected) {
        let Some(on_disconnect) = self.on_disconnect.clone() else { return };
        let id = socket.id();
        let disconnecting = catch_panic(Box::pin(async move {
            on_disconnect(socket, why).await;
            Ok(Bytes::new())
        }));
        if tokio::time::timeout(DISCONNECT_TIMEOUT, disconnecting).await.is_err() {
            tracing::warn!(connection = %id, "the disconnect handler took too long and was dropped");
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("calls", &self.routes.calls.keys())
            .field("notifications", &self.routes.notifications.keys())
            .finish_non_exhaustive()
    }
}

//! Handlers by name, and the life of a connection that they serve.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus::Registry;
use roomcast_core::{BoxFuture, UserId};
use roomcast_protocol::{CallId, CloseCode, CloseFrame, Name};

use crate::call::{CancelCause, Responder};
use crate::cluster::Cluster;
use crate::driver::{Driver, End};
use crate::error::{CallError, Code};
use crate::extract::{Handler, IntoAnswer, Request};
use crate::lane::{Handled, Handling, Lane, catch_panic, panicked, report};
use crate::link::{Disconnected, Link};
use crate::metrics::{MethodMetrics, Metrics, UNKNOWN_METHOD};
use crate::options::Options;
use crate::rooms::{RoomAccess, RoomAction};
use crate::session::{App, Rpc};
use crate::socket::Socket;
use crate::transport::Transport;
use crate::tutorial::overloaded;

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
/// use roomcast::{CallError, Cancel, Cluster, Code, Options, Router, Socket, Text};
///
/// async fn greet(Text(name): Text) -> Result<String, CallError> {
///     match name.as_str() {
///         "" => Err(CallError::new(Code::InvalidArgument, "who?")),
///         name => Ok(format!("Hello, {name}!")),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let cluster = Cluster::embedded(&Options::default());
/// let router = Router::new(cluster.clone())
///     .quick_call("greet", greet)
///     .call("report", async |cancel: Cancel| {
///         let rows = cancel.spawn_blocking(|cancel| (0..1000).take_while(|_| !cancel.is_cancelled()).count());
///         rows.await.unwrap_or_default().to_string()
///     })
///     .notify("say", async |socket: Socket, Text(text): Text| {
///         socket.cluster().room("lobby").publish("said", text).await
///     })
///     .on_connect(async |socket: Socket| socket.join("lobby").await)
///     .on_disconnect(async |socket: Socket, why| println!("{} left: {why}", socket.id()));
/// # let _ = router; }
/// ```
#[derive(Clone)]
pub struct Router {
    routes: Arc<Routes>,
}

#[derive(Clone)]
struct Routes {
    cluster: Cluster,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    calls: HashMap<String, CallRoute>,
    notifications: HashMap<String, Route>,
    unknown: Arc<MethodMetrics>,
    /// The `rooms/…` procedures, by [`RoomAction`].
    rooms: Vec<CallRoute>,
    on_connect: Option<ConnectFn>,
    on_disconnect: Option<DisconnectFn>,
}

#[derive(Clone)]
struct Route {
    handler: HandlerFn,
    quick: bool,
}

#[derive(Clone)]
struct CallRoute {
    route: Route,
    metrics: Arc<MethodMetrics>,
}

impl Router {
    /// A router without handlers: every call is answered `NOT_FOUND`.
    pub fn new(cluster: Cluster) -> Self {
        let metrics = Metrics::new();
        Self {
            routes: Arc::new(Routes {
                cluster,
                options: Arc::default(),
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

    /// Bounds and times of the connections.
    #[must_use]
    pub fn options(self, options: Options) -> Self {
        self.with(|routes| routes.options = Arc::new(options))
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
    /// An error closes the connection with 1008 and the error's message.
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

    /// What happens last on each connection, within 10 s, when it has left its rooms and its calls are
    /// cancelled. It runs for every connection whose connect handler succeeded.
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
        self.routes.cluster.register_metrics(registry)
    }

    /// The most connections, if so many are open.
    pub(crate) fn is_full(&self) -> Option<usize> {
        let max = self.routes.options.max_connections;
        (self.routes.cluster.connection_count() >= max).then_some(max)
    }

    /// Runs one connection to its end.
    pub(crate) async fn run(
        self,
        transport: Transport,
        early: Bytes,
        peer_addr: Option<SocketAddr>,
        user: Option<UserId>,
    ) {
        let routes = self.routes;
        let hub = routes.cluster.hub();
        let Ok(connection) = hub.connect(user).await else {
            tracing::warn!("a user's events could not be subscribed to; the connection is dropped");
            return;
        };
        let metrics = Arc::clone(&routes.metrics);
        metrics.connections_opened.inc();
        metrics.connections_open.inc();
        let peer = Arc::clone(connection.peer());
        let link = Link::new(peer, peer_addr, Arc::clone(&routes.options), Arc::clone(&metrics));
        let socket = Socket { link: Arc::clone(&link), cluster: routes.cluster.clone() };
        let app = RouterApp { routes: Arc::clone(&routes), socket: socket.clone(), lane: None };
        let delivery_latency = hub.metrics().delivery_latency.clone();
        let mut driver = Driver::new(transport, Arc::clone(&link), Rpc::new(&link, app), delivery_latency);

        let end = match routes.connect(&socket).await {
            Ok(()) => driver.run(early).await,
            Err(close) => End::ByServer(close),
        };
        let why = end.disconnected();
        metrics.on_closed(why.code);
        link.end(end.cancel_cause());
        link.set_told();
        drop(connection);
        let lane = driver.session.app.lane.take();
        driver.close(&end).await;
        if let Some(lane) = lane {
            lane.finish().await;
        }
        routes.disconnect(socket, why).await;
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

    /// Runs a quick handler up to its first wait.
    fn begin(&self, request: Request) -> Begun {
        if !self.quick {
            return self.later(request);
        }
        let first_poll = || {
            let mut handling = (self.handler)(request);
            match (&mut handling).now_or_never() {
                Some(result) => Begun::Done(Some(result)),
                None => Begun::Waits(handling),
            }
        };
        std::panic::catch_unwind(AssertUnwindSafe(first_poll)).unwrap_or(Begun::Done(None))
    }

    /// The handler's whole work, none of it begun.
    fn later(&self, request: Request) -> Begun {
        let handler = Arc::clone(&self.handler);
        Begun::Waits(Box::pin(async move { handler(request).await }))
    }
}

impl Routes {
    fn room_procedure(&self, name: &str) -> Option<&CallRoute> {
        RoomAction::parse(name).map(|(action, _)| &self.rooms[action as usize])
    }

    async fn connect(&self, socket: &Socket) -> Result<(), CloseFrame> {
        let Some(on_connect) = &self.on_connect else { return Ok(()) };
        match tokio::time::timeout(CONNECT_TIMEOUT, catch_panic(on_connect(socket.clone()))).await {
            Ok(Some(Ok(_))) => Ok(()),
            Ok(None) => Err(CloseFrame::new(CloseCode::INTERNAL_ERROR, "the server could not take the connection")),
            Ok(Some(Err(error))) => Err(CloseFrame::new(CloseCode::POLICY_VIOLATION, error.message)),
            Err(_) => Err(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the server takes too long; try again later")),
        }
    }

    async fn disconnect(&self, socket: Socket, why: Disconnected) {
        let Some(on_disconnect) = &self.on_disconnect else { return };
        let id = socket.id();
        if tokio::time::timeout(DISCONNECT_TIMEOUT, on_disconnect(socket, why)).await.is_err() {
            tracing::warn!(connection = %id, "the disconnect handler took too long and was dropped");
        }
    }
}

/// One connection's calls and notifications, given to the router's handlers.
struct RouterApp {
    routes: Arc<Routes>,
    socket: Socket,
    lane: Option<Lane>,
}

impl App for RouterApp {
    fn on_notify(&mut self, link: &Arc<Link>, name: Name, payload: Bytes) -> Result<(), CloseFrame> {
        let routes = &self.routes;
        let room = || routes.room_procedure(&name).map(|procedure| &procedure.route);
        let Some(route) = routes.notifications.get(name.as_str()).or_else(room) else {
            report(link, Some(Err(unknown("event", &name))));
            return Ok(());
        };
        let payload_len = payload.len();
        let request = Request { name, payload, socket: self.socket.clone(), cancel: None };
        // One that waits its turn behind others is not begun before it.
        let in_turn = self.lane.as_ref().is_none_or(Lane::is_idle);
        match if in_turn { route.begin(request) } else { route.later(request) } {
            Begun::Done(handled) => report(link, handled),
            Begun::Waits(rest) => {
                if !self.lane.get_or_insert_default().push(link, rest, payload_len) {
                    return Err(overloaded());
                }
            }
        }
        Ok(())
    }

    fn on_request(&mut self, link: &Arc<Link>, id: CallId, name: Name, payload: Bytes) -> Result<(), CloseFrame> {
        let routes = &self.routes;
        let Some(procedure) = routes.calls.get(name.as_str()).or_else(|| routes.room_procedure(&name)) else {
            link.check_call_id(id)?;
            link.answer_at_once(id, Err(unknown("procedure", &name)), &routes.unknown, Instant::now());
            return Ok(());
        };
        let Some(responder) = link.start_call(id, payload.len(), &procedure.metrics)? else { return Ok(()) };
        let cancel = Some(responder.cancel_handle());
        match procedure.route.begin(Request { name, payload, socket: self.socket.clone(), cancel }) {
            Begun::Done(handled) => conclude(responder, handled),
            Begun::Waits(rest) => spawn_call(responder, rest),
        }
        Ok(())
    }
}

fn unknown(what: &str, name: &Name) -> CallError {
    CallError::new(Code::NotFound, format!("there is no {what} {name:?}"))
}

fn spawn_call(responder: Responder, handling: Handling) {
    let call = responder.call();
    let timeout = responder.link().options.call_timeout;
    let task = tokio::spawn(async move {
        match tokio::time::timeout(timeout, catch_panic(handling)).await {
            Ok(handled) => conclude(responder, handled),
            Err(_) => responder.fail(
                CancelCause::Deadline,
                CallError::new(Code::DeadlineExceeded, format!("the call took longer than {timeout:?}")),
            ),
        }
    });
    call.adopt(task.abort_handle());
    // Tokio runs what was spawned last on this thread next, and wakes no other thread to watch the
    // sockets meanwhile: a handler that computes would keep its own Reset from being read. A second task
    // wakes one, if one sleeps.
    tokio::spawn(std::future::ready(()));
}

fn conclude(responder: Responder, handled: Handled) {
    match handled {
        Some(result) => responder.answer(result),
        None => responder.fail(CancelCause::Panic, panicked()),
    }
}

enum Begun {
    Done(Handled),
    Waits(Handling),
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("calls", &self.routes.calls.keys())
            .field("notifications", &self.routes.notifications.keys())
            .finish_non_exhaustive()
    }
}

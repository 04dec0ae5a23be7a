//! The router, which finds handlers by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use roomcast_core::CallPattern;
use roomcast_protocol::Name;

use crate::app::authorizer::{Authorizer, SharedAuthorizer};
use crate::app::context::{CallContext, ConnectContext, DisconnectContext, NotificationContext};
use crate::app::handler::Handler;
use crate::app::handling::Start;
use crate::app::rooms::RoomAccess;
use crate::app::routes::{CallRoute, RESERVED, Route, Routes, is_reserved};
use crate::node::handle::Node;

/// Routes the calls and notifications of a [`Node`]'s connections to handlers, by name. It is cheap
/// to clone.
///
/// A connection's calls run concurrently, each in a task of its own. Its notifications are handled
/// one at a time, in the order in which the client sent them. If a handler panics, its own call
/// fails with `INTERNAL`, and nothing else is affected.
///
/// A handler that is registered as *quick* starts on the connection's own task, and moves to
/// another task only if it waits. This saves most of the cost of a short call. Until the first
/// wait, the connection reads no input, not even a Reset. A quick handler must therefore not
/// compute for long.
///
/// Handlers run in `tracing` spans named `connection` and `call` or `notification`, at the level
/// DEBUG. These spans are inside the span in which the upgrade request was handled.
///
/// ```
/// use std::sync::Arc;
///
/// use axum::extract::State;
/// use roomcast::{CallError, Cancel, Code, Disconnected, Node, Options, Router, Socket, Text};
///
/// struct Shop {
///     name: String,
/// }
///
/// async fn greet(State(shop): State<Arc<Shop>>, Text(name): Text) -> Result<String, CallError> {
///     match name.as_str() {
///         "" => Err(CallError::new(Code::InvalidArgument, "who?")),
///         name => Ok(format!("Welcome to {}, {name}!", shop.name)),
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let router = Router::new(Node::embedded(Options::default()))
///     .with_state(Arc::new(Shop { name: "Cups".to_owned() }))
///     .quick_call("greet", greet)
///     .call("report", async |cancel: Cancel| {
///         let rows = cancel.spawn_blocking(|cancel| (0..1000).take_while(|_| !cancel.is_cancelled()).count());
///         rows.await.unwrap_or_default().to_string()
///     })
///     .notify("say", async |socket: Socket, Text(text): Text| {
///         socket.node().room("lobby").publish("said", text).await.map(drop)
///     })
///     .on_connect(async |socket: Socket| socket.join("lobby").await)
///     .on_disconnect(async |socket: Socket, why: Disconnected| println!("{} left: {why}", socket.id()));
/// # let _ = router; }
/// ```
pub struct Router<S = ()> {
    routes: Arc<Routes>,
    state: Arc<S>,
}

impl Router {
    /// Creates a router without handlers. Every call fails with `NOT_FOUND`.
    pub fn new(node: Node) -> Self {
        Self { routes: Arc::new(Routes::new(node)), state: Arc::new(()) }
    }
}

impl<S: Send + Sync + 'static> Router<S> {
    /// Sets the state of the handlers that you add after this. They extract it with axum's
    /// [`State`](https://docs.rs/axum/0.8/axum/extract/struct.State.html). Unlike in axum's router,
    /// the state comes first: handlers that you added before keep their state. A final
    /// `with_state(())` turns the result into a plain [`Router`], without a type parameter.
    #[must_use]
    pub fn with_state<T>(self, state: T) -> Router<T> {
        Router { routes: self.routes, state: Arc::new(state) }
    }

    pub(crate) fn change(mut self, change: impl FnOnce(&mut Routes, &Arc<S>)) -> Self {
        change(Arc::make_mut(&mut self.routes), &self.state);
        self
    }

    /// Handles calls of a method, each in a task of its own.
    ///
    /// # Panics
    /// Panics if the router already has a handler for calls of this name, if the name is over 255
    /// bytes, or if it begins with `rooms/` or `auth/`, which are reserved for the built-in
    /// methods.
    #[must_use]
    #[track_caller]
    pub fn call<A>(self, name: &str, handler: impl Handler<CallContext, A, S>) -> Self {
        self.add_call(name, handler, Start::Later)
    }

    /// Handles calls of a method, starting on the connection's own task. The handler must compute
    /// for at most microseconds before it returns or waits.
    ///
    /// # Panics
    /// Panics for the same reasons as [`call`](Self::call).
    #[must_use]
    #[track_caller]
    pub fn quick_call<A>(self, name: &str, handler: impl Handler<CallContext, A, S>) -> Self {
        self.add_call(name, handler, Start::Now)
    }

    /// Handles calls of the methods that match one of these patterns and have no handler of their
    /// own. If several patterns match, the most specific one decides. Metrics count these calls under
    /// the method `label`, because clients choose their names.
    ///
    /// ```
    /// use roomcast::{Name, Node, Options, PatternError, Router};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), PatternError> {
    /// let router = Router::new(Node::embedded(Options::default()))
    ///     .calls("shop", ["shop.*".parse()?], async |method: Name| format!("{method} is closed"));
    /// # let _ = router; Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Panics if the router already has one of these patterns.
    #[must_use]
    #[track_caller]
    pub fn calls<A>(
        self,
        label: &str,
        patterns: impl IntoIterator<Item = CallPattern>,
        handler: impl Handler<CallContext, A, S>,
    ) -> Self {
        self.change(|routes, state| {
            let metrics = routes.node.metrics().method(label);
            let route = CallRoute { route: Route::new(handler, state, Start::Later), metrics };
            for pattern in patterns {
                add_pattern(&mut routes.call_patterns, pattern, route.clone());
            }
        })
    }

    /// Handles notifications of an event, in a separate task for each connection. Because a
    /// notification has no response, an error is counted in metrics and logged.
    ///
    /// # Panics
    /// Panics if the router already has a handler for notifications of this name, and for the other
    /// reasons of [`call`](Self::call).
    #[must_use]
    #[track_caller]
    pub fn notify<A>(self, name: &str, handler: impl Handler<NotificationContext, A, S>) -> Self {
        self.add_notification(name, handler, Start::Later)
    }

    /// Handles notifications of an event, starting on the connection's own task. The handler must
    /// compute for at most microseconds before it returns or waits.
    ///
    /// # Panics
    /// Panics for the same reasons as [`notify`](Self::notify).
    #[must_use]
    #[track_caller]
    pub fn quick_notify<A>(self, name: &str, handler: impl Handler<NotificationContext, A, S>) -> Self {
        self.add_notification(name, handler, Start::Now)
    }

    #[track_caller]
    fn add_call<A>(self, name: &str, handler: impl Handler<CallContext, A, S>, start: Start) -> Self {
        let key = checked(name);
        self.change(|routes, state| {
            let metrics = routes.node.metrics().method(name);
            add(&mut routes.calls, "call", key, CallRoute { route: Route::new(handler, state, start), metrics });
        })
    }

    #[track_caller]
    fn add_notification<A>(self, name: &str, handler: impl Handler<NotificationContext, A, S>, start: Start) -> Self {
        let key = checked(name);
        self.change(|routes, state| {
            add(&mut routes.notifications, "notification", key, Route::new(handler, state, start));
        })
    }

    /// Handles calls that have no handler of their own, except for the reserved names `rooms/…`.
    /// Metrics count these calls under the method `unknown`, because clients choose their names.
    #[must_use]
    pub fn fallback<A>(self, handler: impl Handler<CallContext, A, S>) -> Self {
        self.change(|routes, state| routes.call_fallback = Some(Route::new(handler, state, Start::Later)))
    }

    /// Handles notifications that have no handler of their own, except for the reserved names `rooms/…`.
    #[must_use]
    pub fn notify_fallback<A>(self, handler: impl Handler<NotificationContext, A, S>) -> Self {
        self.change(|routes, state| routes.notification_fallback = Some(Route::new(handler, state, Start::Later)))
    }

    /// Sets the [`Authorizer`], which decides who may connect and what each client may do. Its
    /// [`Identity`](crate::Identity) sets the connection's user. The grants of the identity apply
    /// to everything that the client requests:
    ///
    /// - A call or a notification requires the right `call` on its name, whether or not the router
    ///   has a handler for this name.
    /// - The [`rooms/…` methods](Self::client_rooms) require the right `join`, `publish` or
    ///   `members` on the room, and are open to every client that has this right. If the router
    ///   also has a `client_rooms` handler, the handler runs after the grants have permitted the
    ///   request, and can only deny it.
    ///
    /// If the identity has a credential, the client gets the event `auth/expiring` with the payload
    /// `{"in_ms": …}` 60 to 30 s before the credential expires. The client then calls `auth/refresh`
    /// with a new credential. Otherwise, the connection is closed with 4401 when the credential has
    /// expired and the grace time is over. If a refresh takes away a right to be in a room, the
    /// connection leaves the room, and the client gets the event `auth/left` with `{"room": …}`.
    ///
    /// Handlers themselves, such as one that calls [`Socket::join`](crate::Socket::join), need no
    /// rights.
    #[must_use]
    pub fn authorizer(self, authorizer: impl Authorizer) -> Self {
        self.change(|routes, _| routes.set_authorizer(SharedAuthorizer::new(authorizer)))
    }

    /// Runs a handler first on each connection. The client's messages wait until it returns.
    ///
    /// If the handler returns an error, the connection is closed with the error's message and the
    /// code 1008, or 1013 if the error is `UNAVAILABLE` or `RESOURCE_EXHAUSTED`. If it panics, the
    /// connection is closed with 1011; if it takes longer than 10 s, with 1013. Any other return
    /// value is ignored.
    ///
    /// ```
    /// use axum::http::HeaderMap;
    /// use roomcast::{CallError, Code, Node, Options, Router, Socket};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let router = Router::new(Node::embedded(Options::default())).on_connect(
    ///     async |socket: Socket, headers: HeaderMap| match headers.get("x-tenant").and_then(|value| value.to_str().ok()) {
    ///         Some(tenant) => socket.join(tenant).await,
    ///         None => Err(CallError::new(Code::Unauthenticated, "send X-Tenant")),
    ///     },
    /// );
    /// # let _ = router; }
    /// ```
    #[must_use]
    pub fn on_connect<A>(self, handler: impl Handler<ConnectContext, A, S>) -> Self {
        self.change(|routes, state| routes.on_connect = Some(Route::new(handler, state, Start::Later)))
    }

    /// Runs a handler last on each connection whose connect handler succeeded, for at most 10 s.
    /// When the handler runs, the connection has left its rooms, its calls have been cancelled, and
    /// its notifications have been handled. The client may not have confirmed the Close yet. If the
    /// handler returns an error, the error is logged.
    ///
    /// During a drain, disconnect handlers run too. The drain waits for them for up to 2 s after
    /// its time-out.
    #[must_use]
    pub fn on_disconnect<A>(self, handler: impl Handler<DisconnectContext, A, S>) -> Self {
        self.change(|routes, state| routes.on_disconnect = Some(Route::new(handler, state, Start::Later)))
    }

    /// Adds the calls, notifications and fallbacks of another router of the same node, whatever its
    /// state.
    ///
    /// # Panics
    /// Panics if both routers have a handler for the same call or notification, if both have a
    /// fallback of the same kind, or if they belong to different nodes. It also panics if the other
    /// router has an authorizer, a handler for rooms, a connect handler or a disconnect handler.
    /// Set those on the router that remains.
    #[must_use]
    #[track_caller]
    pub fn merge<T>(self, other: Router<T>) -> Self {
        let other = Arc::unwrap_or_clone(other.routes);
        assert!(self.routes.node.id() == other.node.id(), "both routers must be of the same node");
        assert!(
            other.authorizer.is_none()
                && other.on_connect.is_none()
                && other.on_disconnect.is_none()
                && matches!(other.rooms.rules.access, RoomAccess::Nobody)
                && other.rooms.rules.members_only.is_empty()
                && other.rooms.rules.on_join.is_none()
                && other.rooms.rules.on_publish.is_none(),
            "a router with an authorizer, a rule for rooms, a connect handler or a disconnect handler cannot be merged into another"
        );
        self.change(|routes, _| {
            for (name, route) in other.calls {
                add(&mut routes.calls, "call", name, route);
            }
            for (pattern, route) in other.call_patterns {
                add_pattern(&mut routes.call_patterns, pattern, route);
            }
            for (name, route) in other.notifications {
                add(&mut routes.notifications, "notification", name, route);
            }
            set_once(&mut routes.call_fallback, other.call_fallback, "calls");
            set_once(&mut routes.notification_fallback, other.notification_fallback, "notifications");
        })
    }
}

impl<S> Router<S> {
    /// Returns the node whose connections this router handles.
    pub fn node(&self) -> &Node {
        &self.routes.node
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }
}

/// Checks that clients can send the name, and that it is not reserved.
#[track_caller]
fn checked(name: &str) -> Name {
    assert!(!is_reserved(name), "the name {name:?} is reserved, like all names that begin with one of {RESERVED:?}");
    match Name::new(name) {
        Ok(name) => name,
        Err(error) => panic!("the name {name:?} cannot be called: {error}"),
    }
}

#[track_caller]
fn add<R>(routes: &mut HashMap<Name, R>, what: &str, name: Name, route: R) {
    match routes.entry(name) {
        Entry::Vacant(entry) => entry.insert(route),
        Entry::Occupied(entry) => panic!("the router has a {what} {:?} already", entry.key()),
    };
}

/// Keeps the most specific pattern first.
#[track_caller]
fn add_pattern(routes: &mut Vec<(CallPattern, CallRoute)>, pattern: CallPattern, route: CallRoute) {
    match routes.binary_search_by(|(other, _)| pattern.cmp(other)) {
        Ok(_) => panic!("the router has the pattern {pattern} already"),
        Err(at) => routes.insert(at, (pattern, route)),
    }
}

#[track_caller]
fn set_once<R>(fallback: &mut Option<R>, other: Option<R>, what: &str) {
    assert!(fallback.is_none() || other.is_none(), "both routers have a fallback for {what}");
    *fallback = fallback.take().or(other);
}

impl<S> Clone for Router<S> {
    fn clone(&self) -> Self {
        Self { routes: Arc::clone(&self.routes), state: Arc::clone(&self.state) }
    }
}

impl<S> fmt::Debug for Router<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("calls", &self.routes.calls.keys())
            .field("notifications", &self.routes.notifications.keys())
            .finish_non_exhaustive()
    }
}

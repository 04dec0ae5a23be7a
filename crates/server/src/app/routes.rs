//! What connections use of a router: the handlers by name, and the connect and disconnect handlers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use bytes::Bytes;
use roomcast_core::CallPattern;
use roomcast_protocol::{CloseCode, CloseFrame, Name};

use crate::app::authorizer::{self, SharedAuthorizer};
use crate::app::context::{CallContext, ConnectContext, DisconnectContext, NotificationContext, RoomAction};
use crate::app::handler::Handler;
use crate::app::handling::{Handled, Handling, Start, catch_panic};
use crate::app::rooms::{self, RoomAccess, RoomMessage, RoomRules};
use crate::app::socket::Socket;
use crate::end::Disconnected;
use crate::error::Code;
use crate::metrics::{MethodMetrics, UNKNOWN_METHOD};
use crate::node::handle::Node;
use crate::rate::Action;

/// How long the application's connect handler may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the application's disconnect handler may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What connections use of a router.
#[derive(Clone)]
pub(crate) struct Routes {
    pub(crate) node: Node,
    pub(crate) unknown: Arc<MethodMetrics>,
    pub(crate) calls: HashMap<Name, CallRoute>,
    /// For calls without a handler of their own. The most specific pattern comes first.
    pub(crate) call_patterns: Vec<(CallPattern, CallRoute)>,
    pub(crate) notifications: HashMap<Name, Route<NotificationContext>>,
    pub(crate) call_fallback: Option<Route<CallContext>>,
    pub(crate) notification_fallback: Option<Route<NotificationContext>>,
    pub(crate) rooms: RoomMethods,
    pub(crate) authorizer: Option<SharedAuthorizer>,
    pub(crate) on_connect: Option<Route<ConnectContext>>,
    pub(crate) on_disconnect: Option<Route<DisconnectContext>>,
}

/// A handler with its state.
pub(crate) struct Route<C> {
    handle: Arc<dyn Fn(C) -> Handling + Send + Sync>,
    start: Start,
}

impl<C> Clone for Route<C> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), start: self.start }
    }
}

#[derive(Clone)]
pub(crate) struct CallRoute {
    pub(crate) route: Route<CallContext>,
    pub(crate) metrics: Arc<MethodMetrics>,
}

/// The built-in `rooms/…` methods.
#[derive(Clone)]
pub(crate) struct RoomMethods {
    pub(crate) rules: RoomRules,
    join: Arc<MethodMetrics>,
    leave: Arc<MethodMetrics>,
    publish: Arc<MethodMetrics>,
    members: Arc<MethodMetrics>,
}

impl RoomMethods {
    fn new(node: &Node) -> Self {
        let metrics = |action: RoomAction| node.metrics().method(action.method());
        Self {
            rules: RoomRules {
                access: RoomAccess::Nobody,
                members_only: Arc::default(),
                on_join: None,
                on_publish: None,
            },
            join: metrics(RoomAction::Join),
            leave: metrics(RoomAction::Leave),
            publish: metrics(RoomAction::Publish),
            members: metrics(RoomAction::Members),
        }
    }

    fn metrics(&self, action: RoomAction) -> &Arc<MethodMetrics> {
        match action {
            RoomAction::Join => &self.join,
            RoomAction::Leave => &self.leave,
            RoomAction::Publish => &self.publish,
            RoomAction::Members => &self.members,
        }
    }
}

/// The handler of a call or notification.
pub(crate) enum Target<'routes, 'name, C> {
    Handler(&'routes Route<C>),
    Room(RoomMessage<'name>),
}

impl<C> Target<'_, '_, C> {
    /// Room messages start at once, because most of them do not wait.
    pub(crate) fn start(&self) -> Start {
        match self {
            Self::Handler(route) => route.start,
            Self::Room(_) => Start::Now,
        }
    }

    /// Returns what the client does, besides a call or a notification, as far as its rate is limited.
    pub(crate) fn limited(&self) -> Option<Action> {
        match self {
            Self::Handler(_) => None,
            Self::Room(message) => message.limited(),
        }
    }
}

pub(crate) fn erase<C, A, S>(handler: impl Handler<C, A, S>, state: &Arc<S>) -> Arc<dyn Fn(C) -> Handling + Send + Sync>
where
    S: Send + Sync + 'static,
{
    let (handler, state) = (Arc::new(handler), Arc::clone(state));
    Arc::new(move |context| Arc::clone(&handler).handle(context, &state))
}

impl<C> Route<C> {
    pub(crate) fn new<A, S: Send + Sync + 'static>(
        handler: impl Handler<C, A, S>,
        state: &Arc<S>,
        start: Start,
    ) -> Self {
        Self { handle: erase(handler, state), start }
    }

    /// Creates the handler's work.
    pub(crate) fn handle(&self, context: C) -> Handling {
        (self.handle)(context)
    }
}

/// The prefixes of the built-in methods.
pub(crate) const RESERVED: [&str; 2] = [rooms::PREFIX, authorizer::PREFIX];

pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

impl Routes {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            unknown: node.metrics().method(UNKNOWN_METHOD),
            rooms: RoomMethods::new(&node),
            authorizer: None,
            node,
            calls: HashMap::new(),
            call_patterns: Vec::new(),
            notifications: HashMap::new(),
            call_fallback: None,
            notification_fallback: None,
            on_connect: None,
            on_disconnect: None,
        }
    }

    /// Sets the authorizer, and adds the built-in method that refreshes identities.
    pub(crate) fn set_authorizer(&mut self, authorizer: SharedAuthorizer) {
        let metrics = self.node.metrics().method(authorizer::REFRESH);
        let refresh = authorizer.clone();
        let handle = Arc::new(move |call: CallContext| refresh.refresh(call.socket, call.payload));
        let name = Name::new(authorizer::REFRESH).expect("the name is short");
        self.calls.insert(name, CallRoute { route: Route { handle, start: Start::Later }, metrics });
        self.authorizer = Some(authorizer);
    }

    /// Finds the handler of a call, and the metrics that count it.
    pub(crate) fn call<'routes, 'name>(
        &'routes self,
        name: &'name Name,
    ) -> (Option<Target<'routes, 'name, CallContext>>, &'routes Arc<MethodMetrics>) {
        if let Some(call) = self.calls.get(name) {
            return (Some(Target::Handler(&call.route)), &call.metrics);
        }
        if let Some(message) = RoomMessage::parse(name) {
            return (Some(Target::Room(message)), self.rooms.metrics(message.action));
        }
        let matching = self.call_patterns.iter().find(|(pattern, _)| pattern.matches(name));
        match matching.filter(|_| !is_reserved(name)) {
            Some((_, call)) => (Some(Target::Handler(&call.route)), &call.metrics),
            None => (Self::fallback(name, &self.call_fallback), &self.unknown),
        }
    }

    /// Finds the handler of a notification.
    pub(crate) fn notification<'routes, 'name>(
        &'routes self,
        name: &'name Name,
    ) -> Option<Target<'routes, 'name, NotificationContext>> {
        let handler = self.notifications.get(name).map(Target::Handler);
        let handler = handler.or_else(|| RoomMessage::parse(name).map(Target::Room));
        handler.or_else(|| Self::fallback(name, &self.notification_fallback))
    }

    /// Reserved names have no fallback, so that a mistyped `rooms/…` cannot pass for a method of
    /// the application.
    fn fallback<'routes, 'name, C>(
        name: &Name,
        fallback: &'routes Option<Route<C>>,
    ) -> Option<Target<'routes, 'name, C>> {
        fallback.as_ref().filter(|_| !is_reserved(name)).map(Target::Handler)
    }

    pub(crate) fn room_rules(&self) -> &RoomRules {
        &self.rooms.rules
    }

    /// Runs the connect handler.
    pub(crate) async fn connect(&self, socket: Socket, request: Arc<Parts>) -> Result<(), CloseFrame> {
        let on_connect = self.on_connect.clone();
        let connecting = catch_panic(Box::pin(async move {
            let (local, connection) = (socket.node.hub().local(), &socket.context.connection);
            local.join_user(connection).await?;
            // From here on, a revocation finds the connection. An earlier one was found by the
            // authorizer, or is found now.
            socket.node.hub().cluster().revoker().enforce_on(connection);
            if let Some(access) = socket.context.access() {
                for room in &access.identity().join {
                    local.join_eventually(connection, room).await?;
                }
            }
            match on_connect {
                Some(on_connect) => on_connect.handle(ConnectContext { socket, request }).await,
                None => Ok(Bytes::new()),
            }
        }));
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Handled::Returned(Ok(_))) => Ok(()),
            Ok(Handled::Returned(Err(error))) if matches!(error.code, Code::Unavailable | Code::ResourceExhausted) => {
                Err(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, error.message))
            }
            Ok(Handled::Returned(Err(error))) => Err(CloseFrame::new(CloseCode::POLICY_VIOLATION, error.message)),
            Ok(Handled::Panicked) => {
                Err(CloseFrame::new(CloseCode::INTERNAL_ERROR, "the server could not take the connection"))
            }
            Err(_) => Err(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the server takes too long; try again later")),
        }
    }

    /// Runs the disconnect handler.
    pub(crate) async fn disconnect(&self, socket: Socket, disconnected: Disconnected) {
        let Some(on_disconnect) = self.on_disconnect.clone() else { return };
        let context = Arc::clone(&socket.context);
        let (id, user) = (socket.id(), context.user());
        let disconnecting =
            catch_panic(Box::pin(
                async move { on_disconnect.handle(DisconnectContext { socket, disconnected }).await },
            ));
        match tokio::time::timeout(DISCONNECT_TIMEOUT, disconnecting).await {
            Ok(handled) => {
                if let Err(error) = handled.into_result() {
                    tracing::warn!(connection = %id, user, %error, "the disconnect handler failed");
                }
            }
            Err(_) => tracing::warn!(connection = %id, user, "the disconnect handler took too long and was dropped"),
        }
    }
}

//! The life of one of a router's connections, and the way of its calls and notifications to their handlers.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::Extensions;
use bytes::Bytes;
use roomcast_core::{Codec, Connection, Place, UserId};
use roomcast_protocol::{CallId, CloseFrame, Name};

use crate::app::handler::Request;
use crate::app::handling::{Begun, Handled, Handling, catch_panic};
use crate::app::notifications::{NotificationQueue, report};
use crate::app::router::Routes;
use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::call::running::Call;
use crate::call::table::Refusal;
use crate::connection::context::{ConnectionContext, call_cost, notification_cost};
use crate::connection::driver::Driver;
use crate::connection::responder::Responder;
use crate::connection::session::{App, Rpc};
use crate::connection::transport::Transport;
use crate::end::{CancelCause, End};
use crate::error::{CallError, Code, overloaded, panicked};
use crate::metrics::OpenConnection;

/// Runs a connection until its end.
///
/// This future is what an idle connection costs: what only the beginning and the end need is boxed, and freed.
pub(crate) async fn run(opening: Pin<Box<impl Future<Output = Option<Open>>>>) {
    let Some(mut open) = opening.await else { return };
    let end = open.driver.run().await;
    Box::pin(open.finish(end)).await;
}

/// Waits for the end of the handshake, and asks the application. `None`: there is no connection, or it is refused and
/// closed.
pub(crate) async fn open(
    upgraded: impl Future<Output = Option<Transport>>,
    routes: Arc<Routes>,
    peer_addr: Option<SocketAddr>,
    user: Option<UserId>,
    extensions: Extensions,
    place: Place,
) -> Option<Open> {
    let transport = upgraded.await?;
    let hub = routes.node.hub();
    let connection = hub.local().connect(user, Codec::RpcV01);
    let counted = OpenConnection::new(&routes.metrics);
    let peer = Arc::clone(connection.shared());
    let context = ConnectionContext::new(
        peer,
        peer_addr,
        extensions,
        Arc::clone(routes.node.options()),
        Arc::clone(&routes.metrics),
    );
    let socket = Socket { context: Arc::clone(&context), node: routes.node.clone() };
    let accepted = routes.connect(socket.clone()).await;
    let delivery_latency = hub.metrics().delivery_latency.clone();
    let app = RouterApp { routes, socket, queue: None };
    let driver = Driver::new(transport, Arc::clone(&context), Rpc::new(&context, app), delivery_latency);
    let open = Open { driver, connection, counted, _place: place };
    match accepted {
        Ok(()) => Some(open),
        Err(close) => {
            open.refuse(close).await;
            None
        }
    }
}

/// An open connection.
pub(crate) struct Open {
    driver: Driver<Rpc<RouterApp>>,
    /// Its entry in the node, which counts it until this is dropped: a drain waits for its last output and handlers.
    connection: Connection,
    counted: OpenConnection,
    /// Its place among the node's `max_connections`.
    _place: Place,
}

impl Open {
    /// Closes it and runs its last handlers. They do not wait for the closing handshake, which a client can delay: a
    /// drain would otherwise end before they have run.
    async fn finish(mut self, end: End) {
        let queue = self.stop(&end);
        let RouterApp { routes, socket, .. } = &self.driver.session.app;
        let (routes, socket) = (Arc::clone(routes), socket.clone());
        let last_handlers = async {
            if let Some(queue) = queue {
                queue.finish().await;
            }
            routes.disconnect(socket, end.disconnected()).await;
        };
        tokio::join!(self.driver.close(&end), last_handlers);
    }

    /// Closes it before any handler but the application's connect handler has run.
    async fn refuse(mut self, close: CloseFrame) {
        let end = End::ByServer(close);
        self.stop(&end);
        self.driver.close(&end).await;
    }

    /// Cancels its calls and takes it out of its rooms. Returns the notifications that handlers have not finished.
    fn stop(&mut self, end: &End) -> Option<NotificationQueue> {
        self.counted.closed(end);
        let RouterApp { routes, socket, queue } = &mut self.driver.session.app;
        socket.context.end(end.cancel_cause());
        socket.context.set_handler_knows_end();
        self.connection.leave_rooms();
        let queue = queue.take()?;
        if routes.node.hub().local().is_short_of_memory() {
            queue.abort();
            return None;
        }
        Some(queue)
    }
}

/// One connection's calls and notifications, given to the router's handlers.
struct RouterApp {
    routes: Arc<Routes>,
    socket: Socket,
    /// Made for the first notification that has to wait.
    queue: Option<NotificationQueue>,
}

impl App for RouterApp {
    fn on_notify(&mut self, context: &Arc<ConnectionContext>, name: Name, payload: Bytes) -> Result<(), CloseFrame> {
        let Some(route) = self.routes.notification(&name) else {
            report(context, Err(unknown("event", &name)));
            return Ok(());
        };
        let cost = notification_cost(&name, &payload);
        let request = Request { name, payload, socket: self.socket.clone(), cancel: None };
        // One that waits its turn behind others is not begun before it.
        let in_turn = self.queue.as_ref().is_none_or(NotificationQueue::is_idle);
        match if in_turn { route.begin(request) } else { Begun::Waits(route.later(request)) } {
            Begun::Done(handled) => report(context, handled.into_result()),
            Begun::Waits(rest) => {
                if !self.queue.get_or_insert_default().push(context, rest, cost) {
                    return Err(overloaded());
                }
            }
        }
        Ok(())
    }

    fn on_request(
        &mut self,
        context: &Arc<ConnectionContext>,
        id: CallId,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame> {
        let route = self.routes.call(&name);
        let metrics = route.map_or(&self.routes.unknown, |route| &route.metrics);
        let call = Call::new(Arc::clone(metrics), Arc::clone(&context.metrics));
        let cost = call_cost(&name, &payload);
        let admitted = context.admit_call(id, cost);
        let known = || route.ok_or_else(|| Refusal::Answer(unknown("method", &name)));
        let route = match admitted.and_then(|()| known()) {
            Ok(route) => &route.route,
            Err(refusal) => return context.refuse_call(id, &call, refusal),
        };
        // A call that a quick handler answers at once never enters the table: no Reset can come in between.
        let cancel = Some(Cancel::new(&call));
        match route.begin(Request { name, payload, socket: self.socket.clone(), cancel }) {
            Begun::Done(Handled::Returned(result)) => context.answer_at_once(id, &call, result),
            Begun::Done(Handled::Panicked) => {
                context.answer_at_once(id, &call, Err(panicked()));
                call.stop(CancelCause::Panic);
            }
            Begun::Waits(rest) => run_call(&call, Responder::start(context, id, &call, cost), rest),
        }
        Ok(())
    }
}

fn unknown(what: &str, name: &Name) -> CallError {
    CallError::new(Code::NotFound, format!("there is no {what} {name:?}"))
}

/// Runs a call's handler in a task of its own.
fn run_call(call: &Call, responder: Responder, handling: Handling) {
    let task = tokio::spawn(async move {
        match catch_panic(handling).await {
            Handled::Returned(result) => responder.answer(result),
            Handled::Panicked => responder.fail(CancelCause::Panic, panicked()),
        }
    });
    call.adopt(task.abort_handle());
    // Tokio runs what was spawned last on this thread next, and wakes no other thread to watch the
    // sockets meanwhile: a handler that computes would keep its own Reset from being read. A second task
    // wakes one, if one sleeps.
    tokio::spawn(std::future::ready(()));
}

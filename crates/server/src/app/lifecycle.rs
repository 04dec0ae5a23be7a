//! The lifecycle of a router's connection, and the path of its calls and notifications to their
//! handlers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use roomcast_core::{Codec, ConnectionGuard, Right};
use roomcast_protocol::{CallId, CloseFrame, Name};
use tracing::Instrument;

use crate::app::context::{CallContext, NotificationContext};
use crate::app::handling::{Begun, Handled, Handling, Start, begin, catch_panic};
use crate::app::late::LateClient;
use crate::app::notifications::{NotificationQueue, report};
use crate::app::opening::{Opening, Places};
use crate::app::rooms::MessageKind;
use crate::app::routes::{Routes, Target, is_reserved};
use crate::app::socket::Socket;
use crate::app::{spans, traces};
use crate::call::calls::Refusal;
use crate::call::cancel::Cancel;
use crate::call::report::CallReport;
use crate::call::running::Call;
use crate::connection::context::ConnectionContext;
use crate::connection::driver::Driver;
use crate::connection::inbound::{call_cost, notification_cost};
use crate::connection::rates::TooOften;
use crate::connection::responder::Responder;
use crate::connection::session::{App, Rpc};
use crate::connection::transport::Transport;
use crate::end::{CancelCause, End};
use crate::error::{CallError, Code, overloaded, panicked};
use crate::metrics::OpenConnection;

/// Runs a connection until it ends.
///
/// The size of this future determines the memory of an idle connection. What only the start and the
/// end need is therefore boxed and freed.
pub(crate) async fn run(opening: Pin<Box<impl Future<Output = Option<Open>>>>) {
    let Some(mut open) = opening.await else { return };
    let end = open.driver.run().await;
    Box::pin(open.finish(end)).await;
}

/// Waits for the end of the handshake, and runs the connect handler. Returns `None` if there is no
/// connection, or if the connect handler refused it and it was closed.
pub(crate) async fn open(opening: Opening, upgraded: impl Future<Output = Option<Transport>>) -> Option<Open> {
    let Opening { routes, client, mut info, request, places, span } = opening;
    let node = routes.node.clone();
    let transport = upgraded.await?;
    let entry = node.hub().local().connect_client(client, Codec::RpcV01);
    let counted = OpenConnection::new(node.metrics());
    let connection = Arc::clone(entry.shared());
    spans::open_connection(&connection, &mut info);
    let context = ConnectionContext::new(connection, info, node.options(), Arc::clone(node.metrics()));
    let socket = Socket { context: Arc::clone(&context), node };
    let is_pending = context.access().is_some_and(|access| access.identity().is_pending);
    let (accepted, late) = match is_pending {
        true => (Ok(()), Some(LateClient::new(request))),
        false => {
            let connecting = routes.connect(socket.clone(), request).instrument(span.clone());
            (spans::within(&context, connecting).await, None)
        }
    };
    traces::on_connected(&span, &context, accepted.as_ref().err());
    drop(span);
    let delivery_latency = socket.node.hub().metrics().delivery_latency.clone();
    let app = RouterApp { routes, socket, queue: None, late };
    let driver = Driver::new(transport, Arc::clone(&context), Rpc::new(&context, app), delivery_latency);
    let open = Open { driver, held: Box::new(Held { entry, counted, _places: places }) };
    match accepted {
        Ok(()) => {
            if !is_pending {
                open.socket().node.hub().local().report_connected(&open.held.entry);
            }
            Some(open)
        }
        Err(close) => {
            open.refuse(close).await;
            None
        }
    }
}

/// An open connection.
pub(crate) struct Open {
    driver: Driver<Rpc<RouterApp>>,
    /// Boxed, so that the task of the connection, whose memory is a multiple of 128 bytes, fits in
    /// the next smaller size.
    held: Box<Held>,
}

/// What an open connection holds until its end.
struct Held {
    /// The connection's entry in the node. The node counts the connection until the entry is
    /// dropped, so a drain waits for the connection's last output and handlers.
    entry: ConnectionGuard,
    counted: OpenConnection,
    _places: Places,
}

impl Open {
    pub(crate) fn socket(&self) -> &Socket {
        &self.driver.session.app.socket
    }

    /// Closes the connection and runs its last handlers. They do not wait for the closing
    /// handshake, because a client could delay it until after the end of a drain.
    async fn finish(mut self, end: End) {
        let queue = self.stop(&end);
        let RouterApp { routes, socket, late, .. } = &self.driver.session.app;
        let (routes, socket) = (Arc::clone(routes), socket.clone());
        let has_entered = late.as_ref().is_none_or(LateClient::has_entered);
        let last_handlers = async {
            if let Some(queue) = queue {
                queue.finish().await;
            }
            let context = Arc::clone(&socket.context);
            if has_entered {
                spans::within(&context, routes.disconnect(socket, end.disconnected())).await;
            }
        };
        tokio::join!(self.driver.close(&end), last_handlers);
        spans::log_access(&self.socket().context, &end);
    }

    /// Closes the connection before any handler other than the application's connect handler has
    /// run.
    async fn refuse(mut self, close: CloseFrame) {
        let end = End::ByServer(close);
        self.stop(&end);
        self.driver.close(&end).await;
        spans::log_access(&self.socket().context, &end);
    }

    /// Cancels the connection's calls and removes it from its rooms. Returns the notifications
    /// whose handlers have not finished.
    fn stop(&mut self, end: &End) -> Option<NotificationQueue> {
        self.held.counted.closed(end);
        let RouterApp { routes, socket, queue, .. } = &mut self.driver.session.app;
        socket.context.end(end.cancel_cause());
        spans::on_closed(&socket.context, end);
        traces::disconnect(&socket.context, end);
        self.held.entry.leave_rooms();
        routes.node.hub().local().report_disconnected(&self.held.entry, &end.ending());
        let queue = queue.take()?;
        // A client whose credential ended has lost its rights, which nobody would check again.
        if end.is_for_credential() || routes.node.hub().local().is_short_of_memory() {
            queue.abort();
            return None;
        }
        Some(queue)
    }
}

/// Passes a connection's calls and notifications to the router's handlers.
struct RouterApp {
    routes: Arc<Routes>,
    socket: Socket,
    /// Created for the first notification that has to wait.
    queue: Option<NotificationQueue>,
    /// `None` if the client's credential was accepted before the connection opened.
    late: Option<LateClient>,
}

impl App for RouterApp {
    fn on_notify(
        &mut self,
        context: &Arc<ConnectionContext>,
        now: Instant,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame> {
        self.late.as_ref().map_or(Ok(()), |late| late.check(&name))?;
        let target = check_call(context, &name)
            .and_then(|()| self.routes.notification(&name).ok_or_else(|| unknown("event", &name)));
        let target = match target {
            Ok(target) => target,
            Err(error) => {
                report(context, &name, Err(error));
                return Ok(());
            }
        };
        if let Some(action) = target.limited() {
            context.take(action, now).map_err(TooOften::close_frame)?;
        }
        let cost = notification_cost(&name, &payload);
        // A notification that has to wait for earlier ones must not start before them.
        let in_turn = self.queue.as_ref().is_none_or(NotificationQueue::is_idle);
        let start = if in_turn { target.start() } else { Start::Later };
        let socket = &self.socket;
        let begun = begin(start, || {
            let span = spans::notification(context, &name);
            let traced = traces::notification(context, &name);
            let handling = match target {
                Target::Handler(route) => {
                    route.handle(NotificationContext { name: name.clone(), payload, socket: socket.clone() })
                }
                Target::Room(message) => {
                    message.perform(self.routes.room_rules(), socket, payload, MessageKind::Notification(name.clone()))
                }
            };
            traces::follow_notification(spans::instrument(handling, span), traced)
        });
        match begun {
            Begun::Done(handled) => report(context, &name, handled.into_result()),
            Begun::Waits(rest) => {
                if !self.queue.get_or_insert_default().push(context, name, rest, cost) {
                    return Err(overloaded());
                }
            }
        }
        Ok(())
    }

    fn on_request(
        &mut self,
        context: &Arc<ConnectionContext>,
        now: Instant,
        id: CallId,
        name: Name,
        payload: Bytes,
    ) -> Result<(), CloseFrame> {
        self.late.as_ref().map_or(Ok(()), |late| late.check(&name))?;
        let (target, metrics) = self.routes.call(&name);
        let call = Call::new(id, &context.connection, Arc::clone(metrics), Arc::clone(&context.metrics));
        let cost = call_cost(&name, &payload);
        let find = || {
            check_call(context, &name)?;
            let target = target.ok_or_else(|| unknown("method", &name))?;
            target.limited().map_or(Ok(()), |action| context.take(action, now))?;
            Ok(target)
        };
        let span = spans::call(context, id, &name);
        let admitted = context.admit_call(id, cost, now);
        let found = admitted.and_then(|()| span.in_scope(find).map_err(Refusal::Answer));
        let target = match found {
            Ok(target) => target,
            Err(refusal) => return context.refuse_call(id, &call, refusal),
        };
        if !is_reserved(&name)
            && let Some(report) = CallReport::new(self.routes.node.hub().local(), &context.connection, id, &name)
        {
            call.report(report);
        }
        let (start, cancel, socket) = (target.start(), Cancel::new(&call), &self.socket);
        let begun = begin(start, || {
            let traced = traces::call(context, &call, &name);
            if let Some(trace_id) = call.trace_id() {
                span.record("trace_id", trace_id);
            }
            let handling = match target {
                Target::Handler(route) => {
                    let handling =
                        route.handle(CallContext { name: name.clone(), payload, socket: socket.clone(), cancel });
                    match &self.late {
                        Some(late) => late.enter(handling, &self.routes, socket),
                        None => handling,
                    }
                }
                Target::Room(message) => message.perform(self.routes.room_rules(), socket, payload, MessageKind::Call),
            };
            traces::follow(spans::instrument(handling, span), traced, &call)
        });
        // A call that a quick handler answers at once never enters the table, because no Reset can
        // arrive meanwhile.
        match begun {
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

/// Checks that the client may call a method, whether or not the method exists. A built-in method
/// checks the rights on the room that the client names.
fn check_call(context: &ConnectionContext, name: &Name) -> Result<(), CallError> {
    if context.access().is_none() || is_reserved(name) {
        return Ok(());
    }
    context.check_right(Right::Call, name)
}

fn unknown(what: &str, name: &Name) -> CallError {
    CallError::new(Code::NotFound, format!("no handler for the {what} {name:?}"))
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
    // A second, empty task makes another thread wake up and poll the sockets. Tokio runs the task
    // that was spawned last on this thread next, and does not wake another thread for it alone. A
    // handler that computes would therefore keep the connection from reading its own Reset.
    tokio::spawn(std::future::ready(()));
}

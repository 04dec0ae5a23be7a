//! A client that sends its credential after its connection has opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::request::Parts;
use parking_lot::Mutex;
use roomcast_protocol::{CloseCode, CloseFrame, Name};

use crate::app::authorizer::REFRESH;
use crate::app::handling::Handling;
use crate::app::routes::Routes;
use crate::app::socket::Socket;

/// A client whose identity is pending. Before the response to its first successful `auth/refresh`,
/// it can send nothing else, and the connect handler has not run.
#[derive(Debug, Clone)]
pub(crate) struct LateClient(Arc<State>);

#[derive(Debug)]
struct State {
    /// For the connect handler. `None` after the handler has started.
    request: Mutex<Option<Arc<Parts>>>,
    has_entered: AtomicBool,
}

impl LateClient {
    pub(crate) fn new(request: Arc<Parts>) -> Self {
        Self(Arc::new(State { request: Mutex::new(Some(request)), has_entered: AtomicBool::new(false) }))
    }

    /// Returns whether the client's credential was accepted and the connect handler has run.
    pub(crate) fn has_entered(&self) -> bool {
        self.0.has_entered.load(Ordering::Acquire)
    }

    /// Checks that the client may send a message.
    ///
    /// # Errors
    /// Returns the Close that ends the connection.
    pub(crate) fn check(&self, name: &Name) -> Result<(), CloseFrame> {
        match self.has_entered() || **name == *REFRESH {
            true => Ok(()),
            false => {
                let reason = "call auth/refresh first, and wait for the response";
                Err(CloseFrame::new(CloseCode::TOKEN_EXPIRED, reason))
            }
        }
    }

    /// Runs the connect handler once a refresh has succeeded. If the client cancels the refresh
    /// meanwhile, the connect handler continues.
    pub(crate) fn enter(&self, refreshing: Handling, routes: &Arc<Routes>, socket: &Socket) -> Handling {
        if self.has_entered() {
            return refreshing;
        }
        let (state, routes, socket) = (Arc::clone(&self.0), Arc::clone(routes), socket.clone());
        Box::pin(async move {
            let response = refreshing.await?;
            // Of two refreshes that succeed, only the first one starts the connect handler.
            let Some(request) = state.request.lock().take() else { return Ok(response) };
            let entering = tokio::spawn(async move {
                match routes.connect(socket.clone(), request).await {
                    Ok(()) => {
                        state.has_entered.store(true, Ordering::Release);
                        socket.node.hub().local().report_connected(&socket.context.connection);
                    }
                    Err(close) => drop(socket.context.connection.outbox.close(close)),
                }
            });
            // The task does not panic: `connect` catches panics of the handler.
            let _ = entering.await;
            Ok(response)
        })
    }
}

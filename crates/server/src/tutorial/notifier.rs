//! A handle with which other tasks send events to a client.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::context::ConnectionContext;
use crate::error::NotifyError;

/// Sends events to one client. It is cheap to clone and does not keep the connection open.
///
/// ```
/// use roomcast::{Notifier, NotifyError};
///
/// async fn greet(client: Notifier) -> Result<(), NotifyError> {
///     client.notify("hello", "you").await
/// }
/// ```
#[derive(Clone)]
pub struct Notifier {
    context: Arc<ConnectionContext>,
}

impl Notifier {
    pub(crate) fn new(context: Arc<ConnectionContext>) -> Self {
        Self { context }
    }

    /// Sends an event, as [`SocketIo::notify`](crate::SocketIo::notify) does. For one second after
    /// the end of the connection, events are dropped without an error, because tasks may notice the
    /// end later than the connection's loop.
    ///
    /// # Errors
    /// Returns [`NotifyError`] if the event's name is too long, or if the connection ended more
    /// than one second ago.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is done, the event is not sent.
    pub async fn notify(&self, event: &str, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        let_others_run().await;
        match self.context.notify(event, Bytes::copy_from_slice(data.as_ref())) {
            Err(error) if error.is_end() && !self.context.ended_long_ago() => Ok(()),
            result => result,
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notifier").field(&self.context.connection.id).finish()
    }
}

/// Lets other tasks run, in case a loop does nothing but notify.
pub(crate) async fn let_others_run() {
    tokio::task::consume_budget().await;
}

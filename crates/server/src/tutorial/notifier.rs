//! Events to one client, by those who are not its handler.

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

    /// Sends an event, as [`SocketIo::notify`](crate::SocketIo::notify) does. For a second after the connection's end,
    /// events are dropped without an error, because tasks that keep a notifier notice the end later than the
    /// connection's handler.
    ///
    /// # Errors
    /// [`NotifyError`] if the name is too long or the connection ended more than a second ago.
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

/// For a loop that only notifies.
pub(crate) async fn let_others_run() {
    tokio::task::consume_budget().await;
}

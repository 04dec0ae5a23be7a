//! Events to one client, by those who are not its handlers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::context::ConnectionContext;
use crate::error::NotifyError;

/// Sends events to one client. Cheap to clone; does not keep the connection open.
#[derive(Clone)]
pub struct Notifier {
    context: Arc<ConnectionContext>,
}

impl Notifier {
    pub(crate) fn new(context: Arc<ConnectionContext>) -> Self {
        Self { context }
    }

    /// As [`SocketIo::notify`](crate::SocketIo::notify); to a connection that has ended, without an error for a second
    /// more, since those who keep a notifier don't learn of the end otherwise.
    ///
    /// # Errors
    /// As [`SocketIo::notify`](crate::SocketIo::notify).
    pub async fn notify(&self, event: &str, data: impl AsRef<[u8]>) -> Result<(), NotifyError> {
        let_others_run().await;
        self.context.notify_from_afar(event, Bytes::copy_from_slice(data.as_ref()))
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notifier").field(&self.context.peer.id).finish()
    }
}

/// For a loop that only notifies.
pub(crate) async fn let_others_run() {
    tokio::task::consume_budget().await;
}

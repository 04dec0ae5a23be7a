//! The log lines of publishes. They show whether an event has left its publisher.

use std::sync::Arc;

use roomcast_core::{LocalConnection, Position, PublishError, RoomName};
use roomcast_protocol::Name;
use tracing::Level;

/// Who publishes an event.
#[derive(Debug, Clone)]
pub(crate) enum Publisher {
    Client(Arc<LocalConnection>),
    /// The application, or the HTTP API of the node.
    Server,
}

/// What is logged of an event: never its payload.
pub(crate) struct Published {
    publisher: Publisher,
    room: RoomName,
    event: Name,
    bytes: usize,
}

impl Published {
    /// Returns `None` if the log has no such lines.
    pub(crate) fn new(publisher: &Publisher, room: &RoomName, event: &Name, bytes: usize) -> Option<Self> {
        let is_logged = tracing::enabled!(Level::DEBUG, connection, user, room);
        is_logged.then(|| Self { publisher: publisher.clone(), room: room.clone(), event: event.clone(), bytes })
    }

    /// Logs the outcome of the publish.
    pub(crate) fn log(&self, result: &Result<Position, PublishError>) {
        let Self { publisher, room, event, bytes } = self;
        let (event, error) = (&**event, result.as_ref().err().map(tracing::field::display));
        match publisher {
            Publisher::Client(connection) => {
                let user = connection.user().map(|user| &**user);
                tracing::debug!(
                    connection = %connection.id, user, %room, event, bytes, error, source = "client", "an event was published"
                );
            }
            Publisher::Server => {
                tracing::debug!(%room, event, bytes, error, source = "server", "an event was published");
            }
        }
    }
}

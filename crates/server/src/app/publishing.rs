//! Clients' publishes, which are limited to their connection's share of the publish queue.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::{BoxFuture, Hub, Position, Right, RoomName};
use roomcast_protocol::Name;

use crate::app::notifications::report;
use crate::connection::context::ConnectionContext;
use crate::connection::publish_share::{PublishShare, Started};
use crate::error::CallError;
use crate::published::{Published, Publisher};

/// An event that a client publishes.
pub(crate) struct ClientEvent {
    pub(crate) room: RoomName,
    pub(crate) event: Name,
    pub(crate) payload: Bytes,
}

/// Publishes for a client's call, waits until the broker has accepted the event, and returns its
/// position.
pub(crate) async fn publish(context: &ConnectionContext, hub: &Hub, event: ClientEvent) -> Result<Position, CallError> {
    match start(context, hub, event).await? {
        Started::Accepted(position) => Ok(position),
        Started::UnderWay(under_way) => Ok(under_way.await?),
    }
}

/// Publishes for a client's notification `method`. It waits until the connection's share has room
/// for the event, so that the client's next notification stays behind it. It does not wait for the
/// broker, and reports a failure later.
pub(crate) async fn publish_unawaited(
    context: &Arc<ConnectionContext>,
    hub: &Hub,
    method: Name,
    event: ClientEvent,
) -> Result<(), CallError> {
    if let Started::UnderWay(under_way) = start(context, hub, event).await? {
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let result = under_way.await;
            report(&context, &method, result.map(|_| Bytes::new()).map_err(CallError::from));
        });
    }
    Ok(())
}

async fn start(context: &ConnectionContext, hub: &Hub, event: ClientEvent) -> Result<Started, CallError> {
    let ClientEvent { room, event, payload } = event;
    let size = payload.len();
    let share = context.publish_share.get_or_init(|| Box::new(PublishShare::new()));
    let published = Published::new(&Publisher::Client(Arc::clone(&context.connection)), &room, &event, size);
    let publish = || {
        // The right may have been taken away while the publish waited.
        context.check_right(Right::Publish, &room)?;
        let publishing = hub.publish(room, event, payload);
        Ok(match published {
            None => Box::pin(publishing) as BoxFuture<'static, _>,
            Some(published) => Box::pin(async move {
                let result = publishing.await;
                published.log(&result);
                result
            }),
        })
    };
    share.start(size, publish).await
}

//! Publishes of clients, within their connection's share of the publish queue.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_core::{Hub, PublishError, RoomName};
use roomcast_protocol::Name;

use crate::app::notifications::report;
use crate::connection::context::ConnectionContext;
use crate::connection::publish_share::{Publishing, UnderWay, cost};
use crate::error::CallError;

/// Publishes for a client's call, and waits until the broker has accepted it.
pub(crate) async fn publish(
    context: &ConnectionContext,
    hub: &Arc<Hub>,
    room: RoomName,
    event: Name,
    payload: Bytes,
) -> Result<(), PublishError> {
    match start(context, hub, room, event, payload).await? {
        Some(publishing) => publishing.await,
        None => Ok(()),
    }
}

/// Publishes for a client's notification. Waits for room in the share, so that the client's next notification comes
/// after it, but not for the broker; a failure is reported once it is known.
pub(crate) async fn publish_unawaited(
    context: &Arc<ConnectionContext>,
    hub: &Arc<Hub>,
    room: RoomName,
    event: Name,
    payload: Bytes,
) -> Result<(), CallError> {
    let name = event.clone();
    if let Some(publishing) = start(context, hub, room, event, payload).await? {
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let result = publishing.await;
            report(&context, &name, result.map(|()| Bytes::new()).map_err(CallError::from));
        });
    }
    Ok(())
}

/// Begins a publish when there is room for it in the share. `None`: the broker has accepted it already.
async fn start(
    context: &ConnectionContext,
    hub: &Arc<Hub>,
    room: RoomName,
    event: Name,
    payload: Bytes,
) -> Result<Option<UnderWay>, PublishError> {
    let cost = cost(payload.len());
    let begin = begin(hub, room, event, payload);
    let mut publishing = match context.publish_share.get() {
        Some(share) => share.begin(cost, begin).await?,
        None => {
            let mut publishing = begin();
            if let Some(result) = (&mut publishing).now_or_never() {
                return result.map(|()| None);
            }
            UnderWay::new(publishing, context.publish_share.get_or_init(Arc::default).count(cost))
        }
    };
    match (&mut publishing).now_or_never() {
        Some(result) => result.map(|()| None),
        None => Ok(Some(publishing)),
    }
}

fn begin(hub: &Arc<Hub>, room: RoomName, event: Name, payload: Bytes) -> impl FnOnce() -> Publishing + Send + use<> {
    let hub = Arc::clone(hub);
    move || Box::pin(hub.publish(room, event, payload))
}

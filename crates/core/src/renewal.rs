//! Memberships that survive a broker outage: failed subscriptions are retried when the broker is back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::broker::{BrokerError, BrokerStatus};
use crate::hub::{Hub, JoinError, Subscription};
use crate::id::RoomName;
use crate::peer::Peer;

/// How often failed subscriptions are retried while the broker works.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// A subscription's outcome, if it has one, even if nobody waits for it any more.
fn outcome(subscription: &Subscription) -> Option<Result<(), BrokerError>> {
    subscription.clone().now_or_never()
}

/// Whether a subscription has failed.
pub(crate) fn has_failed(subscription: &Subscription) -> bool {
    matches!(outcome(subscription), Some(Err(_)))
}

impl Hub {
    /// Like [`join`](Self::join), but an unavailable broker is not an error: the connection becomes a member anyway,
    /// and gets the room's events once the broker is back. Waits for the subscription only while the broker works.
    ///
    /// # Errors
    /// [`JoinError`], except for an unavailable broker; the connection is then not a member.
    ///
    /// # Cancel safety
    /// As [`join`](Self::join).
    pub async fn join_eventually(&self, peer: &Arc<Peer>, room: &RoomName) -> Result<(), JoinError> {
        let mut status = self.broker.status();
        let Some(subscription) = self.add_member(peer, room, None)? else { return Ok(()) };
        // If it failed or is still pending, `renew_subscriptions` takes over.
        tokio::select! {
            _ = subscription => {}
            _ = status.wait_for(|status| *status == BrokerStatus::Down) => {}
        }
        Ok(())
    }

    /// Subscribes again to rooms that have members although their subscription failed.
    pub(crate) async fn renew_subscriptions(&self) {
        let mut status = self.broker.status();
        while status.wait_for(|status| *status == BrokerStatus::Up).await.is_ok() {
            for shard in &self.shards {
                // Those that succeeded are removed here, because their joiners no longer wait.
                shard.lock().pending.retain(|room, subscription| match outcome(subscription) {
                    Some(Ok(())) => false,
                    Some(Err(_)) => {
                        *subscription = self.broker.subscribe(room).shared();
                        true
                    }
                    None => true,
                });
            }
            tokio::time::sleep(RENEWAL_INTERVAL).await;
        }
        std::future::pending().await // the broker has ended
    }
}

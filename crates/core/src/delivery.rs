//! The broker's events on their way to the members of their rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::batch::{Batch, batches};
use crate::hub::{Hub, Shard};
use crate::id::RoomName;
use crate::outbox::{Outgoing, Rejected};
use crate::pacing::{Backlogs, Parcel};
use crate::peer::Peer;

/// An event that is older than this when it arrives counts as missed during an outage of the node or of Redis. An event
/// also looks late if its publisher's clock is that far behind: its members are then waited for without need.
const LATE: Duration = Duration::from_millis(250);

impl Hub {
    /// Delivers the broker's events to the members until the broker's stream ends.
    pub(crate) async fn take_events(self: &Arc<Self>) {
        let mut events = Vec::new();
        let mut backlogs = Backlogs::new(self.options.outbound_memory);
        loop {
            let more = match backlogs.deadline() {
                None => self.broker.next_events(&mut events).await,
                Some(deadline) => tokio::select! {
                    more = self.broker.next_events(&mut events) => more,
                    () = self.load.space_made() => true,
                    () = sleep_until(deadline) => true,
                },
            };
            if !more {
                break;
            }
            // Under constant load the broker is always ready. All that `Hub::run` does shares one task of the
            // runtime: without this, memory would not be watched, and other nodes would take this one for gone.
            consume_budget().await;
            for batch in batches(events.drain(..).filter_map(|event| self.take_message(event))) {
                self.deliver(batch, &mut backlogs);
                self.load.drivers_caught_up().await;
                consume_budget().await;
            }
            while backlogs.release_one(Instant::now(), &|room, parcel, given_up| self.try_queue(room, parcel, given_up))
            {
                self.load.drivers_caught_up().await;
                consume_budget().await;
            }
        }
        for (name, parcel) in backlogs.drain() {
            self.queue(&name, &self.shard(&name).lock(), &parcel);
        }
    }

    /// Queues a batch to every member of its room. A late batch waits for members that have no space for it.
    fn deliver(&self, batch: Batch, backlogs: &mut Backlogs) {
        let is_late = batch.accepted_at.elapsed() > LATE;
        let outgoing = Outgoing { bytes: self.load.share(batch.bytes), accepted_at: Some(batch.accepted_at) };
        let parcel = Parcel { outgoing, events: batch.events };
        if backlogs.has(&batch.room) || (is_late && self.try_queue(&batch.room, &parcel, &HashSet::new()).is_err()) {
            backlogs.push(batch.room, parcel, Instant::now());
        } else if !is_late {
            self.queue(&batch.room, &self.shard(&batch.room).lock(), &parcel);
        }
    }

    /// Queues a parcel to all members if each of them, except those given up, has space for it; otherwise returns the
    /// members that have none.
    fn try_queue(&self, name: &RoomName, parcel: &Parcel, given_up: &HashSet<u64>) -> Result<(), Vec<Arc<Peer>>> {
        let shard = self.shard(name).lock();
        let has_space =
            |peer: &&Arc<Peer>| given_up.contains(&peer.id.serial) || peer.outbox.has_space_for(&parcel.outgoing);
        let blocked: Vec<_> = shard.membership.members(name).filter(|peer| !has_space(peer)).cloned().collect();
        if !blocked.is_empty() {
            return Err(blocked);
        }
        self.queue(name, &shard, parcel);
        Ok(())
    }

    /// Queues a parcel to every member of a room. The caller holds the room's lock, so nothing of it follows a leave
    /// that has returned.
    fn queue(&self, name: &RoomName, shard: &Shard, parcel: &Parcel) {
        let mut reached = 0;
        for peer in shard.membership.members(name) {
            match peer.outbox.push(parcel.outgoing.clone()) {
                Ok(()) => reached += 1,
                Err(Rejected::Full) => tracing::info!(connection = %peer.id, room = %name, "slow consumer"),
                Err(Rejected::Closed) => {}
            }
        }
        self.metrics().deliveries.inc_by(reached * parcel.events);
    }
}

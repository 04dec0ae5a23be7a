//! The broker's events on their way to the members of their rooms.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::batch::{Batch, batches};
use crate::budget::shared;
use crate::hub::Hub;
use crate::id::RoomName;
use crate::membership::Room;
use crate::outbox::{Outgoing, Rejected};
use crate::pacing::{Backlogs, Parcel};
use crate::peer::Peer;

impl Hub {
    /// Takes events from the broker to the members until the broker's stream ends.
    pub(crate) async fn take_events(self: &Arc<Self>) {
        let mut events = Vec::new();
        let mut backlogs = Backlogs::default();
        loop {
            let more = match backlogs.deadline() {
                None => self.broker.next_events(&mut events).await,
                Some(deadline) => tokio::select! {
                    more = self.broker.next_events(&mut events) => more,
                    () = self.load.room_made() => true,
                    () = sleep_until(deadline) => true,
                },
            };
            if !more {
                break;
            }
            for batch in batches(events.drain(..).filter_map(|event| self.take_message(event))) {
                self.deliver(batch, &mut backlogs);
                self.load.drivers_caught_up().await;
            }
            while backlogs.release_one(Instant::now(), &|room, parcel, given_up| self.try_queue(room, parcel, given_up))
            {
                self.load.drivers_caught_up().await;
            }
        }
        for (name, parcel) in backlogs.drain() {
            if let Some(room) = self.shard(&name).lock().membership.room_mut(&name) {
                self.queue(&name, room, &parcel);
            }
        }
    }

    /// Queues a batch to every member of its room, or holds it back if it is part of a burst.
    fn deliver(&self, batch: Batch, backlogs: &mut Backlogs) {
        let outgoing = Outgoing { bytes: shared(batch.bytes, &self.load), accepted_at: Some(batch.accepted_at) };
        let parcel = Parcel { outgoing, events: batch.events };
        if backlogs.has(&batch.room) {
            return backlogs.push(batch.room, parcel, Instant::now());
        }
        let mut shard = self.shard(&batch.room).lock();
        let Some(room) = shard.membership.room_mut(&batch.room) else { return };
        let second = batch.accepted_at.saturating_duration_since(self.started_at).as_secs() as u32;
        if room.traffic.add(second, parcel.outgoing.bytes.len()) <= self.options.max_outbound / 2 {
            return self.queue(&batch.room, room, &parcel);
        }
        drop(shard);
        backlogs.push(batch.room, parcel, Instant::now());
    }

    /// Queues a parcel to all members if those who are not given up have room for it; else returns those
    /// who have none.
    fn try_queue(&self, name: &RoomName, parcel: &Parcel, given_up: &HashSet<u64>) -> Result<(), Vec<Arc<Peer>>> {
        let mut shard = self.shard(name).lock();
        let Some(room) = shard.membership.room_mut(name) else { return Ok(()) };
        let has_room =
            |peer: &&Arc<Peer>| given_up.contains(&peer.id.serial) || peer.outbox.has_room_for(&parcel.outgoing);
        let blocked: Vec<_> = room.members().filter(|peer| !has_room(peer)).cloned().collect();
        if blocked.is_empty() {
            self.queue(name, room, parcel);
            return Ok(());
        }
        Err(blocked)
    }

    /// Queues a parcel to every member of a room. Its caller holds the room's lock: so a leave that has
    /// returned is followed by none of it.
    fn queue(&self, name: &RoomName, room: &Room<Arc<Peer>>, parcel: &Parcel) {
        let mut reached = 0;
        for peer in room.members() {
            match peer.outbox.push(parcel.outgoing.clone()) {
                Ok(()) => reached += 1,
                Err(Rejected::Full) => tracing::info!(connection = %peer.id, room = %name, "slow consumer"),
                Err(Rejected::Closed) => {}
            }
        }
        self.metrics().deliveries.inc_by(reached * parcel.events);
    }
}

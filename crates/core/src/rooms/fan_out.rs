//! Delivers publications to the members of their rooms.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::broker::contract::Broker;
use crate::broker::publication::Publication;
use crate::rooms::batch::{Batch, batches};
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;
use crate::rooms::pacing::HeldRooms;

/// An event that is older than this when it arrives counts as late: it was missed during an outage
/// of the node or of Redis. If the clock of its publisher is that far behind, an event also looks
/// late, and its room waits for members without need.
const LATE: Duration = Duration::from_millis(250);

/// Delivers publications to a node's members, and holds back the events of rooms that have to catch
/// up.
#[derive(Debug)]
pub(crate) struct FanOut {
    node: Arc<LocalNode>,
    held: HeldRooms,
}

impl FanOut {
    pub(crate) fn new(node: Arc<LocalNode>) -> Self {
        let held = HeldRooms::new(node.options().outbound_memory);
        Self { node, held }
    }

    /// Waits for publications, or until some that are held back may be delivered. Returns `false`
    /// when the broker has ended.
    pub(crate) async fn wait(&self, broker: &dyn Broker, publications: &mut Vec<Publication>) -> bool {
        let Some(deadline) = self.held.deadline() else { return broker.next_publications(publications).await };
        tokio::select! {
            more = broker.next_publications(publications) => more,
            () = self.node.load.space_made() => true,
            () = sleep_until(deadline) => true,
        }
    }

    /// Queues publications to the members of their rooms. Then queues held-back events that may now
    /// be delivered.
    pub(crate) async fn deliver(&mut self, publications: impl Iterator<Item = Publication>) {
        for batch in batches(publications, self.node.id()) {
            self.deliver_batch(batch);
            self.pause().await;
        }
        while self.held.release_one(Instant::now(), &|batch, given_up| try_queue(&self.node, batch, given_up)) {
            self.pause().await;
        }
    }

    /// Queues all events that are held back.
    pub(crate) fn finish(self) {
        for batch in self.held.into_batches() {
            queue(&self.node, &batch);
        }
    }

    /// Lets the connections' tasks, and the hub's other work, run.
    async fn pause(&self) {
        self.node.load.drivers_caught_up().await;
        consume_budget().await;
    }

    /// Delivers a batch. A late batch waits for members that have no space for it.
    fn deliver_batch(&mut self, batch: Batch) {
        let is_late = batch.published_at.elapsed() > LATE;
        if self.held.has(&batch.room) || (is_late && try_queue(&self.node, &batch, &HashSet::new()).is_err()) {
            self.held.push(batch, Instant::now());
        } else if !is_late {
            queue(&self.node, &batch);
        }
    }
}

/// Queues a batch to all members if each of them has space for it, except those in `given_up`.
/// Otherwise returns the members without space.
fn try_queue(node: &LocalNode, batch: &Batch, given_up: &HashSet<u64>) -> Result<(), Vec<Arc<LocalConnection>>> {
    let shard = node.shard(&batch.room).lock();
    let has_space =
        |member: &&Arc<LocalConnection>| given_up.contains(&member.id.serial) || member.has_space_for(batch);
    let blocked: Vec<_> = shard.rooms.members(&batch.room).filter(|member| !has_space(member)).cloned().collect();
    if !blocked.is_empty() {
        return Err(blocked);
    }
    let reached = shard.queue_to_members(batch);
    drop(shard);
    on_delivered(node, batch, reached);
    Ok(())
}

/// Queues a batch to all members.
fn queue(node: &LocalNode, batch: &Batch) {
    let reached = node.shard(&batch.room).lock().queue_to_members(batch);
    on_delivered(node, batch, reached);
}

fn on_delivered(node: &LocalNode, batch: &Batch, members: u64) {
    batch.trace_members(members);
    node.metrics().deliveries.inc_by(members * batch.events());
    if !batch.room.is_internal() {
        tracing::debug!(room = %batch.room, events = batch.events(), members, "events were queued for the members here");
    }
}

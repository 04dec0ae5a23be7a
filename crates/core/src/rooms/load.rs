//! What all connections of a node share: their memory budgets, and the brake on fan-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::rooms::budget::Budget;

/// The memory of all connections, and how many of their drivers lag.
#[derive(Debug)]
pub struct NodeLoad {
    /// Unfinished messages, and calls and notifications that handlers have not finished.
    pub inbound: Budget,
    /// Output that is not written.
    pub outbound: Budget,
    /// Outboxes whose driver was woken and has not yet run.
    woken: AtomicUsize,
    caught_up: Notify,
    space_made: Notify,
}

/// How many woken drivers may lag before fan-out pauses to let them run. With fewer, a message is never held back.
const MAX_WOKEN: usize = 64;

/// Fan-out goes on after this long even if drivers lag: one stuck thread must not stop all rooms.
const BRAKE_DEADLINE: Duration = Duration::from_millis(20);

impl NodeLoad {
    /// The load of a node without connections, with these budgets.
    pub fn new(inbound: Budget, outbound: Budget) -> Arc<Self> {
        Arc::new(Self {
            inbound,
            outbound,
            woken: AtomicUsize::new(0),
            caught_up: Notify::new(),
            space_made: Notify::new(),
        })
    }

    /// Output for many connections: one buffer, charged once, until its last holder drops it.
    pub(crate) fn share(self: &Arc<Self>, bytes: BytesMut) -> Bytes {
        self.outbound.charge(bytes.capacity());
        Bytes::from_owner(Shared { bytes, load: Arc::clone(self) })
    }

    /// Waits until the drivers that have output have run (not until they have written: a client that
    /// does not read delays nobody). What is published meanwhile makes the next batch larger, so a node
    /// under load spends less on each message instead of taking busy clients for slow ones.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn drivers_caught_up(&self) {
        if self.lag() > MAX_WOKEN {
            // After the deadline, fan-out goes on anyway.
            let _ = tokio::time::timeout(BRAKE_DEADLINE, self.lag_is_low()).await;
        }
    }

    pub(crate) fn on_space_made(&self) {
        self.space_made.notify_one();
    }

    /// Waits until an outbox that [had no space](crate::Outbox::has_space_for) may have some again. Only one task may
    /// call it. Cancel safe.
    pub(crate) async fn space_made(&self) {
        self.space_made.notified().await;
    }

    async fn lag_is_low(&self) {
        loop {
            let caught_up = self.caught_up.notified();
            if self.lag() <= MAX_WOKEN {
                return;
            }
            caught_up.await;
        }
    }

    fn lag(&self) -> usize {
        self.woken.load(Ordering::Acquire)
    }

    pub(crate) fn on_woken(&self) {
        self.woken.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn on_run(&self) {
        if self.woken.fetch_sub(1, Ordering::AcqRel) == MAX_WOKEN + 1 {
            self.caught_up.notify_waiters();
        }
    }
}

/// A buffer that counts as outbound memory once, however many connections hold it.
struct Shared {
    bytes: BytesMut,
    load: Arc<NodeLoad>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.load.outbound.release(self.bytes.capacity());
    }
}

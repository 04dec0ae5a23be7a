//! What all connections of a node share: memory budgets, and a brake on fan-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use crate::rooms::budget::Budget;

/// The memory of all connections, and the number of their drivers that lag.
#[derive(Debug)]
pub struct NodeLoad {
    /// Memory of unfinished messages, and of calls and notifications that handlers have not
    /// finished.
    pub inbound: Budget,
    /// Memory of output that is not written yet.
    pub outbound: Budget,
    /// The number of outboxes whose driver was woken and has not run yet.
    woken: AtomicUsize,
    caught_up: Notify,
    space_made: Notify,
}

/// How many woken drivers may lag before fan-out pauses to let them run. With fewer, fan-out never
/// delays an event.
const MAX_WOKEN: usize = 64;

/// After this time, fan-out continues even if drivers lag. One stuck thread must not stop all
/// rooms.
const BRAKE_DEADLINE: Duration = Duration::from_millis(20);

impl NodeLoad {
    /// Creates the load of a node without connections, with these budgets.
    pub fn new(inbound: Budget, outbound: Budget) -> Arc<Self> {
        Arc::new(Self {
            inbound,
            outbound,
            woken: AtomicUsize::new(0),
            caught_up: Notify::new(),
            space_made: Notify::new(),
        })
    }

    /// Shares output between many connections: one buffer, which is charged once, until its last
    /// holder drops it.
    pub(crate) fn share(self: &Arc<Self>, bytes: BytesMut) -> Bytes {
        self.outbound.charge(bytes.capacity());
        Bytes::from_owner(Shared { bytes, load: Arc::clone(self) })
    }

    /// Waits until the drivers that have output have run. It does not wait until they have written,
    /// so a client that does not read delays nothing. Events that are published meanwhile make the
    /// next batch larger. Under load, a node therefore spends less on each event, and does not
    /// mistake busy clients for slow ones.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn drivers_caught_up(&self) {
        if self.lag() > MAX_WOKEN {
            // After the deadline, fan-out continues anyway.
            let _ = tokio::time::timeout(BRAKE_DEADLINE, self.lag_is_low()).await;
        }
    }

    pub(crate) fn on_space_made(&self) {
        self.space_made.notify_one();
    }

    /// Waits until an outbox that [had no space](crate::Outbox::has_space_for) may have space
    /// again. Only one task may call this. It is cancel safe.
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

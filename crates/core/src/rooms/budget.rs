//! Limits on the memory that all connections of a node hold together.

use prometheus::IntGauge;
use tokio::sync::Notify;

/// One kind of memory, summed over all connections of a node.
///
/// Charging never waits and never fails. When the limit is exceeded, the hub closes connections until the rest fits.
#[derive(Debug)]
pub struct Budget {
    held: IntGauge,
    limit: usize,
    exceeded: Notify,
}

impl Budget {
    /// Creates a budget of `limit` bytes. The gauge `held` shows how many bytes are held.
    pub fn new(held: IntGauge, limit: usize) -> Self {
        Self { held, limit, exceeded: Notify::new() }
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.held.add(bytes as i64);
        if self.is_exceeded() {
            self.exceeded.notify_one();
        }
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.held.sub(bytes as i64);
    }

    /// Returns whether the limit is exceeded.
    pub fn is_exceeded(&self) -> bool {
        self.excess() > 0
    }

    /// Returns by how many bytes the limit is exceeded.
    pub(crate) fn excess(&self) -> usize {
        self.held().saturating_sub(self.limit)
    }

    /// Returns how many bytes are held.
    pub(crate) fn held(&self) -> usize {
        usize::try_from(self.held.get()).unwrap_or_default()
    }

    /// Waits until the limit is exceeded. Only one task may call this.
    pub(crate) async fn exceeded(&self) {
        while !self.is_exceeded() {
            self.exceeded.notified().await;
        }
    }
}

//! What the tutorial's API tolerates: it unwraps the result of every send. Until the loop has received the connection's
//! end, what it sends is dropped without an error, as what is on the wire is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the loop has received its connection's end.
#[derive(Debug, Clone, Default)]
pub(crate) struct EndKnown(Arc<AtomicBool>);

impl EndKnown {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

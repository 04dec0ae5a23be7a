//! Whether the tutorial's loop has received its connection's end. The tutorial unwraps the result
//! of every send. Until its loop has received the end, output to the ended connection is therefore
//! dropped without an error.

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

//! How many Items a call may still send: one count at each end.

/// The remaining credit of a call.
///
/// Both ends add the same credits in the same order, and the callee's count is never above the
/// caller's, because it counts an Item when it is sent. It therefore becomes unlimited only if the
/// caller's count did.
#[derive(Debug)]
pub(super) struct Credit {
    /// Whether the call began with credit. Without it, the result is one Response.
    streams: bool,
    /// [`u32::MAX`] is unlimited.
    items: u32,
}

impl Credit {
    /// Begins with the credit in the call.
    pub(super) fn new(items: u32) -> Self {
        Self { streams: items > 0, items }
    }

    /// Returns how many Items may be sent. [`u32::MAX`] is unlimited.
    pub(super) fn items(&self) -> u32 {
        self.items
    }

    /// Adds credit. Returns `false` if the call has no Items.
    pub(super) fn add(&mut self, items: u32) -> bool {
        if self.streams {
            self.items = self.items.saturating_add(items);
        }
        self.streams
    }

    /// Takes the credit for one Item. Returns `false` if there is none.
    pub(super) fn take(&mut self) -> bool {
        let is_allowed = self.items > 0;
        if is_allowed && self.items < u32::MAX {
            self.items -= 1;
        }
        is_allowed
    }
}

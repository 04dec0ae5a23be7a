//! What one peer may make the other hold in memory.

use crate::frame::MAX_NAME_LEN;

/// The longest header before a payload: a Request's opcode, id and name length, and 255 bytes of name.
pub const MAX_FRAME_HEADER_LEN: usize = 1 + 4 + 1 + MAX_NAME_LEN;

/// Default of [`Limits::max_payload`]: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Limits on what a connection receives.
///
/// Worst case held per connection: one unfinished message, so `max_payload` + 261 bytes, times two
/// while its buffer grows. Memory is taken as bytes arrive, never for a length that is only claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload of one frame in bytes, header not counted, all WebSocket fragments together.
    pub max_payload: usize,
}

impl Limits {
    /// The largest WebSocket message that can hold an allowed frame, in bytes.
    pub fn max_message(&self) -> usize {
        self.max_payload.saturating_add(MAX_FRAME_HEADER_LEN)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload: DEFAULT_MAX_PAYLOAD }
    }
}

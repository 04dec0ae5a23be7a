//! What one peer may make the other hold in memory.

use crate::frame::MAX_NAME_LEN;

/// The longest header before a payload: a Request's opcode, id and name length, and 255 bytes of name.
pub const MAX_FRAME_HEADER_LEN: usize = 1 + 4 + 1 + MAX_NAME_LEN;

/// The largest payload of a frame or room event, in bytes, whatever a node's [`Limits::max_payload`]: its length fits into
/// four bytes on the way between nodes, and Redis accepts no string over 512 MB.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// Default of [`Limits::max_payload`]: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Limits on what a connection receives.
///
/// Worst case held per connection: one unfinished message, so `max_payload` + 261 bytes, times two
/// while its buffer grows. Memory is taken as bytes arrive, never for a length that is only claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest payload of one frame in bytes, header not counted, all WebSocket fragments together.
    pub max_payload: usize,
    /// How many WebSocket fragments one message may have. Empty ones count, because they cost time and carry nothing.
    pub max_fragments: u32,
}

/// How many fragments a message of any size may have.
const MIN_FRAGMENTS: usize = 1024;

/// A larger message may have one fragment for this many bytes: smaller ones cost more than they carry.
const BYTES_PER_FRAGMENT: usize = 1024;

impl Limits {
    /// For payloads of at most `max_payload` bytes, in fragments of 1 KiB on average or larger.
    pub const fn new(max_payload: usize) -> Self {
        let fragments = max_payload.saturating_add(MAX_FRAME_HEADER_LEN) / BYTES_PER_FRAGMENT;
        let max_fragments = if fragments > MIN_FRAGMENTS { fragments } else { MIN_FRAGMENTS };
        Self {
            max_payload,
            max_fragments: if max_fragments > u32::MAX as usize { u32::MAX } else { max_fragments as u32 },
        }
    }

    /// The largest WebSocket message that can hold an allowed frame, in bytes.
    pub fn max_message(&self) -> usize {
        self.max_payload.saturating_add(MAX_FRAME_HEADER_LEN)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_PAYLOAD)
    }
}

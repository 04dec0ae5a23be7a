//! How much memory one peer can make the other hold.

use crate::frame::MAX_NAME_LEN;

/// The longest header before a payload, in bytes: a Request's opcode, id and name length, and a
/// name of 255 bytes.
pub const MAX_FRAME_HEADER_LEN: usize = 1 + 4 + 1 + MAX_NAME_LEN;

/// The largest payload that nodes send to one another, such as that of a room event, in bytes. It
/// applies whatever a node's `max_payload` is. Nodes encode a payload's length in four bytes, and
/// Redis accepts no string over 512 MB.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;

/// The default of [`Limits::max_payload`]: 1 MiB.
pub const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;

/// Limits on what a connection receives.
///
/// A connection holds at most one unfinished message, of up to `max_payload` + 261 bytes. It can
/// take twice that memory while its buffer grows. Memory is allocated as bytes arrive, not
/// according to the length that a header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Largest payload of one frame in bytes, over all its WebSocket fragments and without its
    /// header.
    pub max_payload: usize,
    /// Most WebSocket fragments in one message. Empty ones count, because each takes time to
    /// process.
    pub max_fragments: u32,
}

/// How many fragments a message may have, whatever its size.
const MIN_FRAGMENTS: usize = 1024;

/// A larger message may have one fragment for each 1,024 bytes. Smaller fragments cost more time
/// than their content is worth.
const BYTES_PER_FRAGMENT: usize = 1024;

impl Limits {
    /// Creates limits for payloads of at most `max_payload` bytes, in fragments of 1 KiB or more on
    /// average.
    pub const fn new(max_payload: usize) -> Self {
        let fragments = max_payload.saturating_add(MAX_FRAME_HEADER_LEN) / BYTES_PER_FRAGMENT;
        let max_fragments = if fragments > MIN_FRAGMENTS { fragments } else { MIN_FRAGMENTS };
        Self {
            max_payload,
            max_fragments: if max_fragments > u32::MAX as usize { u32::MAX } else { max_fragments as u32 },
        }
    }

    /// Returns the size of the largest WebSocket message that can hold an allowed frame, in bytes.
    pub fn max_message(&self) -> usize {
        self.max_payload.saturating_add(MAX_FRAME_HEADER_LEN)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_PAYLOAD)
    }
}

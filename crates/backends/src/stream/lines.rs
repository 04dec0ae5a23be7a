//! Lines of text that arrives in parts.

use bytes::{Buf, Bytes, BytesMut};

use crate::stream::StreamError;

/// Splits text into lines, which end with CR, LF, or both if the text is server-sent events, and with
/// LF or CR LF otherwise.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// The first bytes of the buffer that contain no end of a line.
    searched: usize,
    ends_at_cr: bool,
    /// The last line ended with a CR. An LF that follows belongs to the same end.
    skips_lf: bool,
}

impl Lines {
    /// Lines of server-sent events, which a CR alone ends, too.
    pub(super) fn ending_at_cr() -> Self {
        Self { ends_at_cr: true, ..Self::default() }
    }

    pub(super) fn push(&mut self, part: &[u8]) {
        self.buffer.extend_from_slice(part);
    }

    /// Returns the next line without its end, or `None` if it has not ended yet.
    ///
    /// # Errors
    /// Returns [`StreamError::TooLarge`] if the line, finished or not, has more than `max` bytes.
    pub(super) fn next(&mut self, max: usize) -> Result<Option<Bytes>, StreamError> {
        if self.skips_lf && !self.buffer.is_empty() {
            self.skips_lf = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let is_end = |byte: &u8| *byte == b'\n' || self.ends_at_cr && *byte == b'\r';
        let Some(found) = self.buffer[self.searched..].iter().position(is_end) else {
            self.searched = self.buffer.len();
            // The CR of a CR LF may be there already.
            return match self.searched > max + 1 {
                true => Err(StreamError::TooLarge { max }),
                false => Ok(None),
            };
        };
        let mut line = self.buffer.split_to(self.searched + found);
        self.searched = 0;
        self.skips_lf = self.buffer.get_u8() == b'\r';
        if !self.ends_at_cr && line.ends_with(b"\r") {
            line.truncate(line.len() - 1);
        }
        if line.len() > max {
            return Err(StreamError::TooLarge { max });
        }
        Ok(Some(line.freeze()))
    }

    /// Returns the text after the last end of a line, if there is any.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        self.searched = 0;
        (!self.buffer.is_empty()).then(|| self.buffer.split().freeze())
    }
}

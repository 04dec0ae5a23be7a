//! Text in frames.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// A text of at most `MAX` bytes, as UTF-8. Clones share the bytes.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text<const MAX: usize>(Bytes);

/// A text whose length a frame encodes in two bytes, such as the message of an error.
pub type LongText = Text<{ u16::MAX as usize }>;

/// A text up to the end of a frame, such as the reason of a Reset.
pub type Reason = Text<{ usize::MAX }>;

impl<const MAX: usize> Text<MAX> {
    /// Creates a text in memory of its own. A longer text loses its end, between two characters.
    ///
    /// ```
    /// use roomcast_protocol::v1::Text;
    ///
    /// assert_eq!(&*Text::<4>::truncated("größe"), "grö");
    /// ```
    pub fn truncated(text: &str) -> Self {
        Self(Bytes::copy_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX)]))
    }

    /// Creates a text that shares the memory of a message. Returns `None` if it is too long or not
    /// UTF-8.
    pub fn from_bytes(text: Bytes) -> Option<Self> {
        (text.len() <= MAX && std::str::from_utf8(&text).is_ok()).then_some(Self(text))
    }

    /// Returns the text's bytes. Unlike [`as_str`](Self::as_str), this does not check again that they
    /// are UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the text was made")
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! Where the events of a batch are: in the messages of a script, and then in their rooms.

use roomcast_core::Position;

use crate::state::message::numbers;

/// An event's place in a script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The index of the event's message.
    pub(crate) message: usize,
    /// The index of the event in the message.
    pub(crate) event: u64,
}

/// The offsets of a message's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    /// How many offsets are known. This is 1 if Redis no longer knows where the events are. `first`
    /// is then at or after all of them.
    pub(crate) count: u64,
}

impl Placement {
    /// Parses the header of a message.
    pub(crate) fn parse(header: &[u8]) -> Option<Self> {
        let [epoch, _start, first, count] = numbers(header)?;
        (count >= 1).then_some(Self { epoch, first, count })
    }

    /// Returns the position of the event with this index, or a later position.
    pub(crate) fn position(&self, event: u64) -> Position {
        Position { epoch: self.epoch, offset: self.first.saturating_add(event.min(self.count - 1)) }
    }
}

/// The reply of the publish script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Published {
    /// For each message, where its events are, or why it failed.
    pub(crate) messages: Vec<Result<Placement, String>>,
    /// How many events left histories only because these had too many bytes.
    pub(crate) dropped: u64,
}

impl Published {
    /// Parses the reply, which `publish.lua` describes.
    pub(crate) fn parse(reply: &str) -> Option<Self> {
        let mut published = Self { messages: Vec::new(), dropped: 0 };
        for line in reply.split('\n') {
            published.messages.push(if let Some(error) = line.strip_prefix('-') {
                Err(error.to_owned())
            } else {
                let (header, dropped) = line.split_once(" dropped ").unwrap_or((line, "0"));
                published.dropped += dropped.parse::<u64>().ok()?;
                Ok(Placement::parse(header.as_bytes())?)
            });
        }
        Some(published)
    }
}

//! The extension of a message: data that nodes of earlier releases skip.
//!
//! ```text
//! entry*                                          an entry of an unknown kind is skipped
//! kind:u8 len:u16 data                            an entry
//! (index:u16 trace:[u8; 16] span:[u8; 8])*        the data of kind 1, trace contexts
//! ```

use bytes::{Buf, BufMut};
use roomcast_core::TraceContext;

/// The kind of the entry that contains the trace contexts of events.
const TRACES: u8 = 1;

/// How many events of a message have a trace context. The contexts of further events are dropped.
const MAX_TRACES: usize = 64;

/// The size of an entry's kind and length, in bytes.
const ENTRY_HEAD: usize = 1 + 2;

/// The size of an event's index and context, in bytes.
const TRACE: usize = 2 + TraceContext::LEN;

/// The trace contexts of a message's events, in the order of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traces(Vec<(u16, TraceContext)>);

impl Traces {
    /// Adds the context of the event with this index.
    pub(crate) fn push(&mut self, index: u64, context: TraceContext) {
        if let Ok(index) = u16::try_from(index)
            && self.0.len() < MAX_TRACES
        {
            self.0.push((index, context));
        }
    }

    /// Returns the context of the event with this index.
    pub(crate) fn of(&self, index: usize) -> Option<Box<TraceContext>> {
        self.0.iter().find(|(of, _)| usize::from(*of) == index).map(|(_, context)| Box::new(*context))
    }

    /// Returns the size of the extension in bytes. Without contexts, there is no extension.
    pub(crate) fn encoded_len(&self) -> usize {
        if self.0.is_empty() { 0 } else { ENTRY_HEAD + self.0.len() * TRACE }
    }

    pub(crate) fn encode(&self, bytes: &mut impl BufMut) {
        if self.0.is_empty() {
            return;
        }
        bytes.put_u8(TRACES);
        bytes.put_u16(u16::try_from(self.0.len() * TRACE).expect("MAX_TRACES contexts are smaller than 64 KiB"));
        for (index, TraceContext { trace, span }) in &self.0 {
            bytes.put_u16(*index);
            bytes.put_slice(trace);
            bytes.put_slice(span);
        }
    }

    /// Decodes an extension. What this release cannot read is skipped.
    pub(crate) fn decode(mut extension: &[u8]) -> Self {
        let mut traces = Self::default();
        while extension.len() >= ENTRY_HEAD {
            let (kind, len) = (extension.get_u8(), usize::from(extension.get_u16()));
            let Some((mut data, rest)) = extension.split_at_checked(len) else { break };
            extension = rest;
            while kind == TRACES && data.len() >= TRACE {
                let index = data.get_u16();
                let mut context = TraceContext { trace: [0; 16], span: [0; 8] };
                data.copy_to_slice(&mut context.trace);
                data.copy_to_slice(&mut context.span);
                traces.push(index.into(), context);
            }
        }
        traces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_among_entries_of_later_releases() {
        let context = TraceContext { trace: [7; 16], span: [9; 8] };
        let mut traces = Traces::default();
        traces.push(3, context);
        let mut bytes = vec![200, 0, 2, 1, 1];
        traces.encode(&mut bytes);
        bytes.extend([201, 0, 9, 1]); // it is cut off
        assert_eq!(bytes.len(), 5 + traces.encoded_len() + 4);
        let decoded = Traces::decode(&bytes);
        assert_eq!((decoded.of(3), decoded.of(2)), (Some(Box::new(context)), None));
        (0..=MAX_TRACES as u64).for_each(|index| traces.push(index, context));
        assert_eq!(traces.encoded_len(), ENTRY_HEAD + MAX_TRACES * TRACE);
    }
}

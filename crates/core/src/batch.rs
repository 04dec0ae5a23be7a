//! Events that waited together, made into what members are sent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use bytes::BytesMut;
use roomcast_protocol::{Frame, encode_frame};

use crate::envelope::Envelope;
use crate::id::RoomName;

/// Events of one room are put together up to this size, in bytes; members get them in one write.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// Consecutive events of one room, encoded once for all its members.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) room: RoomName,
    pub(crate) bytes: BytesMut,
    pub(crate) events: u64,
    pub(crate) accepted_at: Instant,
}

/// Puts the events of each room together, in their order. Rooms are not ordered among each other.
pub(crate) fn batches(events: impl Iterator<Item = Envelope>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut open: HashMap<RoomName, usize> = HashMap::new();
    for event in events {
        let size = event.size();
        let index = match open.entry(event.room.clone()) {
            Entry::Occupied(entry) if batches[*entry.get()].bytes.len() + size <= MAX_BATCH_BYTES => *entry.get(),
            entry => {
                let accepted_at = event.accepted_at;
                batches.push(Batch { room: event.room, bytes: BytesMut::new(), events: 0, accepted_at });
                *entry.insert_entry(batches.len() - 1).get()
            }
        };
        let batch = &mut batches[index];
        encode_frame(&mut batch.bytes, &Frame::Notify { name: event.event, payload: event.payload });
        batch.events += 1;
    }
    batches
}

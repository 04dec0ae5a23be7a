//! Publications that waited together, put together by room, and encoded once for all members with the same codec.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;

use crate::broker::limits::MAX_BATCH_BYTES;
use crate::broker::publication::Publication;
use crate::id::RoomName;
use crate::rooms::codec::Codec;
use crate::rooms::load::NodeLoad;
use crate::rooms::outbox::Outgoing;

/// Consecutive events of one room, which each member gets in one write.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) room: RoomName,
    /// When the first was published.
    pub(crate) published_at: Instant,
    publications: Vec<Publication>,
    size: usize,
    /// By codec; encoded once for all members that use it.
    encoded: [OnceLock<Outgoing>; Codec::COUNT],
}

impl Batch {
    fn new(room: RoomName, published_at: Instant) -> Self {
        Self { room, published_at, publications: Vec::new(), size: 0, encoded: Default::default() }
    }

    /// How many events it has.
    pub(crate) fn events(&self) -> u64 {
        self.publications.len() as u64
    }

    /// The memory of its events, and of what they are encoded to, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.size * (1 + Codec::COUNT)
    }

    /// What the members that use this codec are sent.
    pub(crate) fn outgoing(&self, codec: Codec, load: &Arc<NodeLoad>) -> &Outgoing {
        self.encoded[codec.index()].get_or_init(|| {
            let mut bytes = BytesMut::new();
            for Publication { event, payload, .. } in &self.publications {
                codec.encode(&mut bytes, event.clone(), payload.clone());
            }
            Outgoing::shared(load.share(bytes), self.published_at)
        })
    }
}

/// Puts the publications of each room together, in their order. Rooms are not ordered among each other.
pub(crate) fn batches(publications: impl Iterator<Item = Publication>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut open: HashMap<RoomName, usize> = HashMap::new();
    for publication in publications {
        let size = publication.size();
        let index = match open.entry(publication.room.clone()) {
            Entry::Occupied(entry) if batches[*entry.get()].size + size <= MAX_BATCH_BYTES => *entry.get(),
            entry => {
                batches.push(Batch::new(publication.room.clone(), publication.published_at));
                *entry.insert_entry(batches.len() - 1).get()
            }
        };
        let batch = &mut batches[index];
        batch.size += size;
        batch.publications.push(publication);
    }
    batches
}

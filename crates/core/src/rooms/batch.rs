//! Publications that waited together. They are grouped by room, and encoded once for all members
//! with the same codec.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::BytesMut;
use tracing::Span;

use crate::broker::limits::MAX_BATCH_BYTES;
use crate::broker::publication::Publication;
use crate::id::{NodeId, RoomName};
use crate::rooms::codec::Codec;
use crate::rooms::load::NodeLoad;
use crate::rooms::outbox::Outgoing;
use crate::trace;

/// Consecutive events of a room, which each member receives in one write.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) room: RoomName,
    /// When the first event was published.
    pub(crate) published_at: Instant,
    publications: Vec<Publication>,
    size: usize,
    /// The encoded events by codec. Each is encoded once for all members that use the codec.
    encoded: [OnceLock<Outgoing>; Codec::COUNT],
}

impl Batch {
    fn new(room: RoomName, published_at: Instant) -> Self {
        Self { room, published_at, publications: Vec::new(), size: 0, encoded: Default::default() }
    }

    /// Returns how many events the batch has.
    pub(crate) fn events(&self) -> u64 {
        self.publications.len() as u64
    }

    /// Returns the spans of the events' deliveries on a node, for the events whose traces are sampled.
    pub(crate) fn delivery_spans(&self, node: NodeId) -> Vec<Span> {
        let traces = self.publications.iter().filter_map(|publication| publication.trace.as_deref());
        traces.map(|trace| trace::deliver(trace, &self.room, node)).collect()
    }

    /// Returns the memory of the events and of their encodings, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.size * (1 + Codec::COUNT)
    }

    /// Returns the output for members that use this codec.
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

/// Groups publications by room, in their order. The order between rooms is not kept.
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

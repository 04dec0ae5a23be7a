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

/// The memory of a delivery's span, in bytes: a typical one.
const SPAN_SIZE: usize = 1024;

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
    /// The spans of the deliveries of events whose traces are sampled. They end with the batch.
    spans: Vec<Span>,
}

impl Batch {
    fn new(room: RoomName, published_at: Instant) -> Self {
        let (publications, spans) = (Vec::new(), Vec::new());
        Self { room, published_at, publications, size: 0, encoded: Default::default(), spans }
    }

    fn push(&mut self, publication: Publication, node: NodeId) {
        self.size += publication.size();
        let span = publication.trace.as_deref().map(|trace| trace::deliver(trace, &self.room, node));
        self.spans.extend(span.filter(|span| !span.is_disabled()));
        self.publications.push(publication);
    }

    /// Returns how many events the batch has.
    pub(crate) fn events(&self) -> u64 {
        self.publications.len() as u64
    }

    /// Records in the traces how many members the events have been queued for.
    pub(crate) fn trace_members(&self, members: u64) {
        for span in &self.spans {
            span.record("roomcast.members", members);
        }
    }

    /// Returns the memory of the events, of their encodings and of their spans, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.size * (1 + Codec::COUNT) + self.spans.len() * SPAN_SIZE
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

/// Groups the publications that have arrived on a node by room, in their order. The order between
/// rooms is not kept.
pub(crate) fn batches(publications: impl Iterator<Item = Publication>, node: NodeId) -> Vec<Batch> {
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
        batches[index].push(publication, node);
    }
    batches
}

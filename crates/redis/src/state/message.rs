//! The format of messages on a room's channel. A message consists of a text header, which the
//! publish script writes, and a record, which the publishing node encodes. All numbers in the
//! record are big-endian.
//!
//! ```text
//! <epoch> <start> <first> <count>\n
//! version:u8 origin:u64 mac_len:u8 mac extension_len:u16 extension
//! count × (number:u64 published_at:u64 name_len:u8 name payload_len:u32 payload)
//! ```
//!
//! The MAC covers the whole record except itself. It is empty in clusters without a secret. The
//! `extension` contains the trace contexts of events that are traced. Otherwise, it is empty.
//!
//! How the format changes while nodes of two releases work together:
//!
//! * Data that older nodes may ignore is appended to the extension. The version does not change.
//! * For any other change, one release adds code that decodes `VERSION + 1`, and still writes
//!   `VERSION`. The next release increases [`VERSION`], and sets [`OLDEST_VERSION`] to one below
//!   it. Each of the two releases then reads what the other writes.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use roomcast_core::{NodeId, Position, Publication, RoomName, TraceContext};
use roomcast_protocol::Name;
use thiserror::Error;

use crate::state::extension::Traces;
use crate::state::seal::{MAC_LEN, Seal};

/// The version of the format that this release writes. Versions 1 and 2 were never released.
pub(crate) const VERSION: u8 = 3;

/// The oldest version that this release reads. It is `VERSION - 1` as soon as there is a release
/// that writes that version.
const OLDEST_VERSION: u8 = VERSION;

/// The newest version that this release reads, which the next release may write. It has the layout
/// of this version, unless this release contains code for another layout.
const NEWEST_VERSION: u8 = VERSION + 1;

/// The size of the version, the origin and the MAC's length, in bytes.
const PREAMBLE: usize = 1 + 8 + 1;

/// The size of the extension's length, in bytes.
const EXTENSION_LEN: usize = 2;

/// The size of an event in addition to its name and payload, in bytes.
pub(crate) const EVENT_OVERHEAD: usize = 8 + 8 + 1 + 4;

/// The largest difference between two nodes' clocks from which a latency is computed.
const MAX_LATENCY: Duration = Duration::from_secs(3600);

/// Consecutive events of a room, which one node published together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The epoch of the offsets. Later epochs of a room have larger numbers.
    pub(crate) epoch: u64,
    /// The first offset of this epoch.
    pub(crate) start: u64,
    /// The offset of the first event.
    pub(crate) first: u64,
    /// How many events the message has.
    pub(crate) count: u64,
    /// The node that published the events.
    pub(crate) origin: NodeId,
    traces: Traces,
    events: Bytes,
}

/// One event of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomEvent {
    /// The event's number, which increases with each event of its origin. A repeated publish has
    /// the same number.
    pub(crate) number: u64,
    /// When the event was published, in microseconds since 1970, by the publishing node's clock.
    published_at: u64,
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) trace: Option<Box<TraceContext>>,
    pub(crate) position: Position,
}

/// Why a message on a room's channel is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    #[error("its header or one of its lengths is invalid")]
    Format,
    #[error("its format has version {0}, but this release reads {OLDEST_VERSION} to {NEWEST_VERSION}")]
    Version(u8),
    #[error("it has no MAC, but this node has a cluster secret")]
    NotSealed,
    #[error("it has a MAC, but this node has no cluster secret")]
    Sealed,
    #[error("its MAC is wrong: the sender has another cluster secret, or the message is forged")]
    WrongMac,
}

/// Encodes the events of a message, without the header.
#[derive(Debug)]
pub(crate) struct Encoder {
    bytes: BytesMut,
    traces: Traces,
    pub(crate) origin: NodeId,
    pub(crate) count: u64,
    /// The number of the event that was pushed last.
    pub(crate) last_number: u64,
}

impl Encoder {
    pub(crate) fn new(origin: NodeId, seal: &Seal) -> Self {
        let mut bytes = BytesMut::new();
        let mac_len = if seal.is_active() { MAC_LEN } else { 0 };
        bytes.put_u8(VERSION);
        bytes.put_u64(origin.as_u64());
        bytes.put_u8(u8::try_from(mac_len).expect("a MAC has at most 255 bytes"));
        bytes.put_bytes(0, mac_len); // filled in when the message is complete
        bytes.put_u16(0); // the extension is inserted when the message is complete
        Self { bytes, traces: Traces::default(), origin, count: 0, last_number: 0 }
    }

    /// Appends an event. The hub publishes no payload over
    /// [`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD).
    pub(crate) fn push(&mut self, number: u64, name: &Name, payload: &[u8], published_at: Instant) {
        self.count += 1;
        self.last_number = number;
        let name = name.as_bytes();
        self.bytes.reserve(EVENT_OVERHEAD + name.len() + payload.len());
        self.bytes.put_u64(number);
        self.bytes.put_u64(unix_micros(published_at));
        self.bytes.put_u8(u8::try_from(name.len()).expect("a name has at most 255 bytes"));
        self.bytes.put_slice(name);
        self.bytes.put_u32(u32::try_from(payload.len()).expect("a payload is smaller than 4 GiB"));
        self.bytes.put_slice(payload);
    }

    /// Gives the event that was pushed last a trace context.
    pub(crate) fn trace_last(&mut self, context: TraceContext) {
        self.traces.push(self.count - 1, context);
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.traces.encoded_len()
    }

    /// Copies the message, which only traced events cause.
    fn insert_extension(&mut self, mac_len: usize) {
        let len = self.traces.encoded_len();
        let events = self.bytes.split_off(PREAMBLE + mac_len + EXTENSION_LEN);
        self.bytes.truncate(PREAMBLE + mac_len);
        self.bytes.reserve(EXTENSION_LEN + len + events.len());
        self.bytes.put_u16(u16::try_from(len).expect("the number of contexts is bounded"));
        self.traces.encode(&mut self.bytes);
        self.bytes.unsplit(events);
    }

    /// Returns the message for this channel.
    pub(crate) fn finish(mut self, channel: &str, seal: &Seal) -> Bytes {
        if self.traces.encoded_len() > 0 {
            self.insert_extension(if seal.is_active() { MAC_LEN } else { 0 });
        }
        if seal.is_active() {
            let (preamble, rest) = self.bytes.split_at_mut(PREAMBLE);
            let (place, rest) = rest.split_at_mut(MAC_LEN);
            if let Some(mac) = seal.sign(channel.as_bytes(), [preamble, rest]) {
                place.copy_from_slice(&mac);
            }
        }
        self.bytes.freeze()
    }
}

impl Message {
    /// Decodes the header, and checks the MAC if there must be one. [`events`](Self::events)
    /// decodes the events.
    pub(crate) fn decode(mut bytes: Bytes, channel: &[u8], seal: &Seal) -> Result<Self, DecodeError> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(DecodeError::Format)?;
        let header = bytes.split_to(end);
        bytes.advance(1);
        let [epoch, start, first, count] = numbers(&header).ok_or(DecodeError::Format)?;
        let (origin, traces) = open(&mut bytes, channel, seal)?;
        let valid = start >= 1 && first >= start && count >= 1 && first.checked_add(count).is_some();
        if valid {
            Ok(Self { epoch, start, first, count, origin, traces, events: bytes })
        } else {
            Err(DecodeError::Format)
        }
    }

    /// Returns the approximate memory that the message takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.events.len()
    }

    /// Returns the offset of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.count - 1
    }

    /// Decodes all events, in order.
    pub(crate) fn events(&self) -> Result<Vec<RoomEvent>, DecodeError> {
        let mut rest = self.events.clone();
        let capacity = rest.len() / EVENT_OVERHEAD;
        let mut events = Vec::with_capacity(capacity.min(usize::try_from(self.count).unwrap_or(capacity)));
        while !rest.is_empty() {
            let position = Position { epoch: self.epoch, offset: self.first.saturating_add(events.len() as u64) };
            let mut event = take_event(&mut rest, position).ok_or(DecodeError::Format)?;
            event.trace = self.traces.of(events.len());
            events.push(event);
        }
        if events.len() as u64 == self.count { Ok(events) } else { Err(DecodeError::Format) }
    }
}

/// Removes and checks what precedes the events, and returns the origin and the trace contexts.
fn open(bytes: &mut Bytes, channel: &[u8], seal: &Seal) -> Result<(NodeId, Traces), DecodeError> {
    let (preamble, rest) = bytes.split_at_checked(PREAMBLE).ok_or(DecodeError::Format)?;
    let mut fields = preamble;
    let (version, origin, mac_len) = (fields.get_u8(), fields.get_u64(), usize::from(fields.get_u8()));
    if !(OLDEST_VERSION..=NEWEST_VERSION).contains(&version) {
        return Err(DecodeError::Version(version));
    }
    let (mac, rest) = rest.split_at_checked(mac_len).ok_or(DecodeError::Format)?;
    match (mac.is_empty(), seal.is_active()) {
        (true, false) => {}
        (true, true) => return Err(DecodeError::NotSealed),
        (false, false) => return Err(DecodeError::Sealed),
        (false, true) if seal.accepts(channel, [preamble, rest], mac) => {}
        (false, true) => return Err(DecodeError::WrongMac),
    }
    let extension_len = rest.first_chunk::<EXTENSION_LEN>().ok_or(DecodeError::Format)?;
    let events_at = PREAMBLE + mac_len + EXTENSION_LEN + usize::from(u16::from_be_bytes(*extension_len));
    if bytes.len() < events_at {
        return Err(DecodeError::Format);
    }
    let extension_at = PREAMBLE + mac_len + EXTENSION_LEN;
    let traces = Traces::decode(&bytes[extension_at..events_at]);
    bytes.advance(events_at);
    Ok((NodeId::from_u64(origin), traces))
}

fn take_event(rest: &mut Bytes, position: Position) -> Option<RoomEvent> {
    if rest.len() < EVENT_OVERHEAD {
        return None;
    }
    let (number, published_at, name_len) = (rest.get_u64(), rest.get_u64(), usize::from(rest.get_u8()));
    if rest.len() < name_len + 4 {
        return None;
    }
    let name = Name::from_bytes(rest.split_to(name_len))?;
    let payload_len = rest.get_u32() as usize;
    (rest.len() >= payload_len).then(|| RoomEvent {
        number,
        published_at,
        name,
        payload: rest.split_to(payload_len),
        trace: None,
        position,
    })
}

impl RoomEvent {
    /// Returns the event in the form that the hub receives.
    pub(crate) fn into_publication(self, origin: NodeId, room: RoomName) -> Publication {
        let Self { name: event, payload, trace, position, .. } = self;
        Publication { origin, room, event, payload, published_at: instant_of(self.published_at), trace, position }
    }
}

/// Parses `N` decimal numbers that are separated by single spaces.
pub(crate) fn numbers<const N: usize>(text: &[u8]) -> Option<[u64; N]> {
    let mut parts = std::str::from_utf8(text).ok()?.split(' ');
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn unix_micros(at: Instant) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(at.elapsed()).as_micros()).unwrap_or(u64::MAX)
}

/// Converts a time to an instant, as far as the clocks agree. The instant is never in the future.
fn instant_of(unix_micros: u64) -> Instant {
    let now = Instant::now();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = since_1970.saturating_sub(Duration::from_micros(unix_micros));
    if age > MAX_LATENCY { now } else { now.checked_sub(age).unwrap_or(now) }
}

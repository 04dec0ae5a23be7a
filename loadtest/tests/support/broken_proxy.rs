//! A proxy before a node that breaks what the node sends, in one way, and knows how often it did.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// An event that is held back for the next one waits no longer for it.
const HELD: Duration = Duration::from_millis(300);

/// What is done to one in so many frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An event is not passed on.
    Drop,
    /// An event is not passed on to the first connection; to all others, everything is passed on so much
    /// later: so the one that misses an event has the next ones before anybody has that event.
    DropAtTheNearest(Duration),
    /// An event is passed on twice.
    Duplicate,
    /// An event is passed on after the connection's next one.
    Swap,
    /// A bit of an event's last byte is flipped.
    Corrupt,
    /// An event is passed on, and a copy of it to a connection that is in none of the same rooms: one that
    /// was never sent an event that this one was sent, too. So each connection must have had its first
    /// event when the first copy is made.
    Misroute,
    /// An event, and what follows it on the connection, is passed on so much later.
    Delay(Duration),
    /// A bit of an answer's last byte is flipped. Answers without a payload are left alone.
    CorruptAnswer,
    /// An answer is passed on twice.
    AnswerAgain,
    /// A client's Reset is not passed on.
    LoseReset,
}

impl Fault {
    /// What it happens to.
    fn happens_to(self, frame: Frame) -> bool {
        match self {
            Self::Drop
            | Self::DropAtTheNearest(_)
            | Self::Duplicate
            | Self::Swap
            | Self::Corrupt
            | Self::Misroute
            | Self::Delay(_) => frame == Frame::Event,
            Self::CorruptAnswer => frame == Frame::Answer,
            Self::AnswerAgain => matches!(frame, Frame::Answer | Frame::EmptyAnswer),
            Self::LoseReset => frame == Frame::Reset,
        }
    }
}

/// A running proxy. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct BrokenProxy {
    address: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl BrokenProxy {
    /// Starts one before a node's address. The fault happens to every `one_in`th of the frames that it can
    /// happen to, counted over all connections.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(node: &str, fault: Fault, one_in: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            fault,
            one_in,
            seen: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            peers: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, accepting }
    }

    /// The URL of the node's socket through it.
    pub fn url(&self) -> String {
        format!("ws://{}/socket", self.address)
    }

    /// How often it has applied its fault.
    pub fn applied(&self) -> u64 {
        self.shared.applied.load(Ordering::Acquire)
    }
}

impl Drop for BrokenProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What all connections know.
#[derive(Debug)]
struct Shared {
    node: String,
    fault: Fault,
    one_in: u64,
    /// Frames that the fault could have happened to.
    seen: AtomicU64,
    applied: AtomicU64,
    /// Those that are open, with whatever their number is.
    peers: Mutex<BTreeMap<u64, Peer>>,
}

/// A connection, as the others see it.
#[derive(Debug)]
struct Peer {
    way: Way,
    /// The events that it was sent by the node.
    events: HashSet<Bytes>,
}

impl Shared {
    /// Whether the fault happens to this frame.
    fn chooses(&self, frame: Frame) -> bool {
        self.fault.happens_to(frame) && (self.seen.fetch_add(1, Ordering::AcqRel) + 1).is_multiple_of(self.one_in)
    }

    fn count(&self) {
        self.applied.fetch_add(1, Ordering::AcqRel);
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Peer>> {
        self.peers.lock().expect("nobody panics with it")
    }

    /// Sends a copy to a stranger, not always the same one, if there is any.
    fn send_to_a_stranger(&self, own: u64, frame: &Bytes) {
        let peers = self.peers();
        let Some(this) = peers.get(&own) else { return };
        let strangers: Vec<_> = peers.values().filter(|peer| peer.events.is_disjoint(&this.events)).collect();
        let Some(turn) = self.applied().checked_rem(strangers.len() as u64) else { return };
        if strangers[turn as usize].way.send(Passage::Bytes(frame.clone())).is_ok() {
            self.count();
        }
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Ends its tasks when it is dropped.
    let mut connections = JoinSet::new();
    for number in 0.. {
        let Ok((client, _)) = listener.accept().await else { return };
        let shared = shared.clone();
        connections.spawn(async move {
            // However it ends, the streams are dropped, and both sides see an end.
            let _ = connect(number, client, &shared).await;
            shared.peers().remove(&number);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection through the proxy.
async fn connect(number: u64, client: TcpStream, shared: &Shared) -> io::Result<()> {
    let node = TcpStream::connect(&shared.node).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    // What it holds is bounded by what a test sends.
    let (way, passing) = mpsc::unbounded_channel();
    let breaking = Breaking { number, shared, way, held: None };
    let there = forward_requests(from_client, to_node, shared);
    let back = breaking.forward(from_node);
    tokio::try_join!(there, back, give_out(to_client, passing)).map(|_| ())
}

/// On the way to a client, from whichever task.
#[derive(Debug)]
enum Passage {
    /// Whole frames.
    Bytes(Bytes),
    /// What comes later is held back so long.
    Pause(Duration),
    /// What comes later is held back until then.
    Until(Instant),
    End,
}

type Way = mpsc::UnboundedSender<Passage>;

async fn give_out(mut client: OwnedWriteHalf, mut passing: mpsc::UnboundedReceiver<Passage>) -> io::Result<()> {
    while let Some(passage) = passing.recv().await {
        match passage {
            Passage::Bytes(bytes) => client.write_all(&bytes).await?,
            Passage::Pause(time) => sleep(time).await,
            Passage::Until(time) => sleep_until(time).await,
            Passage::End => break,
        }
    }
    client.shutdown().await
}

/// From the client to the node.
async fn forward_requests(mut client: OwnedReadHalf, mut node: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    if shared.fault == Fault::LoseReset {
        let mut unread = BytesMut::new();
        if let Some(head) = read_head(&mut client, &mut unread).await? {
            node.write_all(&head).await?;
        }
        loop {
            while let Some((kind, frame)) = take_frame(&mut unread) {
                if shared.chooses(kind) {
                    shared.count();
                } else {
                    node.write_all(&frame).await?;
                }
            }
            if client.read_buf(&mut unread).await? == 0 {
                break;
            }
        }
    } else {
        tokio::io::copy(&mut client, &mut node).await?;
    }
    node.shutdown().await
}

/// From the node to one client.
struct Breaking<'a> {
    number: u64,
    shared: &'a Shared,
    way: Way,
    /// An event that waits for the next one, and how long.
    held: Option<(Bytes, Instant)>,
}

impl Breaking<'_> {
    async fn forward(mut self, mut node: OwnedReadHalf) -> io::Result<()> {
        let mut unread = BytesMut::new();
        if let Some(head) = read_head(&mut node, &mut unread).await? {
            self.send(head);
            self.shared.peers().insert(self.number, Peer { way: self.way.clone(), events: HashSet::new() });
        }
        loop {
            while let Some((kind, frame)) = take_frame(&mut unread) {
                self.pass_on(kind, frame);
            }
            if self.read(&mut node, &mut unread).await? == 0 {
                break;
            }
        }
        self.release();
        self.pass(Passage::End);
        Ok(())
    }

    /// Reads on, and lets go what is held when it has waited long enough.
    async fn read(&mut self, node: &mut OwnedReadHalf, unread: &mut BytesMut) -> io::Result<usize> {
        let mut reading = pin!(node.read_buf(unread));
        if let Some((_, until)) = &self.held {
            if let Ok(read) = timeout_at(*until, &mut reading).await {
                return read;
            }
            self.release();
        }
        reading.await
    }

    fn pass_on(&mut self, kind: Frame, frame: BytesMut) {
        let shared = self.shared;
        let mut frame = frame;
        if let Fault::DropAtTheNearest(time) = shared.fault
            && self.number > 0
        {
            self.pass(Passage::Until(Instant::now() + time));
            return self.send(frame.freeze());
        }
        let is_chosen = shared.chooses(kind);
        if kind == Frame::Event && shared.fault == Fault::Misroute {
            let known = frame.clone().freeze();
            shared.peers().entry(self.number).and_modify(|peer| _ = peer.events.insert(known));
        }
        if kind == Frame::Event && self.held.is_some() {
            self.send(frame.freeze());
            self.release();
            return shared.count();
        }
        if !is_chosen {
            return self.send(frame.freeze());
        }
        match shared.fault {
            // Of the client's frames, and not of these.
            Fault::LoseReset => {}
            Fault::Drop | Fault::DropAtTheNearest(_) => {}
            Fault::Duplicate | Fault::AnswerAgain => {
                self.send(frame.clone().freeze());
                self.send(frame.freeze());
            }
            Fault::Corrupt | Fault::CorruptAnswer => {
                *frame.last_mut().expect("it has a payload") ^= 1;
                self.send(frame.freeze());
            }
            Fault::Delay(time) => {
                self.pass(Passage::Pause(time));
                self.send(frame.freeze());
            }
            // These count when they come about.
            Fault::Misroute => {
                let frame = frame.freeze();
                shared.send_to_a_stranger(self.number, &frame);
                return self.send(frame);
            }
            Fault::Swap => return self.held = Some((frame.freeze(), Instant::now() + HELD)),
        }
        shared.count();
    }

    fn release(&mut self) {
        if let Some((frame, _)) = self.held.take() {
            self.send(frame);
        }
    }

    fn send(&self, bytes: Bytes) {
        self.pass(Passage::Bytes(bytes));
    }

    fn pass(&self, passage: Passage) {
        // If the client is gone, nobody misses it.
        let _ = self.way.send(passage);
    }
}

/// Reads a handshake's head; what comes after it stays unread. None if the stream ends before.
async fn read_head(stream: &mut OwnedReadHalf, unread: &mut BytesMut) -> io::Result<Option<Bytes>> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = unread.windows(END.len()).position(|bytes| bytes == END) {
            return Ok(Some(unread.split_to(at + END.len()).freeze()));
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

/// What a WebSocket frame holds, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// A room's event.
    Event,
    Answer,
    EmptyAnswer,
    Reset,
    Other,
}

/// The next frame with its header, if it is there whole.
fn take_frame(unread: &mut BytesMut) -> Option<(Frame, BytesMut)> {
    let second = *unread.get(1)?;
    let (payload_len, header_len) = match second & 0x7F {
        126 => (u16::from_be_bytes(unread.get(2..4)?.try_into().ok()?).into(), 4),
        127 => (u64::from_be_bytes(unread.get(2..10)?.try_into().ok()?) as usize, 10),
        len => (len.into(), 2),
    };
    let is_masked = second & 0x80 != 0;
    let payload_at = header_len + if is_masked { 4 } else { 0 };
    if unread.len() < payload_at + payload_len {
        return None;
    }
    let frame = unread.split_to(payload_at + payload_len);
    let (header, payload) = frame.split_at(payload_at);
    // Of a client's frame, only the first byte is looked at.
    let mask = if is_masked { header[header_len] } else { 0 };
    Some((kind(header[0], payload, mask), frame))
}

fn kind(first: u8, payload: &[u8], mask: u8) -> Frame {
    const WHOLE_BINARY_MESSAGE: u8 = 0x82;
    /// The opcode and the call's id.
    const ANSWER_HEADER: usize = 5;
    match payload.first().map(|opcode| opcode ^ mask) {
        _ if first != WHOLE_BINARY_MESSAGE => Frame::Other,
        Some(1) if is_room_event(payload) => Frame::Event,
        Some(3) => Frame::Reset,
        Some(4) if payload.len() > ANSWER_HEADER => Frame::Answer,
        Some(4) => Frame::EmptyAnswer,
        _ => Frame::Other,
    }
}

/// Not one of the demo's own.
fn is_room_event(notify: &[u8]) -> bool {
    let name = notify.get(1).and_then(|len| notify.get(2..2 + usize::from(*len)));
    name.is_some_and(|name| !matches!(name, b"message" | b"pong"))
}

//! A network between a node and its Redis that a test can slow down or cut, without special
//! permissions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// How many bytes may be under way in one direction of a connection. A sender waits while there is
/// no room. While the link is cut, there will be none, so the connection is reset.
const CAPACITY: usize = 16 * 1024 * 1024;

/// How many bytes one read takes at most.
const CHUNK: usize = 64 * 1024;

/// What happens to connections from before a cut when the link works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCut {
    /// They continue with the data that was held back, as after a short partition that TCP
    /// survives.
    GoOn,
    /// They are reset, as by a firewall that has lost its state.
    Reset,
}

#[derive(Debug, Clone, Copy)]
struct State {
    is_cut: bool,
    /// The delay on the way to the server, and on the way back.
    latency: [Duration; 2],
    /// Connections of an earlier generation are reset.
    generation: u64,
}

/// A TCP proxy with faults. It ends when dropped, and ends its connections.
#[derive(Debug)]
pub struct FaultyLink {
    address: String,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl FaultyLink {
    /// Starts a link to an address such as `127.0.0.1:6379`. At first, it works.
    ///
    /// # Panics
    /// Panics if there is no free port.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (state, watcher) = watch::channel(State { is_cut: false, latency: [Duration::ZERO; 2], generation: 0 });
        let accepting = tokio::spawn(accept(listener, target.to_owned(), watcher));
        Self { address, state, accepting }
    }

    /// Returns the address to connect to in place of the target's.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Holds back all data in both directions from now on. Nothing is closed: connections hang, and
    /// new connections open and hang, too.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.is_cut = true);
    }

    /// Ends a cut.
    pub fn heal(&self, after: AfterCut) {
        self.state.send_modify(|state| {
            state.is_cut = false;
            state.generation += u64::from(after == AfterCut::Reset);
        });
    }

    /// Delays the data that arrives from now on.
    pub fn set_latency(&self, to_server: Duration, to_client: Duration) {
        self.state.send_modify(|state| state.latency = [to_server, to_client]);
    }
}

impl Drop for FaultyLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, state: watch::Receiver<State>) {
    // Dropping the set ends its tasks.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connect(client, target.clone(), state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection through the link.
async fn connect(mut client: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let generation = state.borrow().generation;
    let mut forgotten = state.clone();
    let mut server = None;
    let forwarded = async {
        passable(&mut state).await;
        let server = server.insert(TcpStream::connect(&target).await?);
        forward_both_ways(&mut client, server, &state).await
    };
    let ended = tokio::select! {
        ended = forwarded => ended,
        _ = forgotten.wait_for(|state| state.generation != generation) => Err(io::ErrorKind::ConnectionReset.into()),
    };
    if ended.is_err() {
        for stream in [Some(client), server].into_iter().flatten() {
            // Dropping a stream with this option resets its connection. The connection may have
            // ended already.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Waits while the link is cut.
async fn passable(state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| !state.is_cut).await.is_err() {
        // The link was dropped, and its connections end with it.
        std::future::pending::<()>().await;
    }
}

async fn forward_both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = forward(from_client, to_server, 0, state);
    let back = forward(from_server, to_client, 1, state);
    tokio::try_join!(there, back).map(|_| ())
}

/// Bytes under way. Empty bytes mean the end of the stream.
struct UnderWay {
    bytes: Bytes,
    due: Instant,
    _room: OwnedSemaphorePermit,
}

async fn forward(
    source: ReadHalf<'_>,
    sink: WriteHalf<'_>,
    direction: usize,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let taken = take_in(source, sender, direction, state);
    let given = give_out(sink, receiver, state.clone());
    tokio::try_join!(taken, given).map(|_| ())
}

async fn take_in(
    mut source: ReadHalf<'_>,
    way: mpsc::UnboundedSender<UnderWay>,
    direction: usize,
    state: &watch::Receiver<State>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CAPACITY));
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = source.read(&mut chunk).await?;
        let due = Instant::now() + state.borrow().latency[direction];
        let wanted = u32::try_from(length).expect("a chunk is small");
        let permit = match Arc::clone(&room).try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) if state.borrow().is_cut => return Err(io::ErrorKind::ConnectionReset.into()),
            Err(_) => room.clone().acquire_many_owned(wanted).await.expect("it is never closed"),
        };
        let under_way = UnderWay { bytes: Bytes::copy_from_slice(&chunk[..length]), due, _room: permit };
        if way.send(under_way).is_err() || length == 0 {
            return Ok(());
        }
    }
}

async fn give_out(
    mut sink: WriteHalf<'_>,
    mut way: mpsc::UnboundedReceiver<UnderWay>,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    while let Some(UnderWay { bytes, due, .. }) = way.recv().await {
        tokio::time::sleep_until(due).await;
        passable(&mut state).await;
        if bytes.is_empty() {
            return sink.shutdown().await;
        }
        sink.write_all(&bytes).await?;
    }
    Ok(())
}

//! The I/O of one connection: input, output and timers, as a thin shell around a [`Session`].
//!
//! One task does all of it. Reading never waits for writing or for a handler, so a Reset takes
//! effect while output is stuck.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::Histogram;
use roomcast_core::{Access, Command, Outgoing};
use roomcast_protocol::{
    CloseCode, CloseFrame, DEFAULT_MAX_PAYLOAD, KeepAlive, KeepAliveAction, Opcode, Unfinished, encode_close,
    encode_message,
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connection::context::ConnectionContext;
use crate::connection::session::Session;
use crate::connection::transport::Transport;
use crate::connection::writer::Writer;
use crate::end::End;
use crate::options::FAR;

/// The most bytes that one read takes, and so the most bytes of small messages that a connection
/// handles before others get their turn: about 1,000 messages, or 2 ms. The buffer belongs to the
/// thread, so idle connections hold none.
const READ_BUFFER: usize = 16 * 1024;

/// After this many consecutive reads, other connections get their turn.
const READS_PER_TURN: usize = 16;

/// After this many messages, other connections get their turn, too.
const MESSAGES_PER_TURN: u64 = 128;

/// How long a message may take from its first byte to its last, if `max_payload` is at most 1 MiB.
/// Because any byte shows that the client is alive, a client could otherwise keep an unfinished
/// message, and its memory, for as long as it likes.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A `max_payload` above 1 MiB adds one second for each of this many bytes. A slow mobile network
/// achieves this rate.
const MIN_BYTES_PER_SECOND: usize = 64 * 1024;

/// How long the closing handshake may take, including pending output.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into());
}

/// A connection's socket, and the output that it has yet to write.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    transport: Transport,
    writer: Writer,
    pub(crate) session: S,
    context: Arc<ConnectionContext>,
    keep_alive: KeepAlive,
    /// When the timer of the keep-alive fires.
    keep_alive_at: Instant,
    /// When the unfinished message must be complete.
    message_due: Option<Instant>,
}

impl<S> Drop for Driver<S> {
    /// Output that the driver has taken but not written no longer counts.
    fn drop(&mut self) {
        self.context.connection.outbox.wrote(self.writer.queue.iter());
    }
}

impl<S: Session> Driver<S> {
    pub(crate) fn new(
        transport: Transport,
        context: Arc<ConnectionContext>,
        session: S,
        delivery_latency: Histogram,
    ) -> Self {
        let (interval, timeout) = (context.options.ping_interval.min(FAR), context.options.pong_timeout.min(FAR));
        Self {
            transport,
            writer: Writer::new(delivery_latency),
            session,
            keep_alive: KeepAlive::new(interval, timeout),
            keep_alive_at: Instant::now() + interval,
            message_due: None,
            context,
        }
    }

    /// Runs the connection until it ends.
    pub(crate) async fn run(&mut self) -> End {
        let mut timer = pin!(sleep_until(self.keep_alive_at));
        poll_fn(|cx| self.poll(cx, timer.as_mut())).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<End> {
        self.context.connection.outbox.awake();
        // Input is read first, so that the immediate responses to it leave in one write.
        if let Poll::Ready(end) = self.poll_input(cx) {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.poll_timer(cx, timer) {
            return Poll::Ready(end);
        }
        self.poll_output(cx)
    }

    fn message_timeout(&self) -> Duration {
        let more = self.context.options.max_payload.saturating_sub(DEFAULT_MAX_PAYLOAD).div_ceil(MIN_BYTES_PER_SECOND);
        (MESSAGE_TIMEOUT + Duration::from_secs(more as u64)).min(FAR)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let messages_before = self.context.connection.messages();
        for _ in 0..READS_PER_TURN {
            let read = BUFFER.with_borrow_mut(|buffer| {
                let read = self.transport.poll_read(cx, buffer);
                read.map_ok(|len| {
                    self.context.connection.count_received(len);
                    (len, self.session.on_bytes(&self.context, &buffer[..len]))
                })
            });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(End::lost(&error)),
                Poll::Ready(Ok((0, _))) => {
                    return Poll::Ready(End::Lost("the TCP connection ended without a Close".into()));
                }
                Poll::Ready(Ok((_, Err(end)))) => return Poll::Ready(end),
                Poll::Ready(Ok((_, Ok(())))) => self.keep_alive.on_heard(),
            }
            match self.session.unfinished() {
                Unfinished::Nothing => self.message_due = None,
                Unfinished::Begun => self.message_due = Some(Instant::now() + self.message_timeout()),
                Unfinished::Continued => {}
            }
            if self.context.connection.messages() - messages_before >= MESSAGES_PER_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls one timer for the keep-alive, the message that is being received, the credential and
    /// the calls' deadlines. A timer for each call would cost more than most calls do.
    fn poll_timer(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            let expiry = self.context.access().and_then(Access::next_deadline);
            let deadlines =
                [self.message_due, self.context.calls.next_deadline().map(Instant::from), expiry.map(Instant::from)];
            let next = deadlines.into_iter().flatten().fold(self.keep_alive_at, Instant::min);
            if next != timer.deadline() {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            self.context.end_overdue_calls(now.into_std());
            if let Some(close) = self.context.on_expiry(now.into_std()) {
                return Poll::Ready(End::ByServer(close));
            }
            if self.message_due.is_some_and(|due| due <= now) {
                let reason = format!("a message was not whole after {:?}", self.message_timeout());
                return Poll::Ready(End::ByServer(CloseFrame::new(CloseCode::POLICY_VIOLATION, reason)));
            }
            if self.keep_alive_at <= now {
                match self.keep_alive.on_timeout() {
                    KeepAliveAction::Ping(next) => {
                        let ping = Outgoing::own(encode_message(Opcode::Ping, &[]));
                        // If the outbox is full, the push closes the connection.
                        let _ = self.context.connection.outbox.push(ping);
                        self.keep_alive_at = now + next;
                    }
                    KeepAliveAction::Rest(next) => self.keep_alive_at = now + next,
                    KeepAliveAction::Lost => {
                        let waited = self.context.options.pong_timeout;
                        return Poll::Ready(End::Lost(format!("no data arrived for {waited:?} after a ping")));
                    }
                }
            }
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let outbox = &self.context.connection.outbox;
        while outbox.take_or_sleep(&mut self.writer.queue, cx) {
            match outbox.take_command() {
                Some(Command::Close(close)) => return Poll::Ready(End::ByServer(close)),
                Some(Command::Drain) => self.context.calls.start_drain(),
                None => {}
            }
        }
        if let Poll::Ready(Err(error)) = self.writer.poll_write(cx, &mut self.transport, &self.context.connection) {
            return Poll::Ready(End::lost(&error));
        }
        match self.context.calls.is_drained() {
            true => Poll::Ready(End::ByServer(CloseFrame::new(CloseCode::GOING_AWAY, "the node is shutting down"))),
            false => Poll::Pending,
        }
    }

    /// Flushes pending output and performs the closing handshake (RFC 6455, section 7.1).
    pub(crate) async fn close(&mut self, end: &End) {
        self.session.on_end(&self.context);
        let close = match end {
            End::Lost(_) => return,
            End::ByClient(close) => {
                close.as_ref().map_or(CloseFrame::new(CloseCode::NORMAL, ""), |close| CloseFrame::new(close.code, ""))
            }
            End::ByServer(close) => close.clone(),
        };
        let outbox = &self.context.connection.outbox;
        let closes_first = matches!(end, End::ByServer(_));
        if closes_first && close.code == CloseCode::SLOW_CONSUMER {
            outbox.discard();
            self.writer.discard_unstarted(outbox);
        }
        outbox.push_last(encode_close(&close));
        poll_fn(|cx| Poll::Ready(outbox.take_or_sleep(&mut self.writer.queue, cx))).await;
        // After the time-out, the socket is dropped.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.shake_hands(closes_first)).await;
    }

    /// Writes the remaining output, with its Close last, and ends the stream. The side that closes
    /// first then reads until the other side's Close. If it dropped the socket over unread input,
    /// TCP would reset the connection, and the output could be lost.
    async fn shake_hands(&mut self, closes_first: bool) -> io::Result<()> {
        let mut answered = !closes_first;
        poll_fn(|cx| {
            // Input is read even while output is stuck, because a client may write before it reads.
            if !answered && let Poll::Ready(closed) = self.poll_close(cx) {
                closed?;
                answered = true;
            }
            self.writer.poll_write(cx, &mut self.transport, &self.context.connection)
        })
        .await?;
        poll_fn(|cx| self.transport.poll_shutdown(cx)).await?;
        if !answered {
            poll_fn(|cx| self.poll_close(cx)).await?;
        }
        Ok(())
    }

    /// Reads until the client's Close, or the end of its stream.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let read = BUFFER.with_borrow_mut(|buffer| {
                let read = self.transport.poll_read(cx, buffer);
                read.map_ok(|len| {
                    self.context.connection.count_received(len);
                    len == 0 || self.session.on_late_bytes(&buffer[..len])
                })
            });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
    }
}

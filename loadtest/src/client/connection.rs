//! One socket's life: opening, handshake, messages, end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use mio::{Interest, Registry, Token};
use roomcast_protocol::{ClientDecoder, CloseFrame, Frame, FrameRef, FromServer, Opcode};
use roomcast_protocol::{encode_client_frame, encode_client_message};
use rustls::ClientConfig;

use super::handshake;
use super::stream::Stream;
use super::target::Target;

/// The largest message that is read.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// More waits for a server that does not read: nothing is added.
const MAX_UNSENT_BYTES: usize = 1024 * 1024;

/// An output buffer that grew over this is given back when it is empty.
const KEPT_CAPACITY: usize = 16 * 1024;

/// Before the handshake's response, a server has nothing to say; after it, all that fits.
const FIRST_READ: usize = 2048;

/// A connection slot: the socket changes, the slot stays.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    state: State,
    pub(crate) output: Output,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Opening {
        stream: Stream,
        received: Vec<u8>,
    },
    Open {
        stream: Stream,
        decoder: ClientDecoder,
    },
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: BytesMut,
}

impl Output {
    pub(crate) fn send(&mut self, frame: &Frame) {
        encode_client_frame(&mut self.bytes, frame, mask());
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        self.bytes.extend_from_slice(&encode_client_message(opcode, payload, mask()));
    }

    /// Whether the server has stopped reading.
    pub(crate) fn is_stuck(&self) -> bool {
        self.bytes.len() > MAX_UNSENT_BYTES
    }

    fn forget(&mut self) {
        self.bytes = BytesMut::new();
    }
}

fn mask() -> [u8; 4] {
    fastrand::u32(..).to_ne_bytes()
}

/// What a connection has to say.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    Opened,
    Frame(FrameRef<'a>),
    Ended(End),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It never opened.
    NotOpened(String),
    /// The server closed it.
    Closed(Option<CloseFrame>),
    /// It broke.
    Lost(String),
}

impl Connection {
    /// Begins to open it.
    pub(crate) fn open(
        &mut self,
        registry: &Registry,
        token: Token,
        (target, address): (&Target, SocketAddr),
        source: Option<IpAddr>,
        bearer: Option<&str>,
        tls: &Arc<ClientConfig>,
    ) -> Result<(), End> {
        self.output.forget();
        let not_opened = |error| End::NotOpened(name(&error));
        let mut stream = Stream::connect(target, address, source, tls).map_err(not_opened)?;
        registry.register(stream.tcp(), token, Interest::READABLE | Interest::WRITABLE).map_err(not_opened)?;
        self.output.bytes.extend_from_slice(&handshake::request(target, bearer));
        self.state = State::Opening { stream, received: Vec::new() };
        Ok(())
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Ends it now: with a Close frame if it can still be written, or as if the client had vanished.
    pub(crate) fn end(&mut self, abruptly: bool) {
        if let State::Open { stream, .. } | State::Opening { stream, .. } = &mut self.state {
            if abruptly {
                stream.reset_when_dropped();
            } else {
                self.output.control(Opcode::Close, &1000_u16.to_be_bytes());
                // The server's answer is not waited for.
                let _ = write_all(stream, &mut self.output.bytes);
            }
        }
        self.state = State::Closed;
        self.output.forget();
    }

    /// The socket can be read, or written, or has failed: goes on as far as possible. `is_ending`: its end may stand
    /// behind what can be read. `buffer` is for all connections.
    pub(crate) fn on_ready(&mut self, is_ending: bool, buffer: &mut [u8], mut on: impl FnMut(Event<'_>, &mut Output)) {
        let ended = loop {
            match &mut self.state {
                State::Closed => return,
                State::Opening { stream, received } => match open(stream, received, &mut self.output, buffer) {
                    Ok(None) => return,
                    Ok(Some(rest)) => {
                        self.become_open();
                        on(Event::Opened, &mut self.output);
                        if let Err(end) = self.decode(&rest, &mut on) {
                            break end;
                        }
                    }
                    Err(error) => break End::NotOpened(error),
                },
                State::Open { stream, .. } => match stream.read(buffer) {
                    Ok(0) => break End::Lost("end of stream".to_owned()),
                    Ok(count) => {
                        if let Err(end) = self.decode(&buffer[..count], &mut on) {
                            break end;
                        }
                        // What comes now is told by another event.
                        let is_plain = matches!(self.state, State::Open { stream: Stream::Plain(_), .. });
                        if count < buffer.len() && is_plain && !is_ending {
                            return;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => break End::Lost(name(&error)),
                },
            }
        };
        self.state = State::Closed;
        self.output.forget();
        on(Event::Ended(ended), &mut self.output);
    }

    fn become_open(&mut self) {
        if let State::Opening { stream, .. } = std::mem::take(&mut self.state) {
            self.state = State::Open { stream, decoder: ClientDecoder::new(MAX_MESSAGE) };
        }
    }

    fn decode(&mut self, mut input: &[u8], on: &mut impl FnMut(Event<'_>, &mut Output)) -> Result<(), End> {
        let State::Open { decoder, .. } = &mut self.state else { return Ok(()) };
        while let Some(message) = decoder.decode(&mut input).map_err(|error| End::Lost(error.to_string()))? {
            match message {
                FromServer::Binary(message) => {
                    let frame = FrameRef::decode(message).map_err(|error| End::Lost(error.to_string()))?;
                    on(Event::Frame(frame), &mut self.output);
                }
                FromServer::Ping(payload) => self.output.control(Opcode::Pong, payload),
                FromServer::Pong(_) => {}
                FromServer::Text(_) => return Err(End::Lost("unexpected text message".to_owned())),
                FromServer::Close(close) => return Err(End::Closed(close)),
            }
        }
        Ok(())
    }

    /// Writes what is to be sent, as far as the socket takes it. It goes on when it is ready again.
    pub(crate) fn flush(&mut self) -> Result<(), End> {
        let State::Open { stream, .. } = &mut self.state else { return Ok(()) };
        match write_all(stream, &mut self.output.bytes) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.state = State::Closed;
                self.output.forget();
                Err(End::Lost(name(&error)))
            }
        }
    }
}

/// Goes on opening. Once it is open: what came after the response.
fn open(
    stream: &mut Stream,
    received: &mut Vec<u8>,
    output: &mut Output,
    buffer: &mut [u8],
) -> Result<Option<Vec<u8>>, String> {
    if let Ok(Some(error)) = stream.tcp().take_error() {
        return Err(name(&error));
    }
    write_all(stream, &mut output.bytes).map_err(|error| name(&error))?;
    loop {
        match stream.read(&mut buffer[..FIRST_READ]) {
            Ok(0) => return Err("end of stream".to_owned()),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            // Not connected: the TCP handshake is still under way.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(name(&error)),
        }
        if let Some(len) = handshake::response(received).map_err(|error| error.to_string())? {
            return Ok(Some(received.split_off(len)));
        }
    }
}

/// Writes as much as the socket takes.
fn write_all(stream: &mut Stream, bytes: &mut BytesMut) -> io::Result<()> {
    let has_grown = bytes.capacity() > KEPT_CAPACITY;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(count) => bytes.advance(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if has_grown {
        *bytes = BytesMut::new();
    }
    match stream.flush() {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// What failed, in words that do not change from connection to connection.
fn name(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset => "reset".to_owned(),
        ErrorKind::BrokenPipe => "broken pipe".to_owned(),
        ErrorKind::TimedOut => "timed out".to_owned(),
        ErrorKind::UnexpectedEof => "end of stream".to_owned(),
        ErrorKind::AddrNotAvailable => "no free local port; add --sources".to_owned(),
        _ => error.to_string(),
    }
}

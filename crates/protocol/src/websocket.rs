//! The server's side of the framing in RFC 6455: it decodes bytes into messages and control frames,
//! and encodes frames.
//!
//! It is written here, not taken from a library, for two measured reasons. First, without a read
//! buffer in the decoder, an idle connection takes 2 KiB of memory instead of 6 KiB. Second, the
//! decoder checks a message's size, over all its fragments, as soon as it has a frame's header,
//! before it keeps any byte of the payload. The opening handshake is HTTP and is not part of this
//! module.

use bytes::{BufMut, Bytes, BytesMut};

use crate::close::{CloseCode, CloseFrame};
use crate::error::WebSocketError;
use crate::frame::Frame;

/// The largest payload of a control frame in bytes (RFC 6455, section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest frame header that a client sends, in bytes: 2, plus 8 of length and 4 of mask.
const MAX_HEADER_LEN: usize = 14;

/// The largest initial buffer for a message that is not complete yet, in bytes.
const FIRST_PARTIAL_CAPACITY: usize = 4096;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV: u8 = 0x70;
pub(crate) const MASKED: u8 = 0x80;

/// A frame's opcode (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// A text message's first fragment.
    Text = 0x1,
    /// A binary message's first fragment.
    Binary = 0x2,
    /// The sender closes the connection.
    Close = 0x8,
    /// Asks the peer for a Pong.
    Ping = 0x9,
    /// The response to a Ping.
    Pong = 0xA,
}

impl Opcode {
    pub(crate) fn from_bits(bits: u8) -> Result<Self, WebSocketError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            other => return Err(WebSocketError::ReservedOpcode(other)),
        })
    }

    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A complete text message, which is UTF-8.
    Text(Bytes),
    /// A complete binary message.
    Binary(Bytes),
    /// A Ping. Respond with a Pong that has the same payload.
    Ping(Bytes),
    /// The response to a Ping.
    Pong(Bytes),
    /// The peer closes the connection. `None` if its Close has no code.
    Close(Option<CloseFrame>),
}

/// Whether a message has begun and is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// No message is unfinished.
    Nothing,
    /// A message has begun since the last query.
    Begun,
    /// The message is the same as in the last query.
    Continued,
}

/// Turns a client's byte stream into messages.
///
/// Pass it the bytes that you read. It keeps unfinished frames itself, so you can reuse your buffer
/// for the next connection. Do not use it again after an error.
///
/// ```
/// use roomcast_protocol::{Decoder, Incoming};
/// let mut decoder = Decoder::new(1024, 16);
/// let mut input: &[u8] = &[0x82, 0x81, 0, 0, 0, 0, b'x'];
/// assert_eq!(decoder.decode(&mut input), Ok(Some(Incoming::Binary("x".into()))));
/// assert_eq!(decoder.decode(&mut input), Ok(None));
/// ```
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    max_fragments: u32,
    /// Collects a frame's header when reads split it.
    header: [u8; MAX_HEADER_LEN],
    header_len: u8,
    /// The frame whose payload is being read.
    frame: Option<FrameHeader>,
    /// The message that is being assembled from fragments.
    message: Option<Assembly>,
    /// The payload of a control frame that is being read. Control frames may arrive between
    /// fragments. The payload is boxed because most connections have none.
    control: Option<Box<BytesMut>>,
    /// Whether messages are skipped.
    skips_messages: bool,
}

#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    opcode: Opcode,
    fin: bool,
    mask: [u8; 4],
    /// How many bytes of the payload are missing.
    remaining: usize,
}

#[derive(Debug)]
struct Assembly {
    text: bool,
    /// Whether [`Decoder::unfinished`] has not reported the message yet.
    is_new: bool,
    fragments: u32,
    payload: BytesMut,
}

impl Decoder {
    /// Creates a decoder that accepts messages of at most `max_message` bytes, in at most
    /// `max_fragments` fragments.
    pub fn new(max_message: usize, max_fragments: u32) -> Self {
        Self {
            max_message,
            max_fragments,
            header: [0; MAX_HEADER_LEN],
            header_len: 0,
            frame: None,
            message: None,
            control: None,
            skips_messages: false,
        }
    }

    /// Returns whether a message is unfinished, for a caller that limits how long it may take.
    pub fn unfinished(&mut self) -> Unfinished {
        match &mut self.message {
            None => Unfinished::Nothing,
            Some(message) => match std::mem::take(&mut message.is_new) {
                true => Unfinished::Begun,
                false => Unfinished::Continued,
            },
        }
    }

    /// Returns how much memory unfinished input takes, in bytes.
    pub fn buffered(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        message + self.control.as_ref().map_or(0, |control| control.capacity())
    }

    /// Skips all further messages, including an unfinished one. From now on, only control frames
    /// are returned. Use this for a connection that waits for its peer's Close.
    pub fn skip_messages(&mut self) {
        self.skips_messages = true;
        if let Some(message) = &mut self.message {
            message.payload = BytesMut::new();
        }
    }

    /// Takes bytes from the front of `input` until a message or control frame is complete. Returns
    /// `None` when `input` is used up.
    ///
    /// # Errors
    /// Returns [`WebSocketError`] at the first violation of RFC 6455.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, WebSocketError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            self.read_payload(&mut frame, input);
            if frame.remaining > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(incoming) = self.finish_frame(frame)? {
                return Ok(Some(incoming));
            }
        }
    }

    /// Collects a header, byte by byte if reads split it, and checks it.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<FrameHeader>, WebSocketError> {
        loop {
            let have = self.header_len as usize;
            let needed = match have {
                0 | 1 => 2,
                _ => 2 + extended_len_bytes(self.header[1]) + 4,
            };
            if have >= 2 {
                // The first bytes are checked at once: an invalid frame is rejected before the rest
                // arrives.
                self.check_first_bytes()?;
            }
            if have == needed {
                self.header_len = 0;
                return self.finish_header().map(Some);
            }
            let taken = (needed - have).min(input.len());
            if taken == 0 {
                return Ok(None);
            }
            let (now, later) = input.split_at(taken);
            self.header[have..have + taken].copy_from_slice(now);
            self.header_len += taken as u8;
            *input = later;
        }
    }

    fn check_first_bytes(&self) -> Result<(), WebSocketError> {
        let [first, second, ..] = self.header;
        if first & RSV != 0 {
            return Err(WebSocketError::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & 0x0F)?;
        if second & MASKED == 0 {
            return Err(WebSocketError::Unmasked);
        }
        if opcode.is_control() {
            if first & FIN == 0 {
                return Err(WebSocketError::FragmentedControl);
            }
            if extended_len_bytes(second) > 0 {
                return Err(WebSocketError::ControlTooLong);
            }
        }
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => Err(WebSocketError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => Err(WebSocketError::UnfinishedMessage),
            _ => Ok(()),
        }
    }

    fn finish_header(&mut self) -> Result<FrameHeader, WebSocketError> {
        let header = &self.header;
        let (len, mask_at) = match header[1] & !MASKED {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let mut len = [0; 8];
                len.copy_from_slice(&header[2..10]);
                (u64::from_be_bytes(len), 10)
            }
            len => (u64::from(len), 2),
        };
        if (mask_at == 4 && len < 126) || (mask_at == 10 && len <= u64::from(u16::MAX)) {
            return Err(WebSocketError::NonMinimalLength);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&header[mask_at..mask_at + 4]);
        let opcode = Opcode::from_bits(header[0] & 0x0F)?;
        if !opcode.is_control() {
            let (so_far, fragments) =
                self.message.as_ref().map_or((0, 0), |message| (message.payload.len(), message.fragments));
            if fragments >= self.max_fragments {
                return Err(WebSocketError::TooManyFragments { max: self.max_fragments });
            }
            let size = len.saturating_add(so_far as u64);
            if size > self.max_message as u64 {
                return Err(WebSocketError::MessageTooBig { size, max: self.max_message });
            }
            match &mut self.message {
                Some(message) => message.fragments += 1,
                None => {
                    let text = opcode == Opcode::Text;
                    self.message = Some(Assembly { text, is_new: true, fragments: 1, payload: BytesMut::new() });
                }
            }
        }
        Ok(FrameHeader { opcode, fin: header[0] & FIN != 0, mask, remaining: len as usize })
    }

    fn read_payload(&mut self, frame: &mut FrameHeader, input: &mut &[u8]) {
        let taken = frame.remaining.min(input.len());
        if taken == 0 {
            return;
        }
        let (now, later) = input.split_at(taken);
        *input = later;
        frame.remaining -= taken;
        let payload = match &mut self.message {
            Some(_) if !frame.opcode.is_control() && self.skips_messages => return,
            Some(message) if !frame.opcode.is_control() => &mut message.payload,
            _ => self.control.get_or_insert_default(),
        };
        if payload.is_empty() {
            // The exact size if the whole payload is here; small if the rest is only claimed.
            let claimed = taken + frame.remaining;
            payload.reserve(if taken == claimed { taken } else { taken.max(FIRST_PARTIAL_CAPACITY.min(claimed)) });
        }
        let start = payload.len();
        payload.extend_from_slice(now);
        apply_mask(&mut payload[start..], frame.mask);
        frame.mask.rotate_left(taken % 4);
    }

    fn take_control(&mut self) -> Bytes {
        self.control.take().map_or_else(Bytes::new, |payload| payload.freeze())
    }

    fn finish_frame(&mut self, frame: FrameHeader) -> Result<Option<Incoming>, WebSocketError> {
        match frame.opcode {
            Opcode::Close => parse_close(&self.take_control()).map(|close| Some(Incoming::Close(close))),
            Opcode::Ping => Ok(Some(Incoming::Ping(self.take_control()))),
            Opcode::Pong => Ok(Some(Incoming::Pong(self.take_control()))),
            Opcode::Continuation | Opcode::Text | Opcode::Binary if !frame.fin => Ok(None),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                let Some(message) = self.message.take() else { return Err(WebSocketError::UnexpectedContinuation) };
                if self.skips_messages {
                    return Ok(None);
                }
                let payload = message.payload.freeze();
                match message.text {
                    false => Ok(Some(Incoming::Binary(payload))),
                    true if std::str::from_utf8(&payload).is_err() => Err(WebSocketError::TextNotUtf8),
                    true => Ok(Some(Incoming::Text(payload))),
                }
            }
        }
    }
}

pub(crate) fn extended_len_bytes(second: u8) -> usize {
    match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// XORs with the mask (RFC 6455, section 5.3), eight bytes at a time.
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

pub(crate) fn parse_close(payload: &[u8]) -> Result<Option<CloseFrame>, WebSocketError> {
    match payload {
        [] => Ok(None),
        [_] => Err(WebSocketError::InvalidClose),
        [high, low, reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([*high, *low]));
            if !code.is_valid_on_the_wire() {
                return Err(WebSocketError::InvalidClose);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| WebSocketError::CloseReasonNotUtf8)?;
            Ok(Some(CloseFrame::new(code, reason)))
        }
    }
}

/// Appends the header of a server's unfragmented, unmasked frame.
pub fn encode_header(out: &mut BytesMut, opcode: Opcode, payload_len: usize) {
    out.put_u8(FIN | opcode as u8);
    match payload_len {
        0..=125 => out.put_u8(payload_len as u8),
        126..=0xFFFF => {
            out.put_u8(126);
            out.put_u16(payload_len as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload_len as u64);
        }
    }
}

/// Encodes a complete frame of a server: header and payload.
pub fn encode_message(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(encoded_size(payload.len()));
    encode_header(&mut out, opcode, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// Appends a protocol frame as one binary message, ready for the socket.
pub fn encode_frame(out: &mut BytesMut, frame: &Frame) {
    let len = frame.encoded_len();
    out.reserve(encoded_size(len));
    encode_header(out, Opcode::Binary, len);
    frame.encode(out);
}

/// Encodes a Close frame. The reason is truncated, at a character boundary, to the 123 bytes that
/// fit.
pub fn encode_close(close: &CloseFrame) -> Bytes {
    let reason = &close.reason[..close.reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - 2)];
    let mut out = BytesMut::with_capacity(encoded_size(2 + reason.len()));
    encode_header(&mut out, Opcode::Close, 2 + reason.len());
    out.put_u16(close.code.0);
    out.put_slice(reason.as_bytes());
    out.freeze()
}

fn encoded_size(payload_len: usize) -> usize {
    let header = match payload_len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    };
    header + payload_len
}

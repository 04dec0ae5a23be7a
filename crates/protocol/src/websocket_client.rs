//! The client's side of the framing in RFC 6455, for programs that hold very many connections.
//! Messages borrow from the buffer that they were read into.
//!
//! It reads what Roomcast's nodes send: frames that are not fragmented. It rejects fragments with
//! an error of their own.

use bytes::{BufMut, Bytes, BytesMut};

use crate::close::CloseFrame;
use crate::error::WebSocketError;
use crate::frame::Frame;
use crate::websocket::{FIN, MASKED, Opcode, RSV, apply_mask, extended_len_bytes, parse_close};

/// A larger buffer for unfinished frames shrinks to this size after use.
const KEPT_CAPACITY: usize = 4096;

/// A frame's mask (RFC 6455, section 5.3).
pub type Mask = [u8; 4];

/// What a server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// A complete binary message.
    Binary(&'a [u8]),
    /// A complete text message. It is not checked for UTF-8, since the protocol has no text
    /// messages.
    Text(&'a [u8]),
    /// A Ping. Respond with a Pong that has the same payload.
    Ping(&'a [u8]),
    /// The response to a Ping.
    Pong(&'a [u8]),
    /// The server closes the connection. `None` if its Close has no code.
    Close(Option<CloseFrame>),
}

/// Turns a server's byte stream into messages.
///
/// ```
/// use roomcast_protocol::{ClientDecoder, FromServer};
/// let mut decoder = ClientDecoder::new(1024);
/// let mut input: &[u8] = &[0x82, 1, b'x', 0x82];
/// assert_eq!(decoder.decode(&mut input), Ok(Some(FromServer::Binary(b"x"))));
/// assert_eq!(decoder.decode(&mut input), Ok(None));
/// ```
#[derive(Debug)]
pub struct ClientDecoder {
    max_message: usize,
    /// The frame that is not complete yet, from its first byte.
    unfinished: Vec<u8>,
    /// Whether the frame in `unfinished` was complete and has been returned.
    is_taken: bool,
}

impl ClientDecoder {
    /// Creates a decoder that accepts messages of at most `max_message` bytes.
    pub fn new(max_message: usize) -> Self {
        Self { max_message, unfinished: Vec::new(), is_taken: false }
    }

    /// Takes bytes from the front of `input` until a frame is complete. Returns `None` when `input`
    /// is used up.
    ///
    /// # Errors
    /// Returns [`WebSocketError`] at the first violation of RFC 6455, and at a fragment. Do not use
    /// the decoder again after an error.
    pub fn decode<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<FromServer<'a>>, WebSocketError> {
        self.forget_taken();
        if self.unfinished.is_empty() {
            if let Some(header) = Header::read(input, self.max_message)?
                && let Some((frame, later)) = input.split_at_checked(header.frame_len)
            {
                *input = later;
                return header.message(frame).map(Some);
            }
            self.unfinished.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        }
        loop {
            let header = Header::read(&self.unfinished, self.max_message)?;
            // The length of a header depends on its second byte, so the header is collected byte by
            // byte.
            let missing = header.map_or(1, |header| header.frame_len - self.unfinished.len());
            let (now, later) = input.split_at(missing.min(input.len()));
            self.unfinished.extend_from_slice(now);
            *input = later;
            if let Some(header) = header
                && self.unfinished.len() == header.frame_len
            {
                self.is_taken = true;
                return header.message(&self.unfinished).map(Some);
            }
            if now.len() < missing || missing == 0 {
                return Ok(None);
            }
        }
    }

    fn forget_taken(&mut self) {
        if self.is_taken {
            self.is_taken = false;
            self.unfinished.clear();
            self.unfinished.shrink_to(KEPT_CAPACITY);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Header {
    opcode: Opcode,
    len: usize,
    /// The size of header and payload.
    frame_len: usize,
}

impl Header {
    /// Returns `None` if more bytes are needed.
    fn read(input: &[u8], max_message: usize) -> Result<Option<Self>, WebSocketError> {
        let [first, second, ref rest @ ..] = *input else { return Ok(None) };
        if first & RSV != 0 {
            return Err(WebSocketError::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & 0x0F)?;
        if second & MASKED != 0 {
            return Err(WebSocketError::MaskedByServer);
        }
        if first & FIN == 0 || opcode == Opcode::Continuation {
            return Err(WebSocketError::Fragmented);
        }
        let extended = extended_len_bytes(second);
        if opcode.is_control() && extended > 0 {
            return Err(WebSocketError::ControlTooLong);
        }
        let Some(extended_len) = rest.get(..extended) else { return Ok(None) };
        let payload_len = match extended {
            0 => u64::from(second),
            _ => extended_len.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        if payload_len > max_message as u64 {
            return Err(WebSocketError::MessageTooBig { size: payload_len, max: max_message });
        }
        let len = 2 + extended;
        Ok(Some(Self { opcode, len, frame_len: len + payload_len as usize }))
    }

    fn message(self, frame: &[u8]) -> Result<FromServer<'_>, WebSocketError> {
        let payload = &frame[self.len..];
        Ok(match self.opcode {
            Opcode::Binary => FromServer::Binary(payload),
            Opcode::Text => FromServer::Text(payload),
            Opcode::Ping => FromServer::Ping(payload),
            Opcode::Pong => FromServer::Pong(payload),
            Opcode::Close => FromServer::Close(parse_close(payload)?),
            Opcode::Continuation => return Err(WebSocketError::Fragmented),
        })
    }
}

/// Appends a protocol frame as one masked binary message, ready for the socket.
///
/// Choose a mask that the author of the payload cannot predict (RFC 6455, section 10.3).
pub fn encode_client_frame(out: &mut BytesMut, frame: &Frame, mask: Mask) {
    let start = put_masked_header(out, Opcode::Binary, frame.encoded_len(), mask);
    frame.encode(out);
    apply_mask(&mut out[start..], mask);
}

/// Encodes a complete masked frame with this payload, such as a Pong or a Close.
pub fn encode_client_message(opcode: Opcode, payload: &[u8], mask: Mask) -> Bytes {
    let mut out = BytesMut::new();
    let start = put_masked_header(&mut out, opcode, payload.len(), mask);
    out.put_slice(payload);
    apply_mask(&mut out[start..], mask);
    out.freeze()
}

/// Returns where the payload begins.
fn put_masked_header(out: &mut BytesMut, opcode: Opcode, payload_len: usize, mask: Mask) -> usize {
    let start = out.len();
    crate::websocket::encode_header(out, opcode, payload_len);
    out[start + 1] |= MASKED;
    out.put_slice(&mask);
    out.len()
}

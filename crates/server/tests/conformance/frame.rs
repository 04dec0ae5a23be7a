//! Frames as the tables write them: what a client sends, right or wrong, and what a server must send.

/// The mask of RFC 6455's own examples (section 5.7).
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// One frame, of either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) fin: bool,
    pub(crate) reserved_bits: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame { opcode, fin: true, reserved_bits: 0, payload: payload.as_ref().to_vec() }
}

pub(crate) fn text(payload: impl AsRef<[u8]>) -> Frame {
    frame(TEXT, payload)
}

pub(crate) fn binary(payload: impl AsRef<[u8]>) -> Frame {
    frame(BINARY, payload)
}

pub(crate) fn continuation(payload: impl AsRef<[u8]>) -> Frame {
    frame(CONTINUATION, payload)
}

pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Frame {
    frame(PING, payload)
}

pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Frame {
    frame(PONG, payload)
}

/// A Close with a code and a reason.
pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Frame {
    frame(CLOSE, [&code.to_be_bytes(), reason.as_ref()].concat())
}

/// A message in fragments of `size` bytes.
pub(crate) fn in_fragments(message: &Frame, size: usize) -> Vec<Frame> {
    let pieces: Vec<&[u8]> = message.payload.chunks(size).collect();
    let last = pieces.len() - 1;
    let fragment = |(at, piece): (usize, &&[u8])| {
        let opcode = if at == 0 { message.opcode } else { CONTINUATION };
        Frame { fin: at == last, ..frame(opcode, piece) }
    };
    pieces.iter().enumerate().map(fragment).collect()
}

impl Frame {
    /// Another fragment follows.
    pub(crate) fn unfinished(self) -> Self {
        Self { fin: false, ..self }
    }

    /// With RSV1, RSV2 and RSV3 as a number from 0 to 7.
    pub(crate) fn with_reserved_bits(self, reserved_bits: u8) -> Self {
        Self { reserved_bits, ..self }
    }

    /// The frame as a client sends it, masked.
    pub(crate) fn masked(&self) -> Vec<u8> {
        let mut bytes = self.header(self.payload.len() as u64, MASKED);
        bytes.extend(MASK);
        bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The frame as only a server may send it.
    pub(crate) fn unmasked(&self) -> Vec<u8> {
        [self.header(self.payload.len() as u64, 0), self.payload.clone()].concat()
    }

    /// The header alone, of a frame that claims to have `len` bytes.
    pub(crate) fn header_that_claims(&self, len: u64) -> Vec<u8> {
        [self.header(len, MASKED), MASK.to_vec()].concat()
    }

    fn header(&self, len: u64, masked: u8) -> Vec<u8> {
        let fin = if self.fin { FIN } else { 0 };
        let mut header = vec![fin | self.reserved_bits << 4 | self.opcode];
        match len {
            0..=125 => header.push(masked | len as u8),
            126..=0xFFFF => {
                header.push(masked | 126);
                header.extend((len as u16).to_be_bytes());
            }
            _ => {
                header.push(masked | 127);
                header.extend(len.to_be_bytes());
            }
        }
        header
    }

    /// Takes one whole frame of a server from the front of what was received. `Ok(None)`: more must arrive first.
    pub(crate) fn take(received: &mut Vec<u8>) -> Result<Option<Self>, String> {
        let [first, second, rest @ ..] = received.as_slice() else { return Ok(None) };
        if second & MASKED != 0 {
            return Err("the server masked a frame".into());
        }
        let (len, len_bytes) = match (second, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 8),
            (126 | 127, _) => return Ok(None),
            (len, _) => (u64::from(*len), 0),
        };
        if (len_bytes == 2 && len < 126) || (len_bytes == 8 && len <= 0xFFFF) {
            return Err(format!("the server wrote the length {len} in {len_bytes} bytes"));
        }
        let (fin, reserved_bits, opcode) = (first & FIN != 0, first >> 4 & 0b111, first & 0xF);
        let start = 2 + len_bytes;
        let end = start + usize::try_from(len).map_err(|_| format!("the server claims {len} bytes"))?;
        if received.len() < end {
            return Ok(None);
        }
        let payload = received[start..end].to_vec();
        received.drain(..end);
        Ok(Some(Self { opcode, fin, reserved_bits, payload }))
    }

    /// What a reader of a failed test needs to know of it.
    pub(crate) fn describe(&self) -> String {
        let kind = match self.opcode {
            CONTINUATION => "continuation".to_owned(),
            TEXT => "text".to_owned(),
            BINARY => "binary".to_owned(),
            CLOSE => match self.payload.as_slice() {
                [high, low, ..] => format!("close {}", u16::from_be_bytes([*high, *low])),
                _ => "close".to_owned(),
            },
            PING => "ping".to_owned(),
            PONG => "pong".to_owned(),
            opcode => format!("opcode {opcode}"),
        };
        let start = String::from_utf8_lossy(&self.payload[..self.payload.len().min(40)]).into_owned();
        let fin = if self.fin { "" } else { ", unfinished" };
        format!("{kind} of {} bytes {start:?}, reserved bits {}{fin}", self.payload.len(), self.reserved_bits)
    }
}

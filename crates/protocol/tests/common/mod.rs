//! A client's half of RFC 6455, written for the tests and independent of the code under test: it makes
//! masked frames, right or wrong as the test wants them, and reads a server's unmasked ones.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod described;
pub(crate) mod pair;
pub(crate) mod v1_pair;
pub(crate) mod v1_rooms;
pub(crate) mod v1_story;

pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

pub(crate) type Mask = [u8; 4];

/// The mask of RFC 6455's own examples (section 5.7).
pub(crate) const MASK: Mask = [0x37, 0xFA, 0x21, 0x3D];

/// A client's frame. `first` is its first byte: FIN, reserved bits and opcode.
pub(crate) fn masked(first: u8, mask: Mask, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64, mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The header of a client's frame that claims `len` bytes of payload.
pub(crate) fn header(first: u8, len: u64, mask: Mask) -> Vec<u8> {
    let mut header = vec![first];
    match len {
        0..=125 => header.push(0x80 | len as u8),
        126..=0xFFFF => {
            header.push(0x80 | 126);
            header.extend((len as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(len.to_be_bytes());
        }
    }
    header.extend(mask);
    header
}

/// A client's message in one frame.
pub(crate) fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    masked(FIN | opcode, MASK, payload)
}

/// A client's message in fragments with these payloads, one frame each.
pub(crate) fn fragments(opcode: u8, payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = payloads.len() - 1;
    let frame = |(at, payload): (usize, &&[u8])| {
        let opcode = if at == 0 { opcode } else { CONTINUATION };
        let fin = if at == last { FIN } else { 0 };
        masked(fin | opcode, MASK, payload)
    };
    payloads.iter().enumerate().map(frame).collect()
}

/// A frame that a server sent: unmasked and in one piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerFrame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// Takes one whole frame from the front of what a server sent. `None`: it is not all there yet.
#[track_caller]
pub(crate) fn take_server_frame(sent: &mut Vec<u8>) -> Option<ServerFrame> {
    let [first, second, rest @ ..] = sent.as_slice() else { return None };
    assert_eq!(first & 0xF0, FIN, "a server's frame is in one piece and has no reserved bits");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let opcode = first & 0x0F;
    let (len, len_bytes) = match second {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
        len => (u64::from(*len), 0),
    };
    let shortest = match len {
        0..=125 => 0,
        126..=0xFFFF => 2,
        _ => 8,
    };
    assert_eq!(len_bytes, shortest, "a length is encoded in the fewest bytes");
    assert!(opcode < CLOSE || len <= 125, "a control frame carries at most 125 bytes");
    let payload_at = 2 + len_bytes;
    let end = payload_at + usize::try_from(len).expect("a test's frame fits in memory");
    if sent.len() < end {
        return None;
    }
    let frame: Vec<u8> = sent.drain(..end).collect();
    Some(ServerFrame { opcode, payload: frame[payload_at..].to_vec() })
}

//! Any bytes, in any reads, into a `ServerConnection`: it never panics, what comes out does not depend
//! on how the bytes were read, and every event that comes out can be sent again and comes out the same.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use roomcast_protocol::{Event, Frame, Limits, Opcode, ServerConnection, Violation};

/// Small, so that the limit is within the fuzzer's reach.
const LIMITS: Limits = {
    let mut limits = Limits::new(300);
    limits.max_fragments = 8;
    limits
};

// The input: how many reads to plan, their sizes, then the client's bytes.
fuzz_target!(|input: &[u8]| {
    let Some((planned, rest)) = input.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(planned % 16)) else { return };

    let at_once = receive(&[stream]);
    assert_eq!(receive(&split(stream, sizes)), at_once, "in reads of {sizes:?}");
    assert_eq!(receive(&stream.chunks(1).collect::<Vec<_>>()), at_once, "byte by byte");
    for event in at_once.0 {
        assert_comes_out_the_same(event);
    }
});

/// Cuts into reads of these sizes; the last read is what is left.
fn split<'a>(mut stream: &'a [u8], sizes: &[u8]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for size in sizes {
        let (read, rest) = stream.split_at(stream.len().min(usize::from(*size)));
        reads.push(read);
        stream = rest;
    }
    reads.push(stream);
    reads
}

/// All events up to the first violation.
fn receive(reads: &[&[u8]]) -> (Vec<Event>, Option<Violation>) {
    let mut connection = ServerConnection::new(LIMITS);
    let mut events = Vec::new();
    for read in reads {
        let mut input = *read;
        loop {
            match connection.receive(&mut input) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(violation) => {
                    assert!(violation.close_code().is_valid_on_the_wire(), "{violation:?}");
                    return (events, Some(violation));
                }
            }
        }
        assert!(input.is_empty(), "it wants no more, but left bytes");
    }
    (events, None)
}

fn assert_comes_out_the_same(event: Event) {
    let mut message = BytesMut::new();
    let opcode = match &event {
        Event::Ping(payload) => {
            message.extend_from_slice(payload);
            Opcode::Ping
        }
        Event::Close(close) => {
            if let Some(close) = close {
                message.extend_from_slice(&close.code.0.to_be_bytes());
                message.extend_from_slice(close.reason.as_bytes());
            }
            Opcode::Close
        }
        // Its payload is not kept.
        Event::Pong => return,
        Event::Notify { .. } | Event::Request { .. } | Event::Reset { .. } => {
            let frame = frame_of(&event);
            frame.encode(&mut message);
            assert_eq!(message.len(), frame.encoded_len());
            assert_eq!(Frame::decode(message.clone().freeze()), Ok(frame));
            Opcode::Binary
        }
    };
    assert_eq!(receive(&[&client_frame(opcode, &message)]), (vec![event], None));
}

fn frame_of(event: &Event) -> Frame {
    match event.clone() {
        Event::Notify { name, payload } => Frame::Notify { name, payload },
        Event::Request { id, name, payload } => Frame::Request { id, name, payload },
        Event::Reset { id } => Frame::Reset { id },
        Event::Ping(_) | Event::Pong | Event::Close(_) => unreachable!("control frames are no frames of the protocol"),
    }
}

/// A client's unfragmented frame, with a mask that changes nothing.
fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode as u8];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            let len = u16::try_from(payload.len()).expect("a message within the limits");
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

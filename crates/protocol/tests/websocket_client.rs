//! The client's framing against the server's: what one writes the other reads, however it is cut.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_protocol::{
    CallId, ClientDecoder, Decoder, Frame, FrameRef, FromServer, Incoming, Name, Opcode, WebSocketError,
    encode_client_frame, encode_client_message, encode_message,
};

/// More than any message here has.
const MAX_FRAGMENTS: u32 = 16;
const MAX_MESSAGE: usize = 100_000;

fn any_opcode_and_payload() -> impl Strategy<Value = (Opcode, Vec<u8>)> {
    prop_oneof![
        (prop_oneof![Just(Opcode::Binary), Just(Opcode::Text)], vec(any::<u8>(), 0..300)),
        (Just(Opcode::Binary), vec(any::<u8>(), 65_530..65_540)),
        (prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)], vec(any::<u8>(), 0..126)),
    ]
}

fn owned(message: &FromServer<'_>) -> (Opcode, Vec<u8>) {
    match message {
        FromServer::Binary(payload) => (Opcode::Binary, payload.to_vec()),
        FromServer::Text(payload) => (Opcode::Text, payload.to_vec()),
        FromServer::Ping(payload) => (Opcode::Ping, payload.to_vec()),
        FromServer::Pong(payload) => (Opcode::Pong, payload.to_vec()),
        FromServer::Close(_) => (Opcode::Close, Vec::new()),
    }
}

fn read_in_chunks(wire: &[u8], chunk: usize) -> Result<Vec<(Opcode, Vec<u8>)>, WebSocketError> {
    let mut decoder = ClientDecoder::new(MAX_MESSAGE);
    let mut messages = Vec::new();
    for mut input in wire.chunks(chunk) {
        while let Some(message) = decoder.decode(&mut input)? {
            messages.push(owned(&message));
        }
    }
    Ok(messages)
}

proptest! {
    #[test]
    fn what_a_server_sends_is_read_however_it_is_cut(sent in vec(any_opcode_and_payload(), 0..6), chunk in 1..3000_usize) {
        let wire: Vec<u8> = sent.iter().flat_map(|(opcode, payload)| encode_message(*opcode, payload)).collect();
        prop_assert_eq!(read_in_chunks(&wire, chunk), Ok(sent));
    }

    #[test]
    fn whatever_comes_is_judged_the_same_however_it_is_cut(bytes in vec(any::<u8>(), 0..100), chunk in 1..20_usize) {
        prop_assert_eq!(read_in_chunks(&bytes, chunk).is_err(), read_in_chunks(&bytes, 100).is_err());
    }

    #[test]
    fn what_a_client_sends_a_server_reads(name in ".{0,50}", payload in vec(any::<u8>(), 0..300), mask in any::<[u8; 4]>()) {
        let name = Name::new(&name).expect("it is short");
        let frame = Frame::Request { id: CallId(7), name, payload: payload.into() };
        let mut wire = BytesMut::from(&encode_client_message(Opcode::Pong, b"here", mask)[..]);
        encode_client_frame(&mut wire, &frame, mask);
        let (mut decoder, mut input) = (Decoder::new(MAX_MESSAGE, MAX_FRAGMENTS), &wire[..]);
        prop_assert_eq!(decoder.decode(&mut input), Ok(Some(Incoming::Pong("here".into()))));
        let Ok(Some(Incoming::Binary(message))) = decoder.decode(&mut input) else { panic!("a binary message") };
        prop_assert_eq!(Frame::decode(message), Ok(frame));
    }

    #[test]
    fn a_borrowed_frame_is_the_same_as_one_that_is_not(message in vec(prop_oneof![0..6_u8, any::<u8>()], 0..20)) {
        let borrowed = FrameRef::decode(&message).map(|frame| match frame {
            FrameRef::Notify { name, payload } => Frame::Notify { name: named(name), payload: copied(payload) },
            FrameRef::Request { id, name, payload } => Frame::Request { id, name: named(name), payload: copied(payload) },
            FrameRef::Reset { id } => Frame::Reset { id },
            FrameRef::Response { id, payload } => Frame::Response { id, payload: copied(payload) },
        });
        prop_assert_eq!(borrowed, Frame::decode(message.into()));
    }
}

fn named(name: &str) -> Name {
    Name::new(name).expect("it came in a frame")
}

fn copied(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[test]
fn what_no_server_may_send_is_refused() {
    for (wire, expected) in [
        (&[0x82, 0x80][..], WebSocketError::MaskedByServer),
        (&[0x02, 0x00], WebSocketError::Fragmented),
        (&[0x80, 0x00], WebSocketError::Fragmented),
        (&[0xC2, 0x00], WebSocketError::ReservedBit),
        (&[0x83, 0x00], WebSocketError::ReservedOpcode(3)),
        (&[0x89, 0x7E], WebSocketError::ControlTooLong),
        (&[0x82, 0x7F, 0, 0, 0, 0, 0, 2, 0, 0], WebSocketError::MessageTooBig { size: 131_072, max: MAX_MESSAGE }),
    ] {
        assert_eq!(read_in_chunks(wire, 1), Err(expected));
    }
}

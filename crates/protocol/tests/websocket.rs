//! The WebSocket layer: what comes out does not depend on how it came in, and each rule of RFC 6455
//! that the decoder enforces.

mod common;

use bytes::{Bytes, BytesMut};
use common::{
    BINARY, CLOSE, CONTINUATION, FIN, MASK, Mask, PING, PONG, ServerFrame, TEXT, fragments, header, masked, message,
    take_server_frame,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use roomcast_protocol::{
    CallId, CloseCode, CloseFrame, Decoder, Frame, Incoming, Limits, Opcode, Unfinished, Violation, WebSocketError,
    encode_close, encode_frame, encode_message,
};

const MAX_MESSAGE: usize = 100_000;
const MAX_FRAGMENTS: u32 = 16;

// === what clients send, and how ===

/// One client's message and the way it travels.
#[derive(Debug, Clone)]
struct Sent {
    message: Incoming,
    mask: Mask,
    /// Where the message is cut, and the control frames that are sent at each cut.
    cuts: Vec<(Index, Vec<Incoming>)>,
}

impl Sent {
    /// Appends the message's frames to the wire, and to `expected` what should come out, in order.
    fn put(&self, wire: &mut Vec<u8>, expected: &mut Vec<Incoming>) {
        let (opcode, payload) = on_the_wire(&self.message);
        if opcode >= CLOSE {
            put_control(&self.message, self.mask, wire, expected);
            return;
        }
        let mut cuts: Vec<_> = self.cuts.iter().map(|(at, controls)| (at.index(payload.len() + 1), controls)).collect();
        cuts.sort_by_key(|(at, _)| *at);
        let mut start = 0;
        let mut first = opcode;
        for (end, controls) in cuts {
            wire.extend(masked(first, self.mask, &payload[start..end]));
            for control in controls {
                put_control(control, self.mask, wire, expected);
            }
            start = end;
            first = CONTINUATION;
        }
        wire.extend(masked(FIN | first, self.mask, &payload[start..]));
        expected.push(self.message.clone());
    }
}

fn put_control(control: &Incoming, mask: Mask, wire: &mut Vec<u8>, expected: &mut Vec<Incoming>) {
    let (opcode, payload) = on_the_wire(control);
    wire.extend(masked(FIN | opcode, mask, &payload));
    expected.push(control.clone());
}

fn on_the_wire(message: &Incoming) -> (u8, Vec<u8>) {
    match message {
        Incoming::Text(text) => (TEXT, text.to_vec()),
        Incoming::Binary(bytes) => (BINARY, bytes.to_vec()),
        Incoming::Ping(payload) => (PING, payload.to_vec()),
        Incoming::Pong(payload) => (PONG, payload.to_vec()),
        Incoming::Close(None) => (CLOSE, Vec::new()),
        Incoming::Close(Some(close)) => (CLOSE, [&close.code.0.to_be_bytes(), close.reason.as_bytes()].concat()),
    }
}

fn control() -> impl Strategy<Value = Incoming> {
    let payload = || vec(any::<u8>(), 0..=125).prop_map(Bytes::from);
    prop_oneof![
        payload().prop_map(Incoming::Ping),
        payload().prop_map(Incoming::Pong),
        Just(Incoming::Close(None)),
        (3000..5000_u16, "\\PC{0,30}")
            .prop_map(|(code, reason)| Incoming::Close(Some(CloseFrame::new(CloseCode(code), reason)))),
    ]
}

/// Messages of all kinds, their lengths on both sides of where a length's encoding changes.
fn any_message() -> impl Strategy<Value = Incoming> {
    let filled = |len| any::<u8>().prop_map(move |byte| Incoming::Binary((0..len).map(|at| byte ^ at as u8).collect()));
    prop_oneof![
        4 => control(),
        4 => "\\PC{0,80}".prop_map(|text| Incoming::Text(text.into())),
        4 => vec(any::<u8>(), 0..300).prop_map(|bytes| Incoming::Binary(bytes.into())),
        2 => (120..130_usize).prop_flat_map(filled),
        1 => (65_530..65_540_usize).prop_flat_map(filled),
    ]
}

fn any_sent() -> impl Strategy<Value = Sent> {
    let cuts = vec((any::<Index>(), vec(control(), 0..3)), 0..4);
    (any_message(), any::<Mask>(), cuts).prop_map(|(message, mask, cuts)| Sent { message, mask, cuts })
}

/// Sizes of reads, used over and over until all is read.
fn any_reads() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..4_usize, 1..40_usize, 1..5000_usize], 1..8)
}

/// Everything that came out of a decoder, up to the first error.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    messages: Vec<Incoming>,
    error: Option<WebSocketError>,
}

fn decode_in_reads(wire: &[u8], reads: &[usize]) -> Decoded {
    let mut decoder = Decoder::new(MAX_MESSAGE, MAX_FRAGMENTS);
    let mut decoded = Decoded::default();
    let mut sizes = reads.iter().cycle();
    let mut rest = wire;
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| rest.len().min(*size));
        let (mut read, later) = rest.split_at(size);
        rest = later;
        loop {
            match decoder.decode(&mut read) {
                Ok(Some(message)) => decoded.messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    decoded.error = Some(error);
                    return decoded;
                }
            }
        }
        assert!(read.is_empty(), "the decoder wants no more but left {read:?}");
    }
    decoded
}

fn decode(wire: &[u8]) -> Decoded {
    decode_in_reads(wire, &[])
}

proptest! {
    #[test]
    fn messages_arrive_as_sent_however_they_are_fragmented_and_read(sent in vec(any_sent(), 0..6), reads in any_reads()) {
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for message in &sent {
            message.put(&mut wire, &mut expected);
        }
        prop_assert_eq!(decode_in_reads(&wire, &reads), Decoded { messages: expected, error: None });
    }

    #[test]
    fn whatever_comes_is_judged_the_same_however_it_is_read(bytes in vec(any::<u8>(), 0..100), reads in any_reads()) {
        prop_assert_eq!(decode_in_reads(&bytes, &reads), decode(&bytes));
    }

    #[test]
    fn a_damaged_stream_is_judged_the_same_however_it_is_read(
        sent in vec(any_sent(), 1..4), at in any::<Index>(), damage in 1..=255_u8, reads in any_reads(),
    ) {
        let mut wire = Vec::new();
        for message in &sent {
            message.put(&mut wire, &mut Vec::new());
        }
        let at = at.index(wire.len());
        wire[at] ^= damage;
        prop_assert_eq!(decode_in_reads(&wire, &reads), decode(&wire));
    }
}

// === the rules, one by one ===

/// The decoder refuses the stream for this reason, and nothing comes out before, however it is read.
#[track_caller]
fn assert_refused(wire: &[u8], error: &WebSocketError) {
    for reads in [&[][..], &[1], &[2], &[3]] {
        let decoded = decode_in_reads(wire, reads);
        assert_eq!(decoded, Decoded { messages: Vec::new(), error: Some(error.clone()) }, "in reads of {reads:?}");
    }
}

#[track_caller]
fn assert_accepted(wire: &[u8], messages: &[Incoming]) {
    assert_eq!(decode(wire), Decoded { messages: messages.to_vec(), error: None });
}

#[test]
fn the_masked_hello_of_the_rfc_is_understood() {
    let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_accepted(&hello, &[Incoming::Text("Hello".into())]);
}

#[test]
fn a_reserved_bit_is_refused() {
    for bit in [0x40, 0x20, 0x10] {
        assert_refused(&masked(FIN | bit | BINARY, MASK, b"x"), &WebSocketError::ReservedBit);
        assert_refused(&masked(FIN | bit | PING, MASK, b"x"), &WebSocketError::ReservedBit);
    }
}

#[test]
fn a_reserved_opcode_is_refused() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_refused(&message(opcode, b"x"), &WebSocketError::ReservedOpcode(opcode));
    }
}

#[test]
fn an_unmasked_frame_is_refused() {
    assert_refused(&encode_message(Opcode::Binary, b"x"), &WebSocketError::Unmasked);
    assert_refused(&encode_message(Opcode::Ping, b""), &WebSocketError::Unmasked);
}

#[test]
fn a_fragmented_control_frame_is_refused() {
    for opcode in [CLOSE, PING, PONG] {
        assert_refused(&masked(opcode, MASK, b""), &WebSocketError::FragmentedControl);
    }
}

#[test]
fn a_control_frame_of_126_bytes_is_refused_and_one_of_125_is_not() {
    for opcode in [CLOSE, PING, PONG] {
        assert_refused(&header(FIN | opcode, 126, MASK), &WebSocketError::ControlTooLong);
    }
    assert_accepted(&message(PING, &[b'x'; 125]), &[Incoming::Ping(vec![b'x'; 125].into())]);
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    for first in [CONTINUATION, FIN | CONTINUATION] {
        assert_refused(&header(first, 1, MASK), &WebSocketError::UnexpectedContinuation);
    }
    let whole_then_continued = [masked(FIN | BINARY, MASK, b"x"), message(CONTINUATION, b"y")].concat();
    assert_eq!(decode(&whole_then_continued).error, Some(WebSocketError::UnexpectedContinuation));
}

#[test]
fn a_new_message_inside_an_unfinished_one_is_refused() {
    for opcode in [TEXT, BINARY] {
        let wire = [masked(BINARY, MASK, b"x"), message(opcode, b"y")].concat();
        assert_refused(&wire, &WebSocketError::UnfinishedMessage);
    }
}

#[test]
fn a_length_in_more_bytes_than_it_needs_is_refused() {
    let with_length = |length: &[u8]| [&[FIN | BINARY], length, &MASK].concat();
    assert_refused(&with_length(&[0xFE, 0, 125]), &WebSocketError::NonMinimalLength);
    assert_refused(&with_length(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 125]), &WebSocketError::NonMinimalLength);
    assert_refused(&with_length(&[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), &WebSocketError::NonMinimalLength);
}

#[test]
fn a_message_over_the_maximum_is_refused_at_its_header() {
    let max = MAX_MESSAGE;
    for size in [max as u64 + 1, 1 << 32, 1 << 63, u64::MAX] {
        assert_refused(&header(FIN | BINARY, size, MASK), &WebSocketError::MessageTooBig { size, max });
    }
    assert_eq!(decode(&message(BINARY, &vec![0; max])).messages.len(), 1, "the maximum itself is allowed");
}

#[test]
fn fragments_over_the_maximum_together_are_refused_at_the_header_that_passes_it() {
    let max = MAX_MESSAGE;
    let mut wire = masked(BINARY, MASK, &vec![0; max - 1]);
    wire.extend(masked(CONTINUATION, MASK, b"x"));
    assert_eq!(decode(&wire), Decoded::default(), "the maximum itself is allowed");
    for (claim, size) in [(1, max as u64 + 1), (u64::MAX, u64::MAX)] {
        let one_more = [&wire[..], &header(CONTINUATION, claim, MASK)].concat();
        assert_refused(&one_more, &WebSocketError::MessageTooBig { size, max });
    }
}

#[test]
fn more_fragments_than_a_message_may_have_are_refused_though_they_are_empty() {
    let max = MAX_FRAGMENTS;
    let first = masked(TEXT, MASK, b"");
    let next = masked(CONTINUATION, MASK, b"");
    let all_but_one = [first, next.repeat(max as usize - 2)].concat();
    let last = message(CONTINUATION, b"x");
    let allowed = [&all_but_one[..], &last, &all_but_one, &last].concat();
    assert_accepted(&allowed, &[Incoming::Text("x".into()), Incoming::Text("x".into())]);
    let one_more = [&all_but_one[..], &next, &last].concat();
    assert_refused(&one_more, &WebSocketError::TooManyFragments { max });
    assert_eq!(Violation::from(WebSocketError::TooManyFragments { max }).close_code(), CloseCode::TOO_BIG);
}

#[test]
fn large_messages_may_have_more_fragments_than_small_ones() {
    assert_eq!(Limits::new(1).max_fragments, 1024);
    assert_eq!(Limits::new(4 * 1024 * 1024).max_fragments, 4096);
}

#[test]
fn it_is_known_whether_a_message_is_unfinished_and_whether_it_is_another_than_before() {
    let wire = message(BINARY, b"0123456789");
    let (begin, end) = wire.split_at(8);
    let mut decoder = Decoder::new(MAX_MESSAGE, MAX_FRAGMENTS);
    let mut feed = |bytes: &[u8]| {
        let mut bytes = bytes;
        while decoder.decode(&mut bytes).expect("a valid message").is_some() {}
        decoder.unfinished()
    };
    assert_eq!(feed(&wire[..1]), Unfinished::Nothing, "a part of a header holds nothing");
    assert_eq!(feed(&wire[1..8]), Unfinished::Begun);
    assert_eq!(feed(&end[..1]), Unfinished::Continued);
    assert_eq!(feed(&[&end[1..], begin].concat()), Unfinished::Begun, "the next one has begun");
    assert_eq!(feed(end), Unfinished::Nothing);
}

#[test]
fn control_frames_between_fragments_do_not_count_towards_the_maximum() {
    let ping = message(PING, b"0123456789");
    let [first, last] = [masked(BINARY, MASK, b"01234"), message(CONTINUATION, b"56789")];
    let mut decoder = Decoder::new(10, MAX_FRAGMENTS);
    let wire = [first, ping, last].concat();
    let mut wire = wire.as_slice();
    assert_eq!(decoder.decode(&mut wire), Ok(Some(Incoming::Ping("0123456789".into()))));
    assert_eq!(decoder.decode(&mut wire), Ok(Some(Incoming::Binary("0123456789".into()))));
}

#[test]
fn memory_is_not_taken_for_a_length_that_is_only_claimed() {
    // More than any machine has: a decoder that takes memory for a claim ends this test's process.
    let claim = 1 << 62;
    let mut decoder = Decoder::new(usize::MAX, MAX_FRAGMENTS);
    for first in [BINARY, CONTINUATION] {
        assert_eq!(decoder.decode(&mut header(first, 1, MASK).as_slice()), Ok(None));
        assert_eq!(decoder.decode(&mut b"x".as_slice()), Ok(None));
    }
    assert_eq!(decoder.decode(&mut header(FIN, claim, MASK).as_slice()), Ok(None), "in a continuation");
    assert_eq!(decoder.decode(&mut b"some of it".as_slice()), Ok(None));

    let mut decoder = Decoder::new(usize::MAX, MAX_FRAGMENTS);
    assert_eq!(decoder.decode(&mut header(FIN | BINARY, claim, MASK).as_slice()), Ok(None), "in one frame");
    assert_eq!(decoder.decode(&mut b"some of it".as_slice()), Ok(None));
}

#[test]
fn a_close_with_half_a_code_is_refused() {
    assert_refused(&message(CLOSE, &[3]), &WebSocketError::InvalidClose);
}

#[test]
fn a_close_code_that_must_not_travel_is_refused() {
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65_535_u16] {
        assert_refused(&message(CLOSE, &code.to_be_bytes()), &WebSocketError::InvalidClose);
    }
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16] {
        let close = Incoming::Close(Some(CloseFrame::new(CloseCode(code), "")));
        assert_accepted(&message(CLOSE, &code.to_be_bytes()), &[close]);
    }
}

#[test]
fn a_close_reason_that_is_not_utf8_is_refused() {
    assert_refused(&message(CLOSE, &[0x03, 0xE8, 0xFF]), &WebSocketError::CloseReasonNotUtf8);
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    for text in [&b"\xFF"[..], b"\x80", b"\xC0\xAF", b"\xED\xA0\x80", b"\xF4\x90\x80\x80", b"cut \xE2\x82"] {
        assert_refused(&message(TEXT, text), &WebSocketError::TextNotUtf8);
    }
    let euro_in_two = fragments(TEXT, &[b"\xE2\x82", b"\xAC"]).concat();
    assert_accepted(&euro_in_two, &[Incoming::Text("€".into())]);
}

// === what the server sends ===

#[test]
fn what_a_server_sends_reads_back_whatever_its_length() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![0xA5; len];
        let mut wire = encode_message(Opcode::Binary, &payload).to_vec();
        assert_eq!(take_server_frame(&mut wire), Some(ServerFrame { opcode: BINARY, payload: payload.clone() }));

        let frame = Frame::Response { id: CallId(7), payload: payload.into() };
        let mut encoded = BytesMut::new();
        encode_frame(&mut encoded, &frame);
        wire.extend(encoded);
        let message = take_server_frame(&mut wire).expect("a whole message");
        assert_eq!(Frame::decode(message.payload.into()), Ok(frame));
        assert_eq!(wire, b"");
    }
}

#[test]
fn a_long_close_reason_is_cut_at_a_characters_end_to_what_fits() {
    let close = CloseFrame::new(CloseCode::SLOW_CONSUMER, "é".repeat(100));
    let mut wire = encode_close(&close).to_vec();
    let frame = take_server_frame(&mut wire).expect("a whole frame");
    assert_eq!(frame.opcode, CLOSE);
    assert_eq!(frame.payload, [&4408_u16.to_be_bytes(), "é".repeat(61).as_bytes()].concat());
}

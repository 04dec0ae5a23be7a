//! The frames of `roomcast.v1`: any frame and any bytes.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use roomcast_protocol::v1::{
    Call, CallFlags, Code, EncodedHeaders, Error, ErrorFlags, Event, Frame, Headers, HeadersError, LongText,
    MAX_HEADERS_LEN, MAX_NUMBER, MalformedFrame, Reason, Side,
};
use roomcast_protocol::{CallId, Name};

fn encode(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn name() -> impl Strategy<Value = Name> {
    "[a-zé/]{0,20}".prop_map(|name| Name::new(&name).expect("it is short"))
}

fn reason() -> impl Strategy<Value = Reason> {
    ".{0,20}".prop_map(|text| Reason::truncated(&text))
}

fn id() -> impl Strategy<Value = CallId> {
    any::<u32>().prop_map(CallId)
}

fn frame() -> impl Strategy<Value = Frame> {
    let number = || 0..=MAX_NUMBER;
    let error = (id(), any::<u8>(), any::<u8>(), any::<u32>(), ".{0,20}", bytes());
    let call = (id(), any::<u8>(), any::<u32>(), any::<u32>(), name(), bytes(), bytes());
    prop_oneof![
        (name(), bytes()).prop_map(|(name, payload)| Frame::Notify { name, payload }),
        (id(), name(), bytes()).prop_map(|(id, name, payload)| Frame::Request { id, name, payload }),
        (id(), reason()).prop_map(|(id, reason)| Frame::Reset { id, reason }),
        (id(), bytes()).prop_map(|(id, payload)| Frame::Response { id, payload }),
        error.prop_map(|(id, code, flags, retry_after_ms, message, details)| Frame::Error {
            id,
            error: Error {
                code: Code(code),
                flags: ErrorFlags(flags),
                retry_after_ms,
                message: LongText::truncated(&message),
                details
            }
        }),
        (id(), bytes()).prop_map(|(id, payload)| Frame::Item { id, payload }),
        (id(), any::<u32>()).prop_map(|(id, items)| Frame::Credit { id, items }),
        call.prop_map(|(id, flags, deadline_ms, credit, name, headers, payload)| Frame::Call {
            id,
            call: Call {
                flags: CallFlags(flags),
                deadline_ms,
                credit,
                name,
                headers: EncodedHeaders::from_bytes(headers).expect("they are short"),
                payload
            }
        }),
        (number(), number(), name(), name(), bytes()).prop_map(|(room, offset, sender, name, payload)| Frame::Event(
            Event { room, offset, sender, name, payload }
        )),
        (number(), number(), number()).prop_map(|(room, from, to)| Frame::Gap { room, from, to }),
        reason().prop_map(|json| Frame::Welcome { json }),
        (any::<u32>(), any::<u32>(), reason()).prop_map(|(retry_after_ms, deadline_ms, reason)| Frame::Goaway {
            retry_after_ms,
            deadline_ms,
            reason
        }),
        (id(), name()).prop_map(|(id, stream)| Frame::Detached { id, stream }),
        (number(), number(), name(), name()).prop_map(|(room, offset, epoch, name)| Frame::Room {
            room,
            offset,
            epoch,
            name
        }),
        (number(), reason()).prop_map(|(room, reason)| Frame::Left { room, reason }),
        Just(Frame::Tick),
    ]
}

proptest! {
    #[test]
    fn a_frame_is_decoded_as_it_was_encoded_and_its_beginning_is_no_other_frame(frame in frame()) {
        let message = encode(&frame);
        prop_assert_eq!(Frame::decode(message.clone(), Side::Server), Ok(frame));
        for len in 0..message.len() {
            // The end of a payload or a text can be missing. Everything else is truncated.
            if let Ok(shorter) = Frame::decode(message.slice(..len), Side::Server) {
                prop_assert_eq!(encode(&shorter), message.slice(..len));
            }
        }
    }

    #[test]
    fn bytes_that_are_a_frame_are_encoded_as_they_were(opcode in 0..=0x11_u8, fields in prop::collection::vec(0..9_u8, 0..60)) {
        let message = Bytes::from([vec![opcode], fields].concat());
        match Frame::decode(message.clone(), Side::Server) {
            Ok(frame) => {
                prop_assert_eq!(&encode(&frame), &message);
                let from_client = Frame::decode(message, Side::Client);
                let is_refused = matches!(from_client, Err(MalformedFrame::WrongDirection { .. }));
                prop_assert!(is_refused || from_client == Ok(frame));
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn headers_are_decoded_as_they_were_encoded(pairs in prop::collection::btree_map("[a-z0-9._-]{1,20}", ".{0,20}", 0..8)) {
        let headers = Headers::new(pairs.iter().map(|(key, value)| (&**key, &**value))).expect("they are valid");
        prop_assert_eq!(Headers::decode(&headers.encode()), Ok(headers.clone()));
        prop_assert!(headers.iter().eq(pairs.iter().map(|(key, value)| (&**key, &**value))));
    }

    #[test]
    fn bytes_that_are_headers_are_encoded_as_they_were(bytes in prop::collection::vec(prop_oneof![0..4_u8, b'a'..b'd'], 0..40)) {
        let encoded = EncodedHeaders::from_bytes(bytes.into()).expect("they are short");
        if let Ok(headers) = Headers::decode(&encoded) {
            prop_assert_eq!(headers.encode(), encoded);
        }
    }
}

#[test]
fn headers_that_are_not_allowed_are_refused() {
    let error = |pairs: &[(&str, &str)]| Headers::new(pairs.iter().copied()).expect_err("they are not allowed");
    assert_eq!(error(&[("A", "")]), HeadersError::Key("A".to_owned()));
    assert_eq!(error(&[("", "")]), HeadersError::Key(String::new()));
    assert_eq!(error(&[("a", "1"), ("a", "2")]), HeadersError::Twice("a".to_owned()));
    let value = "x".repeat(MAX_HEADERS_LEN - 4);
    assert!(Headers::new([("a", &*value)]).is_ok());
    assert_eq!(error(&[("ab", &value)]), HeadersError::TooLong(MAX_HEADERS_LEN + 1));
    let decode =
        |bytes: &[u8]| Headers::decode(&EncodedHeaders::from_bytes(Bytes::copy_from_slice(bytes)).expect("short"));
    for bytes in [&b"\x01"[..], b"\x01a", b"\x01a\x00", b"\x01a\x00\x02x"] {
        assert_eq!(decode(bytes), Err(HeadersError::Truncated), "{bytes:?}");
    }
    assert_eq!(decode(b"\x01a\x00\x01\xff"), Err(HeadersError::NotUtf8));
    assert!(EncodedHeaders::from_bytes(vec![0; 65_536].into()).is_none());
}

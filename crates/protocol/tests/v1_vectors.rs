//! The vectors of `roomcast.v1` in `docs/reference/protocol-vectors.json`, which clients in other
//! languages read too.

mod common;

use common::described::{described, encode, unhex};
use roomcast_protocol::v1::{EncodedHeaders, Frame, Headers, MalformedFrame, SUBPROTOCOL, Side};
use serde_json::Value;

fn vectors(list: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../docs/reference/protocol-vectors.json")).expect("JSON");
    assert_eq!(all["v1"]["subprotocol"], SUBPROTOCOL);
    all["v1"][list].as_array().expect("a list").clone()
}

#[test]
fn the_vectors_are_frames() {
    let mut kinds = std::collections::BTreeSet::new();
    for vector in vectors("frames") {
        let (frame, message, name) = (described(&vector["frame"]), unhex(&vector["hex"]), &vector["name"]);
        assert_eq!(Frame::decode(message.clone(), Side::Server).as_ref(), Ok(&frame), "{name}");
        assert_eq!(encode(&frame), message, "{name}");
        kinds.insert(message[0]);
    }
    assert!(kinds.into_iter().eq(1..=0x10), "each frame has a vector");
}

#[test]
fn the_invalid_vectors_are_no_frames() {
    for vector in vectors("invalid") {
        let decoded = Frame::decode(unhex(&vector["hex"]), Side::Server);
        assert!(decoded.is_err(), "{}: {decoded:?}", vector["name"]);
    }
    for vector in vectors("invalid_from_client") {
        let decoded = Frame::decode(unhex(&vector["hex"]), Side::Client);
        assert!(matches!(decoded, Err(MalformedFrame::WrongDirection { .. })), "{}: {decoded:?}", vector["name"]);
    }
    for vector in vectors("invalid_headers") {
        let headers = EncodedHeaders::from_bytes(unhex(&vector["hex"])).expect("it fits into a frame");
        assert!(Headers::decode(&headers).is_err(), "{}", vector["name"]);
    }
}

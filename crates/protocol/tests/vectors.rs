//! The frames of `docs/reference/protocol-vectors.json`, which clients in other languages read too.

mod common;

use bytes::{Bytes, BytesMut};
use common::{BINARY, message};
use roomcast_protocol::{
    CallId, ClientConnection, ClientEvent, Event, Frame, Limits, Name, SUBPROTOCOL, ServerConnection, Violation,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    subprotocol: String,
    frames: Vec<FrameVector>,
    invalid: Vec<InvalidVector>,
    invalid_from_client: Vec<InvalidVector>,
}

#[derive(Deserialize)]
struct FrameVector {
    name: String,
    frame: Fields,
    hex: String,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Fields {
    Notify { name: String, payload_hex: String },
    Request { id: u32, name: String, payload_hex: String },
    Reset { id: u32 },
    Response { id: u32, payload_hex: String },
}

#[derive(Deserialize)]
struct InvalidVector {
    name: String,
    hex: String,
    close: u16,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../docs/reference/protocol-vectors.json"))
        .expect("the vectors are valid JSON")
}

fn unhex(hex: &str) -> Bytes {
    assert_eq!(hex.len() % 2, 0, "two digits a byte: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

impl FrameVector {
    fn frame(&self) -> Frame {
        let name = |name: &str| Name::new(name).expect("a name of at most 255 bytes");
        match &self.frame {
            Fields::Notify { name: event, payload_hex } => {
                Frame::Notify { name: name(event), payload: unhex(payload_hex) }
            }
            Fields::Request { id, name: method, payload_hex } => {
                Frame::Request { id: CallId(*id), name: name(method), payload: unhex(payload_hex) }
            }
            Fields::Reset { id } => Frame::Reset { id: CallId(*id) },
            Fields::Response { id, payload_hex } => Frame::Response { id: CallId(*id), payload: unhex(payload_hex) },
        }
    }
}

/// What a server makes of one binary message.
fn receive(bytes: &[u8]) -> Result<Option<Event>, Violation> {
    ServerConnection::new(Limits::default()).receive(&mut message(BINARY, bytes).as_slice())
}

#[track_caller]
fn assert_closes_with(code: u16, bytes: &[u8], what: &str) {
    match receive(bytes) {
        Err(violation) => {
            let close = violation.close_frame();
            assert_eq!(close.code.0, code, "{what}: {close}");
            assert!(close.reason.len() > 10, "{what}: the reason is no sentence: {close}");
        }
        Ok(event) => panic!("{what} was accepted as {event:?}"),
    }
}

#[test]
fn the_vectors_are_of_this_subprotocol() {
    assert_eq!(vectors().subprotocol, SUBPROTOCOL);
}

#[test]
fn every_frame_decodes_and_encodes_as_written() {
    for vector in vectors().frames {
        let bytes = unhex(&vector.hex);
        assert_eq!(Frame::decode(bytes.clone()).as_ref(), Ok(&vector.frame()), "{}", vector.name);
        let mut encoded = BytesMut::new();
        vector.frame().encode(&mut encoded);
        assert_eq!(encoded, bytes, "{}", vector.name);
        assert_eq!(vector.frame().encoded_len(), bytes.len(), "{}", vector.name);
    }
}

#[test]
fn a_server_takes_what_clients_send() {
    for vector in vectors().frames {
        let expected = match vector.frame() {
            Frame::Notify { name, payload } => Event::Notify { name, payload },
            Frame::Request { id, name, payload } => Event::Request { id, name, payload },
            Frame::Reset { id } => Event::Reset { id },
            Frame::Response { .. } => {
                assert_eq!(receive(&unhex(&vector.hex)), Err(Violation::UnexpectedResponse), "{}", vector.name);
                continue;
            }
        };
        assert_eq!(receive(&unhex(&vector.hex)), Ok(Some(expected)), "{}", vector.name);
    }
}

#[test]
fn a_client_takes_what_servers_send() {
    for vector in vectors().frames {
        let received = ClientConnection::new().on_message(unhex(&vector.hex));
        match vector.frame() {
            Frame::Notify { name, payload } => {
                assert_eq!(received, Ok(Some(ClientEvent::Notify { name, payload })), "{}", vector.name);
            }
            Frame::Response { .. } => assert_eq!(received, Ok(None), "{}: nobody waits for it", vector.name),
            Frame::Request { .. } | Frame::Reset { .. } => assert!(received.is_err(), "{}: {received:?}", vector.name),
        }
    }
}

#[test]
fn what_is_no_frame_closes_the_connection_with_its_code() {
    for vector in vectors().invalid {
        assert_closes_with(vector.close, &unhex(&vector.hex), &vector.name);
        assert!(ClientConnection::new().on_message(unhex(&vector.hex)).is_err(), "{}: at the client", vector.name);
    }
}

#[test]
fn what_only_servers_send_closes_the_connection_with_its_code() {
    for vector in vectors().invalid_from_client {
        assert_closes_with(vector.close, &unhex(&vector.hex), &vector.name);
        assert!(Frame::decode(unhex(&vector.hex)).is_ok(), "{}: it is a frame", vector.name);
    }
}

#[test]
fn a_frame_cut_anywhere_in_its_header_closes_the_connection_with_1002() {
    for vector in vectors().frames {
        let bytes = unhex(&vector.hex);
        let header_len = bytes.len() - vector.frame().payload_len();
        for cut in 0..header_len {
            assert_closes_with(1002, &bytes[..cut], &format!("{}, cut after {cut} bytes", vector.name));
        }
    }
}

//! The frames of `roomcast.v1` as the test vectors describe them.

use bytes::{Bytes, BytesMut};
use roomcast_protocol::v1::{Call, CallFlags, Code, Error, ErrorFlags, Event, Frame, Headers, LongText, Reason};
use roomcast_protocol::{CallId, Name};
use serde_json::Value;

pub(crate) fn encode(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    frame.encode(&mut out);
    out.freeze()
}

pub(crate) fn unhex(hex: &Value) -> Bytes {
    let hex = hex.as_str().expect("a text");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

/// Returns the frame that a vector describes.
pub(crate) fn described(fields: &Value) -> Frame {
    let number = |key: &str| fields[key].as_u64().unwrap_or_else(|| panic!("{key} is missing in {fields}"));
    let small = |key: &str| u32::try_from(number(key)).expect("32 bits");
    let byte = |key: &str| u8::try_from(number(key)).expect("8 bits");
    let text = |key: &str| fields[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {fields}"));
    let name = |key: &str| Name::new(text(key)).expect("it is short");
    let (id, payload) = (|| CallId(small("id")), || unhex(&fields["payload_hex"]));
    match text("kind") {
        "notify" => Frame::Notify { name: name("name"), payload: payload() },
        "request" => Frame::Request { id: id(), name: name("name"), payload: payload() },
        "reset" => Frame::Reset { id: id(), reason: Reason::truncated(text("reason")) },
        "response" => Frame::Response { id: id(), payload: payload() },
        "error" => Frame::Error {
            id: id(),
            error: Error {
                code: Code(byte("code")),
                flags: ErrorFlags(byte("flags")),
                retry_after_ms: small("retry_after_ms"),
                message: LongText::truncated(text("message")),
                details: unhex(&fields["details_hex"]),
            },
        },
        "item" => Frame::Item { id: id(), payload: payload() },
        "credit" => Frame::Credit { id: id(), items: small("items") },
        "call" => {
            let headers = fields["headers"].as_array().expect("a list of pairs").iter();
            let headers = headers.map(|pair| (pair[0].as_str().expect("a key"), pair[1].as_str().expect("a value")));
            let call = Call {
                flags: CallFlags(byte("flags")),
                deadline_ms: small("deadline_ms"),
                credit: small("credit"),
                name: name("name"),
                headers: Headers::new(headers).expect("they are valid").encode(),
                payload: payload(),
            };
            Frame::Call { id: id(), call }
        }
        "event" => Frame::Event(Event {
            room: number("room"),
            offset: number("offset"),
            sender: name("sender"),
            name: name("name"),
            payload: payload(),
        }),
        "gap" => Frame::Gap { room: number("room"), from: number("from"), to: number("to") },
        "welcome" => Frame::Welcome { json: Reason::truncated(text("json")) },
        "goaway" => Frame::Goaway {
            retry_after_ms: small("retry_after_ms"),
            deadline_ms: small("deadline_ms"),
            reason: Reason::truncated(text("reason")),
        },
        "detached" => Frame::Detached { id: id(), stream: name("stream") },
        "room" => {
            Frame::Room { room: number("room"), offset: number("offset"), epoch: name("epoch"), name: name("name") }
        }
        "left" => Frame::Left { room: number("room"), reason: Reason::truncated(text("reason")) },
        "tick" => Frame::Tick,
        kind => panic!("unknown kind {kind}"),
    }
}

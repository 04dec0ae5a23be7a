//! Any bytes as a message of `roomcast.v1`: they are no frame, or a frame that is encoded as the same bytes. The headers of
//! a Call are no headers, or are encoded as the same bytes.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use roomcast_protocol::v1::{Frame, Headers, Side};

fuzz_target!(|input: &[u8]| {
    let message = Bytes::copy_from_slice(input);
    let from_client = Frame::decode(message.clone(), Side::Client);
    let Ok(frame) = Frame::decode(message.clone(), Side::Server) else {
        assert!(from_client.is_err(), "a client sends no other frames than a server");
        return;
    };
    let mut encoded = BytesMut::new();
    frame.encode(&mut encoded);
    assert_eq!(encoded, message);
    if let Frame::Call { call, .. } = frame
        && let Ok(headers) = Headers::decode(&call.headers)
    {
        assert_eq!(headers.encode(), call.headers);
    }
});

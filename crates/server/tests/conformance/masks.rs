//! A client masks its frames, and writes lengths in the fewest bytes (RFC 6455, sections 5.1 and 5.2).

use crate::case::{Case, PROTOCOL_ERROR, case};
use crate::frame::{Frame, binary, close, ping, text};

pub(crate) fn cases() -> Vec<Case> {
    let unmasked = |number: &str, name: &str, frame: Frame| {
        case(number, "5.1", name).write([frame.unmasked()]).fails_with(PROTOCOL_ERROR)
    };
    let mask = |frame: Frame| frame.header_that_claims(0)[2..].to_vec();
    let with_length = |number: &str, name: &str, length: &[u8]| {
        case(number, "5.2", name)
            .write([[&[0x82], length, &mask(binary("")), &[0; 9]].concat()])
            .fails_with(PROTOCOL_ERROR)
    };
    vec![
        unmasked("mask.text", "text without a mask", text("Hello")),
        unmasked("mask.binary", "binary without a mask", binary("Hello")),
        unmasked("mask.ping", "a ping without a mask", ping("")),
        unmasked("mask.close", "a close without a mask", close(1000, "")),
        with_length("length.16", "a length of 9 in 16 bits", &[0xFE, 0, 9]),
        with_length("length.64", "a length of 9 in 64 bits", &[0xFF, 0, 0, 0, 0, 0, 0, 0, 9]),
    ]
}

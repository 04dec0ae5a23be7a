//! Bits and opcodes that RFC 6455 keeps for extensions and later versions (section 5.2).

use crate::case::{Case, PROTOCOL_ERROR, case};
use crate::frame::{binary, close, frame, ping, text};

const HELLO: &str = "Hello, world!";

pub(crate) fn cases() -> Vec<Case> {
    [bits(), opcodes()].concat()
}

fn bits() -> Vec<Case> {
    let bad_text = |bits| text(HELLO).with_reserved_bits(bits);
    vec![
        case("3.1", "5.2", "text with RSV3").send([bad_text(1)]).fails_with(PROTOCOL_ERROR),
        case("3.2", "5.2", "good text, text with RSV2, a ping")
            .send([text(HELLO), bad_text(2), ping("")])
            .answers([text(HELLO)])
            .fails_with(PROTOCOL_ERROR),
        case("3.3", "5.2", "good text, text with RSV2 and RSV3, a ping, frame by frame")
            .send_frame_by_frame([text(HELLO), bad_text(3), ping("")])
            .answers([text(HELLO)])
            .fails_with(PROTOCOL_ERROR),
        case("3.4", "5.2", "good text, text with RSV1, a ping, byte by byte")
            .send_in_pieces(1, [text(HELLO), bad_text(4), ping("")])
            .answers([text(HELLO)])
            .fails_with(PROTOCOL_ERROR),
        case("3.5", "5.2", "binary with RSV1 and RSV3")
            .send([binary(b"\x00\xFF\xFE").with_reserved_bits(5)])
            .fails_with(PROTOCOL_ERROR),
        case("3.6", "5.2", "a ping with RSV1 and RSV2")
            .send([ping(HELLO).with_reserved_bits(6)])
            .fails_with(PROTOCOL_ERROR),
        case("3.7", "5.2", "a close with all three")
            .send([close(1000, "").with_reserved_bits(7)])
            .fails_with(PROTOCOL_ERROR),
    ]
}

fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, first) in [(1, 0x3), (2, 0xB)] {
        let row = |at: u8, how: &str| case(format!("4.{group}.{at}"), "5.2", format!("opcode {}{how}", first + at - 1));
        let bad = |at: u8, payload: &str| frame(first + at - 1, payload);
        let before = [text(HELLO)];
        cases.extend([
            row(1, "").send([bad(1, "")]).fails_with(PROTOCOL_ERROR),
            row(2, " with payload").send([bad(2, "reserved opcode payload")]).fails_with(PROTOCOL_ERROR),
            row(3, " after good text")
                .send([text(HELLO), bad(3, ""), ping("")])
                .answers(before.clone())
                .fails_with(PROTOCOL_ERROR),
            row(4, " with payload after good text")
                .send([text(HELLO), bad(4, HELLO), ping("")])
                .answers(before.clone())
                .fails_with(PROTOCOL_ERROR),
            row(5, " with payload after good text, byte by byte")
                .send_in_pieces(1, [text(HELLO), bad(5, HELLO), ping("")])
                .answers(before)
                .fails_with(PROTOCOL_ERROR),
        ]);
    }
    cases
}

//! The closing handshake and its codes (RFC 6455, sections 5.5.1, 7.1 and 7.4).

use crate::case::{Case, NORMAL, NOT_UTF8, PROTOCOL_ERROR, case};
use crate::frame::{CLOSE, Frame, close, continuation, frame, ping, text};

/// Valid, an encoded surrogate, valid.
const NOT_UTF8_REASON: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited";

pub(crate) fn cases() -> Vec<Case> {
    [order(), payloads(), codes()].concat()
}

fn order() -> Vec<Case> {
    let normal = || close(NORMAL, "");
    let long = text("BAsd7&jh23".repeat(27_000).split_at(256 * 1024).0);
    vec![
        case("7.1.1", "7.1.2", "text, then a close").send([text("Hello World!")]).answers([text("Hello World!")]),
        case("7.1.2", "5.5.1", "two closes").send([normal(), frame(CLOSE, "")]).closes_with(NORMAL),
        case("7.1.3", "5.5.1", "a ping after a close").send([normal(), ping("")]).closes_with(NORMAL),
        case("7.1.4", "5.5.1", "text after a close").send([normal(), text("Hello World!")]).closes_with(NORMAL),
        case("7.1.5", "5.5.1", "a close between two fragments")
            .send([text("fragment1").unfinished(), normal(), continuation("fragment2")])
            .closes_with(NORMAL),
        // RFC 6455 lets a server drop what it has not sent; this one sends it first.
        case("7.1.6", "7.1.2", "256 KiB of text, text, a close and a ping at once")
            .send([long.clone(), text("Hello World!"), normal(), ping("")])
            .answers([long, text("Hello World!")])
            .closes_with(NORMAL),
    ]
}

fn payloads() -> Vec<Case> {
    let row = |number: &str, name: &str, close: Frame| case(number, "5.5.1", name).send([close]);
    vec![
        row("7.3.1", "a close without a code", frame(CLOSE, "")).closes_with(NORMAL),
        row("7.3.2", "a close with half a code", frame(CLOSE, "a")).closes_with(PROTOCOL_ERROR),
        row("7.3.3", "a close with a code", close(NORMAL, "")).closes_with(NORMAL),
        row("7.3.4", "a close with a reason", close(NORMAL, "Hello World!")).closes_with(NORMAL),
        row("7.3.5", "a close with a reason of 123 bytes", close(NORMAL, [b'*'; 123])).closes_with(NORMAL),
        row("7.3.6", "a close with a reason of 124 bytes", close(NORMAL, [b'*'; 124])).closes_with(PROTOCOL_ERROR),
        row("7.5.1", "a reason that is not UTF-8", close(NORMAL, NOT_UTF8_REASON)).closes_with(NOT_UTF8),
    ]
}

fn codes() -> Vec<Case> {
    const VALID: [u16; 13] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    const INVALID: [u16; 9] = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    const UNDEFINED: [u16; 2] = [5000, 65_535];
    let table = |group, codes: &[u16], answer: fn(u16) -> u16| {
        let row = |(at, code): (usize, &u16)| {
            let number = format!("7.{group}.{}", at + 1);
            case(number, "7.4", format!("the code {code}")).send([close(*code, "")]).closes_with(answer(*code))
        };
        codes.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    let refused = |_| PROTOCOL_ERROR;
    [table(7, &VALID, |code| code), table(9, &INVALID, refused), table(13, &UNDEFINED, refused)].concat()
}

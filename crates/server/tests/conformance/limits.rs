//! What a message may be at most. Over it, the connection fails with 1009 (RFC 6455, sections 7.4.1 and 10.4).

use roomcast::Options;

use crate::case::{Case, TOO_BIG, case};
use crate::frame::{binary, continuation, in_fragments};

const MAX_MESSAGE: usize = 1000;

pub(crate) fn options() -> Options {
    Options::default().with(|options| options.max_payload = MAX_MESSAGE)
}

pub(crate) fn cases() -> Vec<Case> {
    let largest = binary([0xA5; MAX_MESSAGE]);
    let claim = |number: &str, len: u64| {
        let row = case(number, "10.4", format!("a header that claims {len} bytes, and no byte of them"));
        row.write([binary("").header_that_claims(len)]).fails_with(TOO_BIG)
    };
    let unfinished = |bytes| binary(vec![0xA5; bytes]).unfinished();
    vec![
        case("limit.largest", "10.4", "the largest message").send([largest.clone()]).answers([largest.clone()]),
        case("limit.fragments", "10.4", "the largest message in fragments")
            .send(in_fragments(&largest, 7))
            .answers([largest]),
        claim("limit.one-more", MAX_MESSAGE as u64 + 1),
        claim("limit.32-bits", 1 << 32),
        claim("limit.63-bits", i64::MAX as u64),
        claim("limit.64-bits", u64::MAX),
        case("limit.sum", "10.4", "fragments that are too large together, judged at the last one's header")
            .write([unfinished(MAX_MESSAGE).masked(), continuation("").header_that_claims(1)])
            .fails_with(TOO_BIG),
    ]
}

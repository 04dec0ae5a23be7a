//! Ping and Pong (RFC 6455, sections 5.5.2 and 5.5.3).

use crate::case::{Case, PROTOCOL_ERROR, case};
use crate::frame::{Frame, ping, pong};

pub(crate) fn cases() -> Vec<Case> {
    const BINARY: &[u8] = b"\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF";
    let ten = |frame: fn(String) -> Frame| (0..10).map(|at| frame(format!("payload-{at}"))).collect::<Vec<_>>();
    vec![
        case("2.1", "5.5.2", "a ping without payload").send([ping("")]).answers([pong("")]),
        case("2.2", "5.5.2", "a ping with text").send([ping("Hello, world!")]).answers([pong("Hello, world!")]),
        case("2.3", "5.5.2", "a ping with bytes that are not UTF-8").send([ping(BINARY)]).answers([pong(BINARY)]),
        case("2.4", "5.5", "a ping of 125 bytes").send([ping([0xFE; 125])]).answers([pong([0xFE; 125])]),
        case("2.5", "5.5", "a ping of 126 bytes").send([ping([0xFE; 126])]).fails_with(PROTOCOL_ERROR),
        case("2.6", "5.5", "a ping of 125 bytes, byte by byte")
            .send_in_pieces(1, [ping([0xFE; 125])])
            .answers([pong([0xFE; 125])]),
        case("2.7", "5.5.3", "an unsolicited pong without payload").send([pong("")]),
        case("2.8", "5.5.3", "an unsolicited pong with payload").send([pong("unsolicited")]),
        case("2.9", "5.5.3", "an unsolicited pong, then a ping")
            .send([pong("unsolicited"), ping("ping payload")])
            .answers([pong("ping payload")]),
        case("2.10", "5.5.2", "ten pings").send(ten(ping)).answers(ten(pong)),
        case("2.11", "5.5.2", "ten pings, byte by byte").send_in_pieces(1, ten(ping)).answers(ten(pong)),
    ]
}

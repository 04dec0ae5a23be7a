//! RFC 6455, case by case, against the WebSocket layer that all connections use, over real sockets.
//!
//! Each file here is a table. A row has a number, the section of RFC 6455 that it is about, a name, what the client sends,
//! and what the server must do:
//!
//! ```text
//! case("2.5", "5.5", "a ping of 126 bytes").send([ping(&[0xFE; 126])]).fails_with(PROTOCOL_ERROR)
//! ```
//!
//! The numbers are those of the same cases in the Autobahn|Testsuite, so that results can be compared with those of other
//! servers: its groups 1 to 7, 9 and 10. Rows without a counterpart there are numbered with a word.
//! Its groups 12 and 13 are about compression, which Roomcast does not offer.

mod case;
mod client;
mod closing;
mod fragments;
mod frame;
mod handshake;
mod limits;
mod masks;
mod pings;
mod reserved;
mod sizes;
mod utf8;

use std::collections::{BTreeMap, BTreeSet};

use roomcast::Options;

use crate::case::{Case, check, check_with};

/// The largest message of the suite.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// How many cases each group of the Autobahn|Testsuite has.
const GROUPS: &[(&str, usize)] =
    &[("1", 16), ("2", 11), ("3", 7), ("4", 10), ("5", 20), ("6", 145), ("7", 37), ("9", 54), ("10", 1)];

fn large_messages() -> Options {
    Options::default().with(|options| {
        options.max_payload = MAX_MESSAGE;
        options.max_outbound = 2 * MAX_MESSAGE;
    })
}

#[tokio::test]
async fn messages_of_every_size_come_back_whole() {
    check(sizes::small()).await;
    for kind in sizes::KINDS {
        check_with(large_messages(), sizes::large(kind)).await;
    }
}

#[tokio::test]
async fn pings_are_answered_with_their_payload() {
    check(pings::cases()).await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_fail_the_connection() {
    check(reserved::cases()).await;
}

#[tokio::test]
async fn fragments_are_put_together_and_pings_between_them_answered() {
    check(fragments::cases()).await;
}

#[tokio::test]
async fn text_is_utf8() {
    check(utf8::cases()).await;
}

#[tokio::test]
async fn connections_are_closed_in_order() {
    check(closing::cases()).await;
}

#[tokio::test]
async fn frames_of_a_client_are_masked() {
    check(masks::cases()).await;
}

#[tokio::test]
async fn messages_over_the_limits_fail_the_connection() {
    check_with(limits::options(), limits::cases()).await;
}

#[test]
fn every_case_is_there_once() {
    let [text, binary] = sizes::KINDS;
    let tables: [Vec<Case>; 8] = [
        sizes::small(),
        sizes::large(text),
        sizes::large(binary),
        pings::cases(),
        reserved::cases(),
        fragments::cases(),
        utf8::cases(),
        closing::cases(),
    ];
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for case in tables.iter().flatten() {
        let group = case.number.split('.').next().unwrap_or_default();
        let is_new = groups.entry(group.to_owned()).or_default().insert(case.number.clone());
        assert!(is_new, "{} is there twice", case.number);
    }
    let counts: BTreeMap<&str, usize> = groups.iter().map(|(group, cases)| (group.as_str(), cases.len())).collect();
    assert_eq!(counts, GROUPS.iter().copied().collect());
}

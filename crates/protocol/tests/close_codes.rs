//! `docs/reference/close-codes.md` has every close code, and gives clients the advice of `CloseCode`.

use std::collections::BTreeSet;

use roomcast_protocol::CloseCode;

const ALL: [CloseCode; 12] = [
    CloseCode::NORMAL,
    CloseCode::GOING_AWAY,
    CloseCode::PROTOCOL_ERROR,
    CloseCode::UNSUPPORTED_DATA,
    CloseCode::INVALID_DATA,
    CloseCode::POLICY_VIOLATION,
    CloseCode::TOO_BIG,
    CloseCode::INTERNAL_ERROR,
    CloseCode::TRY_AGAIN_LATER,
    CloseCode::TOKEN_EXPIRED,
    CloseCode::SLOW_CONSUMER,
    CloseCode::DISCONNECTED,
];

#[test]
fn the_page_advises_as_the_code_does() {
    let page = include_str!("../../../docs/reference/close-codes.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Sent by a node\n")).expect("the section");
    let mut documented = BTreeSet::new();
    for row in section.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let &[_, code, _, advice, _] = &cells[..] else { continue };
        let Ok(code) = code.parse().map(CloseCode) else { continue };
        assert!(documented.insert(code), "{code} has one row");
        // A client with a new token is not the same client for the node.
        let reconnects = advice.starts_with("Reconnect") && !advice.contains("new token");
        assert_eq!(code.may_reconnect(), reconnects, "{code}: {advice}");
    }
    assert_eq!(documented, BTreeSet::from(ALL));
}

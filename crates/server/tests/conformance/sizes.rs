//! Messages of every size, in one frame, in fragments and in small writes (RFC 6455, sections 5.2 and 5.4).

use crate::case::{Case, case};
use crate::frame::{BINARY, Frame, TEXT, frame, in_fragments};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A kind of message: the number of its first group within groups 1 and 9, its opcode and its name.
pub(crate) type Kind = (usize, u8, &'static str);

pub(crate) const KINDS: [Kind; 2] = [(1, TEXT, "text"), (2, BINARY, "binary")];

fn message(opcode: u8, size: usize) -> Frame {
    frame(opcode, vec![if opcode == TEXT { b'*' } else { 0xFE }; size])
}

/// Up to 64 KiB: on both sides of where a length's encoding changes.
pub(crate) fn small() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcode, kind) in KINDS {
        for (at, size) in [0, 125, 126, 127, 128, 65_535, 65_536].into_iter().enumerate() {
            let row = case(format!("1.{group}.{}", at + 1), "5.2", format!("{kind} of {size} bytes"));
            cases.push(row.send([message(opcode, size)]).answers([message(opcode, size)]));
        }
        let row = case(format!("1.{group}.8"), "5.2", format!("{kind} of 65536 bytes in writes of 997 bytes"));
        cases.push(row.send_in_pieces(997, [message(opcode, 65_536)]).answers([message(opcode, 65_536)]));
    }
    let long = message(TEXT, 65_536);
    let row = case("10.1.1", "5.4", "text of 65536 bytes in fragments of 1300 bytes");
    cases.push(row.send(in_fragments(&long, 1300)).answers([long]));
    cases
}

/// Up to 16 MiB, and a thousand round trips.
pub(crate) fn large((kind, opcode, name): Kind) -> Vec<Case> {
    whole(kind, opcode, name).into_iter().chain(cut(kind, opcode, name)).collect()
}

fn whole(kind: usize, opcode: u8, name: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, size) in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB].into_iter().enumerate() {
        let row = case(format!("9.{kind}.{}", at + 1), "5.2", format!("{name} of {} KiB", size / KIB));
        cases.push(row.send([message(opcode, size)]).answers([message(opcode, size)]));
    }
    for (at, size) in [0, 16, 64, 256, KIB, 4 * KIB].into_iter().enumerate() {
        let row = case(format!("9.{}.{}", kind + 6, at + 1), "5.2", format!("{name} of {size} bytes, 1000 times"));
        let round_trip = |row: Case, _| row.send([message(opcode, size)]).answers([message(opcode, size)]);
        cases.push((0..1000).fold(row, round_trip));
    }
    cases
}

fn cut(kind: usize, opcode: u8, name: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let four_mib = message(opcode, 4 * MIB);
    for at in 1..=9 {
        let size = 16 * 4_usize.pow(at);
        let name = format!("{name} of 4 MiB in fragments of {size} bytes");
        let row = case(format!("9.{}.{at}", kind + 2), "5.4", name);
        cases.push(row.send(in_fragments(&four_mib, size)).answers([four_mib.clone()]));
    }
    let one_mib = message(opcode, MIB);
    for (at, size) in [64, 128, 256, 512, KIB, 2 * KIB].into_iter().enumerate() {
        let name = format!("{name} of 1 MiB in writes of {size} bytes");
        let row = case(format!("9.{}.{}", kind + 4, at + 1), "5.2", name);
        cases.push(row.send_in_pieces(size, [one_mib.clone()]).answers([one_mib.clone()]));
    }
    cases
}

//! The reader of one room alone, with messages in arbitrary order.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_core::NodeId;
use roomcast_protocol::Name;

use crate::state::message::{Encoder, Message};
use crate::state::position::{Progress, Reader};
use crate::state::seal::Seal;
use crate::state::stored::Stored;

/// Creates the events `first..first + count` of an epoch, by one origin that numbers them like
/// Redis.
fn message(epoch: u64, start: u64, first: u64, count: u64) -> Message {
    by(1, first, epoch, start, first, count)
}

fn by(origin: u64, number: u64, epoch: u64, start: u64, first: u64, count: u64) -> Message {
    let mut encoder = Encoder::new(NodeId::from_u64(origin), &Seal::default());
    for index in 0..count {
        encoder.push(number + index, &Name::default(), b"", std::time::Instant::now());
    }
    let mut bytes = format!("{epoch} {start} {first} {count}\n").into_bytes();
    bytes.extend_from_slice(&encoder.finish("channel", &Seal::default()));
    Message::decode(bytes.into(), b"channel", &Seal::default()).unwrap()
}

fn live(reader: &mut Reader, message: Message) -> Progress {
    let mut progress = Progress::default();
    reader.on_live(message, &mut progress);
    progress
}

fn repair(reader: &mut Reader, asked: u64, stored: &Stored, history: &[Message]) -> Progress {
    let mut progress = Progress::default();
    reader.on_repair(asked, Some(stored), history, &mut progress);
    progress
}

fn numbers(progress: &Progress) -> Vec<u64> {
    progress.events.iter().map(|(_, event)| event.number).collect()
}

/// Creates a stored position that has no origins.
fn stored(epoch: u64, start: u64, offset: u64) -> Stored {
    Stored { epoch, start, offset, origins: Vec::new() }
}

/// Creates a reader that has read up to this offset of epoch 7.
fn reader_at(offset: u64) -> Reader {
    let mut reader = Reader::default();
    reader.on_subscribed(Some(stored(7, 1, offset)));
    reader
}

#[test]
fn a_gap_is_repaired_in_order() {
    let mut reader = reader_at(52);
    assert_eq!(numbers(&live(&mut reader, message(7, 1, 53, 1))), [53]);
    let gap = live(&mut reader, message(7, 1, 56, 1));
    assert_eq!((numbers(&gap), gap.repair_from), (vec![], Some(54)));
    let held = live(&mut reader, message(7, 1, 57, 2));
    assert_eq!(held, Progress::default(), "it waits, and the question is asked once");
    let now_stored = stored(7, 1, 56);
    let history = [message(7, 1, 53, 2), message(7, 1, 55, 1), message(7, 1, 56, 1)];
    let repaired = repair(&mut reader, 54, &now_stored, &history);
    assert_eq!(numbers(&repaired), [54, 55, 56, 57, 58]);
    assert_eq!((repaired.repaired, repaired.lost), (3, 0));
}

#[test]
fn what_was_read_of_a_message_is_not_read_again() {
    let mut reader = reader_at(52);
    let rest = live(&mut reader, message(7, 1, 51, 4));
    assert_eq!((numbers(&rest), rest.lost), (vec![53, 54], 0));
    assert_eq!(live(&mut reader, message(7, 1, 51, 4)), Progress::default());
}

#[test]
fn the_picture_in_the_documentation() {
    let mut reader = reader_at(52);
    let reset = live(&mut reader, message(9, 50, 50, 1));
    assert_eq!((numbers(&reset), reset.lost, reset.history_reset), (vec![50], 0, true));
    assert_eq!(numbers(&live(&mut reader, message(9, 50, 51, 2))), [51, 52]);
}

#[test]
fn a_message_of_an_epoch_that_was_superseded_is_dropped() {
    let mut reader = reader_at(52);
    assert_eq!(live(&mut reader, message(6, 1, 53, 1)).repair_from, Some(1), "unless it is what is stored");
    let now_stored = stored(7, 1, 53);
    let history = [message(6, 1, 51, 1), message(7, 1, 52, 1), message(7, 1, 53, 1)];
    let repaired = repair(&mut reader, 1, &now_stored, &history);
    assert_eq!((numbers(&repaired), repaired.history_reset), (vec![53], false));
}

/// Redis has restarted without data, on a machine whose clock is behind.
#[test]
fn what_is_stored_now_is_read_although_its_epoch_is_earlier() {
    let mut reader = reader_at(52);
    assert_eq!(live(&mut reader, by(2, 1, 6, 1, 1, 2)).repair_from, Some(1));
    let now_stored = stored(6, 1, 2);
    let repaired = repair(&mut reader, 1, &now_stored, &[by(2, 1, 6, 1, 1, 2)]);
    assert_eq!((numbers(&repaired).len(), repaired.history_reset), (2, true));
    assert_eq!(numbers(&live(&mut reader, by(2, 3, 6, 1, 3, 1))).len(), 1);
}

#[test]
fn a_bounded_number_of_messages_waits_and_what_was_let_go_is_a_gap() {
    const HELD: u64 = 10_000;
    let mut reader = reader_at(0);
    let gap = live(&mut reader, message(7, 1, 2, 1));
    assert_eq!(gap.repair_from, Some(1));
    for number in 3..HELD + 100 {
        live(&mut reader, message(7, 1, number, 1));
    }
    assert_eq!(reader.held(), HELD as usize);
    let history = [message(7, 1, 1, 1), message(7, 1, 2, 1)];
    let repaired = repair(&mut reader, 1, &stored(7, 1, 2), &history);
    assert_eq!((numbers(&repaired).len(), repaired.lost), (HELD as usize + 1, 0));
    assert_eq!(live(&mut reader, message(7, 1, HELD + 100, 1)).repair_from, Some(HELD + 2));
}

#[test]
fn the_last_origins_are_remembered() {
    const ORIGINS: u64 = 64;
    let mut reader = reader_at(0);
    for origin in 1..=ORIGINS {
        live(&mut reader, by(origin, 1, 7, 1, origin, 1));
    }
    // The first origin becomes the most recent, so the second one is dropped for a new one.
    assert_eq!(live(&mut reader, by(1, 2, 7, 1, 65, 1)).duplicates, 0);
    assert_eq!(live(&mut reader, by(100, 1, 7, 1, 66, 1)).duplicates, 0);
    assert_eq!(live(&mut reader, by(1, 2, 7, 1, 67, 1)).duplicates, 1);
    assert_eq!(live(&mut reader, by(3, 1, 7, 1, 67, 1)).duplicates, 1);
    assert_eq!(live(&mut reader, by(2, 1, 7, 1, 67, 1)).duplicates, 0);
}

#[test]
fn copies_of_messages_and_forged_numbers_silence_no_room() {
    let mut reader = reader_at(0);
    live(&mut reader, by(1, 1, 7, 1, 1, 1));
    // One copy has the next offset, and another has an offset far ahead.
    assert_eq!(live(&mut reader, by(1, 1, 7, 1, 2, 1)).duplicates, 1);
    assert_eq!(live(&mut reader, by(1, 1, 7, 1, 1 << 40, 1)).repair_from, Some(2));
    repair(&mut reader, 2, &stored(7, 1, 1), &[]);
    assert_eq!(numbers(&live(&mut reader, by(1, 2, 7, 1, 2, 1))), [2]);
}

#[test]
fn what_was_published_before_a_subscription_is_not_delivered_when_it_is_published_again() {
    let mut reader = Reader::default();
    let origins = vec![(NodeId::from_u64(2), 7), (NodeId::from_u64(1), 52)];
    reader.on_subscribed(Some(Stored { epoch: 7, start: 1, offset: 52, origins }));
    // Redis has lost event 52, and its publisher publishes it again.
    let (again, newer) = (by(1, 52, 9, 52, 52, 1), by(1, 53, 9, 52, 53, 1));
    assert_eq!(live(&mut reader, again.clone()).duplicates, 1);
    assert_eq!(live(&mut reader, newer.clone()).repair_from, Some(52));
    repair(&mut reader, 52, &stored(9, 52, 53), &[]);
    let repaired = repair(&mut reader, 1, &stored(9, 52, 53), &[again, newer]);
    assert_eq!(numbers(&repaired), [53]);
}

#[test]
fn messages_that_wait_for_a_repair_are_bounded_in_bytes() {
    let large = |offset| {
        let mut encoder = Encoder::new(NodeId::from_u64(1), &Seal::default());
        encoder.push(offset, &Name::default(), &vec![0; 4 * 1024 * 1024], std::time::Instant::now());
        let events = encoder.finish("channel", &Seal::default());
        let bytes = [format!("7 1 {offset} 1\n").as_bytes(), &events].concat();
        Message::decode(bytes.into(), b"channel", &Seal::default()).unwrap()
    };
    let mut reader = reader_at(0);
    for offset in 2..10 {
        live(&mut reader, large(offset));
    }
    assert_eq!(reader.held(), 3, "a fourth would be over 16 MiB");
}

#[test]
fn forged_numbers_wrap_nothing() {
    let mut reader = reader_at(0);
    let far = live(&mut reader, message(7, 1, u64::MAX - 5, 4));
    let after = repair(&mut reader, far.repair_from.unwrap(), &stored(7, 1, u64::MAX), &[]);
    assert!(after.lost > 0 && after.lost <= 1 << 32);
    assert_eq!(reader.resume_from(), Some(u64::MAX));
    live(&mut reader, message(7, 1, 1, 1));
}

#[test]
fn a_position_is_read_as_the_script_writes_it() {
    assert_eq!(Stored::parse(b"7 1 52 0123456789abcdef 0"), Some(stored(7, 1, 52)));
    let origins = vec![(NodeId::from_u64(0xab), 52), (NodeId::from_u64(1), 7)];
    let with_origins = b"7 1 52 0123456789abcdef 1 00000000000000ab:52 0000000000000001:7";
    assert_eq!(Stored::parse(with_origins), Some(Stored { origins, ..stored(7, 1, 52) }));
    let with_bytes = b"7 1 52 0123456789abcdef 1 0000000000000000:4096 00000000000000ab:52 0000000000000001:7";
    assert_eq!(Stored::parse(with_bytes), Stored::parse(with_origins));
    for bad in [
        &b""[..],
        b"7 1 52",
        b"7 1 52 0",
        b"7 1 x 0 1",
        b"7 1 52 0 1 3",
        b"7 1 52 0 1 ab:3",
        b"7 1  52 0 1",
        b"\xff 1 52 0 1",
    ] {
        assert_eq!(Stored::parse(bad), None, "{bad:?}");
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    (1..4_u64, 1..8_u64, 0..8_u64, 1..4_u64)
        .prop_map(|(epoch, start, after, count)| message(epoch, start, start + after, count))
}

proptest! {
    #[test]
    fn a_reader_goes_forward_whatever_it_is_told(
        steps in vec((any_message(), prop::option::of((1..8_u64, 1..4_u64, 1..8_u64, 0..8_u64))), 0..40),
    ) {
        let mut reader = reader_at(0);
        let mut asked = None;
        for (message, at) in steps {
            let progress = match (asked, at) {
                (Some(from), Some((_, epoch, start, after))) => {
                    repair(&mut reader, from, &stored(epoch, start, start + after), &[message])
                }
                _ => live(&mut reader, message),
            };
            prop_assert!(numbers(&progress).is_sorted_by(|a, b| a < b), "an origin's order");
            asked = progress.repair_from.or(asked.filter(|_| reader.held() > 0));
        }
    }

    #[test]
    fn no_position_is_too_strange(text in vec(any::<u8>(), 0..40)) {
        let _ = Stored::parse(&Bytes::from(text));
    }
}

//! The encoding of messages.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use roomcast_core::{NodeId, RoomName};
use roomcast_protocol::Name;

use super::script::{Moment, PublishedMessage, RoomKeys};
use crate::state::message::{DecodeError, EVENT_OVERHEAD, Encoder, Message, VERSION, numbers};
use crate::state::seal::{MAC_LEN, Seal};

fn any_event() -> impl Strategy<Value = (u64, String, Vec<u8>)> {
    let name = prop_oneof![8 => ".{0,20}", 1 => "[a-z]{255}"];
    (any::<u64>(), name, vec(any::<u8>(), 0..100))
}

const CHANNEL: &str = "test:{1}:c0:lobby";

/// Returns a message in the form in which the script sends it.
fn send(encoder: Encoder) -> Bytes {
    send_sealed(encoder, &Seal::default())
}

fn send_sealed(encoder: Encoder, seal: &Seal) -> Bytes {
    let (origin, number, count) = (encoder.origin.as_u64(), encoder.last_number, encoder.count);
    let events = encoder.finish(CHANNEL, seal);
    let (kept, kept_ms, max_bytes, position_ms, unread_ms) = (0, 0, 0, 1, 1);
    let publish = PublishedMessage { origin, number, count, kept, kept_ms, max_bytes, position_ms, unread_ms, events };
    let moment = Moment { micros: 1_700_000_000_000_000, writer: "0" };
    RoomKeys::default().publish(moment, &publish, true).sent.expect("it is new")
}

fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
    Message::decode(bytes, CHANNEL.as_bytes(), &Seal::default())
}

fn one_event() -> Encoder {
    one_event_with(&Seal::default())
}

fn one_event_with(seal: &Seal) -> Encoder {
    let mut encoder = Encoder::new(NodeId::from_u64(3), seal);
    encoder.push(1, &Name::new("event").unwrap(), b"payload", Instant::now());
    encoder
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(origin: u64, events in vec(any_event(), 1..20)) {
        let mut encoder = Encoder::new(NodeId::from_u64(origin), &Seal::default());
        let empty = encoder.len();
        for (number, name, payload) in &events {
            encoder.push(*number, &Name::new(name).unwrap(), payload, Instant::now());
        }
        let sizes = events.iter().map(|(_, name, payload)| EVENT_OVERHEAD + name.len() + payload.len());
        prop_assert_eq!(encoder.len(), empty + sizes.sum::<usize>());
        let message = decode(send(encoder)).unwrap();
        prop_assert_eq!((message.start, message.first, message.count), (1, 1, events.len() as u64));
        prop_assert_eq!((message.last(), message.origin.as_u64()), (events.len() as u64, origin));
        let decoded = message.events().unwrap();
        let decoded = decoded.iter().map(|event| (event.number, event.name.to_string(), event.payload.to_vec()));
        prop_assert_eq!(decoded.collect::<Vec<_>>(), events);
    }

    #[test]
    fn whatever_comes_it_has_as_many_events_as_it_says_or_is_not_read(
        header in prop_oneof![
            "[0-9]{1,20} [0-9]{1,20} [0-9]{1,20} [0-9]{1,20}\n", "[0-3] [0-3] [0-9] [0-3]\n", ".{0,20}",
        ],
        version in prop_oneof![3 => Just(VERSION), 1 => any::<u8>()],
        rest in vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..100),
    ) {
        let bytes = [header.as_bytes(), &[version], &rest].concat();
        check_reading(bytes.into())?;
    }

    #[test]
    fn a_message_that_was_damaged_has_as_many_events_as_it_says_or_is_not_read(
        events in vec(any_event(), 1..4), at: prop::sample::Index, byte: u8, end: prop::sample::Index,
    ) {
        let mut encoder = Encoder::new(NodeId::from_u64(1), &Seal::default());
        for (number, name, payload) in &events {
            encoder.push(*number, &Name::new(name).unwrap(), payload, Instant::now());
        }
        let mut bytes = send(encoder).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_reading(bytes.clone().into())?;
        bytes.truncate(end.index(bytes.len()));
        check_reading(bytes.into())?;
    }
}

fn check_reading(bytes: Bytes) -> Result<(), TestCaseError> {
    if let Ok(message) = decode(bytes) {
        prop_assert!(message.count > 0 && message.last() >= message.first && message.first >= message.start);
        if let Ok(events) = message.events() {
            prop_assert_eq!(events.len() as u64, message.count);
        }
    }
    Ok(())
}

/// Returns a message of another release, with its version of the format and data in the extension.
fn send_as(version: u8, extension: &[u8], encoder: Encoder, seal: &Seal) -> Bytes {
    let sent = send_sealed(encoder, seal);
    let record = sent.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let (header, record) = sent.split_at(record);
    let (origin, mac_len) = (&record[1..9], usize::from(record[9]));
    let (no_extension, events) = record[10 + mac_len..].split_at(2);
    assert_eq!((no_extension, mac_len), (&[0, 0][..], if seal.is_active() { MAC_LEN } else { 0 }));
    let preamble = [&[version], origin, &[record[9]]].concat();
    let rest = [&u16::try_from(extension.len()).unwrap().to_be_bytes(), extension, events].concat();
    let mac = seal.sign(CHANNEL.as_bytes(), [&preamble, &rest]);
    [header, &preamble, mac.as_ref().map_or(&[], |mac| &mac[..]), &rest].concat().into()
}

fn any_seal() -> impl Strategy<Value = Seal> {
    prop_oneof![Just(Seal::default()), Just(Seal::new(&["secret".to_owned()]))]
}

proptest! {
    #[test]
    fn two_releases_read_what_the_other_writes(
        events in vec(any_event(), 1..5), next in any::<bool>(), extension in vec(any::<u8>(), 0..300), seal in any_seal(),
    ) {
        let encoder = || {
            let mut encoder = Encoder::new(NodeId::from_u64(3), &seal);
            for (number, name, payload) in &events {
                encoder.push(*number, &Name::new(name).unwrap(), payload, Instant::now());
            }
            encoder
        };
        let read = |bytes| -> Vec<_> {
            let message = Message::decode(bytes, CHANNEL.as_bytes(), &seal).unwrap();
            assert_eq!((message.origin.as_u64(), message.count), (3, events.len() as u64));
            let events = message.events().unwrap().into_iter();
            events.map(|event| (event.number, event.name.to_string(), event.payload.to_vec())).collect()
        };
        let version = VERSION + u8::from(next);
        prop_assert_eq!(read(send_as(version, &extension, encoder(), &seal)), read(send_sealed(encoder(), &seal)));
    }
}

#[test]
fn a_format_that_is_too_new_or_too_old_is_not_read() {
    for seal in [Seal::default(), Seal::new(&["secret".to_owned()])] {
        for version in (0..VERSION).chain(VERSION + 2..=u8::MAX) {
            let sent = send_as(version, b"", one_event_with(&seal), &seal);
            let read = Message::decode(sent, CHANNEL.as_bytes(), &seal);
            assert_eq!(read.err(), Some(DecodeError::Version(version)));
        }
    }
}

#[test]
fn an_extension_is_covered_by_the_mac_and_ends_within_the_message() {
    let seal = Seal::new(&["secret".to_owned()]);
    let extension = b"only later releases understand this";
    for version in [VERSION, VERSION + 1] {
        let sent = send_as(version, extension, one_event_with(&seal), &seal);
        let at = sent.windows(extension.len()).position(|window| window == extension).unwrap();
        for at in at - 2..at + extension.len() {
            let mut forged = sent.to_vec();
            forged[at] ^= 1;
            let read = Message::decode(forged.into(), CHANNEL.as_bytes(), &seal);
            assert_eq!(read.err(), Some(DecodeError::WrongMac), "byte {at}");
        }
    }
    let mut longer = send_as(VERSION, extension, one_event(), &Seal::default()).to_vec();
    let at = longer.windows(extension.len()).position(|window| window == extension).unwrap();
    longer[at - 2..at].fill(u8::MAX);
    assert_eq!(decode(longer.into()).err(), Some(DecodeError::Format));
}

#[test]
fn a_message_is_as_long_as_its_header_says() {
    let sent = send(one_event());
    let with = |header: &str| {
        let at = sent.iter().position(|byte| *byte == b'\n').unwrap();
        decode([header.as_bytes(), &sent[at..]].concat().into())
    };
    assert!(with("5 1 1 1").unwrap().events().is_ok());
    assert!(with("5 1 1 2").unwrap().events().is_err(), "an event too few");
    for bad in ["5 1 1 0", "5 0 1 1", "5 2 1 1", "5 1 1", "5 1 1 1 1", "5 1 18446744073709551615 1", "5 1 1 -1", ""] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
    let mut longer = sent.to_vec();
    longer.push(0);
    assert!(decode(longer.into()).unwrap().events().is_err(), "there is more than one event");
}

#[test]
fn a_sealed_message_is_read_by_whoever_has_the_secret() {
    let seal = |secrets: &[&str]| Seal::new(&secrets.iter().map(|secret| (*secret).to_owned()).collect::<Vec<_>>());
    let (old, new, both) = (seal(&["old"]), seal(&["new"]), seal(&["new", "old"]));
    let read = |bytes: &Bytes, seal: &Seal| {
        Message::decode(bytes.clone(), CHANNEL.as_bytes(), seal).map(|message| {
            let event = message.events().expect("whole").remove(0);
            (message.origin.as_u64(), event.name.to_string(), event.payload)
        })
    };
    let whole = Ok((3, "event".to_owned(), Bytes::from_static(b"payload")));
    let by_old = send_sealed(one_event_with(&old), &old);
    assert_eq!(read(&by_old, &old), whole);
    assert_eq!(read(&by_old, &both), whole, "a secret that is being replaced");
    assert_eq!(read(&send_sealed(one_event_with(&both), &both), &new), whole, "the first secret signs");
    assert_eq!(read(&by_old, &new), Err(DecodeError::WrongMac));
    assert_eq!(read(&by_old, &Seal::default()), Err(DecodeError::Sealed));
    assert_eq!(read(&send(one_event()), &old), Err(DecodeError::NotSealed));
    let elsewhere = Message::decode(by_old.clone(), b"test:{1}:c0:other", &old);
    assert_eq!(elsewhere.err(), Some(DecodeError::WrongMac), "a message can't be moved to another room");
    let header = by_old.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for at in header..by_old.len() {
        let mut forged = by_old.to_vec();
        forged[at] ^= 1;
        assert!(read(&forged.into(), &old).is_err(), "byte {at}");
    }
}

#[test]
fn numbers_are_separated_by_single_spaces() {
    assert_eq!(numbers(b"1 2"), Some([1, 2]));
    for bad in [&b"1"[..], b"1 2 3", b"1  2", b" 1 2", b"1 2 ", b"1 x", b"1 \xff"] {
        assert_eq!(numbers::<2>(bad), None, "{bad:?}");
    }
}

#[test]
fn an_event_is_as_old_as_its_origin_says_within_reason() {
    for (age, most) in [(0, 0), (5, 5), (3500, 3500), (4000, 0)] {
        let Some(published_at) = Instant::now().checked_sub(Duration::from_secs(age)) else { continue };
        let mut encoder = Encoder::new(NodeId::from_u64(3), &Seal::default());
        encoder.push(1, &Name::new("event").unwrap(), b"payload", published_at);
        let event = decode(send(encoder)).unwrap().events().unwrap().remove(0);
        let publish = event.into_publication(NodeId::from_u64(3), RoomName::new("lobby").unwrap());
        let (event, room) = (publish.event.as_str(), &*publish.room);
        assert_eq!((event, room, &publish.payload[..]), ("event", "lobby", &b"payload"[..]));
        let read = publish.published_at.elapsed().as_secs();
        assert!(read == most || read == most + 1, "{age} s ago became {read} s");
    }
}

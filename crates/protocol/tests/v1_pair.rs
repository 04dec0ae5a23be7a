//! Whole connections of `roomcast.v1`: a client, a server, calls in both directions, rooms, and a wire that
//! can break at any byte.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::described::encode;
use common::v1_pair::{MAX_CALLS, Pair};
use common::v1_story::{Executed, Outcome};
use common::{BINARY, TEXT, message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use roomcast_protocol::v1::{
    Call, CallFlags, Calls, ClientConnection, Code, EncodedHeaders, ErrorFlags, Event, Frame, ItemError,
    MAX_FRAME_HEADER_LEN, MAX_ROOMS, Reason, ServerConnection, Side, Ticker, Unfinished, Violation,
};
use roomcast_protocol::{CallId, Limits, Name};

fn name(name: &str) -> Name {
    Name::new(name).expect("a short name")
}

fn call(credit: u32, flags: u8) -> Call {
    Call { credit, flags: CallFlags(flags), ..Call::new(name("method"), Bytes::new()) }
}

// === anything, in any order ===

/// One thing that happens. An [`Index`] picks among what is there at that moment.
#[derive(Debug, Clone)]
enum Op {
    Call(Side, u32, u8),
    Reset(Index),
    AddCredit(Index, u32),
    Detach(Side, Index),
    Item(Side, Index),
    Finish(Side, Index, bool),
    Room(u64),
    Send(Side),
    Read(Side, usize),
    Break(usize, usize),
}

impl Op {
    fn apply(&self, pair: &mut Pair) {
        let calls = pair.stories.len();
        match self {
            Self::Call(caller, credit, flags) => pair.call(*caller, call(*credit, *flags)),
            Self::Reset(which) if calls > 0 => pair.reset(which.index(calls)),
            Self::AddCredit(which, items) if calls > 0 => pair.add_credit(which.index(calls), *items),
            Self::Detach(side, which) if pair.works(*side) > 0 => {
                let nth = which.index(pair.works(*side));
                pair.detach(*side, nth);
            }
            Self::Item(side, which) if pair.works(*side) > 0 => {
                let nth = which.index(pair.works(*side));
                pair.item(*side, nth);
            }
            Self::Finish(side, which, fails) if pair.works(*side) > 0 => {
                let nth = which.index(pair.works(*side));
                pair.finish(*side, nth, *fails);
            }
            Self::Reset(_) | Self::AddCredit(..) | Self::Detach(..) | Self::Item(..) | Self::Finish(..) => {}
            Self::Room(choice) => pair.room(*choice),
            Self::Send(side) => pair.send(*side),
            Self::Read(side, max) => {
                pair.read(*side, *max);
            }
            Self::Break(to_client, to_server) => pair.break_wire(*to_client, *to_server),
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Server)];
    let credit = || prop_oneof![3 => 0..4_u32, 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)];
    // A client cannot detach: only servers send that frame.
    let flags = |caller| prop_oneof![6 => Just(0), 3 => Just(u8::from(caller == Side::Client)), 1 => Just(6)];
    prop_oneof![
        12 => side().prop_flat_map(move |caller| (Just(caller), credit(), flags(caller)))
            .prop_map(|(caller, credit, flags)| Op::Call(caller, credit, flags)),
        4 => any::<Index>().prop_map(Op::Reset),
        5 => (any::<Index>(), credit()).prop_map(|(which, items)| Op::AddCredit(which, items)),
        3 => any::<Index>().prop_map(|which| Op::Detach(Side::Server, which)),
        16 => (side(), any::<Index>()).prop_map(|(side, which)| Op::Item(side, which)),
        6 => (side(), any::<Index>(), any::<bool>()).prop_map(|(side, which, fails)| Op::Finish(side, which, fails)),
        8 => any::<u64>().prop_map(Op::Room),
        30 => side().prop_map(Op::Send),
        24 => (side(), prop_oneof![1..20_usize, Just(usize::MAX)]).prop_map(|(side, max)| Op::Read(side, max)),
        1 => (0..60_usize, 0..60_usize).prop_map(|(to_client, to_server)| Op::Break(to_client, to_server)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_call_ends_once_and_nothing_is_left(
        fragment in 1..30_usize, ops in vec(any_op(), 0..200),
    ) {
        let mut pair = Pair::new(fragment);
        for op in &ops {
            op.apply(&mut pair);
        }
        pair.settle();
        pair.assert_nothing_is_left();
        prop_assert_eq!(pair.violation, None, "no side is broken");
    }
}

// === calls ===

fn pair() -> Pair {
    Pair::new(usize::MAX)
}

/// Frames travel, but no work ends.
fn deliver(pair: &mut Pair) {
    for side in [Side::Client, Side::Server] {
        while pair.has_queued(side) {
            pair.send(side);
        }
        pair.read(side.peer(), usize::MAX);
    }
}

#[track_caller]
fn assert_fails(pair: &Pair, number: usize, code: Code, flags: ErrorFlags) {
    match &pair.stories[number].outcome {
        Some(Outcome::Final(Err(error))) => {
            assert_eq!((error.code, error.flags), (code, flags), "{error:?}");
            assert!(error.message.len() > 10, "the message is no sentence: {error:?}");
        }
        other => panic!("the call did not fail: {other:?}"),
    }
    assert_eq!(pair.stories[number].executed, Some(Executed::Refused));
}

#[test]
fn a_call_beyond_the_limit_fails_and_the_others_go_on() {
    for caller in [Side::Client, Side::Server] {
        let mut pair = pair();
        for _ in 0..=MAX_CALLS {
            pair.call(caller, call(0, 0));
        }
        deliver(&mut pair);
        deliver(&mut pair);
        assert_fails(&pair, MAX_CALLS, Code::RESOURCE_EXHAUSTED, ErrorFlags::RETRYABLE);
        assert!(pair.stories[..MAX_CALLS].iter().all(|story| story.outcome.is_none()));
        pair.settle();
        pair.assert_nothing_is_left();
    }
}

#[test]
fn a_cancelled_call_counts_until_its_work_has_stopped() {
    let mut pair = pair();
    (0..MAX_CALLS).for_each(|_| pair.call(Side::Client, call(0, 0)));
    pair.reset(0);
    pair.call(Side::Client, call(0, 0));
    deliver(&mut pair);
    deliver(&mut pair);
    assert_fails(&pair, MAX_CALLS, Code::RESOURCE_EXHAUSTED, ErrorFlags::RETRYABLE);
    pair.finish(Side::Server, 0, false);
    pair.call(Side::Client, call(0, 0));
    deliver(&mut pair);
    assert_eq!(pair.stories[MAX_CALLS + 1].executed, None, "it runs");
}

#[test]
fn a_call_with_unknown_flags_or_unreadable_headers_fails() {
    let mut pair = pair();
    pair.call(Side::Client, call(0, 2));
    let headers = EncodedHeaders::from_bytes(Bytes::from_static(b"\x01A\x00\x00")).expect("they are short");
    pair.call(Side::Client, Call { headers, ..call(0, 0) });
    deliver(&mut pair);
    deliver(&mut pair);
    assert_fails(&pair, 0, Code::INVALID_ARGUMENT, ErrorFlags::default());
    assert_fails(&pair, 1, Code::INVALID_ARGUMENT, ErrorFlags::default());
}

#[test]
fn frames_of_calls_that_are_not_in_flight_are_counted() {
    for sender in [Side::Client, Side::Server] {
        let mut pair = pair();
        for id in [CallId(7), CallId(1 << 31 | 7)] {
            let payload = Bytes::new();
            pair.queue(sender, Frame::Reset { id, reason: Reason::default() });
            pair.queue(sender, Frame::Credit { id, items: 1 });
            pair.queue(sender, Frame::Item { id, payload: payload.clone() });
            pair.queue(sender, Frame::Response { id, payload });
            pair.queue(sender, Frame::Error { id, error: Default::default() });
        }
        pair.settle();
        assert_eq!((pair.ignored(sender.peer()), &pair.violation), (10, &None));
    }
}

#[test]
fn a_finished_call_does_not_touch_the_next_one_with_its_id() {
    let mut calls = Calls::<(), ()>::new(Side::Server, 1, 1);
    let call = call(1, 1);
    let stale = calls.incoming.start(CallId(7), &call, ()).expect("no call is in flight");
    calls.incoming.finish(stale, Ok(Bytes::new())).expect("it is in flight");
    let key = calls.incoming.start(CallId(7), &call, ()).expect("no call is in flight");
    assert_eq!((calls.incoming.credit(stale), calls.incoming.credit(key)), (None, Some(1)));
    assert_eq!(calls.incoming.detach(stale, name("stream")), None);
    assert_eq!(calls.incoming.item(stale, Bytes::new()), Err(ItemError::Ended));
    assert_eq!(calls.incoming.finish(stale, Ok(Bytes::new())), None);
    assert_eq!(calls.incoming.credit(key), Some(1));
}

#[test]
fn what_is_unknown_after_a_break_depends_on_what_was_sent() {
    let mut pair = pair();
    for flags in [0, 1, 0] {
        pair.call(Side::Client, call(9, flags));
    }
    pair.send(Side::Client);
    pair.send(Side::Client);
    deliver_to_server_only(&mut pair);
    pair.detach(Side::Server, 1);
    pair.item(Side::Server, 1);
    pair.item(Side::Server, 1);
    deliver_to_client_only(&mut pair);
    pair.break_wire(0, 0);
    let unfinished = |number: usize| match pair.stories[number].outcome.clone() {
        Some(Outcome::Unfinished(unfinished)) => unfinished,
        other => panic!("{other:?}"),
    };
    assert_eq!(unfinished(0), Unfinished::MaybeExecuted);
    assert_eq!(unfinished(1), Unfinished::Detached { stream: name("stream 1"), items: 2 });
    assert_eq!(unfinished(2), Unfinished::NotSent);
}

fn deliver_to_server_only(pair: &mut Pair) {
    pair.read(Side::Server, usize::MAX);
}

fn deliver_to_client_only(pair: &mut Pair) {
    while pair.has_queued(Side::Server) {
        pair.send(Side::Server);
    }
    pair.read(Side::Client, usize::MAX);
}

// === what breaks the protocol ===

/// The violation that `breaker`'s peer sees, when both sides have a call in flight with credit for one Item,
/// and the breaker sends these frames.
fn violation(breaker: Side, frames: impl IntoIterator<Item = Frame>) -> Option<Violation> {
    let mut pair = pair();
    pair.call(Side::Client, call(1, 1));
    pair.call(Side::Server, call(1, 0));
    deliver(&mut pair);
    deliver(&mut pair);
    for frame in frames {
        pair.queue(breaker, frame);
    }
    deliver(&mut pair);
    deliver(&mut pair);
    let (seen_by, violation) = pair.violation.clone()?;
    assert_eq!(seen_by, breaker.peer());
    assert_eq!(violation.close_code().0, 1002);
    assert!(violation.close_frame().reason.len() > 10, "the reason is no sentence: {violation}");
    pair.assert_no_call_is_in_flight();
    Some(violation)
}

/// The ids of the calls that are in flight.
const OF_CLIENT: CallId = CallId(1);
const OF_SERVER: CallId = CallId(1 << 31 | 1);

fn request(id: CallId) -> Frame {
    Frame::Request { id, name: name("method"), payload: "0".into() }
}

fn item(id: CallId, at: u32) -> Frame {
    Frame::Item { id, payload: format!("{}:{at}", u32::from(id == OF_SERVER)).into() }
}

#[test]
fn an_id_in_flight_cannot_be_used_again() {
    assert_eq!(violation(Side::Client, [request(OF_CLIENT)]), Some(Violation::DuplicateCallId(OF_CLIENT)));
    assert_eq!(violation(Side::Server, [request(OF_SERVER)]), Some(Violation::DuplicateCallId(OF_SERVER)));
}

#[test]
fn each_side_has_its_own_ids() {
    assert_eq!(violation(Side::Client, [request(OF_SERVER)]), Some(Violation::ForeignCallId(OF_SERVER)));
    assert_eq!(violation(Side::Server, [request(OF_CLIENT)]), Some(Violation::ForeignCallId(OF_CLIENT)));
}

#[test]
fn items_need_credit() {
    assert_eq!(violation(Side::Client, [item(OF_SERVER, 0)]), None);
    let two = |id| [item(id, 0), item(id, 1)];
    assert_eq!(violation(Side::Client, two(OF_SERVER)), Some(Violation::ItemBeyondCredit(OF_SERVER)));
    assert_eq!(violation(Side::Server, two(OF_CLIENT)), Some(Violation::ItemBeyondCredit(OF_CLIENT)));
}

#[test]
fn a_call_is_detached_once_before_its_first_item_and_only_if_it_asks_for_it() {
    let detached = || Frame::Detached { id: OF_CLIENT, stream: name("stream 0") };
    let unexpected = Some(Violation::UnexpectedDetached(OF_CLIENT));
    assert_eq!(violation(Side::Server, [detached()]), None);
    assert_eq!(violation(Side::Server, [detached(), detached()]), unexpected);
    assert_eq!(violation(Side::Server, [item(OF_CLIENT, 0), detached()]), unexpected);

    let mut pair = pair();
    pair.call(Side::Client, call(1, 0));
    pair.queue(Side::Server, detached());
    deliver(&mut pair);
    assert_eq!(pair.violation, Some((Side::Client, Violation::UnexpectedDetached(OF_CLIENT))));
}

/// What a client makes of these frames, the last of which may break the protocol.
#[track_caller]
fn client_violation(frames: &[Frame]) -> Option<Violation> {
    let mut client = ClientConnection::new();
    let (last, valid) = frames.split_last().expect("there are frames");
    for frame in valid {
        client.receive(encode(frame)).expect("this frame is valid");
    }
    client.receive(encode(last)).err()
}

fn welcome() -> Frame {
    Frame::Welcome { json: Reason::truncated("{}") }
}

#[test]
fn the_welcome_comes_first_and_once() {
    assert_eq!(client_violation(&[Frame::Tick]), Some(Violation::NotWelcome));
    assert_eq!(client_violation(&[request(OF_SERVER)]), Some(Violation::NotWelcome));
    assert_eq!(client_violation(&[welcome(), Frame::Tick]), None);
    assert_eq!(client_violation(&[welcome(), welcome()]), Some(Violation::SecondWelcome));
}

#[test]
fn a_room_is_announced_and_its_offsets_increase() {
    let room = |offset, epoch: &str| Frame::Room { room: 3, offset, epoch: name(epoch), name: name("lobby") };
    let event =
        |offset| Frame::Event(Event { room: 3, offset, sender: name(""), name: name("said"), payload: Bytes::new() });
    let gap = |from, to| Frame::Gap { room: 3, from, to };
    let left = || Frame::Left { room: 3, reason: Reason::default() };
    let violation = |frames: &[Frame]| client_violation(&[&[welcome()], frames].concat());
    let unknown = || Some(Violation::UnknownRoom(3));
    let not_later = |offset, position| Some(Violation::OffsetNotLater { room: 3, offset, position });

    assert_eq!(violation(&[event(1)]), unknown());
    assert_eq!(violation(&[gap(1, 1)]), unknown());
    assert_eq!(violation(&[left()]), unknown());
    assert_eq!(violation(&[room(5, "a"), event(7), gap(8, 9), event(10)]), None);
    assert_eq!(violation(&[room(5, "a"), event(5)]), not_later(5, 5));
    assert_eq!(violation(&[room(5, "a"), gap(5, 6)]), not_later(5, 5));
    assert_eq!(violation(&[room(5, "a"), gap(7, 6)]), not_later(6, 6));
    assert_eq!(violation(&[room(5, "a"), gap(6, 9), event(9)]), not_later(9, 9));
    assert_eq!(violation(&[room(5, "a"), room(0, "b"), event(1)]), None);
    assert_eq!(violation(&[room(5, "a"), room(6, "a")]), Some(Violation::RoomAnnouncedTwice(3)));
    let renamed = Frame::Room { room: 3, offset: 0, epoch: name("b"), name: name("hall") };
    assert_eq!(violation(&[room(5, "a"), renamed]), Some(Violation::RoomAnnouncedTwice(3)));
    assert_eq!(violation(&[room(5, "a"), left(), room(5, "a"), event(6)]), None);
    assert_eq!(violation(&[room(5, "a"), left(), event(6)]), unknown());
}

#[test]
fn the_number_of_rooms_is_limited() {
    let mut client = ClientConnection::new();
    client.receive(encode(&welcome())).expect("it is the first frame");
    let room = |room| encode(&Frame::Room { room, offset: 0, epoch: name(""), name: name("lobby") });
    for number in 0..MAX_ROOMS as u64 {
        client.receive(room(number)).expect("the room is allowed");
    }
    assert_eq!(client.receive(room(MAX_ROOMS as u64)), Err(Violation::TooManyRooms));
}

// === messages ===

fn server_receives(message: &[u8]) -> Result<bool, Violation> {
    let mut server = ServerConnection::new(Limits::new(100));
    server.receive(&mut &*message).map(|event| event.is_some())
}

#[test]
fn a_payload_over_the_maximum_closes_the_connection_with_1009() {
    let longest = Name::new(&"n".repeat(255)).expect("the longest name");
    let headers = EncodedHeaders::from_bytes(vec![0; 8 * 1024].into()).expect("they fit");
    let call = |len: usize| {
        let payload = vec![0; len].into();
        let call = Call { headers: headers.clone(), payload, ..Call::new(longest.clone(), Bytes::new()) };
        encode(&Frame::Call { id: CallId(1), call })
    };
    assert_eq!(call(0).len(), MAX_FRAME_HEADER_LEN);
    assert_eq!(server_receives(&message(BINARY, &call(100))), Ok(true));
    assert_eq!(server_receives(&message(BINARY, &call(101))).unwrap_err().close_code().0, 1009);
    let payload = Bytes::from(vec![0; 101]);
    let reason = Reason::truncated(&"r".repeat(101));
    for frame in [
        Frame::Notify { name: name(""), payload: payload.clone() },
        Frame::Item { id: CallId(1), payload },
        Frame::Reset { id: CallId(1), reason },
    ] {
        let violation = server_receives(&message(BINARY, &encode(&frame))).unwrap_err();
        assert_eq!((&violation, violation.close_code().0), (&Violation::PayloadTooBig { size: 101, max: 100 }, 1009));
    }
}

#[test]
fn a_text_message_closes_the_connection_with_1003() {
    let violation = server_receives(&message(TEXT, b"hello")).unwrap_err();
    assert_eq!((&violation, violation.close_code().0), (&Violation::TextMessage, 1003));
}

// === ticks ===

#[test]
fn a_tick_is_due_when_nothing_was_sent_for_an_interval() {
    let second = Duration::from_secs(1);
    let mut ticker = Ticker::new(25 * second, 100 * second);
    assert_eq!(ticker.wait(101 * second), 24 * second);
    ticker.on_sent(110 * second);
    assert_eq!([ticker.wait(125 * second), ticker.wait(135 * second)], [10 * second, Duration::ZERO]);
    ticker.on_sent(135 * second);
    assert_eq!(ticker.wait(136 * second), 24 * second);
}

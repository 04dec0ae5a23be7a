//! Whole connections: a client, a server and everything that can happen between them, in virtual time.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::pair::{End, MAX_CALLS, MAX_PAYLOAD, Outcome, PING_INTERVAL, PONG_TIMEOUT, Pair};
use common::{BINARY, CLOSE, FIN, MASK, PING, PONG, TEXT, header, message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use roomcast_protocol::{
    CallId, CallKey, CallTable, CloseCode, Event, Frame, KeepAlive, KeepAliveAction, Limits, MAX_NAME_LEN,
    ServerConnection, StartError,
};

const LATENCY: Duration = Duration::from_millis(50);
const MILLISECOND: Duration = Duration::from_millis(1);

fn pair() -> Pair {
    Pair::new(LATENCY, usize::MAX)
}

// === anything, in any order ===

/// One thing that happens. An [`Index`] picks among what is there at that moment.
#[derive(Debug, Clone)]
enum Op {
    Call,
    Cancel(Index),
    NotifyServer,
    /// A handler is done.
    Answer(Index),
    NotifyClient,
    Pass(Duration),
    /// A read of at most so many bytes.
    ServerReads(usize),
    ClientReads(usize),
    Close,
}

impl Op {
    fn apply(&self, pair: &mut Pair) {
        match self {
            Self::Call => pair.call(),
            Self::Cancel(which) if !pair.calls.is_empty() => pair.cancel(which.index(pair.calls.len())),
            Self::Answer(which) if pair.handlers() > 0 => pair.answer(which.index(pair.handlers())),
            Self::Cancel(_) | Self::Answer(_) => {}
            Self::NotifyServer => pair.notify_server(),
            Self::NotifyClient => pair.notify_client(),
            Self::Pass(time) => pair.pass(*time),
            Self::ServerReads(max) => pair.server_reads(*max),
            Self::ClientReads(max) => pair.client_reads(*max),
            Self::Close => pair.close(),
        }
    }
}

fn any_op() -> impl Strategy<Value = Op> {
    let read = || prop_oneof![1..20_usize, Just(usize::MAX)];
    prop_oneof![
        20 => Just(Op::Call),
        12 => any::<Index>().prop_map(Op::Cancel),
        8 => Just(Op::NotifyServer),
        16 => any::<Index>().prop_map(Op::Answer),
        8 => Just(Op::NotifyClient),
        16 => (0..100_u64).prop_map(|millis| Op::Pass(Duration::from_millis(millis))),
        6 => (0..15_000_u64).prop_map(|millis| Op::Pass(Duration::from_millis(millis))),
        24 => read().prop_map(Op::ServerReads),
        24 => read().prop_map(Op::ClientReads),
        1 => Just(Op::Close),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_every_call_ends_once_and_nothing_is_left(
        latency in (0..200_u64).prop_map(Duration::from_millis), fragment in 1..20_usize, ops in vec(any_op(), 0..120),
    ) {
        let mut pair = Pair::new(latency, fragment);
        for op in &ops {
            op.apply(&mut pair);
        }
        pair.settle();
        pair.assert_nothing_is_left();
    }
}

// === calls ===

#[test]
fn a_call_is_answered_with_its_own_payload_in_the_order_of_completion() {
    let mut pair = pair();
    pair.call();
    pair.call();
    pair.deliver();
    pair.answer(1);
    pair.deliver();
    assert_eq!([pair.calls[0].at_client, pair.calls[1].at_client], [None, Some(Outcome::Answered)]);
    pair.settle();
    pair.assert_nothing_is_left();
    assert_eq!(pair.calls[0].at_client, Some(Outcome::Answered));
}

#[test]
fn after_a_reset_the_handlers_answer_is_not_sent() {
    let mut pair = pair();
    pair.call();
    pair.deliver();
    pair.cancel(0);
    pair.deliver();
    assert_eq!((pair.calls[0].at_server, pair.handlers()), (Some(Outcome::Cancelled), 1));
    pair.answer(0);
    pair.settle();
    assert_eq!(pair.calls[0].responses, 0);
    pair.assert_nothing_is_left();
}

#[test]
fn a_reset_that_crosses_the_answer_on_the_wire_does_nothing() {
    let mut pair = pair();
    pair.call();
    pair.deliver();
    pair.answer(0);
    pair.cancel(0);
    pair.settle();
    pair.assert_nothing_is_left();
    let call = &pair.calls[0];
    assert_eq!((call.at_client, call.at_server), (Some(Outcome::Cancelled), Some(Outcome::Answered)));
    assert_eq!(pair.end, None);
}

#[test]
fn a_reset_of_an_unknown_id_does_nothing() {
    let mut pair = pair();
    pair.call();
    pair.send_frame(&Frame::Reset { id: CallId(u32::MAX) });
    pair.settle();
    pair.assert_nothing_is_left();
    assert_eq!((pair.calls[0].at_client, pair.end), (Some(Outcome::Answered), None));
}

#[test]
fn an_id_that_is_in_flight_may_not_be_used_again() {
    let mut pair = pair();
    pair.call_with_id(7);
    pair.call_with_id(7);
    pair.settle();
    assert_eq!(pair.end, Some(End::Violation(CloseCode::PROTOCOL_ERROR)));
    assert_eq!(pair.closed, Some(CloseCode::PROTOCOL_ERROR));
    assert_eq!([pair.calls[0].at_server, pair.calls[1].at_server], [Some(Outcome::Ended), None]);
    pair.assert_nothing_is_left();
}

#[test]
fn an_id_may_be_used_again_after_its_answer() {
    let mut pair = pair();
    for number in 0..3 {
        pair.call_with_id(7);
        pair.deliver();
        pair.answer(0);
        pair.deliver();
        assert_eq!(pair.calls[number].responses, 1);
    }
    assert_eq!(pair.end, None);
}

#[test]
fn an_id_may_be_used_again_after_its_reset_and_the_old_handler_does_not_answer_the_new_call() {
    let mut pair = pair();
    pair.call_with_id(7);
    pair.send_frame(&Frame::Reset { id: CallId(7) });
    pair.call_with_id(7);
    pair.deliver();
    assert_eq!(pair.handlers(), 2, "the cancelled call's handler has not noticed yet");
    pair.answer(0);
    pair.deliver();
    assert_eq!([pair.calls[0].responses, pair.calls[1].responses], [0, 0]);
    pair.answer(0);
    pair.deliver();
    assert_eq!([pair.calls[0].responses, pair.calls[1].responses], [0, 1]);
}

#[test]
fn when_the_client_closes_its_calls_end_at_both_ends() {
    let mut pair = pair();
    pair.call();
    pair.notify_server();
    pair.close();
    pair.settle();
    assert_eq!((&pair.end, pair.closed), (&Some(End::ClosedByClient), Some(CloseCode::NORMAL)));
    assert_eq!((pair.calls[0].at_client, pair.calls[0].at_server), (Some(Outcome::Ended), Some(Outcome::Ended)));
    pair.assert_nothing_is_left();
}

/// The operations on a table, with few ids so that they are used again and again.
#[derive(Debug, Clone)]
enum TableOp {
    Start(u32),
    Cancel(u32),
    /// Any call that was ever started gets its answer.
    Answer(Index),
}

proptest! {
    #[test]
    fn a_table_gives_every_call_one_end_however_ids_are_used_again(
        ops in vec(
            prop_oneof![
                (0..4_u32).prop_map(TableOp::Start),
                (0..4_u32).prop_map(TableOp::Cancel),
                any::<Index>().prop_map(TableOp::Answer),
            ],
            0..60,
        ),
    ) {
        let max = 3;
        let mut table = CallTable::new(max);
        let mut running: HashMap<u32, usize> = HashMap::new();
        let mut started: Vec<CallKey> = Vec::new();
        for op in ops {
            match op {
                TableOp::Start(id) => match table.start(CallId(id), started.len()) {
                    Ok(key) => {
                        prop_assert!(running.len() < max);
                        prop_assert_eq!(running.insert(id, started.len()), None);
                        started.push(key);
                    }
                    Err(StartError::Duplicate(of)) => prop_assert!(of == CallId(id) && running.contains_key(&id)),
                    Err(error) => {
                        prop_assert_eq!(error, StartError::TooMany { max });
                        prop_assert!(running.len() == max && !running.contains_key(&id));
                    }
                },
                TableOp::Cancel(id) => prop_assert_eq!(table.cancel(CallId(id)), running.remove(&id)),
                TableOp::Answer(_) if started.is_empty() => {}
                TableOp::Answer(which) => {
                    let number = which.index(started.len());
                    let key = started[number];
                    let is_running = running.get(&key.id().0) == Some(&number);
                    prop_assert_eq!(table.answer(key), is_running.then_some(number));
                    running.retain(|_, other| *other != number);
                }
            }
            prop_assert_eq!(table.len(), running.len());
        }
        let mut ended: Vec<usize> = table.cancel_all().collect();
        let mut expected: Vec<usize> = running.into_values().collect();
        ended.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(ended, expected);
        prop_assert!(table.is_empty());
    }
}

#[test]
fn a_full_table_takes_a_call_again_when_one_has_ended() {
    let mut table = CallTable::new(MAX_CALLS);
    for id in 0..MAX_CALLS as u32 {
        table.start(CallId(id), ()).unwrap();
    }
    let one_more = CallId(100);
    assert_eq!(table.start(one_more, ()), Err(StartError::TooMany { max: MAX_CALLS }));
    assert_eq!(table.start(CallId(0), ()), Err(StartError::Duplicate(CallId(0))), "the graver fault is reported");
    table.cancel(CallId(0));
    assert!(table.start(one_more, ()).is_ok());
}

// === what breaks the protocol ===

#[track_caller]
fn assert_closed(bytes: &[u8], code: CloseCode) {
    let mut pair = pair();
    pair.call();
    pair.send_bytes(bytes);
    pair.settle();
    assert_eq!((&pair.end, pair.closed), (&Some(End::Violation(code)), Some(code)));
    assert_eq!(pair.calls[0].at_server, Some(Outcome::Ended));
    pair.assert_nothing_is_left();
}

/// A Notify with a name and a payload of these lengths.
fn notify(name_len: usize, payload_len: usize) -> Vec<u8> {
    [&[1, name_len as u8], vec![b'n'; name_len].as_slice(), &vec![0; payload_len]].concat()
}

#[test]
fn a_breach_below_the_protocol_closes_the_connection_with_1002() {
    let unmasked = [FIN | BINARY, 0];
    assert_closed(&unmasked, CloseCode::PROTOCOL_ERROR);
}

#[test]
fn a_text_message_closes_the_connection_with_1003() {
    assert_closed(&message(TEXT, b"hello"), CloseCode::UNSUPPORTED_DATA);
}

#[test]
fn text_that_is_not_utf8_closes_the_connection_with_1007() {
    assert_closed(&message(TEXT, b"\xFF"), CloseCode::INVALID_DATA);
    assert_closed(&message(CLOSE, b"\x03\xE8\xFF"), CloseCode::INVALID_DATA);
}

#[test]
fn a_payload_over_the_maximum_closes_the_connection_with_1009() {
    assert_closed(&message(BINARY, &notify(1, MAX_PAYLOAD + 1)), CloseCode::TOO_BIG);
    let claimed = header(FIN | BINARY, 1 << 40, MASK);
    assert_closed(&claimed, CloseCode::TOO_BIG);
}

#[test]
fn a_payload_of_the_maximum_is_allowed_under_the_longest_name() {
    let mut server = ServerConnection::new(Limits::new(MAX_PAYLOAD));
    let longest = message(BINARY, &notify(MAX_NAME_LEN, MAX_PAYLOAD));
    let received = server.receive(&mut longest.as_slice());
    assert!(
        matches!(&received, Ok(Some(Event::Notify { payload, .. })) if payload.len() == MAX_PAYLOAD),
        "{received:?}"
    );
}

// === keep-alive ===

#[test]
fn a_client_that_answers_is_pinged_every_interval_and_kept() {
    let mut pair = pair();
    for _ in 0..1000 {
        pair.pass(Duration::from_millis(100));
        pair.deliver();
    }
    assert_eq!((pair.pings.len(), &pair.end), (6, &None));
    assert_eq!(pair.now, Duration::from_secs(150));
}

#[test]
fn a_silent_client_is_lost_a_timeout_after_the_ping_and_its_calls_end() {
    let mut pair = pair();
    pair.call();
    pair.deliver();
    pair.silence_client();
    pair.pass(PING_INTERVAL + PONG_TIMEOUT - MILLISECOND - pair.now);
    assert_eq!((&pair.end, pair.calls[0].at_server), (&None, None));
    pair.pass(MILLISECOND);
    assert_eq!((&pair.end, pair.calls[0].at_server), (&Some(End::Lost), Some(Outcome::Ended)));
    pair.settle();
    pair.assert_nothing_is_left();
}

#[test]
fn any_byte_after_the_ping_counts_as_a_sign_of_life() {
    let [ping, half_a_pong] = [message(PING, b""), message(PONG, b"")[..1].to_vec()];
    for sign_of_life in [ping, half_a_pong] {
        let mut pair = pair();
        pair.silence_client();
        pair.pass(PING_INTERVAL + PONG_TIMEOUT - LATENCY - MILLISECOND);
        pair.send_bytes(&sign_of_life);
        pair.pass(LATENCY);
        pair.server_reads(1);
        pair.pass(PING_INTERVAL);
        assert_eq!((pair.pings.len(), &pair.end), (2, &None), "{sign_of_life:?}");
    }
}

#[test]
fn what_came_before_the_ping_is_no_sign_of_life_after_it() {
    let mut pair = pair();
    pair.notify_server();
    pair.pass(PING_INTERVAL - MILLISECOND);
    pair.server_reads(usize::MAX);
    pair.silence_client();
    pair.pass(PONG_TIMEOUT + MILLISECOND);
    assert_eq!(pair.end, Some(End::Lost));
}

#[test]
fn a_timeout_longer_than_the_interval_stretches_the_interval() {
    let [interval, timeout] = [Duration::from_secs(1), Duration::from_secs(3)];
    let mut keep_alive = KeepAlive::new(interval, timeout);
    for _ in 0..3 {
        assert_eq!(keep_alive.on_timeout(), KeepAliveAction::Ping(timeout));
        keep_alive.on_heard();
        assert_eq!(keep_alive.on_timeout(), KeepAliveAction::Rest(Duration::ZERO));
    }
}

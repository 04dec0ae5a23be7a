//! Compares the model of the script with the real one, on a real server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use fred::types::config::Server;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::{NodeId, RoomName};
use roomcast_protocol::Name;
use roomcast_testkit::{RedisOptions, RedisServer};
use tokio::sync::mpsc::{self, Sender, UnboundedReceiver};
use tokio::time::timeout;

use super::script::{Moment, PublishedMessage, RoomKeys};
use crate::io::connection::{self, Credentials, Report};
use crate::state::keys::Keys;
use crate::state::message::Encoder;
use crate::state::placement::{Placement, Published};
use crate::state::resp::{Incoming, bytes_of, put_command, strings_of};
use crate::state::seal::Seal;
use crate::state::stored::{PUBLISH, READ_HISTORY, Stored};

const DEADLINE: Duration = Duration::from_secs(20);
const POSITION_MS: u64 = 7_200_000;
const UNREAD_MS: u64 = 300_000;
/// No test publishes as many bytes.
const ENOUGH_BYTES: u64 = 1024 * 1024;

/// A batch. Each message has a room, a number of events, and a retention: how many events are kept,
/// and for how long.
type Batch = &'static [(usize, u64, u64, u64)];

#[tokio::test(flavor = "multi_thread")]
async fn the_model_publishes_as_redis_does() {
    const BEFORE: &[Batch] = &[
        &[(0, 1, 100, 30_000)],
        &[(0, 3, 100, 60_000), (1, 2, 4, 30_000), (0, 1, 100, 30_000), (2, 2, 0, 0)],
        &[(1, 1, 4, 30_000), (1, 3, 4, 30_000), (1, 1, 4, 30_000)],
        &[(1, 9, 4, 30_000), (0, 2, 0, 0), (0, 1, 1, 30_000)],
        &[(1, 1, 4, 30_000), (0, 1, 2, 30_000), (2, 1, 3, 30_000)],
    ];
    let mut both = Both::start().await;
    for batch in BEFORE {
        both.publish(batch).await;
    }
    // The effect is that of a replica that takes over.
    both.server.command(&["DEBUG", "CHANGE-REPL-ID"]).await;
    both.publish(&[(0, 2, 100, 30_000), (1, 1, 4, 30_000), (0, 1, 100, 30_000)]).await;
    both.publish(&[(0, 1, 100, 30_000)]).await;
    // The effect is that of hours without a publish, except that the history should have expired
    // long before.
    both.server.command(&["DEL", &both.keys.position(&both.rooms[0].0)]).await;
    both.rooms[0].1.forget_position();
    both.publish(&[(0, 2, 100, 30_000), (2, 1, 100, 30_000)]).await;
    both.publish(&[(0, 1, 100, 30_000)]).await;
    // The reply was lost, so the batch is published again, with a newer one in between.
    both.publish_again().await;
    both.publish(&[(1, 1, 4, 30_000)]).await;
    both.publish_again().await;
    // No node reads this room at first. Then one does.
    both.publish(&[(UNREAD, 1, 100, 30_000)]).await;
    both.publish(&[(UNREAD, 1, 100, 30_000)]).await;
    both.read(UNREAD).await;
    both.publish(&[(UNREAD, 1, 100, 30_000)]).await;
    both.server.command(&["FLUSHALL"]).await;
    both.rooms.iter_mut().for_each(|(_, keys)| *keys = RoomKeys::default());
    both.publish(BEFORE[1]).await;
}

/// A repeated publish gets the positions of the first one as long as the history has them, wherever it is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_finds_a_repeated_message_as_redis_does() {
    const FOUND: Batch = &[(0, 3, 100, 30_000), (1, 2, 4, 30_000), (2, 2, 0, 0), (0, 2, 0, 0)];
    const NEXT: Batch = &[(0, 1, 100, 30_000), (1, 1, 4, 30_000), (2, 1, 0, 0)];
    let mut both = Both::start().await;
    both.publish(FOUND).await;
    let repeated = both.last.clone();
    let mut found = Vec::new();
    for _ in 0..7 {
        both.last.clone_from(&repeated);
        found.push(counts(&both.publish_again().await));
        both.publish(NEXT).await;
    }
    // In the room that keeps 4 messages, the first one is trimmed at last.
    assert_eq!((&found[0], &found[6]), (&vec![3, 2, 1, 1], &vec![3, 1, 1, 1]));
    both.server.command(&["DEBUG", "CHANGE-REPL-ID"]).await;
    both.publish(NEXT).await;
    both.last = repeated;
    assert_eq!(counts(&both.publish_again().await), [3, 1, 1, 1]);
}

/// A message with one event has about 80 bytes. If a history keeps 4 messages, its bytes are counted from the first
/// message with 3 events or more.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_limits_bytes_as_redis_does() {
    const ONE: (usize, u64, u64, u64) = (1, 1, 4, 30_000);
    const SIX: (usize, u64, u64, u64) = (1, 6, 4, 30_000);
    const OF_MANY: (usize, u64, u64, u64) = (0, 2, 100, 30_000);
    let mut both = Both::start().await;
    both.max_bytes = 600;
    both.publish(&[ONE, ONE, OF_MANY, ONE, OF_MANY, ONE, ONE]).await;
    assert_eq!(both.rooms[1].1.dropped, 0, "the limit of messages is sufficient");
    both.publish(&[SIX]).await;
    both.publish(&[ONE, OF_MANY, ONE, ONE, ONE, ONE]).await;
    both.publish(&[SIX, OF_MANY]).await;
    both.publish(&[OF_MANY, SIX, ONE, OF_MANY, (1, 2, 0, 0), ONE, OF_MANY, ONE]).await;
    both.publish_again().await;
    assert!(both.rooms[..2].iter().all(|(_, keys)| keys.dropped > 0), "both limits are reached");
    // A message that is too large for the limit is not kept, and leaves nothing of the history.
    both.publish(&[(1, 40, 4, 30_000), ONE]).await;
    // The history expires, and its bytes with it.
    both.server.command(&["DEL", &both.keys.history(&both.rooms[1].0)]).await;
    both.rooms[1].1.forget_history();
    both.publish(&[ONE, ONE]).await;
    both.publish(&[SIX, ONE]).await;
    both.server.command(&["DEL", &both.keys.position(&both.rooms[1].0)]).await;
    both.rooms[1].1.forget_position();
    both.publish(&[ONE, SIX]).await;
}

/// During a rolling upgrade, a node that does not count the bytes writes the position, too. It puts its origin first.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_count_bytes_ends_the_count() {
    let mut both = Both::start().await;
    both.max_bytes = 700;
    both.publish(&[(1, 6, 4, 30_000)]).await;
    let key = both.keys.position(&both.rooms[1].0);
    let counted = both.server.command(&["GET", &key]).await;
    assert!(counted.contains(" 1 0000000000000000:"), "{counted}");
    let uncounted = counted.replace(" 0000000000000000:", " 00000000000000ab:7 0000000000000000:");
    both.server.command(&["SET", &key, &uncounted]).await;
    for count in [1, 6] {
        let messages = [(1, both.message(&(1, count, 4, 30_000)))];
        both.run(&messages).await;
        let stored = both.server.command(&["GET", &key]).await;
        assert_eq!(stored.matches(" 0000000000000000:").count(), 1, "{stored}");
        let stored = Stored::parse(stored.as_bytes()).expect("a position");
        assert_eq!(stored.origins, [(NodeId::from_u64(1), both.number), (NodeId::from_u64(0xab), 7)]);
    }
}

/// What fails in one room, for whatever reason, fails only there.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_redis_refuses_does_not_fail_others() {
    let mut both = Both::start().await;
    both.publish(&[(0, 1, 100, 30_000), (1, 2, 4, 30_000)]).await;
    both.server.command(&["DEL", &both.keys.history(&both.rooms[1].0)]).await;
    both.server.command(&["SET", &both.keys.history(&both.rooms[1].0), "not a list"]).await;
    let messages = vec![(0, both.message(&(0, 1, 100, 30_000))), (1, both.message(&(1, 1, 4, 30_000)))];
    let (reply, received) = both.run(&messages).await;
    let [Ok(_), Err(error)] = &parse(reply).messages[..] else { panic!("one message fails") };
    assert!(error.starts_with("WRONGTYPE"), "{error}");
    assert_eq!(received.len(), 1, "the other room's message is sent");
}

/// A room's history may outlast its position, for example after an eviction. In that case, large
/// messages, which are not kept, come first.
#[tokio::test(flavor = "multi_thread")]
async fn a_history_without_its_position_is_dropped_whatever_is_published_first() {
    let mut both = Both::start().await;
    both.publish(&[(0, 3, 100, 30_000), (0, 3, 100, 30_000)]).await;
    both.server.command(&["DEL", &both.keys.position(&both.rooms[0].0)]).await;
    both.rooms[0].1.forget_position();
    both.publish(&[(0, 1, 0, 0)]).await;
    both.publish(&[(0, 1, 100, 30_000)]).await;
}

/// The room that no node is subscribed to at first.
const UNREAD: usize = 3;

/// A server, and the model of its rooms.
struct Both {
    server: RedisServer,
    connection: Connection,
    keys: Keys,
    rooms: Vec<(RoomName, RoomKeys)>,
    number: u64,
    max_bytes: u64,
    /// The number of rooms that are subscribed to.
    subscribed: usize,
    /// The last batch that was published.
    last: Vec<(usize, PublishedMessage)>,
}

impl Both {
    async fn start() -> Self {
        let options =
            RedisOptions { configuration: vec!["enable-debug-command yes".into()], ..RedisOptions::default() };
        let server = RedisServer::start(options).await;
        let mut connection = Connection::open(&server);
        let keys = Keys::new("test", 0);
        let room = |name| (RoomName::new(name).unwrap(), RoomKeys::default());
        let rooms = vec![room("kept"), room("trimmed"), room("off"), room("unread")];
        for (room, _) in &rooms[..UNREAD] {
            connection.ask(&[b"SSUBSCRIBE", keys.channel(room).as_bytes()]).await;
        }
        Self {
            server,
            connection,
            keys,
            rooms,
            number: 0,
            max_bytes: ENOUGH_BYTES,
            subscribed: UNREAD,
            last: Vec::new(),
        }
    }

    /// Subscribes to one more room.
    async fn read(&mut self, room: usize) {
        self.connection.ask(&[b"SSUBSCRIBE", self.keys.channel(&self.rooms[room].0).as_bytes()]).await;
        self.subscribed = room + 1;
    }

    /// Runs the script on the server and in the model, and compares the results.
    async fn publish(&mut self, batch: Batch) {
        self.last = batch.iter().map(|message| (message.0, self.message(message))).collect();
        self.publish_again().await;
    }

    /// Publishes the last batch again. Returns where its messages are.
    async fn publish_again(&mut self) -> Vec<Placement> {
        let messages = self.last.clone();
        let info = self.server.command(&["INFO", "replication"]).await;
        let id = info.lines().find_map(|line| line.strip_prefix("master_replid:")).unwrap();
        let writer = id.trim()[..16].to_owned();
        let (reply, received) = self.run(&messages).await;
        let (mut expected, mut placements, mut dropped) = (Vec::new(), Vec::new(), 0);
        for (room, publish) in messages {
            let is_subscribed = room < self.subscribed;
            let (name, keys) = &mut self.rooms[room];
            // The time of a publish is the server's. If an epoch begins with it, the position
            // contains that time.
            let real = self.server.command(&["GET", &self.keys.position(name)]).await;
            let micros = Stored::parse(real.as_bytes()).unwrap().epoch;
            let dropped_before = keys.dropped;
            let published = keys.publish(Moment { micros, writer: &writer }, &publish, is_subscribed);
            placements.push(published.placement);
            dropped += keys.dropped - dropped_before;
            expected.extend(
                published.sent.filter(|_| is_subscribed).map(|sent| (Bytes::from(self.keys.channel(name)), sent)),
            );
        }
        assert_eq!(received, expected, "what is sent");
        let expected = Published { messages: placements.iter().copied().map(Ok).collect(), dropped };
        assert_eq!(parse(reply), expected);
        for room in 0..self.rooms.len() {
            self.compare(room).await;
        }
        placements
    }

    /// Runs the script on the server. Returns its reply, and the messages that it sent.
    async fn run(&mut self, messages: &[(usize, PublishedMessage)]) -> (BytesFrame, Vec<(Bytes, Bytes)>) {
        let keys = messages.iter().flat_map(|(room, _)| {
            let name = &self.rooms[*room].0;
            [self.keys.position(name), self.keys.history(name)].map(String::into_bytes)
        });
        let mut words = vec![b"EVAL".to_vec(), PUBLISH.into(), (messages.len() * 2).to_string().into()];
        words.extend(keys);
        words.extend([POSITION_MS, UNREAD_MS, self.max_bytes].map(|number| number.to_string().into_bytes()));
        for (room, PublishedMessage { origin, number, count, kept, kept_ms, events, .. }) in messages {
            words.push(self.keys.channel(&self.rooms[*room].0).into());
            words.push(format!(" {origin:016x}:").into());
            words.extend([*number, *count, *kept, *kept_ms].map(|number| number.to_string().into_bytes()));
            words.push(events.to_vec());
        }
        let (reply, received) = self.connection.ask(&words).await;
        (reply.unwrap(), received)
    }

    fn message(&mut self, (_, count, kept, kept_ms): &(usize, u64, u64, u64)) -> PublishedMessage {
        let mut encoder = Encoder::new(NodeId::from_u64(1), &Seal::default());
        for _ in 0..*count {
            self.number += 1;
            encoder.push(self.number, &Name::new("event").unwrap(), b"pay\r\nload\0", Instant::now());
        }
        let (origin, number, count) = (encoder.origin.as_u64(), encoder.last_number, *count);
        // The script does not read the events.
        let events = encoder.finish("", &Seal::default());
        let (kept, kept_ms, max_bytes) = (*kept, *kept_ms, self.max_bytes);
        let (position_ms, unread_ms) = (POSITION_MS, UNREAD_MS);
        PublishedMessage { origin, number, count, kept, kept_ms, max_bytes, position_ms, unread_ms, events }
    }

    async fn compare(&mut self, room: usize) {
        let (name, model) = &mut self.rooms[room];
        let (position, history) = (self.keys.position(name), self.keys.history(name));
        let (real, _) = self.connection.ask(&[b"GET", position.as_bytes()]).await;
        assert_eq!(real.and_then(bytes_of), model.position(0).map(Bytes::from), "{name}: position");
        for from in 0..=model.offset() + 2 {
            let from_text = from.to_string();
            let words = ["EVAL", READ_HISTORY, "2", &position, &history, &from_text];
            let (real, _) = self.connection.ask(&words).await;
            let Some(BytesFrame::Array { data, .. }) = real else { panic!("{real:?}") };
            let [real_position, messages] = <[_; 2]>::try_from(data).unwrap();
            assert_eq!(bytes_of(real_position), model.position(0).map(Bytes::from), "{name}: position");
            assert_eq!(strings_of(messages).unwrap(), model.history(0, from), "{name}: history from {from}");
        }
        let (position_ms, history_ms) = model.live_for();
        for (key, left) in [(position, position_ms), (history, history_ms)] {
            let real: i64 = self.server.command(&["PTTL", &key]).await.parse().unwrap();
            let is_near = |left: u64| (left as i64 - DEADLINE.as_millis() as i64..=left as i64).contains(&real);
            assert!(left.map_or(real == -2, is_near), "{key} lives for {real} ms, not {left:?}");
        }
    }
}

fn counts(placements: &[Placement]) -> Vec<u64> {
    placements.iter().map(|placement| placement.count).collect()
}

fn parse(reply: BytesFrame) -> Published {
    let bytes = bytes_of(reply).expect("a text");
    Published::parse(std::str::from_utf8(&bytes).unwrap()).expect("the script's reply")
}

/// A connection that can subscribe and run any command.
struct Connection {
    output: Sender<Bytes>,
    reports: UnboundedReceiver<Report>,
    echoes: u64,
}

impl Connection {
    fn open(server: &RedisServer) -> Self {
        let (output, to_write) = mpsc::channel(1);
        let (report, reports) = mpsc::unbounded_channel();
        let address = Server::new("127.0.0.1", server.port());
        let credentials = Arc::new(Credentials { username: None, password: None, database: None, tls: None });
        tokio::spawn(connection::run(address, credentials, to_write, async move |next| drop(report.send(next))));
        Self { output, reports, echoes: 0 }
    }

    /// Sends a command. Returns its reply, if it has one, and the messages that arrived meanwhile.
    async fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> (Option<BytesFrame>, Vec<(Bytes, Bytes)>) {
        self.echoes += 1;
        let marker = format!("echo {}", self.echoes);
        let mut out = BytesMut::new();
        put_command(&mut out, words.iter());
        put_command(&mut out, ["ECHO", &marker].iter());
        self.output.send(out.freeze()).await.unwrap();
        let (mut answer, mut messages) = (None, Vec::new());
        loop {
            let report = timeout(DEADLINE, self.reports.recv()).await.expect("Redis answers");
            let Some(Report::Received(all)) = report else {
                assert!(matches!(report, Some(Report::Connected(_))), "{report:?}");
                continue;
            };
            for incoming in all {
                match incoming {
                    Incoming::Message { channel, payload } => messages.push((channel, payload)),
                    Incoming::Reply(reply) if bytes_of(reply.clone()).is_some_and(|data| data == marker) => {
                        return (answer, messages);
                    }
                    Incoming::Reply(reply) => answer = Some(reply),
                    Incoming::Subscribed { .. } | Incoming::Unsubscribed { .. } => {}
                }
            }
        }
    }
}

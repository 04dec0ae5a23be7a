//! Many events at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use roomcast_testkit::{Client, RedisOptions, RedisServer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::actors::{be_member, join};
use crate::board::{Board, EVENT, room_name};
use crate::judge::{Verdict, judge};
use crate::{DEADLINE, size, start_node, turn};

/// Publishers, each with a room of its own.
const PUBLISHERS: usize = 10;

/// Calls that a publisher has in flight; a node allows 1,024 by default.
const WINDOW: usize = 500;

/// Publishes to these rooms, one event each, as fast as answers come.
pub(crate) async fn publish_all(board: Arc<Board>, publisher: usize, mut client: Client, rooms: Vec<usize>) {
    let mut waiting = HashMap::new();
    let mut rooms = rooms.into_iter();
    loop {
        while waiting.len() < WINDOW
            && let Some(room) = rooms.next()
        {
            let (number, payload) = board.send(publisher, room);
            let method = format!("rooms/publish/{}/{EVENT}", room_name(room));
            waiting.insert(client.start(&method, payload).await.expect("the node reads"), number);
        }
        if waiting.is_empty() {
            return;
        }
        let (call, answer) = client.next_answer().await.expect("calls are answered");
        let number = waiting.remove(&call).expect("each call is answered once");
        board.answered((publisher, number), &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures are a result too")]
async fn a_burst_arrives_completely_and_in_order() {
    let _turn = turn().await;
    let events = size("ROOMCAST_CLUSTER_BURST", 100_000) / PUBLISHERS;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let nodes = [start_node(&redis.url()).await, start_node(&redis.url()).await];
    let board = Arc::new(Board::new(PUBLISHERS, (0..PUBLISHERS).map(|room| (1, room))));
    let stop = watch::Sender::new(false);
    let (mut listening, mut publishing) = (JoinSet::new(), JoinSet::new());
    for room in 0..board.members() {
        let client = join(&nodes[1].url(), room).await;
        listening.spawn(be_member(board.clone(), room, client, stop.subscribe()));
    }
    let started = Instant::now();
    for publisher in 0..PUBLISHERS {
        let client = Client::connect(&nodes[0].url()).await.expect("the node serves");
        publishing.spawn(publish_all(board.clone(), publisher, client, vec![publisher; events]));
    }
    publishing.join_all().await;
    let acked = started.elapsed();
    let published = PUBLISHERS * events;
    while board.delivered() < published && board.present() == PUBLISHERS && started.elapsed() < DEADLINE {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let took = started.elapsed();
    stop.send_replace(true);
    listening.join_all().await;

    let verdict = judge(&board.published(), &board.logs());
    let lost = verdict.lost();
    let Verdict { acked: answered, delivered, duplicated, reordered, misrouted, .. } = verdict;
    eprintln!(
        "burst of {published} events: acked {answered} after {acked:.2?}, delivered {delivered} after {took:.2?}, \
         lost {lost}, duplicated {duplicated}, reordered {reordered}, misrouted {misrouted}\n"
    );
    assert_eq!(board.present(), PUBLISHERS, "members lost their connections");
    assert_eq!((answered, delivered, lost), (published, published, 0));
    assert_eq!((duplicated, reordered, misrouted), (0, 0, 0));
}

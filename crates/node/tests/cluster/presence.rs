//! Who is where: every node says the same, and nobody is left behind by whatever ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use roomcast_testkit::{RedisOptions, RedisServer};
use serde_json::json;

use crate::gathering::{Gathering, encode, figures};
use crate::support::{Bare, in_time, message, request};
use crate::turn;

/// What ends in an orderly way is gone at once: this is for slow machines.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A node that dies is missed after 10 s, and looked for each 3 s; some more for slow machines.
const FORGOTTEN: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn every_node_lists_the_same_members_rooms_and_nodes() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 4).await;

    // By bytes: "b" < "bb" < "c" < "café" < "é".
    for (host, room) in [(2, "bb"), (1, "b"), (0, "c"), (2, "c"), (1, "é")] {
        gathering.guest_of(host).join(room).await;
    }
    gathering.settled("rooms are new").await;
    let page = |rooms: &[(&str, usize)], next: Option<&str>| {
        let rooms: Vec<_> = rooms.iter().map(|(room, members)| json!({ "room": room, "members": members })).collect();
        json!({ "rooms": rooms, "next": next, "unresponsive_nodes": [] })
    };
    let first = [("all", 12), ("b", 1), ("bb", 1)];
    let second = [("c", 2), ("café", 3), ("main", 15)];
    let last = [("node-0", 4), ("node-1", 4), ("node-2", 4), ("é", 1)];
    let pages = [
        ("limit=3".to_owned(), page(&first, Some("bb"))),
        ("limit=3&after=bb".to_owned(), page(&second, Some("main"))),
        ("limit=4&after=main".to_owned(), page(&last, None)),
        ("prefix=c".to_owned(), page(&second[..2], None)),
        (format!("prefix={}", encode("caf\u{e9}")), page(&second[1..2], None)),
        ("prefix=b&after=b".to_owned(), page(&first[2..], None)),
        ("prefix=b&limit=1".to_owned(), page(&first[1..2], Some("b"))),
        ("after=node".to_owned(), page(&last, None)),
        ("prefix=nobody".to_owned(), page(&[], None)),
        (format!("after={}", encode("é")), page(&[], None)),
    ];
    for (query, expected) in pages {
        for host in &gathering.hosts {
            let found = host.ask("GET", &format!("/v1/rooms?{query}"), b"").await;
            assert_eq!((found.status, found.body), (200, expected.clone()), "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_or_closes_or_is_lost_is_gone_at_once() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 4).await;

    for room in ["café", "all"] {
        gathering.guest_of(0).leave(room).await;
    }
    // An answered leave has been done: nothing is waited for.
    assert_eq!(gathering.compare(&[]).await, Ok(()), "after a leave");
    gathering.guest_of(0).join("all").await;
    assert_eq!(gathering.compare(&[]).await, Ok(()), "after a join");

    let guest = gathering.take_guest_of(1);
    guest.client.close().await.expect("it is closed in order");
    let closed = gathering.settled("a client has closed").await;

    let guest = gathering.take_guest_of(2);
    drop(guest); // the stream ends without a close
    let ended = gathering.settled("a client's stream has ended").await;

    let lost = lose_by_reset(&mut gathering, 0).await;
    figures(&format!("gone from all nodes: closed {closed:.0?}, stream ended {ended:.0?}, reset {lost:.0?}"));
    for took in [closed, ended, lost] {
        assert!(took < AT_ONCE, "gone only after {took:?}");
    }
}

/// A client joins and is lost with a TCP reset; how long it stays.
async fn lose_by_reset(gathering: &mut Gathering, host: usize) -> Duration {
    let address = gathering.hosts[host].node.address.clone();
    let mut bare = Bare::connect(&address).await;
    bare.write(&message(&request(1, "rooms/join/all", b""))).await.expect("it is sent");
    in_time("the join is answered", bare.frame()).await.expect("the connection is open");
    assert!(gathering.compare(&[]).await.is_err(), "somebody is there whom nobody knows");
    bare.reset();
    gathering.settled("a client was lost by a reset").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_is_gone_with_its_members_when_it_ends() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 4).await;

    let (mut host, guests) = gathering.take_host(1);
    let signalled = Instant::now();
    host.node.signal("TERM");
    for mut guest in guests.into_iter().chain([host.observer]) {
        let (code, _) = in_time("it is closed", guest.client.closed()).await.expect("in order");
        assert_eq!(code, 1001);
    }
    assert!(in_time("the node ends", host.node.exit()).await.success());
    let ended = signalled.elapsed();
    let gone = gathering.settled("a node has drained").await;
    figures(&format!("SIGTERM of a node: it ended after {ended:.1?}, and was gone with its members {gone:.0?} later"));
    assert!(gone < AT_ONCE, "gone only after {gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_forgotten_with_its_members() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 4).await;

    let (host, _guests) = gathering.take_host(2);
    let killed = Instant::now();
    host.node.signal("KILL");
    // Its members are on no list from now on; that they are missing is told until it is given up.
    gathering.settled_but_for("a node has died", &[host.id()]).await;
    let gone = killed.elapsed();
    gathering.nodes_settled("a node has died").await;
    let forgotten = killed.elapsed();
    gathering.settled("a dead node was forgotten").await;
    let whole = killed.elapsed();
    figures(&format!(
        "SIGKILL of a node: members gone after {gone:.1?}, the node after {forgotten:.1?}, all lists whole after {whole:.1?}"
    ));
    assert!(gone < AT_ONCE, "members gone only after {gone:?}");
    assert!(whole < FORGOTTEN, "forgotten only after {whole:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_crashes_in_a_row_leave_nothing_behind() {
    const CRASHES: usize = 5;
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 2).await;
    let mut ids: BTreeSet<_> = gathering.hosts.iter().map(|host| host.id().to_owned()).collect();

    let mut last = Instant::now();
    for crash in 0..CRASHES {
        // The oldest; the new one comes last.
        let (host, _guests) = gathering.take_host(0);
        last = Instant::now();
        host.node.signal("KILL");
        gathering.add_node().await;
        gathering.add_guest(2, &["all"]).await;
        assert!(
            ids.insert(gathering.hosts[2].id().to_owned()),
            "crash {crash}: a node that is started again is another"
        );
    }
    gathering.nodes_settled("nodes have died").await;
    let forgotten = last.elapsed();
    gathering.settled("nodes have died").await;
    let whole = last.elapsed();
    figures(&format!(
        "{CRASHES} nodes killed and replaced one after another: after the last, the nodes were right after {forgotten:.1?}, \
         all lists after {whole:.1?}"
    ));
    assert!(whole < FORGOTTEN, "forgotten only after {whole:?}");
}

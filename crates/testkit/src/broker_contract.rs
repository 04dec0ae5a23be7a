//! The contract of a `Broker`, as a suite of tests that each implementation runs.

mod bounds;
mod cluster;
mod ledger;
mod positions;

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use roomcast_core::{Broker, BrokerError, MAX_ROOM_NAME_LEN, RoomName};

use bounds::{MEBIBYTE, bounded};
use cluster::{Cluster, DEADLINE, EVENTS, room, text};
use positions::{numbered, numbered_again, returned, returned_unread};

/// The number of publishers in the steps about order.
const PUBLISHERS: usize = 3;

/// Checks what every broker promises, in one step after another.
///
/// The argument `nodes` returns the given number of new brokers. They must belong to one cluster
/// and be up. Each step uses brokers and rooms of its own, so all steps can share one server. Keep
/// the server running until this returns. Each step closes its brokers and drops them.
///
/// Call this in a tokio runtime of either flavor, with timers enabled and time not paused. A step
/// waits for at most 10 s for each thing that it expects.
///
/// ```
/// use std::sync::Arc;
/// use roomcast::{Broker, MemoryBus};
/// use roomcast_testkit::broker_contract;
///
/// # #[tokio::main] async fn main() {
/// broker_contract::check(async |count| {
///     let bus = MemoryBus::new();
///     (0..count).map(|_| Arc::new(bus.attach()) as Arc<dyn Broker>).collect()
/// })
/// .await;
/// # }
/// ```
///
/// | step | what the step checks |
/// |---|---|
/// | one order on all nodes | Three nodes publish to a room, and all receive the events in the same order. |
/// | a caller's publishes keep their order unawaited | A publish takes its place when it is called, whenever its future is polled. |
/// | a confirmed subscription is effective | An event that is published at once arrives, even in a room that the node has just left. |
/// | the publisher's own node gets its events | Each event arrives once. |
/// | an unsubscribed room's events stop | An event that is published while the node is not subscribed does not arrive. |
/// | events are numbered | Positions are the same on all nodes, and offsets increase by one. |
/// | a room that comes back is numbered on | After the last subscriber has left, offsets continue, or a larger epoch begins. |
/// | a publish returns its event's position | Three nodes publish at the same time, without waiting, and each result is the position at which the event arrives. |
/// | a publish that nobody receives returns a position | It is that before the next event, or none. |
/// | rooms that no client can name work like others | Events in `node/…`, `nodes/…` and `user/…` arrive. |
/// | rooms are independent | Events arrive in their own room, even if its name is a prefix of another name or matches it as a pattern. |
/// | at most once, however often a node subscribes | No event arrives twice while a node leaves and subscribes again. |
/// | payloads pass unchanged | Any bytes arrive unchanged, from 0 bytes to 1 MiB. |
/// | names pass unchanged | Names of rooms and events arrive unchanged, with any characters and up to 200 bytes, and so does the origin. |
/// | waiting for events is cancel safe | No event is lost or repeated if a wait is dropped. |
/// | close ends the events after those accepted | The stream ends after the accepted events, and the other nodes continue. |
/// | close ends a wait for events | The wait returns `false`. |
/// | a publish after close fails | The error is `BrokerError::Closed`. |
/// | all nodes share the ledger | Every node reads every record once, in one order. A broker without a ledger skips this step. |
/// | a bounded number of events waits | Events of 1 byte are published while no node reads. |
/// | a bounded number of bytes waits | Events of 1 MiB are published while no node reads. |
///
/// The last two steps are only a sample of the limits. They count the payloads that the broker
/// holds, and the events that one call returns. They allow up to twice `MAX_WAITING_EVENTS` or
/// `MAX_WAITING_BYTES`: one queue before the backend, and one behind it. If your broker copies or
/// encodes payloads, or returns events in portions, test its limits yourself.
///
/// No step stops the backend or makes it lose data.
///
/// # Panics
/// Panics if a promise is broken. The message names the step and the promise.
pub async fn check(nodes: impl AsyncFn(usize) -> Vec<Arc<dyn Broker>>) {
    one_order(Cluster::new("one order on all nodes", nodes(3).await)).await;
    callers_order(Cluster::new("a caller's publishes keep their order unawaited", nodes(2).await)).await;
    effective(Cluster::new("a confirmed subscription is effective", nodes(2).await)).await;
    own_node(Cluster::new("the publisher's own node gets its events", nodes(1).await)).await;
    unsubscribed(Cluster::new("an unsubscribed room's events stop", nodes(2).await)).await;
    numbered(Cluster::new("events are numbered", nodes(2).await)).await;
    numbered_again(Cluster::new("a room that comes back is numbered on", nodes(2).await)).await;
    returned(Cluster::new("a publish returns its event's position", nodes(3).await)).await;
    returned_unread(Cluster::new("a publish that nobody receives returns a position", nodes(1).await)).await;
    internal_names(Cluster::new("rooms that no client can name work like others", nodes(2).await)).await;
    independent(Cluster::new("rooms are independent", nodes(3).await)).await;
    at_most_once(Cluster::new("at most once, however often a node subscribes", nodes(2).await)).await;
    payloads(Cluster::new("payloads pass unchanged", nodes(2).await)).await;
    names(Cluster::new("names pass unchanged", nodes(2).await)).await;
    cancel_safe(Cluster::new("waiting for events is cancel safe", nodes(2).await)).await;
    closed_after_the_accepted(Cluster::new("close ends the events after those accepted", nodes(2).await)).await;
    closed_while_waiting(Cluster::new("close ends a wait for events", nodes(1).await)).await;
    closed_to_publishers(Cluster::new("a publish after close fails", nodes(2).await)).await;
    ledger::shared(Cluster::new("all nodes share the ledger", nodes(2).await)).await;
    bounded(Cluster::new("a bounded number of events waits", nodes(2).await), b"x").await;
    bounded(Cluster::new("a bounded number of bytes waits", nodes(2).await), &MEBIBYTE).await;
}

// === the steps ===

/// Every node publishes to a room that all nodes subscribe to.
async fn one_order(mut cluster: Cluster) {
    let room = room("contract-one-order");
    cluster.subscribe_all(&room).await;
    let publishers = cluster.nodes.iter().enumerate().map(|(publisher, node)| {
        let (node, room) = (node.handle(), room.clone());
        tokio::spawn(async move {
            for number in 0..EVENTS {
                node.publish(&room, "numbered", format!("{publisher} {number}")).await;
            }
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let total = publishers.len() * EVENTS;
    for published in join_all(publishers).await {
        published.expect("a publisher does not panic");
    }
    let mut orders = Vec::new();
    for node in &mut cluster.nodes {
        orders.push(node.take(total).await.into_iter().map(|event| text(&event)).collect::<Vec<_>>());
    }
    for (node, order) in orders.iter().enumerate() {
        let differs = order.iter().zip(&orders[0]).position(|(one, other)| one != other);
        let step = cluster.step;
        assert!(differs.is_none(), "{step}: node {node} and node 0 differ from event {differs:?} on");
        for publisher in 0..cluster.nodes.len() {
            let of_publisher = order.iter().filter_map(|event| event.strip_prefix(&format!("{publisher} ")));
            let numbers: Vec<usize> = of_publisher.map(|number| number.parse().expect("a number")).collect();
            assert!(
                numbers.into_iter().eq(0..EVENTS),
                "{step}: publisher {publisher}'s events are not in its order, each once"
            );
        }
    }
    cluster.close();
}

/// Nodes send each other messages through these rooms. A user's room reaches all connections of the
/// user.
async fn internal_names(mut cluster: Cluster) {
    for owner in ["node", "nodes", "user"] {
        let room = RoomName::internal(owner, "contract");
        cluster.subscribe_all(&room).await;
        cluster.nodes[0].publish(&room, "event", "internal").await;
        for node in &mut cluster.nodes {
            node.expect(&room, "internal").await;
        }
    }
    cluster.close();
}

/// The futures are awaited in the reverse order of their calls.
async fn callers_order(mut cluster: Cluster) {
    let room = room("contract-callers-order");
    cluster.subscribe_all(&room).await;
    let callers = (0..PUBLISHERS).map(|caller| {
        let (node, room) = (cluster.nodes[caller % cluster.nodes.len()].handle(), room.clone());
        tokio::spawn(async move {
            let publish = |number| node.start_publish(&room, "numbered", format!("{caller} {number}"));
            let mut accepted: Vec<_> = (0..EVENTS).map(publish).collect();
            while let Some(accepted) = accepted.pop() {
                node.within("the outcome of a publish", accepted).await.expect("the broker takes a few events");
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for node in &mut cluster.nodes {
        let mut next = [0; PUBLISHERS];
        for event in node.take(PUBLISHERS * EVENTS).await {
            let event = text(&event);
            let (caller, number) = event.split_once(' ').expect("a caller and a number");
            let expected = &mut next[caller.parse::<usize>().expect("a caller")];
            assert_eq!(number, expected.to_string(), "{}: caller {caller}'s events are out of order", node.handle.step);
            *expected += 1;
        }
    }
    for done in join_all(callers).await {
        done.expect("a caller does not panic");
    }
    cluster.close();
}

/// An event is published as soon as the subscription is confirmed: in rooms that are new to the
/// node, and in a room that it has just left.
async fn effective(mut cluster: Cluster) {
    for number in 0..50 {
        let room = room(&format!("contract-effective-{number}"));
        cluster.nodes[0].subscribe(&room).await;
        cluster.nodes[1].publish(&room, "event", "first").await;
        cluster.nodes[0].expect(&room, "first").await;
    }
    let again = room("contract-effective-again");
    for number in 0..50 {
        cluster.nodes[0].subscribe(&again).await;
        cluster.nodes[1].publish(&again, "event", number.to_string()).await;
        cluster.nodes[0].expect(&again, &number.to_string()).await;
        cluster.nodes[0].broker.unsubscribe(&again);
    }
    cluster.close();
}

async fn own_node(mut cluster: Cluster) {
    let room = room("contract-own-node");
    cluster.subscribe_all(&room).await;
    for number in 0..10 {
        cluster.nodes[0].publish(&room, "event", number.to_string()).await;
        cluster.nodes[0].expect(&room, &number.to_string()).await;
    }
    cluster.close();
}

/// An event that is published while the node is not subscribed must not arrive. The next event of
/// the room shows that it is missing. Because an event that is already under way may still arrive,
/// this is repeated until one is missing, each time with more events in between.
async fn unsubscribed(mut cluster: Cluster) {
    let (left, other) = (room("contract-unsubscribed"), room("contract-unsubscribed-other"));
    cluster.nodes[0].subscribe(&left).await;
    cluster.nodes[0].subscribe(&other).await;
    let started = Instant::now();
    for round in 1.. {
        let [node, publisher] = &mut cluster.nodes[..] else { unreachable!("a cluster of two") };
        assert!(started.elapsed() < DEADLINE, "{}: they kept coming over {round} rounds", node.handle.step);
        node.broker.unsubscribe(&left);
        for echo in 0..round {
            publisher.publish(&other, "echo", format!("{round} {echo}")).await;
            node.expect(&other, &format!("{round} {echo}")).await;
        }
        publisher.publish(&left, "event", format!("unwanted {round}")).await;
        node.subscribe(&left).await;
        publisher.publish(&left, "event", format!("wanted {round}")).await;
        let first = node.next().await;
        if text(&first) == format!("wanted {round}") {
            break;
        }
        assert_eq!(text(&first), format!("unwanted {round}"), "{}: only that was under way", node.handle.step);
        node.expect(&left, &format!("wanted {round}")).await;
    }
    cluster.close();
}

/// Rooms are different even if their names have a common prefix, or would match as patterns.
async fn independent(mut cluster: Cluster) {
    let names = ["contract-room", "contract-room*", "contract-roo?", "contract-room-2", "Contract-room", "{contract}"];
    let rooms = names.map(room);
    // Node 0 subscribes to the even rooms, and node 1 to the odd ones. Node 2 publishes.
    for (index, room) in rooms.iter().enumerate() {
        cluster.nodes[index % 2].subscribe(room).await;
    }
    for event in ["one", "two", "three"] {
        for room in &rooms {
            cluster.nodes[2].publish(room, event, room.to_string()).await;
        }
    }
    for (index, node) in cluster.nodes[..2].iter_mut().enumerate() {
        let events = node.take(rooms.len() / 2 * 3).await;
        for (number, room) in rooms.iter().enumerate() {
            let of_room: Vec<&str> = events.iter().filter(|event| event.room == *room).map(|e| &*e.event).collect();
            let expected: &[&str] = if number % 2 == index { &["one", "two", "three"] } else { &[] };
            assert_eq!(of_room, expected, "{}: what node {index} got of room {room}", node.handle.step);
        }
        assert!(
            events.iter().all(|event| text(event) == *event.room),
            "{}: an event came under another room's name",
            node.handle.step
        );
    }
    // Leaving a room does not affect others.
    cluster.nodes[0].broker.unsubscribe(&rooms[2]);
    cluster.nodes[2].publish(&rooms[0], "four", "still").await;
    cluster.nodes[0].expect(&rooms[0], "still").await;
    cluster.close();
}

/// While events are published, the node leaves the room and subscribes again. It may miss some
/// events, but receives none twice.
async fn at_most_once(mut cluster: Cluster) {
    let room = room("contract-at-most-once");
    cluster.nodes[0].subscribe(&room).await;
    let publisher = {
        let (node, room) = (cluster.nodes[1].handle(), room.clone());
        tokio::spawn(async move {
            for number in 0..EVENTS {
                node.publish(&room, "numbered", number.to_string()).await;
                tokio::task::yield_now().await;
            }
        })
    };
    while !publisher.is_finished() {
        cluster.nodes[0].broker.unsubscribe(&room);
        cluster.nodes[0].subscribe(&room).await;
        tokio::task::yield_now().await;
    }
    publisher.await.expect("the publisher does not panic");
    for number in EVENTS..EVENTS + 3 {
        cluster.nodes[1].publish(&room, "numbered", number.to_string()).await;
    }
    let mut last = None;
    while last != Some(EVENTS + 2) {
        let number = text(&cluster.nodes[0].next().await).parse().ok();
        assert!(number > last, "{}: event {number:?} came after event {last:?}", cluster.step);
        last = number;
    }
    cluster.close();
}

async fn payloads(mut cluster: Cluster) {
    let room = room("contract-payloads");
    cluster.subscribe_all(&room).await;
    let mebibyte: Bytes = (0..1024 * 1024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let payloads = [Bytes::new(), (0..=u8::MAX).collect(), Bytes::from_static(b"\r\n\0"), mebibyte, Bytes::new()];
    for payload in &payloads {
        cluster.nodes[0].publish(&room, "payload", payload.clone()).await;
    }
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        for payload in &payloads {
            let event = node.next().await;
            // This is not `assert_eq!`, because a megabyte in the message helps nobody.
            assert!(
                event.payload == payload,
                "{}: node {index} got {} bytes in place of {}, or other ones",
                node.handle.step,
                event.payload.len(),
                payload.len()
            );
        }
    }
    cluster.close();
}

async fn names(mut cluster: Cluster) {
    let longest = "é".repeat(MAX_ROOM_NAME_LEN / 2);
    let names = ["e", "ünï", "日本語", "🦀:{tag}*?[a]\\\"'", "a:b", &longest];
    for (index, name) in names.into_iter().enumerate() {
        let room = room(name);
        cluster.subscribe_all(&room).await;
        let publish = cluster.nodes[0].event(&room, names[names.len() - 1 - index], Bytes::new());
        let sent = publish.clone();
        let accepted = cluster.nodes[0].broker.publish(publish);
        cluster.nodes[0].handle.within("the outcome of a publish", accepted).await.expect("the broker takes one event");
        for (index, node) in cluster.nodes.iter_mut().enumerate() {
            let got = node.next().await;
            let step = node.handle.step;
            assert_eq!((&got.room, &*got.event), (&sent.room, &*sent.event), "{step}: at node {index}");
            assert_eq!(got.origin, sent.origin, "{step}: the origin at node {index}");
        }
    }
    cluster.close();
}

/// Waits are dropped at various moments: before an event, after an event woke the waiter, and
/// between many events.
async fn cancel_safe(cluster: Cluster) {
    let room = room("contract-cancel-safe");
    cluster.nodes[0].subscribe(&room).await;
    let publisher = cluster.nodes[1].handle();
    let mut events = Vec::new();
    {
        let node = &cluster.nodes[0];
        let mut half_way = pin!(node.broker.next_publications(&mut events));
        assert!(half_way.as_mut().now_or_never().is_none(), "{}: nothing was published yet", cluster.step);
        publisher.publish(&room, "numbered", "0").await;
    }
    let publishing = tokio::spawn({
        let room = room.clone();
        async move {
            for number in 1..EVENTS {
                publisher.publish(&room, "numbered", number.to_string()).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let handle = cluster.nodes[0].handle();
    let all_came = async {
        while events.len() < EVENTS {
            tokio::select! {
                biased;
                open = handle.broker.next_publications(&mut events) => assert!(open, "{}: nobody closed", handle.step),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    handle.within("all events, though waits for them were dropped", all_came).await;
    let numbers = events.iter().map(|event| text(event).parse::<usize>().expect("a number"));
    assert!(numbers.eq(0..EVENTS), "{}: events came out of order or twice", cluster.step);
    publishing.await.expect("the publisher does not panic");
    cluster.close();
}

async fn closed_after_the_accepted(mut cluster: Cluster) {
    let room = room("contract-close");
    cluster.subscribe_all(&room).await;
    cluster.nodes[0].publish(&room, "event", "own").await;
    cluster.nodes[1].publish(&room, "event", "other's").await;
    cluster.nodes[0].broker.close();
    cluster.nodes[1].publish(&room, "event", "later").await;
    cluster.nodes[0].expect(&room, "own").await;
    cluster.nodes[0].expect(&room, "other's").await;
    // Events that are accepted while the broker closes may still arrive.
    cluster.nodes[0].expect_end_after(&["later"]).await;
    cluster.nodes[0].expect_end_after(&[]).await;
    // The other nodes continue.
    for payload in ["own", "other's", "later"] {
        cluster.nodes[1].expect(&room, payload).await;
    }
    cluster.close();
}

async fn closed_while_waiting(mut cluster: Cluster) {
    let closer = cluster.nodes[0].handle();
    let mut events = Vec::new();
    let waiting = closer.broker.next_publications(&mut events);
    let closing = async { closer.broker.close() };
    let open = closer.within("the end of a wait", async { tokio::join!(biased; waiting, closing).0 }).await;
    assert!(!open && events.is_empty(), "{}: the wait ended with {open} and {events:?}", cluster.step);
    cluster.nodes[0].expect_end_after(&[]).await;
}

async fn closed_to_publishers(mut cluster: Cluster) {
    let room = room("contract-closed");
    cluster.nodes[1].subscribe(&room).await;
    cluster.nodes[0].broker.close();
    let refused = cluster.nodes[0].handle.start_publish(&room, "event", "refused");
    let refused = cluster.nodes[0].handle.within("the outcome of a publish", refused).await;
    assert_eq!(refused, Err(BrokerError::Closed), "{}", cluster.step);
    cluster.nodes[1].publish(&room, "event", "taken").await;
    cluster.nodes[1].expect(&room, "taken").await;
    cluster.close();
}

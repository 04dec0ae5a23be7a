//! Checks that a broker numbers the events of a room.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::future::join_all;
use roomcast_core::Position;

use super::cluster::{Cluster, EVENTS, room, text};

/// All nodes see an event at the same position, and a room's offsets increase by one.
pub(super) async fn numbered(mut cluster: Cluster) {
    let room = room("contract-numbered");
    cluster.subscribe_all(&room).await;
    for number in 0..EVENTS {
        cluster.nodes[number % 2].publish(&room, "numbered", number.to_string()).await;
    }
    let mut positions = Vec::new();
    for node in &mut cluster.nodes {
        positions.push(node.take(EVENTS).await.into_iter().map(|event| event.position).collect::<Vec<_>>());
    }
    let step = cluster.step;
    for (number, (one, other)) in positions[0].iter().zip(&positions[1]).enumerate() {
        assert_eq!(one, other, "{step}: event {number} has another position on node 1 than on node 0");
    }
    for (number, pair) in positions[0].windows(2).enumerate() {
        let next = Position { offset: pair[0].offset.wrapping_add(1), ..pair[0] };
        assert_eq!(pair[1], next, "{step}: offsets grow by one, but not from event {number} to the next");
    }
    cluster.close();
}

/// Nodes publish to two rooms at the same time, without waiting, so that the broker may carry several
/// events together.
pub(super) async fn returned(mut cluster: Cluster) {
    let rooms = [room("contract-returned-a"), room("contract-returned-b")];
    for room in &rooms {
        cluster.subscribe_all(room).await;
    }
    let publishes = cluster.nodes.iter().enumerate().map(|(publisher, node)| {
        let publish = |number: usize| {
            let (room, payload) = (&rooms[number % 3 / 2], format!("{publisher} {number}"));
            let accepted = node.start_publish(room, "numbered", payload.clone());
            async { (payload, accepted.await) }
        };
        node.within("the outcomes of publishes", join_all((0..EVENTS).map(publish)))
    });
    let mut returned = HashMap::new();
    for (payload, position) in join_all(publishes).await.into_iter().flatten() {
        let step = cluster.step;
        returned.insert(payload, position.unwrap_or_else(|error| panic!("{step}: publishing failed: {error}")));
    }
    let (step, total) = (cluster.step, returned.len());
    for node in &mut cluster.nodes {
        for event in node.take(total).await {
            let event_text = text(&event);
            let position = returned.get(&event_text);
            assert_eq!(
                position,
                Some(&event.position),
                "{step}: event {event_text:?} was published there and arrived here"
            );
        }
    }
    cluster.close();
}

/// A room is published to before any node subscribes.
pub(super) async fn returned_unread(mut cluster: Cluster) {
    let room = room("contract-returned-unread");
    let (step, node) = (cluster.step, &mut cluster.nodes[0]);
    let unread = node.publish(&room, "numbered", Bytes::new()).await;
    node.subscribe(&room).await;
    let read = node.publish(&room, "numbered", Bytes::new()).await;
    let next = Position { offset: unread.offset.wrapping_add(1), ..unread };
    assert!(unread == Position::NONE || read == next, "{step}: {unread:?}, although the next event has {read:?}");
    cluster.close();
}

/// The last subscriber leaves, and the same node or another one subscribes again. Either the room's
/// epoch and offsets continue, or a larger epoch begins.
pub(super) async fn numbered_again(mut cluster: Cluster) {
    let room = room("contract-numbered-again");
    let mut last: Option<Position> = None;
    for subscriber in [0, 0, 1, 1] {
        let node = &mut cluster.nodes[subscriber];
        node.subscribe(&room).await;
        for _ in 0..3 {
            node.publish(&room, "numbered", Bytes::new()).await;
            let position = node.next().await.position;
            let order = |at: Position| (at.epoch, at.offset);
            let step = node.handle.step;
            assert!(last.map(order) < Some(order(position)), "{step}: {position:?} came after {last:?}");
            last = Some(position);
        }
        node.broker.unsubscribe(&room);
    }
    cluster.close();
}

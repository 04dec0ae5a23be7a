//! Rooms under load: order, completeness, slow consumers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{serve, within_deadline};
use roomcast::{Node, Options, Router};
use roomcast_testkit::{Client, ClientError};

const MEMBERS: usize = 20;
const PUBLISHERS: usize = 4;
const EVENTS: usize = 500;

async fn room_server(options: Options) -> (String, Node) {
    let node = Node::embedded(options);
    let router = Router::new(node.clone()).open_rooms();
    (serve(router).await, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_get_every_event_once_in_one_order() {
    let (url, _cluster) = room_server(Options::default()).await;
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let mut client = Client::connect(&url).await.unwrap();
        client.call("rooms/join/hall", "").await.unwrap();
        members.push(client);
    }
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let url = url.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(&url).await.unwrap();
                for event in 0..EVENTS {
                    client.notify("rooms/publish/hall/said", format!("{publisher} {event}")).await.unwrap();
                }
                client.close().await.unwrap();
            })
        })
        .collect();
    let mut first_order = None;
    for member in &mut members {
        let mut order = Vec::new();
        for _ in 0..PUBLISHERS * EVENTS {
            let event = member.event().await.unwrap();
            assert_eq!(event.name, "said");
            order.push(event.payload);
        }
        for publisher in 0..PUBLISHERS {
            let prefix = format!("{publisher} ");
            let of_one: Vec<_> = order.iter().filter(|said| said.starts_with(prefix.as_bytes())).collect();
            let expected: Vec<_> = (0..EVENTS).map(|event| Bytes::from(format!("{publisher} {event}"))).collect();
            assert_eq!(of_one, expected.iter().collect::<Vec<_>>());
        }
        assert_eq!(*first_order.get_or_insert_with(|| order.clone()), order);
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_closed_alone() {
    const CHUNK: usize = 256 * 1024;
    const CHUNKS: usize = 64;
    let options = Options::default().with(|options| options.max_outbound = 1024 * 1024);
    let (url, node) = room_server(options).await;
    let mut slow = Client::connect(&url).await.unwrap();
    slow.call("rooms/join/hall", "").await.unwrap();
    let mut member = Client::connect(&url).await.unwrap();
    member.call("rooms/join/hall", "").await.unwrap();
    for number in 0..CHUNKS {
        let chunk = vec![number as u8; CHUNK];
        node.room("hall").publish("chunk", chunk.clone()).await.unwrap();
        assert_eq!(member.event().await.unwrap().payload, chunk);
    }
    let started = Instant::now();
    while node.room("hall").members().await.unwrap().count != 1 {
        within_deadline(started, "the slow one is out");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Once it reads again, it gets a part without a gap, and then learns why it was closed.
    for number in 0..CHUNKS {
        match slow.event().await {
            Ok(event) => assert_eq!(event.payload, vec![number as u8; CHUNK]),
            Err(ClientError::Closed(Some((code, reason)))) => {
                assert_eq!(code, 4408, "{reason}");
                return;
            }
            Err(error) => panic!("neither an event nor a Close: {error}"),
        }
    }
    panic!("the slow consumer got everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_arrives_after_a_leave_is_answered() {
    let (url, node) = room_server(Options::default()).await;
    let publisher = tokio::spawn({
        let node = node.clone();
        async move {
            loop {
                node.room("hall").publish("tick", "").await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..50 {
        client.call("rooms/join/hall", "").await.unwrap();
        client.event().await.unwrap();
        client.call("rooms/leave/hall", "").await.unwrap();
        while client.take_event().is_some() {}
        // Whatever the server still sent would be read before this answer.
        client.call("rooms/members/hall", "").await.unwrap();
        assert_eq!(client.take_event(), None);
    }
    publisher.abort();
}

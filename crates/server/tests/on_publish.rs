//! The handler that decides on the events that clients publish.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use roomcast::testing;
use roomcast::{CallError, Code, Name, Node, Options, RoomName, Router, Text, UserId};

fn router(node: Node) -> Router {
    Router::new(node).open_rooms().on_publish(
        "chat:*".parse().unwrap(),
        async |room: RoomName, event: Name, user: Option<UserId>, Text(text): Text| {
            if let Some(pause) = text.strip_prefix("after ") {
                tokio::time::sleep(Duration::from_millis(pause.parse().unwrap())).await;
            }
            match &*text {
                "darn" => Err(CallError::new(Code::InvalidArgument, "mind your language")),
                _ => Ok(format!("{room} {event} {user:?} {text}")),
            }
        },
    )
}

#[tokio::test(start_paused = true)]
async fn the_handler_changes_and_refuses_the_events_of_its_rooms() {
    let node = Node::embedded(Options::default());
    let router = router(node.clone());
    let mut member = testing::connect(&router).await.unwrap().0;
    let mut client = testing::connect(&router).await.unwrap().0;
    for room in ["chat:1", "news"] {
        member.call(&format!("rooms/join/{room}"), ()).await.unwrap();
    }
    client.call("rooms/publish/chat:1/said", "hi").await.unwrap();
    assert_eq!(member.event().await.payload, "chat:1 said None hi");

    let error = client.call("rooms/publish/chat:1/said", "darn").await.unwrap_err();
    assert_eq!(error, CallError::new(Code::InvalidArgument, "mind your language"));
    client.call("rooms/publish/news/said", "darn").await.unwrap();
    assert_eq!(member.event().await.payload, "darn", "it is not one of the handler's rooms");

    node.room("chat:1").publish("said", "darn").await.unwrap();
    assert_eq!(member.event().await.payload, "darn", "it is not from a client");
}

#[tokio::test(start_paused = true)]
async fn notifications_stay_in_order_however_long_the_handler_takes() {
    let router = router(Node::embedded(Options::default()));
    let mut client = testing::connect(&router).await.unwrap().0;
    client.call("rooms/join/chat:1", ()).await.unwrap();
    for pause in ["after 500", "after 1", "darn", "after 100"] {
        client.notify("rooms/publish/chat:1/said", pause).await;
    }
    for pause in [500, 1, 100] {
        assert_eq!(client.event().await.payload, format!("chat:1 said None after {pause}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_removed_while_the_handler_decides_publishes_nothing() {
    let node = Node::embedded(Options::default());
    let router = router(node.clone()).members_only("chat:*".parse().unwrap());
    let mut member = testing::connect(&router).await.unwrap().0;
    let (mut client, socket) = testing::connect(&router).await.unwrap();
    for client in [&mut member, &mut client] {
        client.call("rooms/join/chat:1", ()).await.unwrap();
    }
    let publish = tokio::spawn(async move { client.call("rooms/publish/chat:1/said", "after 500").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    socket.leave("chat:1").unwrap();
    assert_eq!(publish.await.unwrap().unwrap_err().code, Code::PermissionDenied);
    node.room("chat:1").publish("said", "last").await.unwrap();
    assert_eq!(member.event().await.payload, "last");
}

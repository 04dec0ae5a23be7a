//! The handler that decides on the joins of clients.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use roomcast::testing;
use roomcast::{CallError, Code, Node, Options, RoomName, Router, Socket};

async fn members(node: &Node, room: &str) -> usize {
    node.room(room).members().await.unwrap().count
}

#[tokio::test(start_paused = true)]
async fn the_handler_refuses_joins_of_its_rooms_until_it_permits_them() {
    let node = Node::embedded(Options::default());
    let router = Router::new(node.clone())
        .open_rooms()
        .on_join("private:**".parse().unwrap(), async |room: RoomName| match room.ends_with(":open") {
            true => Ok(()),
            false => Err(CallError::new(Code::PermissionDenied, format!("{room} is locked"))),
        })
        .call("enter", async |socket: Socket| socket.join("private:entered").await);
    let mut client = testing::connect(&router).await.unwrap().0;

    let error = client.call("rooms/join/private:a:b", ()).await.unwrap_err();
    assert_eq!(error, CallError::new(Code::PermissionDenied, "private:a:b is locked"));
    assert_eq!(members(&node, "private:a:b").await, 0);
    for room in ["private:a:open", "public"] {
        client.call(&format!("rooms/join/{room}"), ()).await.unwrap();
        assert_eq!(members(&node, room).await, 1, "{room}");
    }
    client.call("enter", ()).await.unwrap();
    assert_eq!(members(&node, "private:entered").await, 1, "a handler may join every room");
}

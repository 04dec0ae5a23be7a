//! The memory that all connections hold together: what is counted, and who gives way.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Client, event, publish, room, start_hub, within};
use roomcast_core::{Command, Hub, HubOptions, MemoryBroker};
use roomcast_protocol::CloseCode;

const KIB: usize = 1024;

fn hub(options: HubOptions) -> Arc<Hub> {
    start_hub(Arc::new(MemoryBroker::single()), options)
}

fn close_code(client: &Client) -> Option<CloseCode> {
    match client.connection.outbox.take_command() {
        Some(Command::Close(close)) => Some(close.code),
        _ => None,
    }
}

async fn until_memory_fits(hub: &Hub) {
    let fits = async {
        while hub.is_short_of_memory() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the memory to fit", fits).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_for_many_members_is_held_once() {
    const MEMBERS: usize = 100;
    let hub = hub(HubOptions::default());
    let lobby = room("lobby");
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        members.push(Client::member(&hub, &lobby).await);
    }
    publish(&hub, &lobby, vec![b'x'; 64 * KIB]).await;
    for member in &mut members[1..] {
        member.payload().await;
    }
    let held = hub.metrics().outbound_memory.get() as usize;
    assert!((64 * KIB..66 * KIB).contains(&held), "{held} bytes are held for the last member");
    members[0].payload().await;
    assert_eq!(hub.metrics().outbound_memory.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn over_the_outbound_budget_the_connections_that_hold_most_are_closed_first() {
    let hub = hub(HubOptions { outbound_memory: 100 * KIB, ..HubOptions::default() });
    let rooms = ["small", "large", "larger"].map(room);
    let mut clients = Vec::new();
    for room in &rooms {
        clients.push(Client::member(&hub, room).await);
    }
    for (room, kib) in rooms.iter().zip([20, 40, 60]) {
        let published = hub.publish(room.clone(), event("event"), vec![b'x'; kib * KIB].into());
        within("an answer", published).await.expect("the broker takes it");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(clients.iter().map(close_code).collect::<Vec<_>>(), [None, None, Some(CloseCode::SLOW_CONSUMER)]);
    assert!(hub.is_short_of_memory(), "the driver of the closed one has not run");
    clients[2].queued();
    until_memory_fits(&hub).await;
    assert_eq!(clients.iter().map(close_code).collect::<Vec<_>>(), [None, None, None]);
    assert_eq!(clients[0].queued().len() + clients[1].queued().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn over_the_inbound_budget_the_connections_that_hold_most_are_closed_first() {
    let hub = hub(HubOptions { inbound_memory: 100 * KIB, ..HubOptions::default() });
    let clients =
        [Client::connect(&hub, None).await, Client::connect(&hub, None).await, Client::connect(&hub, None).await];
    for (client, kib) in clients.iter().zip([30, 50, 40]) {
        client.peer().charge_inbound(kib * KIB);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(clients.each_ref().map(close_code), [None, Some(CloseCode::TRY_AGAIN_LATER), None]);
    clients[1].peer().release_inbound(50 * KIB);
    until_memory_fits(&hub).await;
    drop(clients);
    assert_eq!(hub.metrics().inbound_memory.get(), 0, "what connections held is given back with them");
}

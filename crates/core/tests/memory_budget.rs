//! The memory that all connections hold together: what is counted, and who gives way.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Client, event, options, publish, room, start_hub, within};
use roomcast_core::{Command, Hub, HubOptions, MemoryBroker, Outgoing};
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
        while hub.local().is_short_of_memory() {
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
    let hub = hub(options(|options| options.outbound_memory = 100 * KIB));
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
    assert!(hub.local().is_short_of_memory(), "the driver of the closed one has not run");
    clients[2].queued();
    until_memory_fits(&hub).await;
    assert_eq!(clients.iter().map(close_code).collect::<Vec<_>>(), [None, None, None]);
    assert_eq!(clients[0].queued().len() + clients[1].queued().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn members_that_hold_the_same_events_are_not_closed_for_one_that_holds_output_of_its_own() {
    let hub = hub(options(|options| options.outbound_memory = 160 * KIB));
    let lobby = room("lobby");
    let mut members = Vec::new();
    for _ in 0..20 {
        members.push(Client::member(&hub, &lobby).await);
    }
    let alone = Client::connect(&hub, None).await;
    publish(&hub, &lobby, vec![b'x'; 100 * KIB]).await;
    for _ in 0..8 {
        let frame = Outgoing::own(vec![b'x'; 10 * KIB].into());
        assert_eq!(alone.connection.outbox.push(frame), Ok(()));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(close_code(&alone), Some(CloseCode::SLOW_CONSUMER));
    assert!(members.iter().all(|member| !member.connection.outbox.is_closed()), "a member was closed");
}

#[tokio::test(start_paused = true)]
async fn events_that_many_share_are_given_back_though_no_single_member_frees_them() {
    let hub = hub(options(|options| options.outbound_memory = 300 * KIB));
    let rooms = ["one", "two", "three", "four"].map(room);
    let mut members = Vec::new();
    for room in &rooms {
        for _ in 0..10 {
            members.push(Client::member(&hub, room).await);
        }
        publish(&hub, room, vec![b'x'; 100 * KIB]).await;
    }
    // The driver of a connection that closes discards its output.
    let drivers = async {
        while hub.local().is_short_of_memory() || hub.metrics().outbound_memory.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            for member in members.iter_mut().filter(|member| member.connection.outbox.is_closed()) {
                member.queued();
            }
        }
    };
    within("the memory to fit", drivers).await;
}

#[tokio::test(start_paused = true)]
async fn over_the_inbound_budget_the_connections_that_hold_most_are_closed_first() {
    let hub = hub(options(|options| options.inbound_memory = 100 * KIB));
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

//! A node that was stopped has many events for one room at once.

use std::time::Duration;

use roomcast_testkit::{Client, RedisOptions, RedisServer};

use crate::support::{self, Bare, CLOSE, in_time, message, request, wait_for_values};
use crate::{start_node, turn};

/// Ten times what a member may have queued, and fewer events than Redis keeps for a node that missed them.
const EVENTS: usize = 80;
const EVENT_SIZE: usize = 128 * 1024;
const MAX_OUTBOUND: &str = "1MiB";

/// For how long the node is stopped behind the last event: longer than an event takes that is on time.
const STOPPED: Duration = Duration::from_millis(500);

fn payload(number: usize) -> String {
    number.to_string() + &"-".repeat(EVENT_SIZE)
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_read_get_all_that_their_node_missed_while_it_was_stopped() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let publishing = start_node(&redis.url()).await;
    let stopped = support::start_node(&["--demo", "--redis", &redis.url(), "--max-outbound", MAX_OUTBOUND]).await;
    let mut publisher = Client::connect(&publishing.url()).await.expect("the node serves");
    let mut reads = Client::connect(&stopped.url()).await.expect("the node serves");
    assert_eq!(reads.call_text("rooms/join/news", "").await.expect("an answer"), "");
    let mut sleeps = Bare::connect(&stopped.address).await;
    sleeps.write(&message(&request(1, "rooms/join/news", b""))).await.expect("the node reads");
    wait_for_values(&stopped, &[("roomcast_memberships", 4.0)]).await; // two each, with the demo's room

    stopped.signal("STOP");
    for number in 0..EVENTS {
        assert_eq!(publisher.call_text("rooms/publish/news/item", payload(number)).await.expect("an answer"), "");
    }
    tokio::time::sleep(STOPPED).await;
    stopped.signal("CONT");

    for number in 0..EVENTS {
        let event = reads.event().await.expect("it is not closed");
        assert!(event.payload == payload(number), "event {number} is another");
    }
    assert_eq!(reads.call_text("echo", "still here").await.expect("it is not closed"), "still here");
    let close = in_time("the member that does not read is closed", async {
        wait_for_values(&stopped, &[("roomcast_slow_consumers_total", 1.0)]).await;
        while let Some((opcode, payload)) = sleeps.frame().await {
            if opcode == CLOSE {
                return payload[..2].to_vec();
            }
        }
        Vec::new()
    });
    assert_eq!(close.await, 4408_u16.to_be_bytes());
}

//! Connections that come and go leave nothing behind, and connections that do nothing cost no time.
//!
//! `ROOMCAST_CHURN_CONNECTIONS` says how many there are at once; 1,000 by default.

mod support;

use roomcast_testkit::Node;
use support::{
    Bare, CONNECTIONS, GAUGES_AT_REST, Scrape, cpu_ticks_in_a_second, files_at_rest, message, open_files, request,
    start_node, wait_for_values, wait_until,
};
use tokio::task::JoinSet;

const ROUNDS: usize = 3;

/// Connections are opened and closed by so many tasks at once.
const TASKS: usize = 8;

/// Rooms that the connections are in, beside the one that all are in.
const ROOMS: usize = 100;

/// Memory may be above that after the first round by 10 % and 2 MiB: the allocator keeps pages that are
/// partly used, and which ones is chance. A leak of 2 KiB for each connection is beyond that with the
/// default number of connections, one of half a KiB with 9,000.
fn allowed_memory(after_first_round: f64) -> f64 {
    after_first_round * 1.1 + 2.0 * 1024.0 * 1024.0
}

/// An idle process may be billed for a tick that it was merely present at.
const IDLE_TICKS: u64 = 2;

fn connections() -> usize {
    let number = std::env::var("ROOMCAST_CHURN_CONNECTIONS").unwrap_or_else(|_| "1000".to_owned());
    number.parse().expect("ROOMCAST_CHURN_CONNECTIONS is a number")
}

/// Opens connections, each in a room besides the common one.
async fn open(address: String, numbers: Vec<usize>) -> Vec<(usize, Bare)> {
    let mut opened = Vec::new();
    for number in numbers {
        let mut bare = Bare::connect(&address).await;
        let join = message(&request(1, &format!("rooms/join/churn-{}", number % ROOMS), b""));
        bare.write(&join).await.expect("the call is written");
        assert_eq!(bare.frame().await.expect("an answer").1, [4, 0, 0, 0, 1]);
        opened.push((number, bare));
    }
    opened
}

/// Closes half of them in an orderly way; of the others, half end the stream and half reset it.
async fn close(opened: Vec<(usize, Bare)>) {
    for (number, bare) in opened {
        match number / ROOMS % 4 {
            0 | 2 => bare.close(Some(1000)).await,
            1 => drop(bare),
            _ => bare.reset(),
        }
    }
}

async fn open_all(node: &Node, connections: usize) -> Vec<Vec<(usize, Bare)>> {
    let mut opening = JoinSet::new();
    for task in 0..TASKS {
        opening.spawn(open(node.address.clone(), (task..connections).step_by(TASKS).collect()));
    }
    opening.join_all().await
}

/// What a round left behind.
#[derive(Debug)]
struct Figures {
    memory_open: f64,
    memory_closed: f64,
    ticks_open: u64,
    ticks_closed: u64,
}

async fn memory(node: &Node) -> f64 {
    Scrape::of(node).await.value("process_resident_memory_bytes").expect("the metric is there")
}

async fn round(node: &Node, connections: usize, files_at_rest: usize) -> Figures {
    let opened = open_all(node, connections).await;
    let (rooms, memberships) = (1 + ROOMS.min(connections), 2 * connections);
    wait_for_values(
        node,
        &[
            (CONNECTIONS, connections as f64),
            ("roomcast_rooms", rooms as f64),
            ("roomcast_memberships", memberships as f64),
        ],
    )
    .await;
    let memory_open = memory(node).await;
    assert!(open_files(node.pid()) >= files_at_rest + connections);
    let ticks_open = cpu_ticks_in_a_second(node.pid()).await;

    let mut closing = JoinSet::new();
    for opened in opened {
        closing.spawn(close(opened));
    }
    closing.join_all().await;
    wait_for_values(node, &GAUGES_AT_REST).await;
    wait_until("all descriptors are closed", async || open_files(node.pid()) <= files_at_rest).await;
    let ticks_closed = cpu_ticks_in_a_second(node.pid()).await;
    Figures { memory_open, memory_closed: memory(node).await, ticks_open, ticks_closed }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the figures are a result too")]
async fn connections_that_come_and_go_leave_no_gauge_descriptor_memory_or_work_behind() {
    let connections = connections();
    // Pings have their own tests; none falls due here, so that idling is all that is measured.
    let node = start_node(&["--demo", "--ping-interval", "1h"]).await;
    wait_for_values(&node, &GAUGES_AT_REST).await;
    let files_at_rest = files_at_rest(node.pid(), usize::MAX).await;
    let files_scraped = Scrape::of(&node).await.value("process_open_fds");

    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let figures = round(&node, connections, files_at_rest).await;
        eprintln!(
            "{connections} connections, round {number}: {:.1} MiB open, {:.1} MiB closed; in one idle second {} ticks \
             open, {} closed",
            figures.memory_open / 1_048_576.0,
            figures.memory_closed / 1_048_576.0,
            figures.ticks_open,
            figures.ticks_closed,
        );
        rounds.push(figures);
    }
    for figures in &rounds {
        assert!(figures.ticks_open <= IDLE_TICKS && figures.ticks_closed <= IDLE_TICKS, "{rounds:#?}");
    }
    assert!(rounds[ROUNDS - 1].memory_closed <= allowed_memory(rounds[0].memory_closed), "{rounds:#?}");
    wait_until("as many descriptors are open as before", async || {
        Scrape::of(&node).await.value("process_open_fds") <= files_scraped
    })
    .await;
    let opened = Scrape::of(&node).await.value("roomcast_connections_opened_total");
    assert_eq!(opened, Some((ROUNDS * connections) as f64));
}

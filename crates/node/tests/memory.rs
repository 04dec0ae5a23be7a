//! What clients can make a node hold, and what the node does about it.

mod support;

use support::{Bare, Scrape, client_frame, message, request, resident_memory, start_node, wait_for_values};

const PING: u8 = 0x9;
const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn pings_of_a_client_that_never_reads_cost_next_to_no_memory() {
    let node = start_node(&["--demo"]).await;
    let mut client = Bare::connect(&node.address).await;
    client.echo(b"the connection is set up").await;
    let before = resident_memory(node.pid());

    let ping = client_frame(PING, b"");
    let chunk = ping.repeat(64 * 1024);
    for _ in 0..20 * MIB as usize / chunk.len() {
        client.write(&chunk).await.expect("the node reads on");
    }
    // When this is answered, all of them have been, as far as they are.
    client.write(&message(&request(1, "echo", b""))).await.expect("the node reads on");
    wait_for_values(&node, &[("roomcast_calls_total{method=\"echo\",outcome=\"ok\"}", 2.0)]).await;
    let growth = resident_memory(node.pid()).saturating_sub(before);
    assert!(growth < 16 * MIB, "it grew by {growth} bytes");
    assert_eq!(Scrape::of(&node).await.sum("roomcast_connections_closed_total"), 0.0);
}

//! What clients can make a node hold, and what the node does about it.

mod support;

use support::{
    Bare, CLOSE, CONNECTIONS, GAUGES_AT_REST, Scrape, client_frame, in_time, message, request, resident_memory,
    start_node, wait_for_values,
};

const PING: u8 = 0x9;
const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn pings_of_a_client_that_never_reads_cost_next_to_no_memory() {
    let node = start_node(&["--demo", "--rates-control-frames=off"]).await;
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

// === budgets over all clients ===

const INBOUND: &str = "roomcast_inbound_memory_bytes";
const OUTBOUND: &str = "roomcast_outbound_queue_bytes";
const SHED_FOR_INBOUND: &str = "roomcast_connections_shed_total{memory=\"inbound\"}";
const SHED_FOR_OUTBOUND: &str = "roomcast_connections_shed_total{memory=\"outbound\"}";

/// The code of the Close that ends a connection; other frames are read away.
async fn close_code(client: &mut Bare) -> Option<u16> {
    while let Some((opcode, payload)) = client.frame().await {
        if opcode == CLOSE {
            return Some(u16::from_be_bytes([payload[0], payload[1]]));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_over_the_inbound_budget_end_the_largest_first() {
    let node = start_node(&["--demo", "--inbound-memory", "4MiB"]).await;
    let whole = message(&request(1, "echo", &vec![b'x'; 1_000_000]));
    let (mut small, mut large) = (Vec::new(), Bare::connect(&node.address).await);
    for _ in 0..7 {
        let mut client = Bare::connect(&node.address).await;
        client.write(&whole[..400_000]).await.expect("the node reads");
        small.push(client);
    }
    // Buffers double when they grow, so each of these is one of 512 KiB.
    node.wait_until("all is read", async || node.metric(INBOUND).await >= 3.0 * MIB as f64).await;
    assert_eq!(node.metric(SHED_FOR_INBOUND).await, 0.0);

    large.write(&whole[..900_000]).await.expect("the node reads");
    assert_eq!(in_time("the largest is closed", close_code(&mut large)).await, Some(1013));
    wait_for_values(&node, &[(SHED_FOR_INBOUND, 1.0), (CONNECTIONS, small.len() as f64)]).await;
    assert!(node.metric(INBOUND).await <= 4.0 * MIB as f64);
    for mut client in small {
        client.write(&whole[400_000..]).await.expect("the node reads on");
        let (_, answer) = client.frame().await.expect("an answer");
        assert_eq!(answer.len(), 5 + 1_000_000);
    }
    wait_for_values(&node, &GAUGES_AT_REST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_output_over_the_outbound_budget_ends_the_largest_first() {
    const LIMIT: u64 = 48 * MIB;
    const ANSWER: usize = 256 * 1024;
    let node = start_node(&["--demo", "--outbound-memory", "48MiB", "--max-outbound", "1GiB"]).await;
    let call = |id| message(&request(id, "echo", &vec![b'x'; ANSWER]));
    let (mut small, mut large) = (Vec::new(), Bare::connect(&node.address).await);
    for _ in 0..2 {
        let mut client = Bare::connect(&node.address).await;
        for id in 0..48 {
            client.write(&call(id)).await.expect("the node reads");
        }
        small.push(client);
    }
    let before = resident_memory(node.pid());
    let mut most = 0;
    let mut id = 0;
    in_time("the largest is closed", async {
        while node.metric(SHED_FOR_OUTBOUND).await == 0.0 {
            // Its end may come in the middle of this.
            let _ = large.write(&call(id)).await;
            id += 1;
            most = most.max(resident_memory(node.pid()).saturating_sub(before));
        }
    })
    .await;
    assert_eq!(in_time("it gets a Close", close_code(&mut large)).await, Some(4408));
    wait_for_values(&node, &[(SHED_FOR_OUTBOUND, 1.0), (CONNECTIONS, 2.0)]).await;
    assert!(most < LIMIT + 16 * MIB, "it grew by {most} bytes");
    assert!(node.metric(OUTBOUND).await <= LIMIT as f64);
    for client in &mut small {
        for _ in 0..48 {
            assert_eq!(client.frame().await.expect("an answer").1.len(), 5 + ANSWER);
        }
    }
    wait_for_values(&node, &[(OUTBOUND, 0.0)]).await;
}

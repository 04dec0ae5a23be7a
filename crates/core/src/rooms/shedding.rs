//! Closes the connections that hold the most memory when all connections together exceed a budget.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use roomcast_protocol::{CloseCode, CloseFrame};

use crate::rooms::budget::Budget;
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;
use crate::rooms::outbox::HeldBytes;

/// The minimum time between two examinations of all connections. With 100,000 connections, one
/// examination takes milliseconds, and closed connections need time to release their memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Closes connections whenever they exceed a memory budget.
pub(crate) async fn watch_memory(node: &LocalNode) {
    let (load, metrics) = (&node.load, node.metrics());
    let too_much_input = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the node is short of memory for input");
    let too_much_output =
        CloseFrame::new(CloseCode::SLOW_CONSUMER, "slow consumer: the node is short of memory for unread output");
    let inbound = |connection: &LocalConnection| HeldBytes { own: connection.inbound(), shared: 0 };
    let outbound = |connection: &LocalConnection| connection.outbox.held();
    tokio::join!(
        keep(node, &load.inbound, inbound, &too_much_input, &metrics.shed_for_inbound),
        keep(node, &load.outbound, outbound, &too_much_output, &metrics.shed_for_outbound),
    );
}

/// Keeps what connections hold within a budget.
async fn keep(
    node: &LocalNode,
    budget: &Budget,
    held: impl Fn(&LocalConnection) -> HeldBytes,
    close: &CloseFrame,
    count: &IntCounter,
) {
    loop {
        budget.exceeded().await;
        close_largest(node, budget, &held, close, count);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Closes the connections that hold the most, until the rest fits.
///
/// Memory that connections share is attributed to each of them in proportion to how much of it the
/// connection holds. A connection that shares memory with few others then counts for less than its
/// end releases, and one that shares memory with many others counts for more. The next examination
/// corrects this.
///
/// If shared memory were attributed in full, a thousand members of a room would be closed because
/// of one copy of their events. If it were not attributed at all, the connections that hold it
/// would stay open.
fn close_largest(
    node: &LocalNode,
    budget: &Budget,
    held: impl Fn(&LocalConnection) -> HeldBytes,
    close: &CloseFrame,
    count: &IntCounter,
) {
    let mut all: Vec<(HeldBytes, Arc<LocalConnection>)> = Vec::new();
    for connection in node.connections() {
        let held = held(&connection);
        if !held.is_nothing() {
            all.push((held, connection));
        }
    }
    let own: usize = all.iter().map(|(held, _)| held.own).sum();
    let counted: usize = all.iter().map(|(held, _)| held.shared).sum();
    // Each shared copy counts once.
    let shared = budget.held().saturating_sub(own).min(counted);
    let share = |held: HeldBytes| held.own + (held.shared as u128 * shared as u128 / counted.max(1) as u128) as usize;
    // Connections that are already closed release their memory as soon as their tasks run.
    let (closed, mut open): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, connection)| connection.outbox.is_closed());
    let given_back = closed.into_iter().map(|(held, _)| share(held)).sum();
    let mut excess = budget.excess().saturating_sub(given_back);
    open.sort_by_cached_key(|(held, _)| Reverse(share(*held)));
    for (held, connection) in open {
        if excess == 0 {
            return;
        }
        if connection.outbox.close(close.clone()) {
            let bytes = held.own + held.shared;
            let (id, user) = (connection.id, connection.user_str());
            tracing::info!(connection = %id, user, bytes, reason = close.reason, "closed to free memory");
            count.inc();
            excess = excess.saturating_sub(share(held));
        }
    }
}

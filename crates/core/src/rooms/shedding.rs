//! Closes the connections that hold the most memory when all of them together exceed a budget.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use roomcast_protocol::{CloseCode, CloseFrame};

use crate::rooms::budget::Budget;
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;
use crate::rooms::outbox::HeldBytes;

/// How often all connections may be examined: that takes milliseconds with 100,000 of them, and closed ones need time
/// to release their memory.
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
/// Memory that connections share is attributed to them in proportion to what each of them holds of it: who
/// shares it with few counts for less than its end frees, who shares it with many for more. The next look
/// corrects that. Attributed in full, the members of one room would be closed by the thousand for one copy
/// of their events; not attributed at all, those that hold it would stay.
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
    // Each copy once.
    let shared = budget.held().saturating_sub(own).min(counted);
    let share = |held: HeldBytes| held.own + (held.shared as u128 * shared as u128 / counted.max(1) as u128) as usize;
    // Those that are closed already give back what they hold as soon as they run.
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
            tracing::info!(connection = %connection.id, bytes, reason = close.reason, "closed to free memory");
            count.inc();
            excess = excess.saturating_sub(share(held));
        }
    }
}

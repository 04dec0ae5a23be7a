//! A node whose connections hold more memory than they may closes those who hold most.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use roomcast_protocol::{CloseCode, CloseFrame};

use crate::budget::Budget;
use crate::hub::Hub;
use crate::peer::Peer;

/// How often all connections may be looked through: it costs milliseconds with 100,000 of them, and those
/// that are closed need time to give their memory back.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Hub {
    /// Whether new connections must wait, because those that are here hold more memory than they may.
    pub fn is_short_of_memory(&self) -> bool {
        self.load.inbound.is_exceeded() || self.load.outbound.is_exceeded()
    }

    /// Closes connections whenever they hold too much.
    pub(crate) async fn watch_memory(&self) {
        let (load, metrics) = (&self.load, self.metrics());
        let too_much_input = CloseFrame::new(CloseCode::TRY_AGAIN_LATER, "the node is short of memory for input");
        let too_much_output =
            CloseFrame::new(CloseCode::SLOW_CONSUMER, "slow consumer: the node is short of memory for unread output");
        tokio::join!(
            self.keep(&load.inbound, Peer::inbound, &too_much_input, &metrics.shed_for_inbound),
            self.keep(&load.outbound, |peer| peer.outbox.held(), &too_much_output, &metrics.shed_for_outbound),
        );
    }

    async fn keep(&self, budget: &Budget, held: impl Fn(&Peer) -> usize, close: &CloseFrame, count: &IntCounter) {
        loop {
            budget.exceeded().await;
            self.close_largest(budget, &held, close, count);
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Closes the connections that hold most, until what is left fits.
    fn close_largest(&self, budget: &Budget, held: impl Fn(&Peer) -> usize, close: &CloseFrame, count: &IntCounter) {
        let mut excess = budget.excess();
        let mut debtors: Vec<(usize, Arc<Peer>)> = Vec::new();
        for peer in self.connections.lock().values() {
            match held(peer) {
                0 => {}
                // It gives this back as soon as it runs.
                bytes if peer.outbox.is_closed() => excess = excess.saturating_sub(bytes),
                bytes => debtors.push((bytes, Arc::clone(peer))),
            }
        }
        debtors.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        for (bytes, peer) in debtors {
            if excess == 0 {
                return;
            }
            if peer.outbox.close(close.clone()) {
                tracing::info!(connection = %peer.id, bytes, reason = close.reason, "closed for memory");
                count.inc();
                excess = excess.saturating_sub(bytes);
            }
        }
    }
}

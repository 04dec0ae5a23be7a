//! The drain of a node: when each of its connections is closed.

use std::time::Duration;

use roomcast_core::Hub;
use roomcast_protocol::{CloseCode, CloseFrame};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::call::grace::Graces;
use crate::options::FAR;

/// The longest pause between two closes. With few connections, the drain ends before the plan's
/// duration.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// How often a drain checks whether the last connections have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long after a drain's time-out connections may take to deliver their last output and Close, and the
/// work of cancelled calls to end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the store may take to accept the last lifecycle events.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(1);

/// The schedule of a [drain](crate::Node::drain), from its start. See [`Node`](crate::Node) for an
/// example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainPlan {
    /// The time over which connections are closed, so that clients do not all reconnect at once. If
    /// the node has fewer than 20 connections for each second of this time, it closes them 50 ms
    /// apart and finishes earlier.
    pub duration: Duration,
    /// The time after which calls that are still in flight are cancelled.
    pub timeout: Duration,
}

impl DrainPlan {
    /// Creates a plan that closes connections over `duration`, and cancels calls that are still in
    /// flight after `timeout`.
    pub fn new(duration: Duration, timeout: Duration) -> Self {
        Self { duration, timeout }
    }

    /// Returns the pause between the closes of this many connections.
    fn pause(self, connections: usize) -> Duration {
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        self.duration.min(self.timeout).checked_div(connections).unwrap_or_default().min(MAX_PAUSE)
    }
}

/// See [`Node::drain`](crate::Node::drain).
pub(crate) async fn run(hub: &Hub, graces: &Graces, plan: DrainPlan) {
    let started = Instant::now();
    hub.local().start_drain();
    let connections = hub.local().connections();
    let longest = plan.timeout.min(FAR);
    let pause = plan.pause(connections.len());
    for (index, connection) in (0..).zip(&connections) {
        sleep_until(started + pause.saturating_mul(index)).await;
        connection.outbox.drain();
    }
    drop(connections);
    none_left(hub, graces, started + longest).await;
    for connection in hub.local().connections() {
        let close = CloseFrame::new(CloseCode::GOING_AWAY, "the node is shutting down; calls were cancelled");
        connection.outbox.close(close);
    }
    none_left(hub, graces, Instant::now() + FLUSH_TIMEOUT).await;
    // If the store does not accept the last events in time, another node reports them.
    let _ = tokio::join!(timeout(EVENTS_TIMEOUT, hub.flush_events()), hub.cluster().leave());
}

/// Waits until the node has no connections and no calls in their grace, but not longer than until the
/// deadline.
async fn none_left(hub: &Hub, graces: &Graces, deadline: Instant) {
    while (hub.local().connection_count() > 0 || graces.are_held()) && Instant::now() < deadline {
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Poll;

    use roomcast_core::{Codec, Command, HubOptions, MemoryBroker};
    use tokio::task::JoinSet;

    use super::*;

    const PLAN: DrainPlan = DrainPlan { duration: Duration::from_secs(10), timeout: Duration::from_secs(25) };

    #[tokio::test(start_paused = true)]
    async fn few_idle_clients_are_gone_early_and_many_are_spread_over_the_duration() {
        for (clients, longest) in [(0, 0), (20, 1_000), (400, 10_000)] {
            let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
            let mut idle = JoinSet::new();
            for _ in 0..clients {
                let client = hub.local().connect(None, Codec::RpcV01);
                idle.spawn(async move {
                    poll_fn(|cx| match client.outbox.take_or_sleep(&mut Default::default(), cx) {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    })
                    .await;
                    assert_eq!(client.outbox.take_command(), Some(Command::Drain));
                });
            }
            let started = Instant::now();
            run(&hub, &Graces::default(), PLAN).await;
            idle.join_all().await;
            let longest = Duration::from_millis(longest);
            let elapsed = started.elapsed();
            assert!((longest * 9 / 10..=longest).contains(&elapsed), "{clients} clients took {elapsed:?}");
        }
    }
}

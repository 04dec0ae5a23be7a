//! Checks that a broker's queues are bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use roomcast_core::{MAX_WAITING_BYTES, MAX_WAITING_EVENTS, Publication};

use super::cluster::{Cluster, room};

/// A large payload.
pub(super) static MEBIBYTE: [u8; 1024 * 1024] = [0; 1024 * 1024];

/// Publishes three times as many events as may wait, while no node reads. The broker may have one
/// queue before its backend and one behind it, so it holds at most two thirds of them. Once the
/// nodes read, everything must work as before.
///
/// The queue before the backend shows in the number of payloads that are held. The queue behind it
/// shows in the number of events that one call returns. A broker that copies payloads and returns
/// one event in each call needs a test of its own.
pub(super) async fn bounded(cluster: Cluster, payload: &'static [u8]) {
    let max = MAX_WAITING_EVENTS.min(MAX_WAITING_BYTES / payload.len());
    let (room, step) = (room("contract-bounded"), cluster.step);
    cluster.subscribe_all(&room).await;
    let publisher = cluster.nodes[0].handle();
    let held = Arc::new(());
    let flood: Vec<_> = (0..3 * max)
        .map(|_| {
            let counted = Bytes::from_owner(Counted { payload, _held: Arc::clone(&held) });
            let accepted = publisher.start_publish(&room, "flood", counted);
            let held = Arc::strong_count(&held) - 1;
            assert!(held <= 2 * max, "{step}: {held} events are held");
            accepted
        })
        .collect();
    publisher.within("the outcomes of all publishes", join_all(flood)).await;
    let publish_after = async {
        while publisher.start_publish(&room, "after", Bytes::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reads = cluster.nodes.iter().map(async |node| {
        let mut events = Vec::new();
        while events.iter().all(|event: &Publication| &*event.event != "after") {
            events.clear();
            assert!(node.broker.next_publications(&mut events).await, "{step}: the broker is open");
            assert!(events.len() <= 2 * max, "{step}: {} events waited", events.len());
        }
    });
    publisher.within("an event after the flood", join(publish_after, join_all(reads))).await;
    cluster.close();
}

/// A payload that is counted while it is held.
struct Counted {
    payload: &'static [u8],
    _held: Arc<()>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        self.payload
    }
}

//! One node of a cluster, which combines its connections and rooms, the other nodes, and the
//! broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, CloseFrame, Name};
use thiserror::Error;
use tokio::sync::watch;

use crate::broker::contract::{self, Broker, BrokerError, BrokerStatus};
use crate::broker::publication::{Position, Publish};
use crate::cluster::operations::Cluster;
use crate::events::metrics::EventMetrics;
use crate::events::reporter::{EventOptions, Events};
use crate::id::{ConnectionId, RoomName, UserId};
use crate::metrics::HubMetrics;
use crate::options::HubOptions;
use crate::rooms::fan_out::FanOut;
use crate::rooms::local_node::LocalNode;
use crate::rooms::shedding::watch_memory;
use crate::trace;

/// The error of an event that was not published.
///
/// ```
/// use roomcast_core::{BrokerError, PublishError};
///
/// fn is_overloaded(error: &PublishError) -> bool {
///     matches!(error, PublishError::Broker(BrokerError::Overloaded { .. }))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker did not accept the event.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// The core of one node. It holds connections and rooms, and reaches the other nodes of the
/// cluster.
///
/// ```
/// use std::sync::Arc;
/// use roomcast_core::{Codec, Hub, HubOptions, MemoryBroker, RoomName};
/// use roomcast_protocol::Name;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
/// let running = tokio::spawn({ let hub = Arc::clone(&hub); async move { hub.run().await } });
/// let lobby = RoomName::new("lobby")?;
/// let connection = hub.local().connect(None, Codec::default());
/// hub.local().join(connection.shared(), &lobby).await?;
/// hub.publish(lobby, Name::new("hello")?, "everybody".into()).await?;
/// hub.close();
/// running.await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Hub {
    broker: Arc<dyn Broker>,
    local: Arc<LocalNode>,
    cluster: Cluster,
    metrics: Arc<HubMetrics>,
    event_metrics: EventMetrics,
    closed: AtomicBool,
}

impl Hub {
    /// Creates a hub without connections. It delivers events while [`run`](Self::run) runs.
    pub fn new(broker: Arc<dyn Broker>, options: HubOptions) -> Arc<Self> {
        let metrics = Arc::new(HubMetrics::new(&options));
        let local = LocalNode::new(Arc::clone(&broker), options, Arc::clone(&metrics));
        let cluster = Cluster::new(Arc::clone(&local), Arc::clone(&broker));
        let event_metrics = EventMetrics::new();
        Arc::new(Self { broker, local, cluster, metrics, event_metrics, closed: AtomicBool::new(false) })
    }

    /// Returns the local part of the node: its connections and their rooms.
    pub fn local(&self) -> &Arc<LocalNode> {
        &self.local
    }

    /// Returns a handle to all nodes of the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Returns the hub's metrics.
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// Returns the metrics of lifecycle events.
    pub fn event_metrics(&self) -> &EventMetrics {
        &self.event_metrics
    }

    /// Publishes an event to a room, on all nodes, and returns the event's position, as
    /// [`Broker::publish`] does. The call itself fixes the event's place in the room's order, before
    /// you await the result.
    ///
    /// # Errors
    /// Returns [`PublishError`] if the broker did not accept the event, or if the payload is over
    /// [`MAX_PAYLOAD`](roomcast_protocol::MAX_PAYLOAD).
    ///
    /// # Cancel safety
    /// Dropping the future does not withdraw the event.
    pub fn publish(
        &self,
        room: RoomName,
        event: Name,
        payload: Bytes,
    ) -> impl Future<Output = Result<Position, PublishError>> + Send + use<> {
        let published_at = Instant::now();
        let span = trace::publish(&room, &event, payload.len());
        let trace = trace::context_of(&span);
        let publish = Publish { origin: self.local.id(), room, event, payload, published_at, trace };
        let accepted = contract::publish(&*self.broker, publish);
        let metrics = Arc::clone(&self.metrics);
        async move {
            let result = accepted.await;
            metrics.broker_publish_duration.observe(published_at.elapsed().as_secs_f64());
            match &result {
                Ok(_) => metrics.published.inc(),
                Err(error) => {
                    metrics.publish_failed.inc();
                    trace::failed(&span, error);
                }
            }
            drop(span);
            result.map_err(PublishError::from)
        }
    }

    /// Publishes an event to all connections of a user, on all nodes. This sends one message to the
    /// nodes that have any of them. It costs less than [`Cluster::notify_user`], which returns how
    /// many connections it reached.
    ///
    /// # Errors
    /// Returns [`PublishError`] if the broker did not accept the event.
    ///
    /// # Cancel safety
    /// As for [`publish`](Self::publish).
    pub async fn publish_to_user(&self, user: &UserId, event: Name, payload: Bytes) -> Result<(), PublishError> {
        self.publish(RoomName::of_user(user), event, payload).await.map(drop)
    }

    /// Delivers the broker's publications to members, and exchanges heartbeats and requests with
    /// the other nodes, until [`close`](Self::close) is called. Run it in exactly one task. If it
    /// returns although the hub [is not closed](Self::is_closed), the broker has failed.
    ///
    /// # Cancel safety
    /// If you drop the future, events that are held back for slow members are lost.
    pub async fn run(&self) {
        tokio::select! {
            () = self.take_publications() => {}
            () = self.watch_broker() => {}
            () = self.local.renew_subscriptions() => {}
            () = self.cluster.peers().keep_in_touch() => {}
            () = self.cluster.revoker().keep_up() => {}
            () = watch_memory(&self.local) => {}
            () = self.run_events() => {}
        }
    }

    /// Reports lifecycle events from now on. Call this before the node accepts connections. Only the
    /// first call has an effect.
    pub fn report_events(&self, options: EventOptions) {
        let events = Events::new(self.local.id(), options, self.event_metrics.clone());
        if self.local.events.set(events).is_err() {
            tracing::warn!("the node reports lifecycle events already");
        }
    }

    /// Waits until the store has all lifecycle events of this node, and lets another node deliver
    /// them.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn flush_events(&self) {
        if let Some(events) = self.local.events() {
            events.flush().await;
        }
    }

    async fn run_events(&self) {
        let events = self.local.events.wait().await;
        tokio::join!(events.report(|connection| self.close_reported(connection)), events.deliver());
    }

    /// Closes a connection whose end another node has reported, because it cannot have a second
    /// end.
    fn close_reported(&self, connection: ConnectionId) {
        if let Some(connection) = self.local.connection(connection) {
            let reason = "this node was cut off from its cluster; reconnect";
            connection.outbox.close(CloseFrame::new(CloseCode::TRY_AGAIN_LATER, reason));
        }
    }

    async fn take_publications(&self) {
        let mut fan_out = FanOut::new(Arc::clone(&self.local));
        let mut publications = Vec::new();
        while fan_out.wait(&*self.broker, &mut publications).await {
            // Under constant load, the broker is always ready, and all the work of `run` shares one
            // task. Without this, the hub would not check its memory, and other nodes would
            // consider this one dead.
            tokio::task::coop::consume_budget().await;
            let events = publications.drain(..).filter_map(|publication| self.cluster.take(publication));
            fan_out.deliver(events).await;
        }
        fan_out.finish();
    }

    async fn watch_broker(&self) {
        let mut status = self.broker.status();
        loop {
            self.metrics.broker_up.set(i64::from(*status.borrow_and_update() == BrokerStatus::Up));
            if status.changed().await.is_err() {
                std::future::pending::<()>().await; // the status no longer changes
            }
        }
    }

    /// Returns a receiver for the broker's status. It has the current status and receives every
    /// change.
    pub fn broker_status(&self) -> watch::Receiver<BrokerStatus> {
        self.broker.status()
    }

    /// Ends [`run`](Self::run) after it has delivered the events that the broker has accepted.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        drop(self.cluster.peers().start_leaving());
        self.metrics.broker_up.set(0);
        self.broker.close();
    }

    /// Returns whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

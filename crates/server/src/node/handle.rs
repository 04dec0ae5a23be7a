//! One node of a cluster: its life, and through it the rooms, users and connections of all nodes.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::RwLock;
use prometheus::Registry;
use roomcast_core::{
    Broker, BrokerStatus, ConnectionId, Hub, MemoryBroker, NodeId, NodeInfo, Place, Rooms, RoomsQuery,
};
use thiserror::Error;
use tokio::sync::watch;

use crate::error::CallError;
use crate::metrics::Metrics;
use crate::node::address::{Connection, Room, User};
use crate::node::drain::{self, DrainPlan};
use crate::options::Options;

/// One node of a cluster: it holds connections, and reaches the rooms, users and connections of all nodes.
///
/// Cheap to clone. The node ends with the last clone.
///
/// An application that drains its connections before it ends:
///
/// ```no_run
/// use std::time::Duration;
///
/// use axum::routing::get;
/// use roomcast::{DrainPlan, Node, Options, Router, SocketIoUpgrade};
///
/// #[tokio::main]
/// async fn main() -> std::io::Result<()> {
///     let node = Node::embedded(Options::default());
///     let router = Router::new(node.clone()).call("echo", async |payload: bytes::Bytes| payload);
///     let app = axum::Router::new()
///         .route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router)));
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
///     // Kubernetes stops a container with SIGTERM. axum does not wait for upgraded connections; the drain does.
///     let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
///     axum::serve(listener, app).with_graceful_shutdown(async move { drop(terminate.recv().await) }).await?;
///     node.drain(DrainPlan::new(Duration::from_secs(5), Duration::from_secs(30))).await;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    options: RwLock<Arc<Options>>,
    metrics: Arc<Metrics>,
    failure: watch::Receiver<Option<NodeFailure>>,
}

/// Why a node's core no longer works.
///
/// ```
/// use roomcast::Node;
///
/// async fn end_with_the_node(node: Node) -> std::io::Error {
///     std::io::Error::other(node.failed().await)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NodeFailure {
    /// The task that delivers room events panicked.
    #[error("the task that delivers room events panicked")]
    Panicked,
    /// The broker's stream of events ended although the node is not closing.
    #[error("the broker's stream of room events ended")]
    EventsEnded,
}

/// Runs a node's core and reports its failure.
async fn run(hub: Arc<Hub>, failed: watch::Sender<Option<NodeFailure>>) {
    let failure = match AssertUnwindSafe(hub.run()).catch_unwind().await {
        Ok(()) if hub.is_closed() => return,
        Ok(()) => NodeFailure::EventsEnded,
        Err(_) => NodeFailure::Panicked,
    };
    failed.send_replace(Some(failure));
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl Node {
    /// A cluster of this node alone, with the broker in memory. The options are those of all connections.
    /// Must be called in a tokio runtime.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn embedded(options: Options) -> Self {
        Self::new(Arc::new(MemoryBroker::single()), options)
    }

    /// This node of the cluster that the broker connects. Must be called in a tokio runtime.
    ///
    /// A new node finds the others by their heartbeats. It sends its first one as soon as the broker is up, and each
    /// other node responds at once, so it finds all of them within milliseconds. If the broker loses or refuses one of
    /// these messages, the next heartbeat makes up for it, at most 6 s later. Until then, [`nodes`](Self::nodes),
    /// [`rooms`](Self::rooms), [`Room::members`] and [`User::notify`] leave out the nodes that are missing, and a
    /// [`connection`](Self::connection) there is `NOT_FOUND`. Publishes, and joins of this node's own connections, don't
    /// depend on heartbeats.
    ///
    /// A test waits until all nodes have found each other:
    ///
    /// ```
    /// use std::sync::Arc;
    /// use roomcast::{MemoryBus, Node, Options};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let bus = MemoryBus::new();
    /// let nodes = [(); 3].map(|()| Node::new(Arc::new(bus.attach()), Options::default()));
    /// while nodes.iter().any(|node| node.nodes().len() < nodes.len()) {
    ///     tokio::task::yield_now().await;
    /// }
    /// # });
    /// ```
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn new(broker: Arc<dyn Broker>, options: Options) -> Self {
        let hub = Hub::new(broker, options.hub());
        let (failed, failure) = watch::channel(None);
        tokio::spawn(run(Arc::clone(&hub), failed));
        let metrics = Metrics::new(options.max_connections);
        Self { inner: Arc::new(Inner { hub, options: RwLock::new(Arc::new(options)), metrics, failure }) }
    }

    /// Waits until this node's core fails; never returns while it works. A failed node delivers no events, although its
    /// connections stay open and calls are answered: end the process, so that clients connect to another node.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn failed(&self) -> NodeFailure {
        let mut failure = self.inner.failure.clone();
        if let Ok(failure) = failure.wait_for(Option::is_some).await
            && let Some(failure) = *failure
        {
            return failure;
        }
        // The core has ended as it should.
        std::future::pending().await
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// Those of connections that are opened now.
    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.inner.options.read())
    }

    /// Replaces the options of connections that are opened from now on. Open connections keep theirs; a lower
    /// `max_connections` closes none. `max_rooms`, `max_outbound`, `inbound_memory` and `outbound_memory` are fixed when
    /// the node is created: here they are ignored.
    ///
    /// ```
    /// use roomcast::{Node, Options};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let node = Node::embedded(Options::default());
    /// node.set_options(Options::default().with(|options| options.max_connections = 1000));
    /// # });
    /// ```
    pub fn set_options(&self, mut options: Options) {
        let mut current = self.inner.options.write();
        options.max_rooms = current.max_rooms;
        options.max_outbound = current.max_outbound;
        options.inbound_memory = current.inbound_memory;
        options.outbound_memory = current.outbound_memory;
        self.metrics().set_max_connections(options.max_connections);
        *current = Arc::new(options);
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Takes a place for a connection.
    ///
    /// # Errors
    /// The limit on connections, if it is reached.
    pub(crate) fn take_place(&self) -> Result<Place, usize> {
        let max = self.options().max_connections;
        self.hub().local().take_place(max).ok_or(max)
    }

    /// The node's id. Each start of a node makes a new one.
    pub fn id(&self) -> NodeId {
        self.hub().local().id()
    }

    /// How many connections this node has.
    pub fn connection_count(&self) -> usize {
        self.hub().local().connection_count()
    }

    /// How many calls of this node are in flight: their work, and what it has spawned in their scope, has not ended.
    pub fn calls_in_flight(&self) -> usize {
        usize::try_from(self.metrics().calls_in_flight.get()).unwrap_or_default()
    }

    /// Whether the broker that connects the nodes works, now and from now on.
    pub fn broker_status(&self) -> watch::Receiver<BrokerStatus> {
        self.hub().broker_status()
    }

    /// A room, on all nodes.
    pub fn room<'a>(&'a self, name: &'a str) -> Room<'a> {
        Room { hub: self.hub(), name }
    }

    /// A user: all their connections, on all nodes.
    pub fn user<'a>(&'a self, id: &'a str) -> User<'a> {
        User { hub: self.hub(), id }
    }

    /// One connection, on any node. `"…".parse()` turns the text of an id into one.
    pub fn connection(&self, id: ConnectionId) -> Connection<'_> {
        Connection { hub: self.hub(), id }
    }

    /// The rooms that have members on any node, with their numbers of members.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the other nodes can't be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: it changes nothing.
    pub async fn rooms(&self, query: RoomsQuery) -> Result<Rooms, CallError> {
        Ok(self.hub().cluster().rooms(query).await?)
    }

    /// The live nodes, this one included. A node that dies is among them for at most 13 s. While the broker is down,
    /// the nodes that were live before it stay in the list.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.hub().cluster().nodes()
    }

    /// Adds the metrics of connections, calls, rooms, deliveries and the broker to what a registry gathers.
    ///
    /// # Errors
    /// [`prometheus::Error`] if the registry has metrics of these names already.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.metrics().register(registry)?;
        self.hub().metrics().register(registry)
    }

    /// Closes all connections of this node with 1001: idle ones spread over the plan's duration, or faster if they are
    /// few; those with calls in flight when these have ended; and the last at the plan's time-out, when their calls are
    /// cancelled. Then it removes the node from the cluster. Returns at most three seconds after the time-out. Stop accepting connections
    /// before.
    ///
    /// # Cancel safety
    /// Connections whose turn has come stay closed or keep closing; the others stay open. Call it again to go on.
    pub async fn drain(&self, plan: DrainPlan) {
        drain::run(self.hub(), plan).await;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn new_options_replace_all_but_those_that_were_handed_to_the_core() {
        let node = Node::embedded(Options::default());
        let before = node.options();
        node.set_options(Options {
            max_connections: 7,
            max_calls: 8,
            max_rooms: 9,
            max_outbound: 10,
            inbound_memory: 11,
            outbound_memory: 12,
            ..Options::default()
        });
        assert_eq!(*node.options(), Options { max_connections: 7, max_calls: 8, ..Options::default() });
        assert_eq!(*before, Options::default(), "connections that are open keep theirs");
    }
}

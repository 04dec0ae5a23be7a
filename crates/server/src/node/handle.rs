//! One node of a cluster, and the access to the rooms, users and connections of all nodes.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::FutureExt;
use parking_lot::RwLock;
use prometheus::Registry;
use roomcast_core::{
    Broker, BrokerStatus, ConnectionId, Connections, ConnectionsQuery, Credential, Holder, Hub, MemoryBroker, NodeId,
    NodeInfo, Place, Reached, Revocation, Rooms, RoomsQuery, UserId,
};
use thiserror::Error;
use tokio::sync::watch;

use crate::call::grace::Graces;
use crate::error::CallError;
use crate::metrics::Metrics;
use crate::node::address::{Connection, Room, User};
use crate::node::addresses::{AddressPlace, Addresses, Network, Refused};
use crate::node::drain::{self, DrainPlan};
use crate::options::Options;

/// One node of a cluster. It holds connections, and reaches the rooms, users and connections of all
/// nodes.
///
/// A node is cheap to clone. It ends when the last clone is dropped.
///
/// This application drains its connections before it exits:
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
///         .route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await));
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
    addresses: Arc<Addresses>,
    graces: Graces,
    failure: watch::Receiver<Option<NodeFailure>>,
}

/// Why a node has failed.
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
    /// Creates a node that is the only one of its cluster, with a broker in memory. The options
    /// apply to all its connections.
    ///
    /// # Panics
    /// Panics if it is called outside a tokio runtime.
    pub fn embedded(options: Options) -> Self {
        Self::new(Arc::new(MemoryBroker::single()), options)
    }

    /// Creates a node of the cluster that the broker connects.
    ///
    /// A new node finds the other nodes by their heartbeats. It sends its first heartbeat as soon
    /// as the broker is up, and each other node responds at once, so it finds all of them within
    /// milliseconds. If the broker loses or rejects one of these messages, a later heartbeat
    /// replaces it within 6 s. Until the node has found another node:
    ///
    /// * [`nodes`](Self::nodes), [`rooms`](Self::rooms), [`Room::members`] and [`User::notify`] do
    ///   not include that node.
    /// * Operations on a [`connection`](Self::connection) of that node fail with `NOT_FOUND`.
    ///
    /// Publishes, and joins of this node's own connections, do not depend on heartbeats.
    ///
    /// In a test, wait until all nodes have found each other:
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
    /// Panics if it is called outside a tokio runtime.
    pub fn new(broker: Arc<dyn Broker>, options: Options) -> Self {
        let hub = Hub::new(broker, options.hub());
        let (failed, failure) = watch::channel(None);
        tokio::spawn(run(Arc::clone(&hub), failed));
        let metrics = Metrics::new(options.max_connections);
        let addresses = Addresses::new(tokio::time::Instant::now().into_std());
        let (options, graces) = (RwLock::new(Arc::new(options)), Graces::default());
        Self { inner: Arc::new(Inner { hub, options, metrics, addresses, graces, failure }) }
    }

    /// Waits until this node fails, and returns why. While the node works, this does not return. A
    /// failed node delivers no events, although its connections stay open and calls still work. End
    /// the process, so that its clients reconnect to another node.
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
        // The node was closed; it has not failed.
        std::future::pending().await
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    /// Returns the options of connections that open now.
    pub(crate) fn options(&self) -> Arc<Options> {
        Arc::clone(&self.inner.options.read())
    }

    /// Replaces the options for connections that open from now on. Open connections keep their
    /// options, and a lower `max_connections` closes none of them. Changes to `max_rooms`,
    /// `max_node_rooms`, `max_outbound`, `inbound_memory` and `outbound_memory` are ignored, because these are fixed
    /// when the node is created.
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
        options.max_node_rooms = current.max_node_rooms;
        options.max_outbound = current.max_outbound;
        options.inbound_memory = current.inbound_memory;
        options.outbound_memory = current.outbound_memory;
        self.metrics().set_max_connections(options.max_connections);
        *current = Arc::new(options);
    }

    pub(crate) fn graces(&self) -> &Graces {
        &self.inner.graces
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Reserves a place for a connection.
    ///
    /// # Errors
    /// Returns the maximum number of connections if it is reached.
    pub(crate) fn take_place(&self) -> Result<Place, usize> {
        let max = self.options().max_connections;
        self.hub().local().take_place(max).ok_or(max)
    }

    /// Reserves a place for a connection among those of its client's address. Returns `None` if the
    /// address is unknown, or is inside a private network.
    ///
    /// # Errors
    /// Returns [`Refused`] if the address has too many connections, or opens them too often.
    pub(crate) fn take_address_place(&self, peer: Option<SocketAddr>) -> Result<Option<AddressPlace>, Refused> {
        let Some(network) = peer.and_then(|peer| Network::of(peer.ip())) else { return Ok(None) };
        let (options, now) = (self.options(), tokio::time::Instant::now().into_std());
        let place =
            self.inner.addresses.open(network, options.max_connections_per_address, options.rates.connections, now);
        place.map(Some).inspect_err(|refused| self.metrics().on_limit_reached(refused.limit_name()))
    }

    /// Returns the node's id, which is new each time that a node is created.
    pub fn id(&self) -> NodeId {
        self.hub().local().id()
    }

    /// Returns how many connections this node has.
    pub fn connection_count(&self) -> usize {
        self.hub().local().connection_count()
    }

    /// Returns how many calls are in flight on this node. A call is in flight until its handler and
    /// all tasks in its scope have ended.
    pub fn calls_in_flight(&self) -> usize {
        usize::try_from(self.metrics().calls_in_flight.get()).unwrap_or_default()
    }

    /// Returns a receiver for the broker's status. It has the current status and receives every
    /// change.
    pub fn broker_status(&self) -> watch::Receiver<BrokerStatus> {
        self.hub().broker_status()
    }

    /// Returns a handle to a room, on all nodes.
    pub fn room<'a>(&'a self, name: &'a str) -> Room<'a> {
        Room { hub: self.hub(), name }
    }

    /// Returns a handle to a user and all the user's connections, on all nodes.
    pub fn user<'a>(&'a self, id: &'a str) -> User<'a> {
        User { hub: self.hub(), id }
    }

    /// Returns a handle to a connection, on any node. To get an id from text, use `"…".parse()`.
    pub fn connection(&self, id: ConnectionId) -> Connection<'_> {
        Connection { hub: self.hub(), id }
    }

    /// Lists the rooms that have members on any node, and how many members each has.
    ///
    /// # Errors
    /// Fails with `UNAVAILABLE` if the other nodes cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn rooms(&self, query: RoomsQuery) -> Result<Rooms, CallError> {
        Ok(self.hub().cluster().rooms(query).await?)
    }

    /// Lists connections, on all nodes. If they are ordered by the rate of their messages, this takes
    /// a second.
    ///
    /// ```
    /// use roomcast::{CallError, ConnectionOrder, ConnectionsQuery, Node};
    ///
    /// async fn print_noisiest(node: &Node) -> Result<(), CallError> {
    ///     let mut query = ConnectionsQuery::default();
    ///     (query.order, query.limit) = (ConnectionOrder::MessageRate, 5);
    ///     for one in node.connections(query).await?.connections {
    ///         println!("{} of {:?}: {:?} messages/s", one.connection, one.user, one.message_rate);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// Fails with `UNAVAILABLE` if the other nodes cannot be reached.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn connections(&self, query: ConnectionsQuery) -> Result<Connections, CallError> {
        Ok(self.hub().cluster().connections(query).await?)
    }

    /// Revokes credentials on all nodes, and returns how many connections this has closed. Their
    /// clients get the close code 4401.
    ///
    /// The broker keeps the revocation until it ends. Each node that reaches the broker enforces it
    /// within a second, including nodes that start later or are cut off now. A node that has been
    /// cut off for 10 s rejects all credentials until it has received the revocations that it
    /// missed.
    ///
    /// A revocation applies to credentials of the [authorizer](crate::Router::authorizer). If a
    /// router has none, the revocation of a user closes the connections of the user.
    ///
    /// ```
    /// use std::time::{SystemTime, UNIX_EPOCH};
    ///
    /// use roomcast::{CallError, Node, Revocation, Revoked, UserId};
    ///
    /// /// Ends all sessions of a user. The user can log in again.
    /// async fn log_out_everywhere(node: &Node, user: UserId) -> Result<usize, CallError> {
    ///     let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    ///     let revoked = Revoked::User { user, issued_until: Some(now) };
    ///     let one_day_later = now + 86_400; // older tokens have expired by then
    ///     Ok(node.revoke(Revocation::new(revoked, one_day_later)?).await?.connections)
    /// }
    /// ```
    ///
    /// # Errors
    /// Fails with `RESOURCE_EXHAUSTED` if there are [`MAX_REVOCATIONS`](crate::MAX_REVOCATIONS),
    /// `UNAVAILABLE` if the broker is down, and `UNIMPLEMENTED` if the broker keeps no revocations.
    /// After `UNAVAILABLE`, the revocation may take effect nevertheless. It is safe to repeat it.
    ///
    /// # Cancel safety
    /// If you drop the future after its first poll, the revocation may still take effect.
    pub async fn revoke(&self, revocation: Revocation) -> Result<Reached, CallError> {
        Ok(self.hub().cluster().revoke(revocation).await?)
    }

    /// Returns whether this node would reject a user's credential, because the user or the
    /// credential was revoked.
    pub fn is_revoked(&self, user: &UserId, credential: &Credential) -> bool {
        let holder = Holder { user: Some(user), credential: Some(credential), connected_at: SystemTime::now() };
        self.hub().cluster().revoker().is_revoked(&holder)
    }

    /// Returns the revocations that this node enforces, ordered by their end.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.hub().cluster().revoker().revocations()
    }

    /// Waits until the node has received the revocations of its cluster for the first time. Until
    /// then, an [authorizer](crate::Router::authorizer) accepts nobody.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn revocations_loaded(&self) {
        self.hub().cluster().revoker().loaded().await;
    }

    /// Lists the live nodes, including this one. A node that dies stays in the list for at most 13
    /// s. While the broker is down, the nodes that were live before stay in the list.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.hub().cluster().nodes()
    }

    /// Registers the metrics of connections, calls, rooms, deliveries and the broker in a registry.
    ///
    /// # Errors
    /// Returns [`prometheus::Error`] if the registry already has metrics with these names.
    ///
    /// [`prometheus::Error`]: https://docs.rs/prometheus/0.14/prometheus/enum.Error.html
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        self.metrics().register(registry)?;
        self.hub().event_metrics().register(registry)?;
        self.hub().metrics().register(registry)
    }

    /// Closes all connections of this node with 1001, and then removes the node from the cluster.
    /// Stop accepting connections before you call this.
    ///
    /// * Idle connections are closed one by one over the plan's `duration`, or faster if there are
    ///   few.
    /// * A connection with calls in flight is closed when these calls have ended.
    /// * At the plan's `timeout`, the remaining calls are cancelled and their connections are
    ///   closed.
    /// * Work that holds a [`Grace`](crate::Grace) is waited for until the time-out, or for 2 s after
    ///   it.
    ///
    /// This returns at most 3 s after the time-out.
    ///
    /// # Cancel safety
    /// If you drop the future, connections that it has already begun to close still close, and the
    /// others stay open. To continue, call this again.
    pub async fn drain(&self, plan: DrainPlan) {
        drain::run(self.hub(), self.graces(), plan).await;
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

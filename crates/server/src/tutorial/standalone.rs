//! Connections that belong to no router and no node: those of the tutorial's loop, and the echo's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use prometheus::{Histogram, HistogramOpts, IntGauge};
use roomcast_core::{Budget, Codec, ConnectionId, LocalConnection, NewClient, NodeId, NodeLoad, Outbox, UserId};

use crate::connection::client_info::ClientInfo;
use crate::connection::context::ConnectionContext;
use crate::connection::driver::Driver;
use crate::connection::session::{Rpc, Session};
use crate::connection::transport::Transport;
use crate::metrics::{MethodMetrics, Metrics, UNKNOWN_METHOD};
use crate::options::Options;
use crate::tutorial::inbox::Inbox;
use crate::tutorial::socket_io::LoopApp;

/// The state that these connections share. Its metrics are counted, but not registered.
struct Standalone {
    node: NodeId,
    serial: AtomicU64,
    options: Arc<Options>,
    metrics: Arc<Metrics>,
    method: Arc<MethodMetrics>,
    load: Arc<NodeLoad>,
    delivery_latency: Histogram,
}

static STANDALONE: LazyLock<Standalone> = LazyLock::new(|| {
    let options = Arc::<Options>::default();
    let metrics = Metrics::new(options.max_connections);
    Standalone {
        node: NodeId::random(),
        serial: AtomicU64::new(1),
        options,
        method: metrics.method(UNKNOWN_METHOD),
        metrics,
        load: NodeLoad::new(unlimited(), unlimited()),
        delivery_latency: Histogram::with_opts(HistogramOpts::new("standalone", "unused")).expect("the name is valid"),
    }
});

/// Standalone connections share no budget. Only the limits of each connection apply.
fn unlimited() -> Budget {
    Budget::new(IntGauge::new("standalone", "unused").expect("the name is valid"), usize::MAX)
}

/// Creates the context of a connection that belongs to no node.
pub(crate) fn context(
    options: Option<Arc<Options>>,
    peer_addr: Option<SocketAddr>,
    user: Option<UserId>,
) -> Arc<ConnectionContext> {
    let standalone = &*STANDALONE;
    let options = options.unwrap_or_else(|| Arc::clone(&standalone.options));
    let serial = standalone.serial.fetch_add(1, Ordering::Relaxed);
    let outbox = Outbox::new(options.max_outbound, Arc::clone(&standalone.load));
    let (id, client) = (ConnectionId { node: standalone.node, serial }, NewClient { user, identity: None, peer_addr });
    let now = tokio::time::Instant::now().into_std();
    let connection = LocalConnection::new(id, client, Codec::RpcV01, outbox, now);
    ConnectionContext::new(connection, ClientInfo::default(), options, Arc::clone(&standalone.metrics))
}

/// Creates the driver of a standalone connection.
pub(crate) fn driver<S: Session>(transport: Transport, context: Arc<ConnectionContext>, session: S) -> Driver<S> {
    Driver::new(transport, context, session, STANDALONE.delivery_latency.clone())
}

/// Runs the connection of a loop from its handshake to its end.
pub(crate) async fn serve(transport: Transport, context: Arc<ConnectionContext>, inbox: Arc<Inbox>) {
    let app = LoopApp { inbox: Arc::clone(&inbox), method: Arc::clone(&STANDALONE.method) };
    let mut driver = driver(transport, Arc::clone(&context), Rpc::new(&context, app));
    let end = driver.run().await;
    context.end(end.cancel_cause());
    inbox.end(end.disconnected());
    driver.close(&end).await;
}

//! A node's life: bind, serve, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use roomcast::{Broker, BrokerStatus, DrainPlan, Node, NodeFailure, Options, Router};
use roomcast_redis::{RedisBroker, RedisError, RedisMetrics, RedisOptions};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{self, Guard};
use crate::internal::{self, Readiness};
use crate::places::Places;
use crate::setup::Setup;
use crate::telemetry::Logs;
use crate::{demo, listener, places, public};

/// Reasons at `/readyz`.
const STARTING: &str = "starting";
const DRAINING: &str = "draining";
const CUT_OFF: &str = "cut off from Redis";

/// How often the reason at `/readyz` is updated while the node is cut off from Redis.
const REASON_INTERVAL: Duration = Duration::from_secs(1);

/// File descriptors reserved for everything but clients: an eighth of the limit, within these bounds. Half of them are
/// for the internal listener; the other half, at least 24, is for the process itself and its connections to Redis.
const MIN_RESERVE: usize = 48;
const MAX_RESERVE: usize = 1024;

/// Sockets of the public listener that may be open without being upgraded: a sixteenth of the descriptors for clients,
/// within these bounds. The upper one has room for a storm of reconnects; with few descriptors, at most a quarter of
/// them is used.
const MIN_HTTP_CONNECTIONS: usize = 64;
const MAX_HTTP_CONNECTIONS: usize = 4096;

/// Why the node did not run.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("can't listen on {address} ({option}): {error}")]
    Bind { option: &'static str, address: SocketAddr, error: io::Error },
    #[error("can't set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("the node has failed: {0}")]
    Node(#[from] NodeFailure),
    #[error("the system refused a thread, signal or socket: {0}")]
    System(#[from] io::Error),
}

/// Runs the node until it has drained or a second signal ended it.
pub(crate) fn run(setup: &Setup, logs: &Logs) -> Result<(), RunError> {
    let bind = |option, address| listener::bind(address).map_err(|error| RunError::Bind { option, address, error });
    let config = &setup.config;
    let public = bind("--listen", *config.listen)?;
    let internal = config.internal_listen.map(|address| bind("--internal-listen", address)).transpose()?;

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads.get() > 0 {
        runtime.worker_threads(config.worker_threads.get());
    }
    let runtime = runtime.enable_all().build()?;
    let result = runtime.block_on(serve(setup, logs, public, internal));
    // What is left are tasks of connections that did not close in time.
    runtime.shutdown_background();
    result
}

/// Tries Redis, and says what it found.
pub(crate) fn check_redis(options: &RedisOptions) -> Result<String, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(roomcast_redis::check(options))?)
}

async fn serve(
    setup: &Setup,
    logs: &Logs,
    public: std::net::TcpListener,
    internal: Option<std::net::TcpListener>,
) -> Result<(), RunError> {
    let config = &setup.config;
    let mut stop = StopSignal::new()?;
    let registry = internal::registry(Handle::current().metrics().num_workers())?;
    registry.register(Box::new(logs.dropped().clone()))?;
    let limits = SocketLimits::new(setup.options.max_connections);
    let [places, internal_places] = places::places([limits.public, limits.internal], &registry)?;
    let options = setup.options.clone().with(|options| options.max_connections = limits.connections);
    let readiness = Readiness::not_yet(STARTING, &registry)?;
    let node = join_cluster(setup, options, &registry, &readiness)?;
    let mut router = Router::new(node.clone());
    if *config.demo {
        router = demo::add(router);
    }
    node.register_metrics(&registry)?;
    let mut app = public::routes(router);
    if *config.demo {
        app = app.merge(public::page());
    }
    if let Some(proxies) = &*config.trusted_proxies {
        app = public::behind(proxies.clone(), app);
    }

    if let Some(internal) = internal {
        tracing::info!("health, metrics and the API on http://{}", internal.local_addr()?);
        let guard = Guard::new(config.api_key.clone(), config.api_rate.get());
        let api = api::routes(node.clone(), guard, setup.options.max_payload);
        internal::spawn(internal, internal_places, readiness.clone(), registry, api)?;
    }
    let public = TcpListener::from_std(public)?;
    let scheme = if setup.tls.is_some() { "https" } else { "http" };
    tracing::info!(node = %node.id(), demo = *config.demo, "listening on {scheme}://{}", public.local_addr()?);
    readiness.remove(STARTING);

    tokio::select! {
        () = listener::accept(&public, &places, setup.tls.as_ref(), &app) => {}
        () = stop.received() => {}
        failure = node.failed() => return Err(failure.into()),
    }
    tracing::info!(
        connections = node.connection_count(),
        "draining: connections are accepted for {:?} more; a second signal ends it at once",
        *config.drain.delay
    );
    readiness.add(DRAINING);
    tokio::select! {
        () = drain(setup, public, &places, &app, &node) => tracing::info!("drained"),
        () = stop.received() => tracing::warn!(connections = node.connection_count(), "ended before it was drained"),
        failure = node.failed() => return Err(failure.into()),
    }
    Ok(())
}

/// This node of the cluster that its Redis connects, or of one of its own.
fn join_cluster(setup: &Setup, options: Options, registry: &Registry, readiness: &Readiness) -> Result<Node, RunError> {
    let Some(redis) = &setup.redis else {
        // So that dashboards find them all at zero.
        RedisMetrics::new().register(registry)?;
        return Ok(Node::embedded(options));
    };
    let broker = Arc::new(RedisBroker::start(redis.clone())?);
    broker.metrics().register(registry)?;
    readiness.add(CUT_OFF);
    tokio::spawn(watch_broker(Arc::clone(&broker), *setup.config.redis_unready_after, readiness.clone()));
    Ok(Node::new(broker, options))
}

/// Keeps the node unready until Redis is proven to work, and again whenever Redis has not worked for `patience`.
async fn watch_broker(broker: Arc<RedisBroker>, patience: Duration, readiness: Readiness) {
    let mut status = broker.status();
    let is_up = |status: &BrokerStatus| *status == BrokerStatus::Up;
    loop {
        // The reason may change during an outage.
        while let Err(_elapsed) = tokio::time::timeout(REASON_INTERVAL, status.wait_for(is_up)).await {
            readiness.add_with(CUT_OFF, broker.problem());
        }
        readiness.remove(CUT_OFF);
        while tokio::time::timeout(patience, status.wait_for(is_up)).await.is_ok() {
            if status.wait_for(|status| !is_up(status)).await.is_err() {
                return; // the node ends
            }
        }
        readiness.add_with(CUT_OFF, broker.problem());
    }
}

/// Gives load balancers time to see that the node is not ready; then stops accepting, and closes the open connections
/// in an orderly way.
async fn drain(setup: &Setup, public: TcpListener, places: &Places, app: &axum::Router, node: &Node) {
    let plan = &setup.config.drain;
    let _ = tokio::time::timeout(*plan.delay, listener::accept(&public, places, setup.tls.as_ref(), app)).await;
    drop(public);
    node.drain(DrainPlan::new(*plan.duration, *plan.timeout - *plan.delay)).await;
}

/// SIGTERM, which Kubernetes sends, or SIGINT, which Ctrl-C does.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How many sockets of each kind may be open, so that together they fit in the process' descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketLimits {
    /// Upgraded connections.
    connections: usize,
    /// Sockets of the public listener that are not upgraded.
    public: usize,
    /// Sockets of the internal listener.
    internal: usize,
}

impl SocketLimits {
    /// Raises the limit of descriptors as far as the system allows, and divides them. Many systems allow 1,024 until a
    /// process asks for more.
    fn new(configured: usize) -> Self {
        let descriptors = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
            tracing::warn!(%error, "the limit of file descriptors could not be raised");
            rlimit::Resource::NOFILE.get().map(|(soft, _)| soft)
        });
        let descriptors = descriptors.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let limits = Self::within(descriptors, configured);
        if limits.connections < configured {
            tracing::warn!(
                descriptors,
                "max_connections is lowered from {configured} to {}: each connection needs a file descriptor",
                limits.connections
            );
        }
        limits
    }

    fn within(descriptors: usize, configured: usize) -> Self {
        let reserve = (descriptors / 8).clamp(MIN_RESERVE, MAX_RESERVE);
        let for_clients = descriptors.saturating_sub(reserve);
        let public = (for_clients / 16).clamp(MIN_HTTP_CONNECTIONS, MAX_HTTP_CONNECTIONS).min(for_clients / 4).max(1);
        let connections = for_clients.saturating_sub(public).min(configured);
        Self { connections, public, internal: reserve / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_all_kinds_together_leave_descriptors_for_the_process() {
        for descriptors in [64, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            for configured in [10, 100_000, usize::MAX] {
                let limits = SocketLimits::within(descriptors, configured);
                let all = limits.connections + limits.public + limits.internal;
                assert!(all + MIN_RESERVE / 2 <= descriptors, "{limits:?} of {descriptors}");
                assert!(limits.connections <= configured && limits.public <= MAX_HTTP_CONNECTIONS, "{limits:?}");
                assert!(limits.connections.min(limits.public).min(limits.internal) > 0, "{limits:?} of {descriptors}");
            }
        }
    }
}

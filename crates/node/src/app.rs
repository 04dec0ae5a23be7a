//! A node's life: bind, serve, drain.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;
use prometheus::Registry;
use roomcast::{Broker, BrokerStatus, DrainPlan, Node, NodeFailure, Options, Router};
use roomcast_auth::JwtAuthorizer;
use roomcast_redis::{RedisBroker, RedisError, RedisMetrics};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{self, Guard, RequestMetrics};
use crate::config::{Drain, Layers};
use crate::descriptors::Descriptors;
use crate::internal::{self, Readiness};
use crate::listener::{self, Service};
use crate::reload::{ReloadSignal, Reloader, Running};
use crate::setup::Setup;
use crate::telemetry::{self, LogFormat, Logs};
use crate::tls::ServedTls;
use crate::{access_log, demo, health, places, public};

/// Reasons at `/readyz`.
const STARTING: &str = "starting";
const DRAINING: &str = "draining";
const CUT_OFF: &str = "cut off from Redis";
const NO_REVOCATIONS: &str = "the revocations have not been received";

/// How often the reason at `/readyz` is updated while the node is cut off from Redis.
const REASON_INTERVAL: Duration = Duration::from_secs(1);

/// Why the node did not run.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error("cannot listen on {address} ({option}): {}", what_to_do(option, error))]
    Bind { option: &'static str, address: SocketAddr, error: io::Error },
    #[error("cannot set up metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("the node failed: {0}")]
    Node(#[from] NodeFailure),
    #[error("cannot create a thread, a signal handler or a socket: {0}")]
    System(#[from] io::Error),
}

/// An error of binding, with the next step if there is one.
fn what_to_do(option: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "the port is in use; stop the program that uses it, or choose another address, such as {option}=127.0.0.1:0 for any \
             free port"
        ),
        ErrorKind::PermissionDenied => {
            format!("{error}; choose a port of at least 1024, or grant the program CAP_NET_BIND_SERVICE")
        }
        ErrorKind::AddrNotAvailable => {
            "no network interface of this machine has this address; 0.0.0.0 listens on all interfaces".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Runs the node until it has drained or a second signal ended it. The configuration was made of these arguments.
pub(crate) fn run(arguments: ArgMatches, layers: &Layers, setup: Setup, logs: &Logs) -> Result<(), RunError> {
    let bind = |option, address| listener::bind(address).map_err(|error| RunError::Bind { option, address, error });
    let config = &setup.config;
    let public = bind("--listen", *config.listen)?;
    let internal = config.internal_listen.map(|address| bind("--internal-listen", address)).transpose()?;

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.worker_threads.get() > 0 {
        runtime.worker_threads(config.worker_threads.get());
    }
    let runtime = runtime.enable_all().build()?;
    let result = runtime.block_on(serve(arguments, layers, setup, logs, public, internal));
    // What is left are tasks of connections that did not close in time.
    runtime.shutdown_background();
    result
}

async fn serve(
    arguments: ArgMatches,
    layers: &Layers,
    setup: Setup,
    logs: &Logs,
    public: std::net::TcpListener,
    internal: Option<std::net::TcpListener>,
) -> Result<(), RunError> {
    let (mut stop, mut reload) = (StopSignal::new()?, ReloadSignal::new()?);
    let registry = internal::registry(Handle::current().metrics().num_workers())?;
    logs.register(&registry)?;
    let descriptors = Descriptors::raise();
    let limits = descriptors.divide(setup.options.max_connections);
    let places = places::places([limits.public, limits.internal], &registry)?;
    let options = setup.options.clone().with(|options| options.max_connections = limits.connections);
    let readiness = Readiness::not_yet(STARTING, &registry)?;
    let node = join_cluster(&setup, options, &registry, &readiness)?;
    let guard = Guard::new(setup.api_rules(), &registry)?;
    let requests = RequestMetrics::new(&registry)?;
    let (tls, current_tls) = ServedTls::new(setup.tls.as_ref(), &registry)?;
    let service = Arc::new(Service {
        places: places.public,
        handshakes: places.handshakes,
        tls: current_tls,
        proxy_protocol: setup.proxy_protocol(),
        app: public_routes(&setup, &node, &registry)?,
    });

    let authorizer = setup.authentication.as_ref().map(|authentication| authentication.authorizer.clone());
    let mut api_url = None;
    if let Some(internal) = internal {
        tracing::info!("serving health, metrics and the HTTP API on http://{}", internal.local_addr()?);
        api_url = Some(format!("http://{}", on_this_machine(internal.local_addr()?)));
        let api = logged(&setup, api::routes(node.clone(), guard.clone(), requests, authorizer.clone()));
        internal::spawn(internal, places.internal, readiness.clone(), registry, api)?;
    }
    let public = TcpListener::from_std(public)?;
    let scheme = if setup.tls.is_some() { "https" } else { "http" };
    let address = public.local_addr()?;
    tracing::info!(node = %node.id(), demo = *setup.config.demo, "listening on {scheme}://{address}");
    greet(&setup, logs, &format!("{scheme}://{}", on_this_machine(address)), api_url.as_deref());
    tokio::spawn(finish_start(authorizer.clone(), node.clone(), readiness.clone()));

    let running = Running { logs, descriptors, node: node.clone(), guard, tls, authorizer };
    let mut reloader = Reloader::new(arguments, layers, setup, running);
    let stopped_by = tokio::select! {
        () = listener::accept(&public, &service) => Stop::Terminate,
        stop = stop.received() => stop,
        () = reloader.run(&mut reload) => Stop::Terminate,
        failure = node.failed() => return Err(failure.into()),
    };
    let plan = &reloader.setup().config.drain;
    let delay = delay_of(plan, stopped_by, node.connection_count());
    readiness.add(DRAINING);
    tokio::select! {
        () = drain(plan, delay, public, &service, &node) => tracing::info!("drained"),
        _ = stop.received() => tracing::warn!(connections = node.connection_count(), "ended before the drain was over"),
        failure = node.failed() => return Err(failure.into()),
    }
    Ok(())
}

/// Tells the person who started the node what to try, or what is missing.
fn greet(setup: &Setup, logs: &Logs, page: &str, api_url: Option<&str>) {
    if !*setup.config.demo && setup.authentication.is_none() && !setup.backends.answer_calls() {
        tracing::warn!(
            "clients can use no methods and no rooms: grant rights in [auth], add a [[backend]], restart with --demo, or write \
             a program that uses the library"
        );
    } else if telemetry::is_read_by_a_person() && *setup.config.log_format == LogFormat::Text {
        logs.print(&demo::welcome(page, api_url, setup.needs_api_key()));
    }
}

/// Makes the node ready once the keys of all issuers and the revocations are there. If an issuer is down, this takes 5 s,
/// and the node serves the clients of the others.
async fn finish_start(authorizer: Option<JwtAuthorizer>, node: Node, readiness: Readiness) {
    let Some(authorizer) = authorizer else { return readiness.remove(STARTING) };
    readiness.add(NO_REVOCATIONS);
    authorizer.fetch_keys().await;
    readiness.remove(STARTING);
    node.revocations_loaded().await;
    readiness.remove(NO_REVOCATIONS);
}

/// How long connections are still accepted.
fn delay_of(plan: &Drain, stopped_by: Stop, connections: usize) -> Duration {
    match stopped_by {
        Stop::Terminate => {
            let delay = *plan.delay;
            tracing::info!(
                connections,
                "draining; new connections are accepted for another {delay:?}; a second signal ends the node at once"
            );
            delay
        }
        Stop::Interrupt => {
            tracing::info!(connections, "draining without drain.delay; a second Ctrl-C ends the node at once");
            Duration::ZERO
        }
    }
}

/// Where a listener can be reached from its own machine.
fn on_this_machine(bound: SocketAddr) -> SocketAddr {
    SocketAddr::new(health::reachable(bound.ip()), bound.port())
}

/// What the public listener serves.
fn public_routes(setup: &Setup, node: &Node, registry: &Registry) -> Result<axum::Router, RunError> {
    let config = &setup.config;
    let mut router = Router::new(node.clone());
    if *config.demo {
        router = demo::add(router);
    }
    if let Some(rooms) = &*config.members_only {
        router = router.members_only(rooms.clone());
    }
    let tokens = setup.authentication.as_ref().map(|authentication| &authentication.authorizer);
    if let Some(tokens) = tokens {
        tokens.register_metrics(registry)?;
    }
    router = setup.hooks.add_to(router, tokens, registry)?;
    router = setup.backends.add_to(router, registry)?;
    node.register_metrics(registry)?;
    let mut app = public::routes(router, setup.backends.forward_headers());
    if *config.demo {
        app = app.merge(public::page());
    }
    // Inside of what replaces the address of a proxy by the client's.
    app = logged(setup, app);
    if let Some(proxies) = &*config.trusted_proxies {
        app = public::behind(proxies.clone(), app);
    }
    Ok(app)
}

/// These routes, with a line in the access log for each request if the node has one.
fn logged(setup: &Setup, routes: axum::Router) -> axum::Router {
    if *setup.config.access_log { access_log::log_requests(routes) } else { routes }
}

/// This node of the cluster that its Redis connects, or of one of its own.
fn join_cluster(setup: &Setup, options: Options, registry: &Registry, readiness: &Readiness) -> Result<Node, RunError> {
    let Some(redis) = &setup.redis else {
        // So that dashboards find them all at zero.
        RedisMetrics::new().register(registry)?;
        let node = Node::embedded(options);
        report_events(setup, &node, None);
        return Ok(node);
    };
    let broker = Arc::new(RedisBroker::start(redis.clone())?);
    broker.metrics().register(registry)?;
    readiness.add(CUT_OFF);
    tokio::spawn(watch_broker(Arc::clone(&broker), *setup.config.redis_unready_after, readiness.clone()));
    let node = Node::new(Arc::clone(&broker) as _, options);
    report_events(setup, &node, Some(&broker));
    Ok(node)
}

fn report_events(setup: &Setup, node: &Node, broker: Option<&RedisBroker>) {
    if let Some(events) = &setup.events {
        node.report_events(events.options(node.id(), broker));
    }
}

/// Keeps the node unready until Redis is proven to work, and again whenever Redis has not worked for `patience`.
async fn watch_broker(broker: Arc<RedisBroker>, patience: Duration, readiness: Readiness) {
    let mut status = broker.status();
    let is_up = |status: &BrokerStatus| *status == BrokerStatus::Up;
    let mut was_up = false;
    loop {
        // The reason may change during an outage.
        let mut logged = was_up;
        while let Err(_elapsed) = tokio::time::timeout(REASON_INTERVAL, status.wait_for(is_up)).await {
            let reason = broker.problem();
            // The broker itself logs that it has stopped working.
            if !std::mem::replace(&mut logged, true) {
                tracing::warn!(reason, "cannot use Redis yet; this node is not ready");
            }
            readiness.add_with(CUT_OFF, reason);
        }
        was_up = true;
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
async fn drain(plan: &Drain, delay: Duration, public: TcpListener, service: &Arc<Service>, node: &Node) {
    if !delay.is_zero() {
        let _ = tokio::time::timeout(delay, listener::accept(&public, service)).await;
    }
    drop(public);
    node.drain(DrainPlan::new(*plan.duration, *plan.timeout - *plan.delay)).await;
}

/// Why the node is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// SIGTERM, which supervisors and Kubernetes send: a load balancer may still send clients to the node.
    Terminate,
    /// SIGINT, which Ctrl-C sends: a person waits, and no load balancer.
    Interrupt,
}

/// The signals that end the node.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.interrupt.recv() => Stop::Interrupt,
        }
    }
}

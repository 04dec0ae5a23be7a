//! 1,000 calls over 50 connections, each of which ends in one of the ways in which a call can end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use hyper::Response;
use roomcast::{DrainPlan, Node, Options, Router, SocketIoUpgrade};
use roomcast_backends::{Backend, BackendMetrics, BackendOptions};
use roomcast_testkit::{Client, FaultyLink, HaProxy};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::fixture::{PROTOCOLS, Protocol, Server, metric, wait_until, whole};

const CONNECTIONS: usize = 50;
const CALLS: usize = 20;

/// Longer than it takes to start all calls on a busy machine, and to find out that a client is half-open.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How the calls of a connection end that are neither answered nor reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Reset,
    Killed,
    HalfOpen,
    Deadline,
    Drain,
}

fn ending(connection: usize) -> Ending {
    let endings = [Ending::Reset, Ending::Killed, Ending::HalfOpen, Ending::Deadline, Ending::Drain];
    endings[connection % endings.len()]
}

struct Running {
    node: Node,
    /// Where clients connect, and where those connect that will be half-open.
    direct: String,
    link: FaultyLink,
    registry: prometheus::Registry,
}

impl Running {
    async fn start(backend: SocketAddr, protocol: Protocol) -> Self {
        let mut options = BackendOptions::new("chat", format!("http://{backend}").parse().unwrap());
        options.http2 = protocol == Protocol::Http2;
        options.concurrency = 2 * CONNECTIONS * CALLS;
        let (metrics, registry) = (BackendMetrics::new().unwrap(), prometheus::Registry::new());
        metrics.register(&registry).unwrap();
        let node = Node::embedded(Options::default().with(|options| {
            options.ping_interval = Duration::from_millis(500);
            options.pong_timeout = Duration::from_millis(500);
            options.call_timeout = CALL_TIMEOUT;
        }));
        node.register_metrics(&registry).unwrap();
        let backend = Backend::new(options, &metrics).unwrap();
        let router = Router::new(node.clone()).calls("chat", ["**".parse().unwrap()], backend);
        let upgrade = async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await;
        let app = axum::Router::new().route("/socket", get(upgrade));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let direct = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { node, link: FaultyLink::start(&direct).await, direct, registry }
    }

    async fn connect(&self, ending: Ending) -> Client {
        let address = if ending == Ending::HalfOpen { self.link.address() } else { &self.direct };
        Client::connect(&format!("ws://{address}/socket")).await.unwrap()
    }

    fn calls(&self, outcome: Option<&str>) -> f64 {
        metric(&self.registry, "roomcast_calls_total", outcome.map(|outcome| ("outcome", outcome)))
    }

    fn requests(&self, outcome: Option<&str>) -> f64 {
        metric(&self.registry, "roomcast_backend_requests_total", outcome.map(|outcome| ("outcome", outcome)))
    }
}

/// Runs the calls of a connection until they have ended, and returns how many got a Response.
/// It adds a permit when the responses to those calls that are answered have arrived. `all_started` becomes `true` when the backend has the requests of all calls.
async fn run(
    mut client: Client,
    number: usize,
    answers_are_here: Arc<Semaphore>,
    mut all_started: watch::Receiver<bool>,
) -> usize {
    let ending = ending(number);
    let (mut answered, mut reset) = (Vec::new(), Vec::new());
    let mut others = Vec::new();
    for call in 0..CALLS {
        // A mix that is the same in each run.
        match (number * 7 + call * 5) % 3 {
            0 => answered.push(client.start("answer", "").await.unwrap()),
            1 => reset.push(client.start("never", "").await.unwrap()),
            _ => others.push(client.start("never", vec![0; 10_000]).await.unwrap()),
        }
    }
    let mut answers = answered.len();
    for call in answered {
        assert_eq!(client.answer(call).await.unwrap(), "answered");
    }
    answers_are_here.add_permits(1);
    // Meanwhile, the client answers pings.
    tokio::select! {
        started = all_started.wait_for(|all_started| *all_started) => drop(started.unwrap()),
        answer = client.next_answer() => panic!("{ending:?}: {answer:?} came early"),
    }
    for call in reset {
        client.reset(call).await.unwrap();
    }
    match ending {
        Ending::Reset => {
            for call in others {
                client.reset(call).await.unwrap();
            }
            client.close().await.unwrap();
        }
        Ending::Killed => drop(client),
        // The link is cut. The client stays.
        Ending::HalfOpen => drop(client.closed().await),
        Ending::Deadline => {
            for call in others {
                let answer = client.answer(call).await.unwrap();
                assert!(String::from_utf8_lossy(&answer).contains("DEADLINE_EXCEEDED"), "{answer:?}");
                answers += 1;
            }
            assert_eq!(client.stray_answers(), 0);
        }
        // The calls are cancelled, and the connection closes.
        Ending::Drain => drop(client.closed().await),
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn however_calls_end_no_request_stays_with_the_backend_and_each_has_one_outcome() {
    let directly = PROTOCOLS.map(|protocol| (protocol, false));
    let behind_a_proxy = PROTOCOLS.map(|protocol| (protocol, true));
    for (protocol, has_proxy) in directly.into_iter().chain(behind_a_proxy) {
        let server = Server::start(protocol, |request| {
            Box::pin(async move {
                if request.uri().path() == "/never" {
                    std::future::pending::<()>().await;
                }
                Response::new(whole("answered"))
            })
        })
        .await;
        let proxy = match has_proxy {
            true => Some(HaProxy::start_http(server.address, protocol == Protocol::Http2).await),
            false => None,
        };
        let backend = proxy.as_ref().map_or(server.address, |proxy| proxy.address().parse().unwrap());
        let running = Running::start(backend, protocol).await;
        let mut answered = 0;
        // The calls that a drain ends begin after all others have ended.
        for are_drained in [false, true] {
            let before = server.started();
            let (all_started, receiver) = watch::channel(false);
            let mut clients = JoinSet::new();
            let numbers: Vec<_> =
                (0..CONNECTIONS).filter(|number| (ending(*number) == Ending::Drain) == are_drained).collect();
            let answers_are_here = Arc::new(Semaphore::new(0));
            for number in &numbers {
                let client = running.connect(ending(*number)).await;
                clients.spawn(run(client, *number, Arc::clone(&answers_are_here), receiver.clone()));
            }
            let all = u32::try_from(numbers.len()).unwrap();
            let answered_all =
                tokio::time::timeout(roomcast::testing::PATIENCE, answers_are_here.acquire_many(all)).await;
            drop(answered_all.expect("the answers arrive in time").unwrap());
            wait_until(|| server.started() - before == numbers.len() * CALLS).await;
            all_started.send_replace(true);
            if are_drained {
                running.node.drain(DrainPlan::new(Duration::ZERO, Duration::from_millis(300))).await;
            } else {
                running.link.cut();
            }
            wait_until(|| metric(&running.registry, "roomcast_calls_in_flight", None) == 0.0).await;
            wait_until(|| server.live() == 0).await;
            if !are_drained {
                running.link.heal(roomcast_testkit::AfterCut::Reset);
            }
            while let Some(answers) = clients.join_next().await {
                answered += answers.unwrap();
            }
        }

        let total = (CONNECTIONS * CALLS) as f64;
        wait_until(|| running.requests(None) == total).await;
        assert_eq!(running.calls(None), total, "every call has exactly one outcome");
        assert_eq!(running.calls(Some("cancelled")), total - answered as f64);
        assert_eq!(running.calls(Some("ok")), running.requests(Some("ok")));
        assert_eq!(running.requests(Some("ok")) + running.requests(Some("cancelled")), total);
        assert_eq!(metric(&running.registry, "roomcast_backend_requests_in_flight", None), 0.0);
        if protocol == Protocol::Http1 {
            let stopped = || metric(&running.registry, "roomcast_backend_stop_seconds", None);
            wait_until(|| stopped() == running.requests(Some("cancelled"))).await;
            if !has_proxy {
                // What is left in the pool was idle, and the pool closes it.
                wait_until(|| server.connections() == 0).await;
            }
        } else if !has_proxy {
            assert_eq!(server.connections(), 1);
        }
    }
}

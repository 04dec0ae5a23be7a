//! Cancellation is true: whatever ends a call, its work stops, all of it, and is told why.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Watch, serve, serve_loop, wait_until, within_deadline};
use parking_lot::Mutex;
use prometheus::Registry;
use roomcast::{Cancel, CancelCause, Code, DrainPlan, Node, Options, Procedure, Router};
use roomcast_protocol::CallId;
use roomcast_testkit::Client;

/// The contract's own bound on how long a cancelled call's work may go on.
const STOPS_WITHIN: Duration = Duration::from_millis(50);

/// A busy machine may miss a bound once; work that does not stop misses it every time.
const ATTEMPTS: usize = 5;

/// A handler, a task in its scope, and blocking work, none of which ends by itself.
async fn endless(watch: Watch, cancel: Cancel) {
    let _handler = watch.begin(&cancel);
    let spawned = watch.begin(&cancel);
    cancel.spawn_and_abort_on_reset(async move {
        let _spawned = spawned;
        pending::<()>().await;
    });
    let blocking = watch.begin(&cancel);
    cancel.spawn_blocking(move |cancel| {
        let _blocking = blocking;
        while !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1)); // a chunk of work
        }
    });
    pending().await
}

fn endless_router(watch: &Watch, options: Options) -> (Router, Node) {
    let node = Node::embedded(options);
    let watch = watch.clone();
    let router = Router::new(node.clone())
        .call("endless", move |cancel: Cancel| endless(watch.clone(), cancel))
        .quick_call("echo", async |payload: Bytes| payload);
    (router, node)
}

/// Starts an endless call with its three pieces of work.
async fn start_endless(url: &str, watch: &Watch) -> (Client, CallId) {
    let mut client = Client::connect(url).await.unwrap();
    let id = client.start("endless", "").await.unwrap();
    wait_until("the call runs", || watch.running() == 3).await;
    (client, id)
}

async fn assert_stops(watch: &Watch, router: &Router, cause: CancelCause) -> Duration {
    let started = Instant::now();
    wait_until("the work has stopped", || watch.running() == 0).await;
    let took = started.elapsed();
    assert_eq!(watch.causes()[watch.causes().len() - 3..], [Some(cause); 3]);
    wait_until("the gauge is back at 0", || router.node().calls_in_flight() == 0).await;
    took
}

fn gauge(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    families.iter().find(|family| family.name() == name).unwrap().get_metric()[0].get_gauge().get_value()
}

/// How many calls with this cause have stopped, and the sum of their times in seconds.
fn stop_durations(registry: &Registry, cause: CancelCause) -> (u64, f64) {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "roomcast_call_stop_duration_seconds");
    let mut metrics = family.iter().flat_map(|family| family.get_metric());
    let found = metrics.find(|metric| metric.get_label()[0].value() == cause.as_str());
    found.map_or((0, 0.0), |found| {
        let histogram = found.get_histogram();
        (histogram.get_sample_count(), histogram.get_sample_sum())
    })
}

fn assert_within_bound(took: &[Duration]) {
    let best = took.iter().min().unwrap();
    assert!(*best < STOPS_WITHIN, "the work went on for {took:?}");
}

/// Ends an endless call in one way, several times: all its work stops, in time, and is told the cause. A
/// client that `end` gives back, because it is still connected, gets no answer to that call.
async fn assert_work_stops(cause: CancelCause, end: impl AsyncFn(Client, CallId) -> Option<Client>) {
    let watch = Watch::default();
    let (router, _cluster) = endless_router(&watch, Options::default());
    let url = serve(router.clone()).await;
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        let (client, id) = start_endless(&url, &watch).await;
        let connected = end(client, id).await;
        took.push(assert_stops(&watch, &router, cause).await);
        if let Some(mut client) = connected {
            assert_eq!(client.call("echo", "still here").await.unwrap(), "still here");
            assert_eq!(client.stray_answers(), 0);
            client.close().await.unwrap();
        }
    }
    assert_within_bound(&took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stops_all_work_of_the_call_and_nothing_is_answered() {
    assert_work_stops(CancelCause::Reset, async |mut client, id| {
        client.reset(id).await.unwrap();
        Some(client)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_stops_its_calls() {
    assert_work_stops(CancelCause::Closed, async |client, _| {
        client.close().await.unwrap();
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_stops_its_calls() {
    assert_work_stops(CancelCause::Lost, async |client, _| {
        drop(client); // no Close
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_loses_its_calls() {
    let watch = Watch::default();
    let silence = Duration::from_millis(100);
    let options = Options::default().with(|options| {
        options.ping_interval = silence;
        options.pong_timeout = silence;
    });
    let (router, _cluster) = endless_router(&watch, options);
    let url = serve(router.clone()).await;
    let (_client, _) = start_endless(&url, &watch).await; // it answers pings only while it reads
    assert_stops(&watch, &router, CancelCause::Lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_calls_end_until_its_deadline() {
    let watch = Watch::default();
    let (router, node) = endless_router(&watch, Options::default());
    let url = serve(router.clone()).await;
    let mut idle = Client::connect(&url).await.unwrap();
    assert_eq!(idle.call("echo", "here").await.unwrap(), "here");
    let (mut busy, _) = start_endless(&url, &watch).await;

    let plan = DrainPlan::new(Duration::from_millis(100), Duration::from_millis(500));
    let (drained, idle_closed, (refused, busy_code)) = tokio::join!(
        async {
            node.drain(plan).await;
            node.connection_count()
        },
        idle.closed(),
        async {
            // Calls are answered until the drain comes to this connection; from then on they are refused.
            loop {
                let answer = busy.call_text("echo", "here").await.unwrap();
                if answer != "here" {
                    return (answer, busy.closed().await.unwrap().0);
                }
            }
        },
    );
    assert_eq!(idle_closed.unwrap().0, 1001);
    assert!(refused.contains("UNAVAILABLE"), "{refused}");
    assert_eq!(drained, 0);
    assert_stops(&watch, &router, CancelCause::Drain).await;
    assert_eq!(busy_code, 1001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline() {
    let watch = Watch::default();
    let options = Options::default().with(|options| options.call_timeout = Duration::from_millis(100));
    let (router, _cluster) = endless_router(&watch, options);
    let url = serve(router.clone()).await;
    let mut client = Client::connect(&url).await.unwrap();
    assert!(client.call_text("endless", "").await.unwrap().contains("DEADLINE_EXCEEDED"));
    wait_until("the work has stopped", || watch.running() == 0).await;
    wait_until("the gauge is back at 0", || router.node().calls_in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_answered_and_stops_what_the_handler_had_spawned() {
    let watch = Watch::default();
    let panicking = {
        let watch = watch.clone();
        move |cancel: Cancel| {
            let spawned = watch.begin(&cancel);
            async move {
                cancel.spawn_and_abort_on_reset(async move {
                    let _spawned = spawned;
                    pending::<()>().await;
                });
                if true {
                    panic!("a handler's panic, part of the test");
                }
            }
        }
    };
    let router = Router::new(Node::embedded(Options::default()))
        .call("spawned", panicking.clone())
        .quick_call("quick", panicking)
        .quick_call("echo", async |payload: Bytes| payload);
    let url = serve(router.clone()).await;
    let mut client = Client::connect(&url).await.unwrap();
    for procedure in ["spawned", "quick"] {
        assert!(client.call_text(procedure, "").await.unwrap().contains("INTERNAL"));
        wait_until("the work has stopped", || watch.running() == 0).await;
        assert_eq!(watch.causes().last(), Some(&Some(CancelCause::Panic)));
    }
    assert_eq!(client.call("echo", "unharmed").await.unwrap(), "unharmed");
    wait_until("the gauge is back at 0", || router.node().calls_in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_without_awaits_stops_by_asking() {
    let watch = Watch::default();
    let busy = {
        let watch = watch.clone();
        move |cancel: Cancel| {
            let working = watch.begin(&cancel);
            async move {
                let _working = working;
                while !cancel.is_cancelled() {
                    std::hint::spin_loop();
                }
            }
        }
    };
    let router = Router::new(Node::embedded(Options::default())).call("busy", busy);
    let url = serve(router.clone()).await;
    let mut client = Client::connect(&url).await.unwrap();
    let id = client.start("busy", "").await.unwrap();
    wait_until("the call runs", || watch.running() == 1).await;
    client.reset(id).await.unwrap();
    wait_until("the work has stopped", || watch.running() == 0).await;
    assert_eq!(watch.causes(), [Some(CancelCause::Reset)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_outlives_its_call_is_counted_until_it_ends_and_then_measured_once() {
    const OUTLIVES_BY: Duration = Duration::from_millis(100);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let stubborn = move |cancel: Cancel| {
        let released = Arc::clone(&released);
        cancel.spawn_blocking(move |_| released.lock().recv().unwrap());
        pending::<()>()
    };
    let router = Router::new(Node::embedded(Options::default())).call("stubborn", stubborn);
    let url = serve(router.clone()).await;
    let registry = Registry::new();
    router.node().register_metrics(&registry).unwrap();
    let stopped = || stop_durations(&registry, CancelCause::Closed);
    let mut client = Client::connect(&url).await.unwrap();
    client.start("stubborn", "").await.unwrap();
    wait_until("the call runs", || router.node().calls_in_flight() == 1).await;
    client.close().await.unwrap();

    wait_until("the call is cancelled", || gauge(&registry, "roomcast_cancelled_calls_in_flight") == 1.0).await;
    tokio::time::sleep(OUTLIVES_BY).await; // the time to be measured
    assert_eq!((stopped(), router.node().calls_in_flight()), ((0, 0.0), 1));
    release.send(()).unwrap();
    wait_until("the work has ended", || router.node().calls_in_flight() == 0).await;
    let (count, seconds) = stopped();
    assert_eq!(count, 1);
    assert!(seconds >= OUTLIVES_BY.as_secs_f64(), "{seconds}");
    assert_eq!(gauge(&registry, "roomcast_cancelled_calls_in_flight"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_is_obeyed_while_megabytes_wait_for_a_client_that_does_not_read() {
    const CHUNK: usize = 512 * 1024;
    const CHUNKS: usize = 32;
    let watch = Watch::default();
    let options = Options::default().with(|options| options.max_outbound = 64 * 1024 * 1024);
    let (router, _cluster) = endless_router(&watch, options);
    let queued = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&queued);
    let router = router.quick_call("much", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(vec![0; CHUNK])
    });
    let url = serve(router.clone()).await;
    let mut took = Vec::new();
    for _ in 0..ATTEMPTS {
        let (mut client, id) = start_endless(&url, &watch).await;
        for _ in 0..CHUNKS {
            client.start("much", "").await.unwrap();
        }
        wait_until("all is queued", || queued.load(Ordering::SeqCst) == CHUNKS).await;
        queued.store(0, Ordering::SeqCst);
        client.reset(id).await.unwrap();
        took.push(assert_stops(&watch, &router, CancelCause::Reset).await);
    }
    assert_within_bound(&took);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_one_outcome_however_answers_and_resets_race() {
    let router = Router::new(Node::embedded(Options::default())).call("yielding", async |payload: Bytes| {
        for _ in 0..payload.first().copied().unwrap_or_default() {
            tokio::task::yield_now().await;
        }
        payload
    });
    let url = serve(router.clone()).await;
    let mut client = Client::connect(&url).await.unwrap();
    for round in 0..500u32 {
        let length = (round % 7) as u8;
        let kept = client.start("yielding", [length]).await.unwrap();
        let given_up = client.start("yielding", [length]).await.unwrap();
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        client.reset(given_up).await.unwrap();
        // The Reset was processed before this call; an answer to the call given up may be before it, never after.
        client.call("yielding", [0]).await.unwrap();
        let stray = client.stray_answers();
        client.call("yielding", [0]).await.unwrap();
        assert_eq!(client.stray_answers(), stray);
        assert_eq!(client.answer(kept).await.unwrap(), [length].as_slice());
    }
    wait_until("the gauge is back at 0", || router.node().calls_in_flight() == 0).await;
}

// === the tutorial's loop ===

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_ends_or_panics_stops_its_calls_and_closes_the_connection() {
    let watch = Watch::default();
    let handler = {
        let watch = watch.clone();
        move |mut socket: roomcast::SocketIo| {
            let watch = watch.clone();
            async move {
                while let Ok(procedure) = socket.recv().await {
                    match procedure {
                        Procedure::Call(_, response, cancel) => {
                            let work = watch.begin(&cancel);
                            cancel.spawn_and_abort_on_reset(async move {
                                let _both = (work, response);
                                pending::<()>().await;
                            });
                        }
                        Procedure::Notify(event) if event.method() == "panic" => {
                            panic!("a handler's panic, part of the test")
                        }
                        Procedure::Notify(_) => return,
                    }
                }
            }
        }
    };
    let url = serve_loop(Options::default(), handler).await;
    for (event, code) in [("return", 1000), ("panic", 1011)] {
        let mut client = Client::connect(&url).await.unwrap();
        client.start("endless", "").await.unwrap();
        wait_until("the call runs", || watch.running() == 1).await;
        client.notify(event, "").await.unwrap();
        assert_eq!(client.closed().await.unwrap().0, code);
        wait_until("the work has stopped", || watch.running() == 0).await;
        assert_eq!(watch.causes().last(), Some(&Some(CancelCause::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_dropped_unused_answers_with_an_error() {
    let handler = async |mut socket: roomcast::SocketIo| while socket.recv().await.is_ok() {};
    let url = serve_loop(Options::default(), handler).await;
    let mut client = Client::connect(&url).await.unwrap();
    assert!(client.call_text("anything", "").await.unwrap().contains(Code::Internal.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn notifying_a_client_that_has_gone_is_an_error() {
    let (sender, mut notifiers) = tokio::sync::mpsc::channel(1);
    let handler = move |mut socket: roomcast::SocketIo| {
        let sender = sender.clone();
        async move {
            while socket.recv().await.is_ok() {}
            assert!(socket.notify("late", "").await.is_err());
            sender.send(socket.notifier()).await.unwrap();
        }
    };
    let url = serve_loop(Options::default(), handler).await;
    drop(Client::connect(&url).await.unwrap());
    let notifier = notifiers.recv().await.unwrap();
    let started = Instant::now();
    while notifier.notify("later", "").await.is_ok() {
        within_deadline(started, "a notifier learns of the end");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_does_not_receive_does_not_keep_a_reset_from_its_call() {
    let (watch, blocked) = (Watch::default(), Watch::default());
    let handler = {
        let (watch, blocked) = (watch.clone(), blocked.clone());
        move |mut socket: roomcast::SocketIo| {
            let (watch, blocked) = (watch.clone(), blocked.clone());
            async move {
                let Ok(Procedure::Call(_, response, cancel)) = socket.recv().await else { return };
                let work = watch.begin(&cancel);
                cancel.spawn_and_abort_on_reset(async move {
                    let _both = (work, response);
                    pending::<()>().await;
                });
                let _blocked = blocked.begin(&cancel);
                pending::<()>().await; // never receives again
            }
        }
    };
    let url = serve_loop(Options::default(), handler).await;
    let mut client = Client::connect(&url).await.unwrap();
    let id = client.start("endless", "").await.unwrap();
    wait_until("the call runs", || watch.running() == 1 && blocked.running() == 1).await;
    client.reset(id).await.unwrap();
    wait_until("the work has stopped", || watch.running() == 0).await;
}

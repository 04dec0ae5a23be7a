//! A server of this library on a free port, and what tests watch it by.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its part")]

pub mod broker;
pub mod one;
pub mod tokens;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::routing::get;
use parking_lot::Mutex;
use roomcast::{Cancel, CancelCause, Options, Router, SocketIo, SocketIoUpgrade};

/// No test waits longer for a condition.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn serve(router: Router) -> String {
    listen(
        axum::Router::new().route("/socket", get(async move |upgrade: SocketIoUpgrade| upgrade.route(&router).await)),
    )
    .await
}

pub async fn serve_loop<F, Fut>(options: Options, handler: F) -> String
where
    F: Fn(SocketIo) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let upgrade = async move |upgrade: SocketIoUpgrade| upgrade.options(options).on_upgrade(16, handler);
    listen(axum::Router::new().route("/socket", get(upgrade))).await
}

pub async fn listen(app: axum::Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("ws://{address}/socket")
}

#[track_caller]
pub fn within_deadline(started: Instant, what: &str) {
    assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
}

pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        within_deadline(started, what);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many pieces of work are under way, and why those that were cancelled ended.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    running: Arc<AtomicUsize>,
    causes: Arc<Mutex<Vec<Option<CancelCause>>>>,
}

/// A piece of work; its clean-up notes the cause of its end.
pub struct Working {
    watch: Watch,
    cancel: Cancel,
}

impl Watch {
    pub fn begin(&self, cancel: &Cancel) -> Working {
        self.running.fetch_add(1, Ordering::SeqCst);
        Working { watch: self.clone(), cancel: cancel.clone() }
    }

    pub fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    pub fn causes(&self) -> Vec<Option<CancelCause>> {
        self.causes.lock().clone()
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.watch.causes.lock().push(self.cancel.cause());
        self.watch.running.fetch_sub(1, Ordering::SeqCst);
    }
}

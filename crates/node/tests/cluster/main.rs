//! A cluster of nodes over Redis: everybody gets every event once and in one order, whatever fails.
//!
//! Publishers on all nodes number their events; members on all nodes log what they get; a judge compares
//! both by content. Each test prints its figures; `--nocapture` shows them. Sizes are variables, with
//! defaults for every change's run:
//!
//! | variable | default | what |
//! |---|---|---|
//! | `ROOMCAST_CLUSTER_CLIENTS` | 600 | members behind the load balancer |
//! | `ROOMCAST_CLUSTER_ROOMS` | 40 | rooms that they are in |
//! | `ROOMCAST_CLUSTER_BURST` | 100000 | events of the burst |
//! | `ROOMCAST_CLUSTER_CUT_SECONDS` | 6 | how long a node is cut off from Redis |

mod actors;
mod addressing;
mod board;
mod burst;
mod catch_up;
mod crowd;
mod failover;
mod faults;
mod gathering;
mod judge;
mod outage;
mod presence;
mod proof;
mod report;
mod retries;
mod room_limit;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::str::FromStr;
use std::time::Duration;

use roomcast_testkit::Node;
use tokio::sync::{Mutex, MutexGuard};

/// No test waits longer for one thing.
const DEADLINE: Duration = Duration::from_secs(60);

/// A size that a variable may say.
fn size<T: FromStr>(variable: &str, default: T) -> T {
    match std::env::var(variable) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {value:?}")),
        Err(_) => default,
    }
}

/// Makes a test wait for its turn: each of them runs many processes and measures.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// The tests load a cluster with few connections.
const UNLIMITED_RATES: [&str; 3] = ["--rates-frames=off", "--rates-calls=off", "--rates-publishes=off"];

/// Starts a node at a Redis.
async fn start_node(redis: &str) -> Node {
    let arguments = ["--demo", "--redis", redis, "--redis-unready-after", "2s"];
    support::start_node(&[&arguments[..], &UNLIMITED_RATES].concat()).await
}

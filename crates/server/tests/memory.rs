//! A node whose connections hold more memory than they may.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use common::{serve, wait_until};
use parking_lot::Mutex;
use roomcast::{Cluster, Options, Router};
use roomcast_testkit::{Client, ClientError};

/// Less than one read brings, so that messages are whole when they are counted.
const INBOUND_MEMORY: usize = 1000;

fn is_refused(connected: &Result<Client, ClientError>) -> bool {
    matches!(connected, Err(error) if error.to_string().contains("503"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_new_is_accepted_until_what_is_held_fits_again() {
    let cluster = Cluster::embedded(Options { inbound_memory: INBOUND_MEMORY, ..Options::default() });
    // A handler that can't be stopped keeps its payload whatever becomes of its connection.
    let (goes_on, until_it_goes_on) = mpsc::channel::<()>();
    let until_it_goes_on = Arc::new(Mutex::new(until_it_goes_on));
    let router = Router::new(cluster.clone()).call("stuck", move |payload: Bytes| {
        let until_it_goes_on = Arc::clone(&until_it_goes_on);
        async move {
            let _ = until_it_goes_on.lock().recv();
            payload.len().to_string()
        }
    });
    let url = serve(router).await;
    let mut client = Client::connect(&url).await.unwrap();
    client.start("stuck", vec![b'x'; INBOUND_MEMORY + 1]).await.unwrap();
    assert_eq!(client.closed().await.unwrap().0, 1013);
    assert!(is_refused(&Client::connect(&url).await), "it was accepted");
    drop(goes_on);
    let mut accepted = Client::connect(&url).await;
    while is_refused(&accepted) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        accepted = Client::connect(&url).await;
    }
    accepted.unwrap();
}

#[tokio::test]
async fn notifications_that_wait_on_a_connection_closed_for_memory_are_given_up() {
    let cluster = Cluster::embedded(Options { inbound_memory: INBOUND_MEMORY, ..Options::default() });
    let router = Router::new(cluster.clone()).notify("waits", async || std::future::pending::<()>().await);
    let url = serve(router).await;
    let mut client = Client::connect(&url).await.unwrap();
    for _ in 0..2 {
        client.notify("waits", vec![b'x'; INBOUND_MEMORY]).await.unwrap();
    }
    assert_eq!(client.closed().await.unwrap().0, 1013);
    // Long before the time that they would have had to finish.
    wait_until("the connection has ended", || cluster.connection_count() == 0).await;
    Client::connect(&url).await.unwrap();
}

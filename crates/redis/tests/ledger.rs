//! The ledger in a real Redis: what it keeps, and what it does when records are lost or too many.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roomcast_core::{
    Broker, BrokerError, Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_PAGE, MAX_LEDGER_RECORDS,
};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::{RedisOptions as ServerOptions, RedisServer};

/// No test waits longer for Redis.
const DEADLINE: Duration = Duration::from_secs(20);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn record(number: usize, until: u64) -> LedgerRecord {
    LedgerRecord::new(until, number.to_string().into_bytes().into())
}

async fn exchange(
    broker: &RedisBroker,
    after: Option<LedgerPosition>,
    add: Vec<LedgerRecord>,
) -> Result<LedgerPage, BrokerError> {
    tokio::time::timeout(DEADLINE, broker.exchange(Exchange::new(after, add))).await.expect("it ends")
}

/// Repeats the exchange until Redis is up.
async fn exchange_when_up(broker: &RedisBroker, after: Option<LedgerPosition>, add: Vec<LedgerRecord>) -> LedgerPage {
    let repeat = async {
        loop {
            match broker.exchange(Exchange::new(after.clone(), add.clone())).await {
                Ok(page) => return page,
                Err(BrokerError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, repeat).await.expect("Redis is up")
}

#[tokio::test]
async fn a_redis_that_has_lost_its_data_starts_the_ledger_over() {
    let mut server = RedisServer::start(ServerOptions::default()).await;
    let broker = RedisBroker::start(RedisOptions::new(server.url())).unwrap();
    let first = exchange_when_up(&broker, None, vec![record(1, now() + 600)]).await;
    assert_eq!(first.records.len(), 1);
    server.restart().await;
    let empty = exchange_when_up(&broker, Some(first.position.clone()), Vec::new()).await;
    assert!(empty.starts_over && empty.records.is_empty(), "{empty:?}");
    let again = exchange_when_up(&broker, Some(empty.position), vec![record(2, now() + 600)]).await;
    assert_eq!(again.records, [record(2, again.records[0].until)]);
    assert_ne!(again.position.epoch, first.position.epoch);
}

#[tokio::test]
async fn a_full_ledger_removes_what_has_expired_and_accepts_no_more_than_its_limit() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = RedisBroker::start(RedisOptions::new(server.url())).unwrap();
    let later = now() + 600;
    exchange_when_up(&broker, None, vec![record(0, later)]).await;
    let expired: Vec<_> = (1..MAX_LEDGER_RECORDS).map(|number| record(number, now() - 1)).collect();
    for chunk in expired.chunks(1000) {
        exchange(&broker, None, chunk.to_vec()).await.unwrap();
    }
    let full = exchange(&broker, None, Vec::new()).await.unwrap();
    assert!(full.records.len() == MAX_LEDGER_PAGE && full.has_more);
    // One more record makes the script remove the expired ones, so the records have other places.
    let page = exchange(&broker, Some(full.position), vec![record(1, later)]).await.unwrap();
    assert!(page.starts_over && !page.has_more);
    assert_eq!(page.records, [record(0, later), record(1, later)]);
    let rest: Vec<_> = (2..MAX_LEDGER_RECORDS).map(|number| record(number, later)).collect();
    for chunk in rest.chunks(1000) {
        exchange(&broker, None, chunk.to_vec()).await.unwrap();
    }
    assert_eq!(exchange(&broker, None, vec![record(0, later)]).await, Err(BrokerError::LedgerFull));
}

/// After a loss, each node adds what it misses, so a record is added many times.
#[tokio::test]
async fn a_record_that_is_added_many_times_takes_one_place() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = RedisBroker::start(RedisOptions::new(server.url())).unwrap();
    let later = now() + 600;
    let records: Vec<_> = (0..500).map(|number| record(number, later)).collect();
    exchange_when_up(&broker, None, records.clone()).await;
    for _ in 0..MAX_LEDGER_RECORDS / records.len() {
        exchange(&broker, None, records.clone()).await.unwrap();
    }
    let mut page = exchange(&broker, None, vec![record(500, later)]).await.unwrap();
    let mut read = page.records.clone();
    while page.has_more {
        page = exchange(&broker, Some(page.position), Vec::new()).await.unwrap();
        read.extend(page.records.clone());
    }
    assert_eq!(read[..500], records);
    assert_eq!(read.last(), Some(&record(500, later)));
}

#[tokio::test]
async fn records_that_the_cluster_has_not_signed_are_left_out() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let with_secret = |secret: &str| {
        let mut options = RedisOptions::new(server.url());
        options.cluster_secrets = vec![secret.to_owned()];
        RedisBroker::start(options).unwrap()
    };
    let (one, other) = (with_secret("one"), with_secret("other"));
    exchange_when_up(&one, None, vec![record(1, now() + 600)]).await;
    let page = exchange_when_up(&other, None, vec![record(2, now() + 600)]).await;
    assert_eq!(page.records, [record(2, page.records[0].until)]);
    assert_eq!(page.position.read, 2, "the position counts all records");
}

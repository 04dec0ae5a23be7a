//! The broker over Redis, which combines the other modules.

use std::fmt;
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fred::types::config::{Config, TlsConfig, TlsConnector};
use parking_lot::Mutex;
use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, EventRules, Exchange, LedgerPage, Position, Publication,
    PublicationQueue, Publish, RoomName,
};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::io::commands::Commands;
use crate::io::connection::Credentials;
use crate::io::events::RedisEvents;
use crate::io::ledger::Ledger;
use crate::io::publisher::Publisher;
use crate::io::subscriber::{Shared, Subscriber};
use crate::metrics::RedisMetrics;
use crate::options::RedisOptions;
use crate::state::keys::Keys;
use crate::state::seal::Seal;
use crate::state::subscriptions::Subscriptions;

/// How long [`check`] waits until Redis is proven to work. After that, it waits for Redis' version
/// and mode.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
const INFO_TIMEOUT: Duration = Duration::from_secs(1);

/// The error of invalid options, or of a Redis that cannot be used with them.
///
/// ```
/// use roomcast_redis::{RedisBroker, RedisOptions};
///
/// let error = RedisBroker::start(RedisOptions::new("http://redis")).unwrap_err();
/// assert!(error.to_string().starts_with("invalid Redis URL: it must begin with one of redis://"), "{error}");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RedisError(String);

/// A node's `Broker` over Redis 7.0 or later: a single server, Sentinel or Redis Cluster. A script
/// publishes the events and numbers them. Each room is a sharded channel (SPUBLISH, SSUBSCRIBE).
///
/// ```no_run
/// use std::sync::Arc;
/// use roomcast::{Broker, BrokerStatus, Node, Options};
/// use roomcast_redis::{RedisBroker, RedisOptions};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = Arc::new(RedisBroker::start(RedisOptions::new("redis://127.0.0.1:6379"))?);
/// broker.status().wait_for(|status| *status == BrokerStatus::Up).await?;
/// let node = Node::new(broker, Options::default());
/// node.room("lobby").publish("news", "hello").await?;
/// # Ok(()) }
/// ```
pub struct RedisBroker {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
    commands: Arc<Commands>,
    ledger: Arc<Ledger>,
    keys: Keys,
    seal: Seal,
}

impl RedisBroker {
    /// Starts to connect, and reconnects until the broker is dropped or closed. While Redis cannot
    /// be reached, publishes and subscriptions fail.
    ///
    /// # Errors
    /// Returns [`RedisError`] if the options are invalid.
    ///
    /// # Panics
    /// Panics if it is called outside a tokio runtime.
    pub fn start(options: RedisOptions) -> Result<Self, RedisError> {
        let config = config(&options)?;
        options.check_history_bytes().map_err(RedisError)?;
        let metrics = RedisMetrics::new();
        let keys = Keys::new(&options.prefix, config.database.unwrap_or(0));
        let seal = Seal::new(&options.cluster_secrets);
        let commands = Arc::new(Commands::new(config.clone()));
        let publisher = Publisher::new(
            Arc::clone(&commands),
            keys.clone(),
            seal.clone(),
            options.history,
            options.history_bytes,
            metrics.clone(),
        );
        let ledger = Ledger::new(Arc::clone(&commands), Arc::clone(&publisher), &keys, seal.clone());
        let shared = Arc::new(Shared {
            subscriptions: Mutex::new(Subscriptions::new(
                keys.clone(),
                seal.clone(),
                options.unsubscribe_delay,
                metrics.clone(),
            )),
            events: Mutex::new(PublicationQueue::default()),
            wake: Notify::new(),
            taken: Notify::new(),
            status: watch::Sender::new(BrokerStatus::Down),
            problem: Mutex::default(),
            closing: false.into(),
            metrics,
        });
        let tls =
            config.tls.as_ref().map(|TlsConfig { connector: TlsConnector::Rustls(connector), .. }| connector.clone());
        let credentials = Credentials {
            username: config.username.clone(),
            password: config.password.clone(),
            database: config.database,
            tls,
        };
        let subscriber =
            Subscriber::new(Arc::clone(&shared), Arc::clone(&publisher), Arc::clone(&commands), credentials);
        tokio::spawn(subscriber.run());
        Ok(Self { shared, publisher, commands, ledger: Arc::new(ledger), keys, seal })
    }

    /// Returns the store of the cluster's lifecycle events.
    pub fn events(&self, rules: EventRules) -> RedisEvents {
        let (commands, publisher) = (Arc::clone(&self.commands), Arc::clone(&self.publisher));
        RedisEvents::new(commands, publisher, &self.keys, self.seal.clone(), rules)
    }

    /// Returns why Redis cannot be used, without secrets, while the status is
    /// [`Down`](BrokerStatus::Down). The text describes the problem of one server. It is empty
    /// while the status is up.
    pub fn problem(&self) -> String {
        match *self.shared.status.borrow() {
            BrokerStatus::Up => String::new(),
            BrokerStatus::Down => self.shared.problem.lock().clone(),
        }
    }

    /// Returns the version and mode of one of the servers.
    async fn info(&self) -> Option<String> {
        let topology = self.commands.topology().await?;
        self.commands.info(topology.servers().first()?, "server").await.ok()
    }

    /// Returns the broker's metrics.
    pub fn metrics(&self) -> &RedisMetrics {
        &self.shared.metrics
    }
}

/// Checks whether Redis can be used with these options, by using it as a node does. Returns its
/// version and mode. The check takes at most 6 s, and passes if:
///
/// * the server is a writable master of version 7.0 or later, and evicts no keys
/// * the user has all necessary permissions
/// * the publish script runs, and a subscription delivers what it publishes.
///
/// In a Redis Cluster, more than half of the masters must pass.
///
/// # Errors
/// Returns [`RedisError`] with the problem.
///
/// # Cancel safety
/// Cancel safe: nothing is lost if the future is dropped.
///
/// ```no_run
/// use roomcast_redis::{RedisOptions, check};
///
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// println!("{}", check(&RedisOptions::new("redis://127.0.0.1:6379")).await?); // Redis 7.0.15, mode standalone
/// # Ok(()) }
/// ```
pub async fn check(options: &RedisOptions) -> Result<String, RedisError> {
    let broker = RedisBroker::start(options.clone())?;
    let mut status = broker.status();
    let up = status.wait_for(|status| *status == BrokerStatus::Up);
    let is_up = tokio::time::timeout(CHECK_TIMEOUT, up).await.is_ok();
    let info = tokio::time::timeout(INFO_TIMEOUT, broker.info()).await.ok().flatten().unwrap_or_default();
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    let version = field("redis_version:");
    // If the version is too old, this explains all other failures.
    if let Some(major) = version.split('.').next().and_then(|major| major.parse::<u32>().ok())
        && major < 7
    {
        return Err(RedisError(format!("this is Redis {version}; Roomcast needs 7.0 or later for sharded pub/sub")));
    }
    match is_up {
        true => Ok(format!("Redis {version}, mode {}", field("redis_mode:"))),
        false => Err(RedisError(broker.problem())),
    }
}

fn config(options: &RedisOptions) -> Result<Config, RedisError> {
    crate::options::check_url(&options.url).map_err(|reason| RedisError(format!("invalid Redis URL: {reason}")))?;
    let mut config = Config::from_url(&options.url).map_err(|error| RedisError(error.details().to_owned()))?;
    if let (Some(_), Some(pem)) = (&config.tls, &options.ca_certificates) {
        config.tls = Some(TlsConfig::from(TlsConnector::Rustls(trusting(pem)?)));
    }
    Ok(config)
}

/// Returns a TLS connector that trusts only these CA certificates.
fn trusting(pem: &[u8]) -> Result<tokio_rustls::TlsConnector, RedisError> {
    let invalid = |error: String| RedisError(format!("the CA certificates cannot be read: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("the file contains no certificate".into()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

impl Broker for RedisBroker {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.publisher.publish(publish)
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (waiter, answer) = oneshot::channel();
        if self.shared.subscriptions.lock().subscribe(room, waiter, Instant::now()) {
            return Box::pin(ready(Ok(())));
        }
        self.shared.wake.notify_one();
        Box::pin(async { answer.await.unwrap_or(Err(BrokerError::Closed)) })
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.shared.subscriptions.lock().unsubscribe(room, Instant::now());
    }

    fn room_count(&self) -> usize {
        self.shared.subscriptions.lock().room_count()
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        Box::pin(poll_fn(|cx| {
            let polled = self.shared.events.lock().poll_publications(cx, publications);
            self.shared.taken.notify_one();
            polled
        }))
    }

    fn exchange(&self, exchange: Exchange) -> BoxFuture<'static, Result<LedgerPage, BrokerError>> {
        let ledger = Arc::clone(&self.ledger);
        Box::pin(async move { ledger.exchange(exchange).await })
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.shared.status.subscribe()
    }

    fn close(&self) {
        self.publisher.close();
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker").field("status", &*self.shared.status.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test does not depend on whether a server is there.
    #[tokio::test]
    async fn events_end_when_a_task_behind_them_has_died() {
        let broker = RedisBroker::start(RedisOptions::new("redis://127.0.0.1:1")).unwrap();
        broker.publisher.failed.notify_one();
        let mut events = Vec::new();
        let next = tokio::time::timeout(CHECK_TIMEOUT, broker.next_publications(&mut events));
        assert!(!next.await.expect("it ends"));
    }
}

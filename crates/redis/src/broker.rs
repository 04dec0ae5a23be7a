//! The broker over Redis, put together.

use std::fmt;
use std::future::{poll_fn, ready};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fred::interfaces::ClientLike;
use fred::types::config::{Config, TlsConfig, TlsConnector};
use parking_lot::Mutex;
use roomcast_core::{BoxFuture, Broker, BrokerError, BrokerStatus, Envelope, EventQueue, RoomName};
use thiserror::Error;
use tokio::sync::{Notify, oneshot, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::commands::Commands;
use crate::connection::Credentials;
use crate::keys::Keys;
use crate::metrics::RedisMetrics;
use crate::options::RedisOptions;
use crate::publisher::Publisher;
use crate::subscriber::{Shared, Subscriber};
use crate::subscriptions::Subscriptions;

/// How long [`check`] waits for an answer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Redis can't be used as it was said.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct RedisError(String);

/// A node's [`Broker`] over Redis 7 or later: a single server, Sentinel or Cluster. Publishes go through a
/// script that numbers them; every room is a sharded channel (SPUBLISH, SSUBSCRIBE).
pub struct RedisBroker {
    shared: Arc<Shared>,
    publisher: Arc<Publisher>,
}

impl RedisBroker {
    /// Starts to connect, and goes on until it is dropped or closed: a Redis that is not there yet, or no more,
    /// is waited for, and meanwhile publishes and subscriptions fail. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`RedisError`] if the options make no sense.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn start(options: RedisOptions) -> Result<Self, RedisError> {
        let config = config(&options)?;
        let metrics = RedisMetrics::new();
        let keys = Keys::new(&options.prefix);
        let commands = Arc::new(Commands::new(config.clone()));
        let publisher = Publisher::new(Arc::clone(&commands), keys.clone(), options.backlog);
        let shared = Arc::new(Shared {
            subscriptions: Mutex::new(Subscriptions::new(keys, options.linger, metrics.clone())),
            events: Mutex::new(EventQueue::default()),
            wake: Notify::new(),
            taken: Notify::new(),
            status: watch::Sender::new(BrokerStatus::Down),
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
        let subscriber = Subscriber::new(Arc::clone(&shared), Arc::clone(&publisher), commands, credentials);
        tokio::spawn(subscriber.run());
        Ok(Self { shared, publisher })
    }

    /// What it counts.
    pub fn metrics(&self) -> &RedisMetrics {
        &self.shared.metrics
    }
}

/// Checks that Redis can be used as the options say: connects, and asks who it is.
///
/// # Errors
/// [`RedisError`] with what is wrong.
pub async fn check(options: &RedisOptions) -> Result<String, RedisError> {
    let client = crate::commands::build(config(options)?).map_err(|error| RedisError(error.to_string()))?;
    let failed = |error: fred::error::Error| RedisError(error.to_string());
    let connecting = client.connect();
    let info = tokio::time::timeout(CHECK_TIMEOUT, async {
        client.wait_for_connect().await.map_err(failed)?;
        client.info::<String>(Some(fred::types::InfoKind::Server)).await.map_err(failed)
    });
    let info = info.await.unwrap_or_else(|_| Err(RedisError(format!("no answer within {CHECK_TIMEOUT:?}"))));
    let _ = client.quit().await;
    connecting.abort();
    let info = info?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?").trim().to_owned();
    let version = field("redis_version:");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 {
        return Err(RedisError(format!("it is Redis {version}; sharded pub/sub needs 7.0 or later")));
    }
    Ok(format!("Redis {version}, mode {}", field("redis_mode:")))
}

fn config(options: &RedisOptions) -> Result<Config, RedisError> {
    crate::options::check_url(&options.url).map_err(RedisError)?;
    let mut config = Config::from_url(&options.url).map_err(|error| RedisError(error.details().to_owned()))?;
    if let (Some(_), Some(pem)) = (&config.tls, &options.authorities) {
        config.tls = Some(TlsConfig::from(TlsConnector::Rustls(trusting(pem)?)));
    }
    Ok(config)
}

/// Speaks TLS with servers whose certificates these authorities have signed.
fn trusting(pem: &[u8]) -> Result<tokio_rustls::TlsConnector, RedisError> {
    let invalid = |error: String| RedisError(format!("the authorities' certificates can't be read: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(invalid("there is none".into()));
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

impl Broker for RedisBroker {
    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.publisher.publish(envelope)
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

    fn next_events<'a>(&'a self, events: &'a mut Vec<Envelope>) -> BoxFuture<'a, bool> {
        Box::pin(poll_fn(|cx| {
            let polled = self.shared.events.lock().poll_events(cx, events);
            self.shared.taken.notify_one();
            polled
        }))
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

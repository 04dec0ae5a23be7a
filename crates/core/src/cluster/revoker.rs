//! Enforces revocations on one node, and keeps the node up to date with the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use roomcast_protocol::{CloseCode, CloseFrame};
use thiserror::Error;
use tokio::sync::watch;

use crate::access::revocation::{Holder, Revocation, Revoked};
use crate::access::revocations::{MAX_LEDGER_AGE, Revocations, record};
use crate::broker::contract::{Broker, BrokerError};
use crate::broker::ledger::{Exchange, LedgerPage};
use crate::rooms::local_connection::LocalConnection;
use crate::rooms::local_node::LocalNode;
use crate::unix_time::seconds;

/// How often a node reads the ledger. A revocation that did not reach the node as a request takes
/// effect after this time at the latest.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// How long an exchange with the ledger may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a node does not accept a client's credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// The user or the credential was revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// The node cannot find out which credentials were revoked, because the broker is down.
    #[error("the node has not received the revocations of the last {MAX_LEDGER_AGE:?}; try again later")]
    CutOff,
}

/// The revocations of one node.
#[derive(Debug)]
pub struct Revoker {
    local: Arc<LocalNode>,
    broker: Arc<dyn Broker>,
    revocations: Mutex<Revocations>,
    /// Whether the ledger was read to its end at least once, or cannot be read at all.
    is_loaded: watch::Sender<bool>,
}

/// Returns the time of the runtime's clock, which tests can control.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Revoker {
    pub(crate) fn new(local: Arc<LocalNode>, broker: Arc<dyn Broker>) -> Self {
        Self { local, broker, revocations: Mutex::default(), is_loaded: watch::Sender::new(false) }
    }

    /// Waits until the node has received the revocations of its cluster for the first time.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost if the future is dropped.
    pub async fn loaded(&self) {
        // The sender outlives this future.
        let _ = self.is_loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Checks that the credential of a client that wants to connect, or has refreshed it, is
    /// accepted. Call it again when the connection is open, because only open connections are
    /// closed by a revocation.
    ///
    /// # Errors
    /// Returns [`NotAccepted`] if the credential was revoked, or if this is unknown.
    ///
    /// # Cancel safety
    /// Cancel safe: the operation only reads.
    pub async fn check(&self, holder: Holder<'_>) -> Result<(), NotAccepted> {
        self.loaded().await;
        let revocations = self.revocations.lock();
        if revocations.apply_to(&holder, seconds(SystemTime::now())) {
            return Err(NotAccepted::Revoked);
        }
        match revocations.is_current(now()) {
            true => Ok(()),
            false => Err(NotAccepted::CutOff),
        }
    }

    /// Returns whether a client is revoked, as far as this node has read the revocations.
    pub fn is_revoked(&self, holder: &Holder<'_>) -> bool {
        self.revocations.lock().apply_to(holder, seconds(SystemTime::now()))
    }

    /// Closes a connection if its user or its credential was revoked. Returns whether it was not
    /// already being closed.
    pub fn enforce_on(&self, connection: &LocalConnection) -> bool {
        let revocations = self.revocations.lock();
        let now = seconds(SystemTime::now());
        with_holder(connection, |holder| revocations.apply_to(&holder, now)) && close(connection)
    }

    /// Enforces a revocation on this node. Returns how many connections it has closed.
    pub(crate) fn enforce(&self, revocation: &Revocation) -> usize {
        // This must come first, so that a connection that opens meanwhile finds the revocation.
        if self.revocations.lock().add(revocation) {
            self.count();
        }
        self.close_all(revocation)
    }

    fn close_all(&self, revocation: &Revocation) -> usize {
        let candidates = match revocation.revoked() {
            Revoked::User { user, .. } => self.local.connections_of(user),
            Revoked::Credential { .. } | Revoked::IssuedUntil { .. } => self.local.connections(),
        };
        let closes = |connection: &&Arc<LocalConnection>| {
            with_holder(connection, |holder| revocation.applies_to(&holder)) && close(connection)
        };
        let closed = candidates.iter().filter(closes).count();
        self.local.metrics().connections_revoked.inc_by(closed as u64);
        closed
    }

    /// Closes all connections to which one of these revocations applies, which the node has stored.
    /// A node that was cut off can get thousands at once, so it visits each connection only once.
    fn close_all_of(&self, new: &[Revocation]) {
        if new.iter().all(|revocation| matches!(revocation.revoked(), Revoked::User { .. })) {
            new.iter().for_each(|revocation| _ = self.close_all(revocation));
            return;
        }
        let connections = self.local.connections();
        let closed = connections.iter().filter(|connection| self.enforce_on(connection)).count();
        self.local.metrics().connections_revoked.inc_by(closed as u64);
    }

    /// Adds a revocation to the ledger. When this returns, every node that reaches the broker gets
    /// it.
    pub(crate) async fn store(&self, revocation: &Revocation) -> Result<(), BrokerError> {
        let exchange = Exchange { after: None, add: vec![record(revocation)] };
        self.exchange(exchange).await.map(drop)
    }

    async fn exchange(&self, exchange: Exchange) -> Result<LedgerPage, BrokerError> {
        let late = |_| BrokerError::Unavailable {
            reason: format!("it did not exchange revocations within {EXCHANGE_TIMEOUT:?}"),
        };
        tokio::time::timeout(EXCHANGE_TIMEOUT, self.broker.exchange(exchange)).await.map_err(late)?
    }

    /// Keeps the node up to date with the ledger. Never returns.
    pub(crate) async fn keep_up(&self) {
        let mut reads = true;
        loop {
            let began = now();
            let exchange = self.revocations.lock().next_exchange(seconds(SystemTime::now()));
            let has_more = match self.exchange(exchange).await {
                Ok(page) => {
                    let has_more = page.has_more;
                    let new = self.revocations.lock().on_page(page, began);
                    self.close_all_of(&new);
                    self.is_loaded.send_if_modified(|loaded| !has_more && !std::mem::replace(loaded, true));
                    if !std::mem::replace(&mut reads, true) {
                        tracing::info!("the node receives revocations again");
                    }
                    self.local.metrics().ledger_read.inc();
                    has_more
                }
                Err(BrokerError::Unsupported { .. }) => {
                    self.revocations.lock().has_no_ledger();
                    self.is_loaded.send_replace(true);
                    std::future::pending().await
                }
                Err(error) => {
                    if std::mem::replace(&mut reads, false) {
                        tracing::warn!(%error, "the node does not receive revocations");
                    }
                    self.local.metrics().ledger_failed.inc();
                    false
                }
            };
            self.count();
            if !has_more {
                tokio::time::sleep(READ_INTERVAL).await;
            }
        }
    }

    /// Returns the revocations that this node enforces, ordered by their end.
    pub fn revocations(&self) -> Vec<Revocation> {
        let mut all: Vec<_> = self.revocations.lock().iter().cloned().collect();
        all.sort_by_key(Revocation::until);
        all
    }

    fn count(&self) {
        let count = self.revocations.lock().count();
        self.local.metrics().revocations.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Calls a function with what revocations are compared with.
fn with_holder<T>(connection: &LocalConnection, apply: impl FnOnce(Holder<'_>) -> T) -> T {
    let identity = connection.access.as_ref().map(|access| access.identity());
    apply(Holder {
        user: connection.user(),
        credential: identity.as_ref().and_then(|identity| identity.credential.as_ref()),
        connected_at: UNIX_EPOCH + Duration::from_millis(connection.connected_ms),
    })
}

fn close(connection: &LocalConnection) -> bool {
    connection.outbox.close(CloseFrame::new(CloseCode::TOKEN_EXPIRED, "the credential was revoked"))
}

//! What one connection may do, when this ends, and how a refresh changes it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use roomcast_core::{Expiry, ExpiryEvent, Identity, RefreshError, Right};

/// The event that a client gets before its credential expires.
pub(crate) const EXPIRING: &str = "auth/expiring";

/// The largest number of refreshes that a connection can begin in a second. Each one can cost the
/// verification of a signature.
const MAX_REFRESHES_PER_SECOND: u32 = 10;

/// The identity of a connection whose router has an authorizer.
#[derive(Debug)]
pub(crate) struct Access {
    state: RwLock<State>,
    /// Spreads the reminders of different connections.
    seed: u64,
    /// The begin of the current second, and the refreshes that have begun in it.
    refreshes: Mutex<(Instant, u32)>,
}

#[derive(Debug)]
struct State {
    identity: Arc<Identity>,
    expiry: Option<Expiry>,
}

impl Access {
    pub(crate) fn new(identity: Arc<Identity>, now: Instant, seed: u64) -> Self {
        let expiry = expiry(&identity, now, seed);
        Self { state: RwLock::new(State { identity, expiry }), seed, refreshes: Mutex::new((now, 0)) }
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.state.read().identity)
    }

    pub(crate) fn allows(&self, right: Right, name: &str) -> bool {
        self.state.read().identity.grants.allow(right, name)
    }

    /// Returns whether another refresh may begin.
    pub(crate) fn begin_refresh(&self, now: Instant) -> bool {
        let mut refreshes = self.refreshes.lock();
        if now.duration_since(refreshes.0) >= Duration::from_secs(1) {
            *refreshes = (now, 0);
        }
        refreshes.1 += 1;
        refreshes.1 <= MAX_REFRESHES_PER_SECOND
    }

    /// Replaces the identity, and returns the previous one. The check belongs under the lock,
    /// because one refresh can overtake another.
    pub(crate) fn refresh(&self, next: Arc<Identity>, now: Instant) -> Result<Arc<Identity>, RefreshError> {
        let mut state = self.state.write();
        state.identity.check_refresh(&next)?;
        state.expiry = expiry(&next, now, self.seed);
        Ok(std::mem::replace(&mut state.identity, next))
    }

    /// Returns the time of the next event.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.state.read().expiry.as_ref().map(Expiry::next)
    }

    /// Returns the event that is due, if there is one.
    pub(crate) fn on_time(&self, now: Instant) -> Option<ExpiryEvent> {
        if self.next_deadline()? > now {
            return None;
        }
        self.state.write().expiry.as_mut()?.on_time(now)
    }
}

/// Reads the system's clock once. If the clock is set later, open connections keep their times.
fn expiry(identity: &Identity, now: Instant, seed: u64) -> Option<Expiry> {
    let credential = identity.credential.as_ref()?;
    let expires_in = credential.expires_at.duration_since(SystemTime::now()).unwrap_or_default();
    Some(Expiry::new(now, expires_in, credential.grace, seed))
}

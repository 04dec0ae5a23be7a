//! What one connection may do, when this ends, and what changes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::access::expiry::{Expiry, ExpiryEvent};
use crate::access::grants::{Grants, Right};
use crate::access::identity::{Identity, RefreshError};
use crate::id::RoomName;
use crate::unix_time::millis;

/// The largest number of refreshes that a connection can begin in a second. Each one can cost the
/// verification of a signature.
const MAX_REFRESHES_PER_SECOND: u32 = 10;

/// The number of denials that a connection remembers. Each takes up to 300 bytes.
const MAX_DENIALS: usize = 8;

/// The identity and the rights of a connection whose clients are authorized.
#[derive(Debug)]
pub struct Access {
    state: RwLock<State>,
    /// Spreads the reminders of different connections.
    seed: u64,
    /// The begin of the current second, and the refreshes that have begun in it.
    refreshes: Mutex<(Instant, u32)>,
    /// Whether a refresh is under way.
    is_refreshing: AtomicBool,
    /// The most recent denials, the latest last. At most [`MAX_DENIALS`].
    denials: Mutex<VecDeque<Denial>>,
}

/// A request that was denied because the client lacked a right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Denial {
    /// The right.
    pub right: Right,
    /// The name of the room or the method.
    pub name: String,
    /// When the request was denied, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A refresh under way, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Refreshing<'a>(&'a Access);

impl Drop for Refreshing<'_> {
    fn drop(&mut self) {
        self.0.is_refreshing.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct State {
    permissions: Permissions,
    expiry: Option<Expiry>,
}

/// An identity, and the grants that were added to those of the identity.
#[derive(Debug, Clone)]
struct Permissions {
    identity: Arc<Identity>,
    added: Grants,
}

impl Permissions {
    fn allow(&self, right: Right, name: &str) -> bool {
        self.identity.grants.allow(right, name) || self.added.allow(right, name)
    }

    fn may_be_in(&self, room: &RoomName) -> bool {
        self.allow(Right::Join, room) || self.identity.join.contains(room)
    }
}

/// What a connection was permitted before and after its identity or its grants changed.
#[derive(Debug)]
pub struct PermissionChange {
    before: Permissions,
    after: Permissions,
}

impl PermissionChange {
    /// Returns whether the connection must leave a room, because it has lost the right to be in it.
    /// It stays in a room that it was never permitted to join, because the application put it
    /// there.
    pub fn takes_away(&self, room: &RoomName) -> bool {
        self.before.may_be_in(room) && !self.after.may_be_in(room)
    }
}

impl Access {
    /// Creates the access of a connection that opens now. `seed` determines the time of the
    /// reminder before the credential expires.
    pub fn new(identity: Arc<Identity>, now: Instant, seed: u64) -> Self {
        let expiry = expiry(&identity, now, seed);
        let permissions = Permissions { identity, added: Grants::default() };
        Self {
            state: RwLock::new(State { permissions, expiry }),
            seed,
            refreshes: Mutex::new((now, 0)),
            is_refreshing: AtomicBool::new(false),
            denials: Mutex::default(),
        }
    }

    /// Returns the current identity.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.state.read().permissions.identity)
    }

    /// Returns the grants that were added to those of the identity.
    pub fn added_grants(&self) -> Grants {
        self.state.read().permissions.added.clone()
    }

    /// Returns whether the connection has a right on a room or a method.
    pub fn allows(&self, right: Right, name: &str) -> bool {
        self.state.read().permissions.allow(right, name)
    }

    /// Returns whether the connection may be in a room, because of a grant or because the node
    /// joins the room for the client.
    pub fn may_be_in(&self, room: &RoomName) -> bool {
        self.state.read().permissions.may_be_in(room)
    }

    /// Records that a request was denied.
    pub fn deny(&self, right: Right, name: &str) {
        let at_ms = millis(SystemTime::now());
        let mut denials = self.denials.lock();
        if denials.len() == MAX_DENIALS {
            denials.pop_front();
        }
        denials.push_back(Denial { right, name: name.to_owned(), at_ms });
    }

    /// Returns the most recent denials, the latest last.
    pub fn denials(&self) -> Vec<Denial> {
        self.denials.lock().iter().cloned().collect()
    }

    /// Begins a refresh. Returns `None` if another one is under way, or if too many have begun in this
    /// second.
    pub fn begin_refresh(&self, now: Instant) -> Option<Refreshing<'_>> {
        let mut refreshes = self.refreshes.lock();
        if now.duration_since(refreshes.0) >= Duration::from_secs(1) {
            *refreshes = (now, 0);
        }
        refreshes.1 += 1;
        let may_begin = refreshes.1 <= MAX_REFRESHES_PER_SECOND;
        // Not `then_some`: dropping an unused value would end the refresh that is under way.
        (may_begin && !self.is_refreshing.swap(true, Ordering::AcqRel)).then(|| Refreshing(self))
    }

    /// Replaces the identity. The check belongs under the lock, because one refresh can overtake
    /// another.
    ///
    /// # Errors
    /// Returns [`RefreshError`] if the identity [may not replace](Identity::check_refresh) the
    /// current one.
    pub fn refresh(&self, next: Arc<Identity>, now: Instant) -> Result<PermissionChange, RefreshError> {
        let mut state = self.state.write();
        state.permissions.identity.check_refresh(&next)?;
        state.expiry = expiry(&next, now, self.seed);
        let after = Permissions { identity: next, added: state.permissions.added.clone() };
        let before = std::mem::replace(&mut state.permissions, after.clone());
        Ok(PermissionChange { before, after })
    }

    /// Replaces the grants that were added to those of the identity.
    pub fn set_added_grants(&self, added: Grants) -> PermissionChange {
        let mut state = self.state.write();
        let after = Permissions { identity: Arc::clone(&state.permissions.identity), added };
        let before = std::mem::replace(&mut state.permissions, after.clone());
        PermissionChange { before, after }
    }

    /// Returns the time of the next event.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.state.read().expiry.as_ref().map(Expiry::next)
    }

    /// Returns the event that is due, if there is one.
    pub fn on_time(&self, now: Instant) -> Option<ExpiryEvent> {
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
    Some(match identity.is_pending {
        true => Expiry::without_reminder(now, expires_in),
        false => Expiry::new(now, expires_in, credential.grace, seed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refresh_is_under_way_at_a_time() {
        let now = Instant::now();
        let access = Access::new(Arc::new(Identity::default()), now, 0);
        let first = access.begin_refresh(now).unwrap();
        for _ in 0..2 {
            assert!(access.begin_refresh(now).is_none());
        }
        drop(first);
        assert!(access.begin_refresh(now).is_some());
    }
}

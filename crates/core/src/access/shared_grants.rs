//! Shares the memory of equal grants between connections.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use parking_lot::Mutex;

use crate::access::grants::{Grants, WeakGrants};

/// How many entries there are at least before unused ones are looked for.
const MIN_CLEANUP: usize = 1024;

/// The grants of a node's connections. Equal grants, such as those of clients that have the same
/// role, use the memory of one.
#[derive(Debug, Default)]
pub struct SharedGrants {
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By hash. Of different grants with the same hash, one is shared.
    grants: HashMap<u64, WeakGrants>,
    /// The number of entries at which unused ones are removed. It is at least twice the number of
    /// the entries that were in use at the last removal, so removals cost little.
    cleanup_at: usize,
}

impl SharedGrants {
    /// Returns equal grants that share their memory with those of an earlier call, if these are
    /// still in use. Otherwise, returns the argument, which later calls share.
    pub fn share(&self, grants: Grants) -> Grants {
        if grants.is_empty() {
            return grants;
        }
        let hash = self.hasher.hash_one(&grants);
        let mut state = self.state.lock();
        if let Some(known) = state.grants.get(&hash).and_then(WeakGrants::upgrade)
            && known == grants
        {
            return known;
        }
        if state.grants.len() >= state.cleanup_at.max(MIN_CLEANUP) {
            state.grants.retain(|_, grants| grants.upgrade().is_some());
            state.cleanup_at = 2 * state.grants.len();
        }
        state.grants.insert(hash, grants.downgrade());
        grants
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::access::grants::{Right, Rule, Subject};

    fn grants(room: &str) -> Grants {
        let rules: Vec<Rule> = serde_json::from_value(json!([{ "rooms": [room], "do": ["join"] }])).unwrap();
        Grants::resolve(&rules, Subject { user: None, claims: &Value::Null })
    }

    #[test]
    fn equal_grants_share_their_memory_while_they_are_in_use() {
        let shared = SharedGrants::default();
        let first = shared.share(grants("a"));
        let (same, other) = (shared.share(grants("a")), shared.share(grants("b")));
        assert!(first.is_same(&same) && !first.is_same(&other));
        assert!(other.allow(Right::Join, "b") && !other.allow(Right::Join, "a"));
        assert!(!first.is_same(&grants("a")), "they are equal, but not shared");
        for number in 0..3 * MIN_CLEANUP {
            shared.share(grants(&format!("room{number}")));
        }
        assert!(shared.state.lock().grants.len() <= MIN_CLEANUP + 1, "unused entries are removed");
        assert!(first.is_same(&shared.share(grants("a"))));
    }
}

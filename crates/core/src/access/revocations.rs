//! The revocations that a node enforces, and their exchange with the broker's ledger. This module
//! does no I/O, and time is an argument.
//!
//! The ledger contains the revocations of the cluster. Each node reads what it has not read yet, and
//! adds what it knows and has not found there. The ledger is therefore complete again soon after it
//! has lost records, for example because a Redis without persistence has restarted.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::access::revocation::{Holder, Revocation, Revoked};
use crate::broker::ledger::{Exchange, LedgerPage, LedgerPosition, LedgerRecord, MAX_LEDGER_RECORDS};
use crate::id::UserId;

/// The largest number of revocations that a node keeps. One takes about 500 bytes.
pub const MAX_REVOCATIONS: usize = MAX_LEDGER_RECORDS;

/// For how long a node that cannot read the ledger accepts credentials.
pub const MAX_LEDGER_AGE: Duration = Duration::from_secs(10);

/// The largest number of records that a node adds in one exchange.
const MAX_ADDED: usize = 100;

/// The revocations that a node knows.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    known: HashMap<Key, Vec<Known>>,
    count: usize,
    position: Option<LedgerPosition>,
    /// How many times the ledger was read to its end.
    readings: u64,
    /// When the last exchange that reached the end of the ledger began.
    read_at: Option<Instant>,
    /// Whether the broker has no ledger.
    has_no_ledger: bool,
}

/// What a client must have so that a revocation can apply to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(UserId),
    Credential(String),
    AnyCredential,
}

#[derive(Debug)]
struct Known {
    revocation: Revocation,
    /// Whether the ledger contains the record, as far as the node has read it. Otherwise, how many
    /// readings there were when this became unknown.
    stored: Result<(), u64>,
}

impl From<&Revoked> for Key {
    fn from(revoked: &Revoked) -> Self {
        match revoked {
            Revoked::User { user, .. } => Self::User(user.clone()),
            Revoked::Credential { id } => Self::Credential(id.clone()),
            Revoked::IssuedUntil { .. } => Self::AnyCredential,
        }
    }
}

impl Revocations {
    /// Returns how many revocations are known.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns the known revocations, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.known.values().flatten().map(|known| &known.revocation)
    }

    /// Adds a revocation. Returns whether it was not known. Beyond [`MAX_REVOCATIONS`], which the
    /// ledger enforces, nothing is added.
    pub(crate) fn add(&mut self, revocation: &Revocation) -> bool {
        self.learn(revocation, Err(self.readings))
    }

    fn learn(&mut self, revocation: &Revocation, stored: Result<(), u64>) -> bool {
        let known = self.known.entry(Key::from(revocation.revoked())).or_default();
        if let Some(known) = known.iter_mut().find(|known| known.revocation == *revocation) {
            known.stored = known.stored.or(stored);
            return false;
        }
        if self.count >= MAX_REVOCATIONS {
            return false;
        }
        known.push(Known { revocation: revocation.clone(), stored });
        self.count += 1;
        true
    }

    /// Returns whether a client is revoked at this second.
    pub(crate) fn apply_to(&self, holder: &Holder<'_>, now: u64) -> bool {
        let credential = holder.credential;
        let keys = [
            holder.user.map(|user| Key::User(user.clone())),
            credential.and_then(|credential| credential.id.clone()).map(Key::Credential),
            credential.map(|_| Key::AnyCredential),
        ];
        let mut candidates = keys.iter().flatten().filter_map(|key| self.known.get(key)).flatten();
        candidates.any(|Known { revocation, .. }| !revocation.has_expired(now) && revocation.applies_to(holder))
    }

    /// Returns the next exchange with the ledger.
    pub(crate) fn next_exchange(&mut self, now: u64) -> Exchange {
        for known in self.known.values_mut() {
            known.retain(|known| !known.revocation.has_expired(now));
        }
        self.known.retain(|_, known| !known.is_empty());
        self.count = self.known.values().map(Vec::len).sum();
        // A record is missing if a whole reading, which began after the node learned of the record,
        // has not found it. The reading that was under way at that moment proves nothing.
        let is_missing = |known: &&Known| known.stored.is_err_and(|learned| self.readings >= learned + 2);
        let missing = self.known.values().flatten().filter(is_missing);
        let add = missing.take(MAX_ADDED).map(|known| record(&known.revocation)).collect();
        Exchange { after: self.position.clone(), add }
    }

    /// Takes a page of the ledger, which was requested at `began`. Returns the revocations that the
    /// node did not know.
    pub(crate) fn on_page(&mut self, page: LedgerPage, began: Instant) -> Vec<Revocation> {
        if page.starts_over {
            self.known.values_mut().flatten().for_each(|known| known.stored = Err(self.readings));
        }
        self.position = Some(page.position);
        let (mut new, is_empty) = (Vec::new(), page.records.is_empty());
        for record in page.records {
            match Revocation::from_record(&record.bytes) {
                Some(revocation) if self.learn(&revocation, Ok(())) => new.push(revocation),
                Some(_) => {}
                None => tracing::warn!("ignored a revocation that is invalid, or that a newer version has added"),
            }
        }
        if self.count >= MAX_REVOCATIONS && !is_empty {
            tracing::warn!("the node keeps {MAX_REVOCATIONS} revocations and may ignore further ones");
        }
        if !page.has_more {
            self.read_at = Some(began);
            self.readings += 1;
        }
        new
    }

    /// Records that the broker has no ledger, so that nothing can be missing.
    pub(crate) fn has_no_ledger(&mut self) {
        self.has_no_ledger = true;
    }

    /// Returns whether the ledger was read recently enough to accept credentials.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        self.has_no_ledger || self.read_at.is_some_and(|at| now.saturating_duration_since(at) <= MAX_LEDGER_AGE)
    }
}

/// Returns the record of a revocation in the ledger.
pub(crate) fn record(revocation: &Revocation) -> LedgerRecord {
    LedgerRecord { until: revocation.until(), bytes: revocation.to_record() }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// A second at which nothing has expired.
    const NOW: u64 = 1_000;

    fn of_user(number: u64) -> Revocation {
        let user = UserId::new(&format!("user{number}")).unwrap();
        Revocation::new(Revoked::User { user, issued_until: None }, NOW + 60).unwrap()
    }

    fn page(epoch: &str, starts_over: bool, read: u64, records: &[Revocation], has_more: bool) -> LedgerPage {
        let records = records.iter().map(record).collect();
        LedgerPage::new(starts_over, LedgerPosition::new(epoch, read), records, has_more)
    }

    fn is_revoked(revocations: &Revocations, user: &str, now: u64) -> bool {
        let user = UserId::new(user).unwrap();
        revocations.apply_to(&Holder { user: Some(&user), credential: None, connected_at: UNIX_EPOCH }, now)
    }

    #[test]
    fn a_node_reads_on_and_enforces_each_revocation_until_it_ends() {
        let (mut revocations, began) = (Revocations::default(), Instant::now());
        assert_eq!(revocations.next_exchange(NOW), Exchange::new(None, Vec::new()));
        assert!(!revocations.is_current(began));
        assert_eq!(revocations.on_page(page("1", true, 1, &[of_user(1)], true), began), [of_user(1)]);
        assert!(!revocations.is_current(began), "there are more");
        assert_eq!(revocations.next_exchange(NOW).after, Some(LedgerPosition::new("1", 1)));
        assert_eq!(revocations.on_page(page("1", false, 3, &[of_user(1), of_user(2)], false), began), [of_user(2)]);
        assert!(revocations.is_current(began + MAX_LEDGER_AGE));
        assert!(!revocations.is_current(began + MAX_LEDGER_AGE + Duration::from_millis(1)));
        assert!(is_revoked(&revocations, "user1", NOW + 59) && is_revoked(&revocations, "user2", NOW));
        assert!(!is_revoked(&revocations, "user3", NOW) && !is_revoked(&revocations, "user1", NOW + 60));
        revocations.next_exchange(NOW + 60);
        assert_eq!((revocations.count(), revocations.known.len()), (0, 0), "they have ended");
    }

    #[test]
    fn what_the_ledger_has_lost_is_added_again_and_nothing_else() {
        let (mut revocations, began) = (Revocations::default(), Instant::now());
        let read = |revocations: &mut Revocations, page| {
            let exchange = revocations.next_exchange(NOW);
            revocations.on_page(page, began);
            exchange.add.len()
        };
        assert_eq!(read(&mut revocations, page("1", true, 1, &[of_user(1)], false)), 0);
        // Another node has added this one, and a reading that began before does not contain it.
        assert!(revocations.add(&of_user(2)) && !revocations.add(&of_user(2)));
        assert_eq!(read(&mut revocations, page("1", false, 1, &[], false)), 0);
        assert_eq!(read(&mut revocations, page("1", false, 2, &[of_user(2)], false)), 0);
        assert_eq!(read(&mut revocations, page("1", false, 2, &[], false)), 0);
        // The ledger is lost, but for one record.
        assert_eq!(read(&mut revocations, page("2", true, 1, &[of_user(1)], true)), 0);
        assert_eq!(read(&mut revocations, page("2", false, 1, &[], false)), 0);
        assert_eq!(read(&mut revocations, page("2", false, 1, &[], false)), 0);
        assert_eq!(revocations.next_exchange(NOW).add, [record(&of_user(2))]);
        assert_eq!(read(&mut revocations, page("2", false, 2, &[of_user(2)], false)), 1);
        assert_eq!(read(&mut revocations, page("2", false, 2, &[], false)), 0);
        assert!(is_revoked(&revocations, "user1", NOW) && is_revoked(&revocations, "user2", NOW));
    }

    #[test]
    fn a_node_keeps_so_many_revocations_and_no_more() {
        let mut revocations = Revocations::default();
        assert!((0..MAX_REVOCATIONS as u64).all(|number| revocations.add(&of_user(number))));
        assert!(!revocations.add(&of_user(MAX_REVOCATIONS as u64)));
        assert_eq!(revocations.count(), MAX_REVOCATIONS);
    }
}

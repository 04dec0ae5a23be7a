//! How many requests a backend gets at the same time, and which calls wait. No I/O.
//!
//! One connection has at most an eighth of the slots, and at most an eighth of the places in the
//! queue, so that one client cannot keep a backend from the others. All handshakes together have at
//! most a half, so that clients that connect cannot keep a backend from those that are connected.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use roomcast::ConnectionId;
use tokio::sync::oneshot;

/// On whose behalf a request is sent, and whose share of the slots it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A connection, which has at most an eighth of the slots.
    Connection(ConnectionId),
    /// A client that connects. All of them together have at most half of the slots.
    Handshake,
}

impl Owner {
    /// The owner has at most one part in this many.
    fn share(self) -> usize {
        match self {
            Self::Connection(_) => 8,
            Self::Handshake => 2,
        }
    }
}

/// The slots and the queue of a backend.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The largest number of concurrent requests.
    concurrency: usize,
    /// The largest number of calls that wait.
    queue: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Waiter>,
    /// Numbers the calls that wait.
    last_waiter: u64,
    /// Those that have slots or wait.
    owners: HashMap<Owner, Use>,
}

#[derive(Debug, Default)]
struct Use {
    taken: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    owner: Owner,
    slot: oneshot::Sender<Slot>,
}

/// The permission for one request. When it is dropped, the next call gets it.
#[derive(Debug)]
pub(crate) struct Slot {
    owner: Owner,
    admission: Arc<Admission>,
}

/// A place in the queue. When it is dropped, the call no longer waits.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    admission: Arc<Admission>,
    slot: oneshot::Receiver<Slot>,
}

/// What a call gets.
#[derive(Debug)]
pub(crate) enum Admitted {
    Now(Slot),
    Later(Place),
}

/// Why a call gets neither a slot nor a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    QueueIsFull,
    OwnerHasItsShare,
}

impl Admission {
    pub(crate) fn new(concurrency: usize, queue: usize) -> Arc<Self> {
        Arc::new(Self { concurrency, queue, state: Mutex::default() })
    }

    fn slots_of(&self, owner: Owner) -> usize {
        (self.concurrency / owner.share()).max(1)
    }

    fn places_of(&self, owner: Owner) -> usize {
        (self.queue / owner.share()).max(1)
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(crate) fn enter(self: &Arc<Self>, owner: Owner) -> Result<Admitted, Refusal> {
        let mut state = self.state.lock();
        let is_free = state.taken < self.concurrency;
        let is_full = state.waiting.len() >= self.queue;
        let one = state.owners.entry(owner).or_default();
        if is_free && one.taken < self.slots_of(owner) {
            one.taken += 1;
            state.taken += 1;
            return Ok(Admitted::Now(self.slot(owner)));
        }
        let refusal = match one.waiting >= self.places_of(owner) {
            true => Some(Refusal::OwnerHasItsShare),
            false => is_full.then_some(Refusal::QueueIsFull),
        };
        if let Some(refusal) = refusal {
            state.forget_unused(owner);
            return Err(refusal);
        }
        one.waiting += 1;
        let (sender, slot) = oneshot::channel();
        state.last_waiter += 1;
        let number = state.last_waiter;
        state.waiting.push_back(Waiter { number, owner, slot: sender });
        Ok(Admitted::Later(Place { number, admission: Arc::clone(self), slot }))
    }

    fn slot(self: &Arc<Self>, owner: Owner) -> Slot {
        Slot { owner, admission: Arc::clone(self) }
    }

    /// Gives free slots to the calls that have waited longest, except for those of owners that
    /// have their share.
    fn give(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            if state.taken >= self.concurrency {
                return;
            }
            let may_go = |waiter: &Waiter| {
                let one = state.owners.get(&waiter.owner);
                one.is_none_or(|one| one.taken < self.slots_of(waiter.owner))
            };
            let Some(at) = state.waiting.iter().position(may_go) else { return };
            let Some(Waiter { owner, slot, .. }) = state.waiting.remove(at) else { return };
            state.taken += 1;
            let one = state.owners.entry(owner).or_default();
            one.taken += 1;
            one.waiting = one.waiting.saturating_sub(1);
            drop(state);
            // If the call has just stopped waiting, its slot is dropped, and given to another one.
            drop(slot.send(self.slot(owner)));
        }
    }
}

impl State {
    fn forget_unused(&mut self, owner: Owner) {
        if self.owners.get(&owner).is_some_and(|one| one.taken == 0 && one.waiting == 0) {
            self.owners.remove(&owner);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        state.taken = state.taken.saturating_sub(1);
        if let Some(one) = state.owners.get_mut(&self.owner) {
            one.taken = one.taken.saturating_sub(1);
        }
        state.forget_unused(self.owner);
        drop(state);
        self.admission.give();
    }
}

impl Place {
    /// Waits for a slot.
    pub(crate) async fn slot(&mut self) -> Option<Slot> {
        (&mut self.slot).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        // The numbers are in order. A call that has got a slot no longer waits, and a slot that it
        // has not taken is dropped with the receiver.
        let Ok(at) = state.waiting.binary_search_by_key(&self.number, |waiter| waiter.number) else { return };
        let Some(Waiter { owner, .. }) = state.waiting.remove(at) else { return };
        if let Some(one) = state.owners.get_mut(&owner) {
            one.waiting = one.waiting.saturating_sub(1);
        }
        state.forget_unused(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(number: u64) -> Owner {
        Owner::Connection(format!("{:016x}-{number:x}", 1).parse().unwrap())
    }

    fn now(admission: &Arc<Admission>, number: u64) -> Option<Slot> {
        match admission.enter(connection(number)) {
            Ok(Admitted::Now(slot)) => Some(slot),
            _ => None,
        }
    }

    fn later(admission: &Arc<Admission>, number: u64) -> Option<Place> {
        match admission.enter(connection(number)) {
            Ok(Admitted::Later(place)) => Some(place),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_free_slot_goes_to_the_call_that_has_waited_longest() {
        let admission = Admission::new(2, 16);
        let (first, _second) = (now(&admission, 1).unwrap(), now(&admission, 2).unwrap());
        let (gone, mut third, mut fourth) =
            (later(&admission, 3).unwrap(), later(&admission, 4).unwrap(), later(&admission, 5).unwrap());
        assert_eq!(admission.waiting(), 3);
        drop(gone);
        drop(first);
        let slot = third.slot().await.unwrap();
        assert_eq!(admission.waiting(), 1);
        drop(slot);
        drop(third);
        drop(fourth.slot().await.unwrap());
        assert!(now(&admission, 6).is_some());
        drop(fourth);
    }

    #[tokio::test]
    async fn a_slot_that_was_given_and_not_taken_goes_to_the_next_call() {
        let admission = Admission::new(1, 16);
        let first = now(&admission, 1).unwrap();
        let (second, mut third) = (later(&admission, 2).unwrap(), later(&admission, 3).unwrap());
        drop(first);
        drop(second);
        assert!(third.slot().await.is_some());
    }

    #[tokio::test]
    async fn one_connection_has_at_most_an_eighth_of_the_slots_and_of_the_queue() {
        let admission = Admission::new(16, 16);
        let slots = [now(&admission, 1).unwrap(), now(&admission, 1).unwrap()];
        let mut places = [later(&admission, 1).unwrap(), later(&admission, 1).unwrap()];
        assert_eq!(admission.enter(connection(1)).unwrap_err(), Refusal::OwnerHasItsShare);
        assert!(now(&admission, 2).is_some(), "others have slots");
        drop(slots);
        for place in &mut places {
            assert!(place.slot().await.is_some(), "it gets its share again");
        }
        drop(places);
        assert!(admission.state.lock().owners.is_empty(), "nothing is left behind");
    }

    #[test]
    fn handshakes_have_at_most_half_of_the_slots() {
        let admission = Admission::new(4, 2);
        let enter = || admission.enter(Owner::Handshake);
        let _taken = [enter().unwrap(), enter().unwrap()];
        let waiting = enter().unwrap();
        assert!(matches!(waiting, Admitted::Later(_)));
        assert_eq!(enter().unwrap_err(), Refusal::OwnerHasItsShare);
        assert!(now(&admission, 1).is_some(), "connections have the others");
    }

    #[test]
    fn the_queue_is_bounded() {
        let admission = Admission::new(1, 2);
        let _slot = now(&admission, 1);
        let _places = [later(&admission, 2), later(&admission, 3)];
        assert_eq!(admission.enter(connection(4)).unwrap_err(), Refusal::QueueIsFull);
        assert_eq!(admission.state.lock().owners.len(), 3);
    }
}

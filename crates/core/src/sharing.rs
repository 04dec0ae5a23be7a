//! Callers that ask the same at the same time share an answer.
//!
//! When a thousand clients come back at once and each looks who is in their room, the nodes are asked a
//! few times, not a thousand times.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::id::RoomName;

/// For each room at most one question is under way. Who comes meanwhile does not get its answer, which
/// may be older than what they have seen, but shares the next.
#[derive(Debug)]
pub(crate) struct Sharing<T> {
    rooms: Mutex<HashMap<RoomName, Arc<Turns<T>>>>,
}

#[derive(Debug)]
struct Turns<T> {
    /// Who has come and not gone; changed under the map's lock.
    present: AtomicU64,
    /// Who has ever come.
    arrived: AtomicU64,
    /// The last answer, and how many had arrived when it was asked for. Locked while one is under way.
    last: tokio::sync::Mutex<Option<(u64, T)>>,
}

impl<T: Clone> Sharing<T> {
    pub(crate) fn new() -> Self {
        Self { rooms: Mutex::default() }
    }

    /// The answer to a question that was asked after this call began.
    ///
    /// Dropping the future leaves the question to the next who waits.
    pub(crate) async fn ask<F: Future<Output = T>>(&self, room: &RoomName, question: impl FnOnce() -> F) -> T {
        let place = Place { sharing: self, room, turns: self.turns(room) };
        let turns = &place.turns;
        let own = turns.arrived.fetch_add(1, Ordering::AcqRel);
        let mut last = turns.last.lock().await;
        if let Some((arrived, answer)) = &*last
            && own < *arrived
        {
            return answer.clone();
        }
        let arrived = turns.arrived.load(Ordering::Acquire);
        let answer = question().await;
        *last = Some((arrived, answer.clone()));
        answer
    }

    fn turns(&self, room: &RoomName) -> Arc<Turns<T>> {
        let mut rooms = self.rooms.lock();
        let turns = rooms.entry(room.clone()).or_insert_with(|| Arc::new(Turns::new()));
        turns.present.fetch_add(1, Ordering::Relaxed);
        Arc::clone(turns)
    }
}

impl<T> Turns<T> {
    fn new() -> Self {
        Self { present: AtomicU64::new(0), arrived: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) }
    }
}

/// One caller among those of a room; the last takes the room's entry along.
struct Place<'a, T> {
    sharing: &'a Sharing<T>,
    room: &'a RoomName,
    turns: Arc<Turns<T>>,
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        let mut rooms = self.sharing.rooms.lock();
        if self.turns.present.fetch_sub(1, Ordering::Relaxed) == 1 {
            rooms.remove(self.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::FutureExt;
    use futures_util::future::{join_all, ready};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_comes_while_a_question_is_under_way_shares_the_next() {
        let (sharing, room, asked) = (Sharing::new(), RoomName::new("lobby").unwrap(), Cell::new(0));
        let next = || {
            asked.set(asked.get() + 1);
            ready(asked.get())
        };
        let (answer, answered) = oneshot::channel::<()>();
        let mut first = pin!(sharing.ask(&room, || {
            asked.set(1);
            answered.map(|_| 1)
        }));
        assert_eq!((&mut first).now_or_never(), None, "it is under way");
        let mut others = pin!(join_all((0..100).map(|_| sharing.ask(&room, next))));
        assert_eq!((&mut others).now_or_never(), None, "they wait");
        drop(answer);
        assert_eq!(first.await, 1);
        assert_eq!(others.await, [2; 100]);
        assert_eq!(sharing.ask(&room, next).await, 3, "an old answer is nobody's");
        assert!(sharing.rooms.lock().is_empty());
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let (sharing, room) = (Sharing::new(), RoomName::new("lobby").unwrap());
        let mut stuck = Box::pin(sharing.ask(&room, std::future::pending));
        assert_eq!((&mut stuck).now_or_never(), None);
        let mut waiting = pin!(sharing.ask(&room, || ready(1)));
        assert_eq!((&mut waiting).now_or_never(), None);
        drop(stuck);
        assert_eq!(waiting.await, 1);
        assert!(sharing.rooms.lock().is_empty());
    }
}

//! Queries about a room that share a response. `operations` uses them to list members.
//!
//! If a thousand clients reconnect at once and each lists the members of its room, the other nodes
//! receive a few requests, not a thousand.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::id::RoomName;

/// At most one query for each room is under way. Callers that arrive meanwhile do not get its
/// result, because it may be older than what they have already seen. They share the result of the
/// next query.
#[derive(Debug)]
pub(crate) struct SharedQueries<T> {
    rooms: Mutex<HashMap<RoomName, Arc<Turns<T>>>>,
}

#[derive(Debug)]
struct Turns<T> {
    /// The number of callers that wait. It changes under the map's lock.
    present: AtomicU64,
    /// The number of callers so far.
    arrived: AtomicU64,
    /// The last result, and how many callers had arrived when its query began. It is locked while a
    /// query is under way.
    last: tokio::sync::Mutex<Option<(u64, T)>>,
}

impl<T: Clone> SharedQueries<T> {
    pub(crate) fn new() -> Self {
        Self { rooms: Mutex::default() }
    }

    /// Returns the result of a query that begins after this call.
    ///
    /// If the future is dropped, the next caller that waits runs the query.
    pub(crate) async fn get<F: Future<Output = T>>(&self, room: &RoomName, query: impl FnOnce() -> F) -> T {
        let caller = Caller { queries: self, room, turns: self.turns(room) };
        let turns = &caller.turns;
        let own = turns.arrived.fetch_add(1, Ordering::AcqRel);
        let mut last = turns.last.lock().await;
        if let Some((arrived, result)) = &*last
            && own < *arrived
        {
            return result.clone();
        }
        let arrived = turns.arrived.load(Ordering::Acquire);
        let result = query().await;
        *last = Some((arrived, result.clone()));
        result
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

/// One of the callers for a room. The last one removes the room's entry.
struct Caller<'a, T> {
    queries: &'a SharedQueries<T>,
    room: &'a RoomName,
    turns: Arc<Turns<T>>,
}

impl<T> Drop for Caller<'_, T> {
    fn drop(&mut self) {
        let mut rooms = self.queries.rooms.lock();
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
    async fn callers_during_a_query_share_the_next() {
        let (queries, room, asked) = (SharedQueries::new(), RoomName::new("lobby").unwrap(), Cell::new(0));
        let next = || {
            asked.set(asked.get() + 1);
            ready(asked.get())
        };
        let (answer, answered) = oneshot::channel::<()>();
        let mut first = pin!(queries.get(&room, || {
            asked.set(1);
            answered.map(|_| 1)
        }));
        assert_eq!((&mut first).now_or_never(), None, "it is under way");
        let mut others = pin!(join_all((0..100).map(|_| queries.get(&room, next))));
        assert_eq!((&mut others).now_or_never(), None, "they wait");
        drop(answer);
        assert_eq!(first.await, 1);
        assert_eq!(others.await, [2; 100]);
        assert_eq!(queries.get(&room, next).await, 3, "an old result is nobody's");
        assert!(queries.rooms.lock().is_empty());
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_keeps_nobody_waiting() {
        let (queries, room) = (SharedQueries::new(), RoomName::new("lobby").unwrap());
        let mut stuck = Box::pin(queries.get(&room, std::future::pending));
        assert_eq!((&mut stuck).now_or_never(), None);
        let mut waiting = pin!(queries.get(&room, || ready(1)));
        assert_eq!((&mut waiting).now_or_never(), None);
        drop(stuck);
        assert_eq!(waiting.await, 1);
        assert!(queries.rooms.lock().is_empty());
    }
}

//! A connection's fair share of the node's publish queue.
//!
//! All connections share the queue in which the broker keeps publishes that it has not accepted
//! yet. (With Redis, this is `state/publish_queue`.) What a connection publishes beyond its share
//! waits here, in order. A connection that floods the node therefore cannot fill the queue and make
//! other connections' publishes fail.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use roomcast_core::{BoxFuture, Position, PublishError};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;

/// How many bytes of a connection's publishes may wait for the broker to accept them. A larger
/// publish may wait if it is the only one.
const SHARE: usize = 1024 * 1024;

/// How many publishes use up a share, however small the publishes are.
const MAX_PUBLISHES: u32 = 256;

/// The size of each of the share's [`MAX_PUBLISHES`] parts, in bytes. A publish takes as many parts
/// as its payload needs.
const PART: usize = SHARE / MAX_PUBLISHES as usize;

/// A publish that has its place in the broker's order.
type Publish = BoxFuture<'static, Result<Position, PublishError>>;

/// A connection's publishes that are under way.
///
/// The number of waiting publishes is bounded: only the connection's calls and one notification can
/// wait.
#[derive(Debug)]
pub(crate) struct PublishShare {
    /// Held by the publish that waits for parts. The lock is fair, so publishes reach the broker in
    /// the order in which they arrived, although several may get their parts at once.
    turn: Mutex<()>,
    parts: Arc<Semaphore>,
}

impl PublishShare {
    pub(crate) fn new() -> Self {
        Self { turn: Mutex::new(()), parts: Arc::new(Semaphore::new(MAX_PUBLISHES as usize)) }
    }

    /// Waits until it is the publish's turn and the share has room for the payload, and then calls
    /// `publish`.
    ///
    /// # Errors
    /// Returns the errors of `publish`, and those of the publish itself.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the publish leaves the queue and nothing is
    /// published.
    pub(crate) async fn start<E: From<PublishError>>(
        &self,
        payload: usize,
        publish: impl FnOnce() -> Result<Publish, E>,
    ) -> Result<Started, E> {
        // Unconstrained, because a flood would otherwise use up its task's budget here, and be
        // handled one event at a time.
        let _turn = unconstrained(self.turn.lock()).await;
        // The semaphore is never closed.
        let parts = unconstrained(Arc::clone(&self.parts).acquire_many_owned(parts(payload))).await.ok();
        let mut publish = publish()?;
        match (&mut publish).now_or_never() {
            Some(result) => Ok(Started::Accepted(result?)),
            None => Ok(Started::UnderWay(UnderWay { inner: Some((publish, parts)) })),
        }
    }
}

fn parts(payload: usize) -> u32 {
    u32::try_from(payload.div_ceil(PART)).unwrap_or(u32::MAX).clamp(1, MAX_PUBLISHES)
}

/// A publish that has its place in the broker's order.
pub(crate) enum Started {
    /// The broker has accepted the event, at this position.
    Accepted(Position),
    UnderWay(UnderWay),
}

/// A publish that the broker has not accepted yet. It counts until then, even if its call was
/// cancelled. A client must not get more publishes under way by cancelling its calls.
pub(crate) struct UnderWay {
    /// `None` once the publish is done.
    inner: Option<(Publish, Option<OwnedSemaphorePermit>)>,
}

impl Future for UnderWay {
    type Output = Result<Position, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((publish, _)) = &mut self.inner else { return Poll::Pending };
        let result = publish.as_mut().poll(cx);
        if result.is_ready() {
            self.inner = None;
        }
        result
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some((publish, parts)) = self.inner.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // No caller waits for the result any more, so a failure is only counted.
            runtime.spawn(async move {
                let _ = publish.await;
                drop(parts);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::pin::pin;
    use std::sync::mpsc;

    use super::*;

    /// A publish that the broker accepts at once.
    fn accepted() -> Result<Publish, PublishError> {
        Ok(Box::pin(ready(Ok(Position::NONE))))
    }

    #[tokio::test]
    async fn publishes_keep_their_order_when_their_task_has_used_up_its_budget() {
        let share = PublishShare::new();
        let (begun, order) = mpsc::channel();
        let publish = |number: u32| {
            let begun = begun.clone();
            share.start(1, move || {
                begun.send(number).expect("the test receives");
                accepted()
            })
        };
        let (mut first, mut second) = (pin!(publish(1)), pin!(publish(2)));
        let all = Arc::clone(&share.parts).acquire_many_owned(MAX_PUBLISHES).await.expect("the semaphore is open");
        let other = Semaphore::new(1);
        while other.acquire().now_or_never().is_some() {}
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
        drop(all);
        assert!(second.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_some());
        assert!(second.await.is_ok());
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [1, 2]);
    }

    #[tokio::test]
    async fn a_publish_that_has_room_starts_at_once_whatever_is_left_of_its_task_s_budget() {
        let share = PublishShare::new();
        let other = Semaphore::new(1);
        while other.acquire().now_or_never().is_some() {}
        assert!(share.start(1, accepted).now_or_never().is_some());
    }
}

//! A connection's fair share of the node's publish queue.
//!
//! All connections share the queue in which the broker keeps publishes that it has not accepted (with Redis,
//! `state/publish_queue`). What a connection publishes beyond its share waits here, in order, so that
//! a connection that floods can't fill the queue and make the others' publishes fail.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use roomcast_core::{BoxFuture, PublishError};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;

/// How many bytes a connection may have published that the broker has not accepted yet. A larger publish may be under
/// way alone.
const SHARE: usize = 1024 * 1024;

/// How many publishes use up a share, however small they are.
const MAX_PUBLISHES: u32 = 256;

/// The payload of a publish that takes one of the share's [`MAX_PUBLISHES`] parts.
const PART: usize = SHARE / MAX_PUBLISHES as usize;

/// A publish, which has its place in the broker's order.
type Publish = BoxFuture<'static, Result<(), PublishError>>;

/// A connection's publishes under way.
///
/// Those that wait are bounded: only the connection's calls and one notification can.
#[derive(Debug)]
pub(crate) struct PublishShare {
    /// Held by the publish that waits for parts. It takes turns in order, so publishes reach the broker in the order in
    /// which they came, although several may get their parts at once.
    turn: Mutex<()>,
    parts: Arc<Semaphore>,
}

impl PublishShare {
    pub(crate) fn new() -> Self {
        Self { turn: Mutex::new(()), parts: Arc::new(Semaphore::new(MAX_PUBLISHES as usize)) }
    }

    /// Waits until it is the publish's turn and there is room for its payload, and calls `publish`. `None`: the broker has
    /// accepted it already.
    ///
    /// # Errors
    /// Those of the publish.
    ///
    /// # Cancel safety
    /// Dropping the future before it is ready takes the publish out of the queue; nothing is published.
    pub(crate) async fn start(
        &self,
        payload: usize,
        publish: impl FnOnce() -> Publish,
    ) -> Result<Option<UnderWay>, PublishError> {
        // Unconstrained: otherwise a flood would use up its task's budget here, and be handled one by one.
        let _turn = unconstrained(self.turn.lock()).await;
        // The semaphore is never closed.
        let parts = unconstrained(Arc::clone(&self.parts).acquire_many_owned(parts(payload))).await.ok();
        let mut publish = publish();
        match (&mut publish).now_or_never() {
            Some(result) => result.map(|()| None),
            None => Ok(Some(UnderWay { inner: Some((publish, parts)) })),
        }
    }
}

fn parts(payload: usize) -> u32 {
    u32::try_from(payload.div_ceil(PART)).unwrap_or(u32::MAX).clamp(1, MAX_PUBLISHES)
}

/// A publish that the broker has not accepted yet. It counts until then even if its call was cancelled: a client that
/// cancels its calls must not have more under way than others.
pub(crate) struct UnderWay {
    /// `None`: it is done.
    inner: Option<(Publish, Option<OwnedSemaphorePermit>)>,
}

impl Future for UnderWay {
    type Output = Result<(), PublishError>;

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
            // Nobody waits for a failure any more; it is only counted.
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

    #[tokio::test]
    async fn publishes_keep_their_order_when_their_task_has_used_up_its_budget() {
        let share = PublishShare::new();
        let (begun, order) = mpsc::channel();
        let publish = |number: u32| {
            let begun = begun.clone();
            share.start(1, move || {
                begun.send(number).expect("the test receives");
                Box::pin(ready(Ok(())))
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
        assert!(share.start(1, || Box::pin(ready(Ok(())))).now_or_never().is_some());
    }
}

//! The node's subscriptions to rooms that the broker has not confirmed yet.
//!
//! ```text
//!   first member ──▶ pending ──confirmed──▶ (not kept here)
//!                     │  ▲
//!                 failed │ a later join, or `renew_failed`
//!                     ▼  │
//!                   failed ──last member leaves──▶ (not kept here)
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{Shared, ready};

use crate::broker::contract::{BoxFuture, Broker, BrokerError};
use crate::id::RoomName;

/// A subscription to a room. All callers that wait for it share its outcome.
#[derive(Debug, Clone)]
pub(crate) struct Subscription(Shared<BoxFuture<'static, Result<(), BrokerError>>>);

impl Subscription {
    /// Waits for the broker's confirmation.
    pub(crate) async fn answered(&self) -> Result<(), BrokerError> {
        self.0.clone().await
    }

    /// Returns the outcome if there is one, even if no caller has waited for it.
    fn outcome(&self) -> Option<Result<(), BrokerError>> {
        self.0.clone().now_or_never()
    }
}

/// The subscriptions that are pending or have failed, by room.
#[derive(Debug)]
pub(crate) struct RoomSubscriptions {
    broker: Arc<dyn Broker>,
    unconfirmed: HashMap<RoomName, Subscription>,
}

impl RoomSubscriptions {
    /// Creates an empty set of subscriptions.
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, unconfirmed: HashMap::new() }
    }

    /// Subscribes to a room, which has got its first member.
    pub(crate) fn start(&mut self, room: &RoomName) {
        let mut answer = self.broker.subscribe(room);
        // The broker in memory confirms at once.
        let unconfirmed = match (&mut answer).now_or_never() {
            Some(Ok(())) => None,
            Some(refused) => Some(ready(refused).boxed()),
            None => Some(answer),
        };
        match unconfirmed {
            Some(answer) => drop(self.unconfirmed.insert(room.clone(), Subscription(answer.shared()))),
            None => drop(self.unconfirmed.remove(room)),
        }
    }

    /// Returns the subscription that a join must wait for, or `None` if it is confirmed. A failed
    /// subscription is started again.
    pub(crate) fn pending(&mut self, room: &RoomName) -> Option<Subscription> {
        if matches!(self.unconfirmed.get(room)?.outcome(), Some(Err(_))) {
            self.start(room);
        }
        self.unconfirmed.get(room).cloned()
    }

    /// Records that a subscription has succeeded. This does nothing if the room was empty meanwhile
    /// and has a newer subscription.
    pub(crate) fn confirm(&mut self, room: &RoomName, subscription: &Subscription) {
        if self.unconfirmed.get(room).is_some_and(|current| current.0.ptr_eq(&subscription.0)) {
            self.unconfirmed.remove(room);
        }
    }

    /// Unsubscribes from a room, which has lost its last member.
    pub(crate) fn end(&mut self, room: &RoomName) {
        self.unconfirmed.remove(room);
        self.broker.unsubscribe(room);
    }

    /// Starts failed subscriptions again.
    pub(crate) fn renew_failed(&mut self) {
        let broker = &self.broker;
        self.unconfirmed.retain(|room, subscription| match subscription.outcome() {
            // Its joins no longer wait, so nothing else removes it.
            Some(Ok(())) => false,
            Some(Err(_)) => {
                *subscription = Subscription(broker.subscribe(room).shared());
                true
            }
            None => true,
        });
    }
}

//! Lifecycle events of a node.

use std::sync::Arc;

use roomcast_core::{EventOptions, EventStore, Events};

use crate::node::handle::Node;

impl Node {
    /// Reports lifecycle events from now on: which connections open and end, and which users and rooms
    /// come and go. Call this before you accept connections. Only the first call has an effect.
    ///
    /// All nodes of a cluster must share a store. With Redis, `RedisBroker::events` of the crate
    /// `roomcast-redis` returns it. [`MemoryEvents`](crate::MemoryEvents) is for a cluster of one
    /// node; its events are lost when the process ends.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use roomcast::{
    ///     BoxFuture, EventBatch, EventKind, EventOptions, EventRules, EventSink, MemoryEvents, Node, Options,
    /// };
    ///
    /// #[derive(Debug)]
    /// struct Print;
    ///
    /// impl EventSink for Print {
    ///     fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
    ///         println!("{}", String::from_utf8_lossy(&batch.body));
    ///         Box::pin(async { Ok(()) })
    ///     }
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let node = Node::embedded(Options::default());
    /// let kinds = [EventKind::Connected, EventKind::Disconnected].into_iter().collect();
    /// let store = Arc::new(MemoryEvents::new(EventRules::default()));
    /// node.report_events(EventOptions::new(kinds, store, Arc::new(Print)));
    /// # });
    /// ```
    pub fn report_events(&self, options: EventOptions) {
        self.hub().report_events(options);
    }

    /// Returns the store of the node's lifecycle events, if the node reports any.
    pub fn event_store(&self) -> Option<&Arc<dyn EventStore>> {
        self.hub().local().events().map(Events::store)
    }
}

//! What a router does when clients use rooms.

use std::sync::Arc;

use roomcast_core::RoomPatterns;

use crate::app::context::{PublishContext, RoomContext};
use crate::app::handler::Handler;
use crate::app::rooms::{RoomAccess, RoomHandler};
use crate::app::router::Router;
use crate::app::routes::erase;

impl<S: Send + Sync + 'static> Router<S> {
    /// Opens the [`rooms/…` methods](Self::client_rooms) to all clients. Use this for demos and
    /// closed networks.
    #[must_use]
    pub fn open_rooms(self) -> Self {
        self.change(|routes, _| routes.rooms.rules.access = RoomAccess::Everybody)
    }

    /// Opens the built-in room methods to clients. The handler runs before each use of a method and
    /// decides whether to allow it. If the handler returns an error, the client receives it.
    /// Without a handler, no client can use these methods.
    ///
    /// | method | [`RoomAction`](crate::RoomAction) | payload of the call | payload of the response |
    /// |---|---|---|---|
    /// | `rooms/join/<room>` | `Join` | empty | empty; the client receives every event published later |
    /// | `rooms/leave/<room>` | `Leave` | empty | empty; the client receives no further event of the room |
    /// | `rooms/publish/<room>/<event>` | `Publish` | the event's payload | empty; the broker has accepted the event |
    /// | `rooms/members/<room>` | `Members` | empty | `{"count", "members": [{"connection", "user"}], "unresponsive_nodes"}` |
    ///
    /// Members receive an event as a notification with the event's name and payload. The
    /// notification does not contain the room's name. A client may also send a notification in
    /// place of a call. The client then receives no response, and failures are counted and logged.
    ///
    /// ```
    /// use roomcast::{CallError, Code, Node, Options, RoomAction, RoomName, Router, UserId};
    ///
    /// async fn is_on_guest_list(user: &UserId, room: &RoomName) -> bool {
    ///     // Query your database here.
    ///     room.starts_with(&format!("of-{user}-"))
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let router = Router::new(Node::embedded(Options::default())).client_rooms(
    ///     async |user: UserId, action: RoomAction, room: RoomName| {
    ///         if action == RoomAction::Leave || is_on_guest_list(&user, &room).await {
    ///             return Ok(());
    ///         }
    ///         Err(CallError::new(Code::PermissionDenied, format!("{user} is not on the guest list of {room}")))
    ///     },
    /// );
    /// # let _ = router; }
    /// ```
    #[must_use]
    pub fn client_rooms<A>(self, handler: impl Handler<RoomContext, A, S>) -> Self {
        self.change(|routes, state| routes.rooms.rules.access = RoomAccess::Checked(erase(handler, state)))
    }

    /// Lets only members publish to the rooms that match one of these patterns. A client that may
    /// publish but is not a member gets `PERMISSION_DENIED`. Without this, a client needs only the
    /// permission to publish. Handlers and other nodes can always publish.
    ///
    /// ```
    /// use roomcast::{Node, Options, PatternError, Router};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), PatternError> {
    /// let router = Router::new(Node::embedded(Options::default())).open_rooms().members_only("game:*".parse()?);
    /// # let _ = router; Ok(()) }
    /// ```
    #[must_use]
    pub fn members_only(self, rooms: RoomPatterns) -> Self {
        self.change(|routes, _| routes.rooms.rules.members_only = Arc::new(rooms))
    }

    /// Runs a handler on each event that a client publishes to a room that matches one of these
    /// patterns, before the event is published. The members receive what the handler returns as the
    /// event's payload. If the handler returns an error, nothing is published and the client
    /// receives the error. The handler runs after all other checks.
    ///
    /// Events that handlers, other code and the HTTP API publish do not run the handler.
    ///
    /// ```
    /// use roomcast::{CallError, Code, Node, Options, PatternError, Router, Text};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), PatternError> {
    /// let router = Router::new(Node::embedded(Options::default())).open_rooms().on_publish(
    ///     "chat:*".parse()?,
    ///     async |Text(text): Text| match text.is_empty() {
    ///         true => Err(CallError::new(Code::InvalidArgument, "the message is empty")),
    ///         false => Ok(text.replace("darn", "****")),
    ///     },
    /// );
    /// # let _ = router; Ok(()) }
    /// ```
    #[must_use]
    pub fn on_publish<A>(self, rooms: RoomPatterns, handler: impl Handler<PublishContext, A, S>) -> Self {
        self.change(|routes, state| {
            let handle = erase(handler, state);
            routes.rooms.rules.on_publish = Some(Arc::new(RoomHandler { rooms, handle }));
        })
    }

    /// Runs a handler on each join of a client to a room that matches one of these patterns, before
    /// the client becomes a member. If the handler returns an error, the client does not join and
    /// receives the error. Any other return value is ignored. The handler runs after all other checks.
    ///
    /// Rooms that the [identity](crate::Identity::join) or a handler joins for the client do not run
    /// the handler.
    ///
    /// ```
    /// use roomcast::{CallError, Code, Node, Options, PatternError, RoomName, Router, UserId};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), PatternError> {
    /// let router = Router::new(Node::embedded(Options::default())).open_rooms().on_join(
    ///     "of:*".parse()?,
    ///     async |user: UserId, room: RoomName| match room.strip_prefix("of:") == Some(&user) {
    ///         true => Ok(()),
    ///         false => Err(CallError::new(Code::PermissionDenied, "this room is not yours")),
    ///     },
    /// );
    /// # let _ = router; Ok(()) }
    /// ```
    #[must_use]
    pub fn on_join<A>(self, rooms: RoomPatterns, handler: impl Handler<RoomContext, A, S>) -> Self {
        self.change(|routes, state| {
            let handle = erase(handler, state);
            routes.rooms.rules.on_join = Some(Arc::new(RoomHandler { rooms, handle }));
        })
    }
}

//! The built-in methods with which clients use rooms, and the permission to use them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::{JoinError, Right, RoomName, RoomPatterns, check_event};
use roomcast_protocol::Name;

use crate::app::context::{PublishContext, RoomAction, RoomContext};
use crate::app::handling::Handling;
use crate::app::members::{self, PageRequest};
use crate::app::publishing::{self, ClientEvent};
use crate::app::socket::Socket;
use crate::error::{CallError, Code};
use crate::metrics::limits;
use crate::rate::Action;

/// Which clients may use the `rooms/…` methods, and how.
#[derive(Clone)]
pub(crate) enum RoomAccess {
    Nobody,
    Everybody,
    Checked(Arc<Check>),
}

type Check = dyn Fn(RoomContext) -> Handling + Send + Sync;

impl RoomAccess {
    /// Checks the connection's grants, if it has any, and then asks the application's handler, if
    /// there is one.
    async fn check(&self, socket: &Socket, action: RoomAction, room: &RoomName) -> Result<(), CallError> {
        if let Some(right) = action.right() {
            socket.context.check_right(right, room)?;
        }
        match self {
            Self::Everybody => Ok(()),
            Self::Nobody if socket.context.access().is_some() => Ok(()),
            Self::Nobody => {
                Err(CallError::new(Code::PermissionDenied, format!("{action:?} is not allowed in room {room:?}")))
            }
            Self::Checked(check) => {
                check(RoomContext { socket: socket.clone(), action, room: room.clone() }).await?;
                // A refresh may have taken away the right meanwhile.
                action.right().map_or(Ok(()), |right| socket.context.check_right(right, room))
            }
        }
    }
}

/// What applies to all rooms, or to those that match a pattern.
#[derive(Debug, Clone)]
pub(crate) struct RoomRules {
    pub(crate) access: RoomAccess,
    /// Rooms to which only members may publish.
    pub(crate) members_only: Arc<RoomPatterns>,
    /// The application's handler for joins of clients, if there is one.
    pub(crate) on_join: Option<Arc<RoomHandler<RoomContext>>>,
    /// The application's handler for events of clients, if there is one.
    pub(crate) on_publish: Option<Arc<RoomHandler<PublishContext>>>,
}

/// A handler that decides on what clients do in some rooms.
pub(crate) struct RoomHandler<C> {
    pub(crate) rooms: RoomPatterns,
    pub(crate) handle: Arc<dyn Fn(C) -> Handling + Send + Sync>,
}

impl<C> fmt::Debug for RoomHandler<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomHandler").field("rooms", &self.rooms).finish_non_exhaustive()
    }
}

impl RoomRules {
    /// Checks that the client may perform an action. If this waits, it waits for the application.
    async fn check(&self, socket: &Socket, action: RoomAction, room: &RoomName) -> Result<(), CallError> {
        self.access.check(socket, action, room).await?;
        match action {
            RoomAction::Publish => self.check_membership(socket, room),
            _ => Ok(()),
        }
    }

    /// Checks that a client that publishes is a member, if the room requires it.
    fn check_membership(&self, socket: &Socket, room: &RoomName) -> Result<(), CallError> {
        match self.members_only.match_room(room) && !socket.context.connection.is_in(room) {
            true => Err(socket.context.is_not_a_member(room)),
            false => Ok(()),
        }
    }

    /// Lets the application decide on a join.
    async fn decide_join(&self, socket: &Socket, room: &RoomName) -> Result<(), CallError> {
        match &self.on_join {
            Some(handler) if handler.rooms.match_room(room) => {
                let context = RoomContext { socket: socket.clone(), action: RoomAction::Join, room: room.clone() };
                (handler.handle)(context).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Lets the application decide on an event. Returns the payload to publish in place of the
    /// client's, if the application has decided.
    async fn decide_publish(&self, socket: &Socket, event: &ClientEvent) -> Result<Option<Bytes>, CallError> {
        match &self.on_publish {
            Some(handler) if handler.rooms.match_room(&event.room) => {
                let ClientEvent { room, event: name, payload } = event;
                let (room, name, payload) = (room.clone(), name.clone(), payload.clone());
                (handler.handle)(PublishContext { socket: socket.clone(), room, name, payload }).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for RoomAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Everybody => "Everybody",
            Self::Checked(_) => "Checked",
        })
    }
}

/// The prefix of these methods' names.
pub(crate) const PREFIX: &str = "rooms/";

/// How a message to a `rooms/…` method arrived.
#[derive(Debug)]
pub(crate) enum MessageKind {
    /// As a call, which waits for its publish.
    Call,
    /// As a notification of this name, which does not wait for its publish.
    Notification(Name),
}

/// A message to a `rooms/…` method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomMessage<'a> {
    pub(crate) action: RoomAction,
    /// The part of the name after the action: a room, and an event if the action is a publish.
    names: &'a str,
}

/// A join under way.
///
/// While the join waits, a refresh may take away the right, and find no membership to end yet.
/// However the join ends, even if its future is dropped, no membership remains that the identity
/// does not permit.
struct Joining<'a> {
    socket: &'a Socket,
    room: &'a RoomName,
}

impl Joining<'_> {
    fn is_permitted(&self) -> bool {
        self.socket.context.access().is_none_or(|access| access.may_be_in(self.room))
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if !self.is_permitted() {
            self.socket.node.hub().local().leave(&self.socket.context.connection, self.room);
        }
    }
}

impl<'a> RoomMessage<'a> {
    /// Returns `None` if the name is not one of these methods.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (action, names) = rest.split_once('/').unwrap_or((rest, ""));
        let action = match action {
            "join" => RoomAction::Join,
            "leave" => RoomAction::Leave,
            "publish" => RoomAction::Publish,
            "members" => RoomAction::Members,
            _ => return None,
        };
        Some(Self { action, names })
    }

    pub(crate) fn limited(&self) -> Option<Action> {
        match self.action {
            RoomAction::Join => Some(Action::Join),
            RoomAction::Publish => Some(Action::Publish),
            RoomAction::Leave | RoomAction::Members => None,
        }
    }

    /// Carries out the action if it is allowed.
    pub(crate) fn perform(self, rules: &RoomRules, socket: &Socket, payload: Bytes, kind: MessageKind) -> Handling {
        let Self { action, .. } = self;
        let names = self.names();
        let (rules, socket) = (rules.clone(), socket.clone());
        Box::pin(async move {
            let (room, event) = names?;
            rules.check(&socket, action, &room).await?;
            let (context, hub) = (&socket.context, socket.node.hub());
            match (action, kind) {
                (RoomAction::Join, kind) => {
                    admit_new_room(&socket, &room, &kind)?;
                    rules.decide_join(&socket, &room).await?;
                    let joining = Joining { socket: &socket, room: &room };
                    hub.local().join(&context.connection, &room).await.inspect_err(|error| {
                        if matches!(error, JoinError::NodeFull { .. }) {
                            context.metrics.on_limit_reached(limits::MAX_NODE_ROOMS);
                        }
                    })?;
                    if !joining.is_permitted() {
                        return Err(context.right_is_missing(Right::Join, &room));
                    }
                }
                (RoomAction::Leave, _) => hub.local().leave(&context.connection, &room),
                (RoomAction::Publish, kind) => {
                    let mut event = ClientEvent { room, event, payload };
                    if let Some(payload) = rules.decide_publish(&socket, &event).await? {
                        event.payload = payload;
                        // The membership may have ended while the application decided.
                        rules.check_membership(&socket, &event.room)?;
                    }
                    match kind {
                        MessageKind::Call => {
                            publishing::publish(context, hub, event).await?;
                        }
                        MessageKind::Notification(method) => {
                            publishing::publish_unawaited(context, hub, method, event).await?;
                        }
                    }
                }
                (RoomAction::Members, _) => {
                    let request = PageRequest::parse(&payload)?;
                    let members = hub.cluster().members(&room).await?;
                    // The right may have been taken away while other nodes responded.
                    context.check_right(Right::Members, &room)?;
                    return members::page(&members, &request);
                }
            }
            Ok(Bytes::new())
        })
    }

    fn names(self) -> Result<(RoomName, Name), CallError> {
        let method = self.action.method();
        match (self.action, self.names.split_once('/')) {
            (RoomAction::Publish, Some((room, event))) => {
                let event = check_event(event)?;
                Ok((RoomName::new(room)?, event))
            }
            (RoomAction::Publish, None) => {
                Err(CallError::invalid_argument(format!("name a room and an event: {method}/<room>/<event>")))
            }
            _ if self.names.is_empty() => Err(CallError::invalid_argument(format!("name a room: {method}/<room>"))),
            _ => Ok((RoomName::new(self.names)?, Name::default())),
        }
    }
}

/// Counts a join of a room that has no member on this node. Such rooms cost more than others: each is
/// a subscription at the broker.
fn admit_new_room(socket: &Socket, room: &RoomName, kind: &MessageKind) -> Result<(), CallError> {
    if socket.node.hub().local().has_members(room) {
        return Ok(());
    }
    let context = &socket.context;
    context.take(Action::NewRoom, tokio::time::Instant::now().into_std()).map_err(|error| {
        if matches!(kind, MessageKind::Notification(_)) {
            context.connection.outbox.close(error.close_frame());
        }
        error.into()
    })
}

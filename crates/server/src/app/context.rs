//! What handlers are run for: a call, a notification, the begin and the end of a connection, the use of a room.

use std::sync::Arc;

use axum::http::request::Parts;
use bytes::Bytes;
use roomcast_core::RoomName;
use roomcast_protocol::Name;

use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::end::Disconnected;

/// What a handler is run for. An extractor that needs the connection only is written for all contexts at once. See
/// [`FromContext`](crate::FromContext) for an example.
pub trait Context: Send + Sync + 'static {
    /// The connection.
    fn socket(&self) -> &Socket;

    /// The request that opened the connection. Connect handlers always have it; the others only if the upgrade
    /// [keeps it](crate::SocketIoUpgrade::keep_request).
    fn request(&self) -> Option<&Parts> {
        self.socket().request()
    }
}

/// A message of a client: a call or a notification.
///
/// ```
/// use roomcast::{CallError, FromContext, MessageContext};
///
/// /// The size of the payload in bytes.
/// struct Size(usize);
///
/// impl<C: MessageContext, S: Sync> FromContext<C, S> for Size {
///     async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
///         Ok(Self(context.payload().len()))
///     }
/// }
/// ```
pub trait MessageContext: Context {
    /// The method's or event's name.
    fn name(&self) -> &Name;

    /// The payload.
    fn payload(&self) -> &Bytes;
}

/// A call. See [`Handler`](crate::Handler) and [`FromContext`](crate::FromContext) for examples.
#[derive(Debug)]
pub struct CallContext {
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) socket: Socket,
    pub(crate) cancel: Cancel,
}

impl CallContext {
    /// The call's cancellation.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}

/// A notification. See [`FromContext`](crate::FromContext) for an example.
#[derive(Debug)]
pub struct NotificationContext {
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) socket: Socket,
}

/// A connection that has just opened, for [`Router::on_connect`](crate::Router::on_connect). See there for an example.
#[derive(Debug)]
pub struct ConnectContext {
    pub(crate) socket: Socket,
    pub(crate) request: Arc<Parts>,
}

/// A connection that has ended, for [`Router::on_disconnect`](crate::Router::on_disconnect). See [`Router`](crate::Router) for an
/// example.
#[derive(Debug)]
pub struct DisconnectContext {
    pub(crate) socket: Socket,
    pub(crate) disconnected: Disconnected,
}

impl DisconnectContext {
    /// How the connection ended.
    pub fn disconnected(&self) -> &Disconnected {
        &self.disconnected
    }
}

/// A client's use of a room, for [`Router::client_rooms`](crate::Router::client_rooms). See there for an
/// example.
#[derive(Debug)]
pub struct RoomContext {
    pub(crate) socket: Socket,
    pub(crate) action: RoomAction,
    pub(crate) room: RoomName,
}

impl RoomContext {
    /// What the client requests.
    pub fn action(&self) -> RoomAction {
        self.action
    }

    /// The room.
    pub fn room(&self) -> &RoomName {
        &self.room
    }
}

/// What a client requests of a room. See [`Router::client_rooms`](crate::Router::client_rooms) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RoomAction {
    /// To become a member.
    Join,
    /// To end its membership.
    Leave,
    /// To send an event to the members.
    Publish,
    /// To see who is a member, on all nodes.
    Members,
}

impl RoomAction {
    /// The name of its built-in method, to which the room's name is appended.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Join => "rooms/join",
            Self::Leave => "rooms/leave",
            Self::Publish => "rooms/publish",
            Self::Members => "rooms/members",
        }
    }
}

macro_rules! context {
    ($($context:ty),*) => {$(
        impl Context for $context {
            fn socket(&self) -> &Socket {
                &self.socket
            }
        }
    )*};
}
context!(CallContext, NotificationContext, DisconnectContext, RoomContext);

impl Context for ConnectContext {
    fn socket(&self) -> &Socket {
        &self.socket
    }

    fn request(&self) -> Option<&Parts> {
        Some(&self.request)
    }
}

macro_rules! message_context {
    ($($context:ty),*) => {$(
        impl MessageContext for $context {
            fn name(&self) -> &Name {
                &self.name
            }

            fn payload(&self) -> &Bytes {
                &self.payload
            }
        }
    )*};
}
message_context!(CallContext, NotificationContext);

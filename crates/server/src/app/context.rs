//! The contexts that handlers run in: a call, a notification, a connection's start or end, or the
//! use of a room.

use std::sync::Arc;
use std::time::Instant;

use axum::http::request::Parts;
use bytes::Bytes;
use roomcast_core::{Right, RoomName};
use roomcast_protocol::Name;

use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::call::grace::Grace;
use crate::end::Disconnected;

/// The context that a handler runs in. An extractor that needs only the connection can support all
/// contexts at once. See [`FromContext`](crate::FromContext) for an example.
pub trait Context: Send + Sync + 'static {
    /// Returns the connection.
    fn socket(&self) -> &Socket;

    /// Returns the request that opened the connection. Connect handlers always have it. Other
    /// handlers have it only if the upgrade [keeps it](crate::SocketIoUpgrade::keep_request).
    fn request(&self) -> Option<&Parts> {
        self.socket().request()
    }
}

/// The context of a client's message: a call, a notification, or an event that it publishes.
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
    /// Returns the name of the method or event.
    fn name(&self) -> &Name;

    /// Returns the payload.
    fn payload(&self) -> &Bytes;
}

/// The context of a call. See [`Handler`](crate::Handler) and [`FromContext`](crate::FromContext)
/// for examples.
#[derive(Debug)]
pub struct CallContext {
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) socket: Socket,
    pub(crate) cancel: Cancel,
}

impl CallContext {
    /// Returns the handle to the call's cancellation.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Returns what the call's work holds if it goes on after the call was cancelled.
    pub fn grace(&self) -> Grace {
        Grace::new(self.cancel.call(), self.socket.node.graces())
    }

    /// Returns when the call is cancelled, unless it ends earlier.
    pub fn deadline(&self) -> Instant {
        self.cancel.call().started() + self.socket.context.call_timeout()
    }
}

/// The context of a notification. See [`FromContext`](crate::FromContext) for an example.
#[derive(Debug)]
pub struct NotificationContext {
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) socket: Socket,
}

/// The context of a connect handler. See [`Router::on_connect`](crate::Router::on_connect) for an
/// example.
#[derive(Debug)]
pub struct ConnectContext {
    pub(crate) socket: Socket,
    pub(crate) request: Arc<Parts>,
}

/// The context of a handler that you add with
/// [`Router::on_disconnect`](crate::Router::on_disconnect). See [`Router`](crate::Router) for an
/// example.
#[derive(Debug)]
pub struct DisconnectContext {
    pub(crate) socket: Socket,
    pub(crate) disconnected: Disconnected,
}

impl DisconnectContext {
    /// Returns how the connection ended.
    pub fn disconnected(&self) -> &Disconnected {
        &self.disconnected
    }
}

/// The context of a handler that decides whether a client may use or join a room. See
/// [`Router::client_rooms`](crate::Router::client_rooms) and
/// [`Router::on_join`](crate::Router::on_join) for examples.
#[derive(Debug)]
pub struct RoomContext {
    pub(crate) socket: Socket,
    pub(crate) action: RoomAction,
    pub(crate) room: RoomName,
}

impl RoomContext {
    /// Returns what the client requests.
    pub fn action(&self) -> RoomAction {
        self.action
    }

    /// Returns the room's name.
    pub fn room(&self) -> &RoomName {
        &self.room
    }
}

/// The context of a handler that decides on a client's event before it is published. Its
/// [name](MessageContext::name) is the event's. See
/// [`Router::on_publish`](crate::Router::on_publish) for an example.
#[derive(Debug)]
pub struct PublishContext {
    pub(crate) socket: Socket,
    pub(crate) room: RoomName,
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
}

impl PublishContext {
    /// Returns the room's name.
    pub fn room(&self) -> &RoomName {
        &self.room
    }
}

/// What a client requests for a room. See [`Router::client_rooms`](crate::Router::client_rooms) for
/// an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RoomAction {
    /// To become a member of the room.
    Join,
    /// To end its membership.
    Leave,
    /// To publish an event to the room.
    Publish,
    /// To list the room's members on all nodes.
    Members,
}

impl RoomAction {
    /// Returns the right that a client needs if it has grants. Leaving a room needs no right.
    pub(crate) fn right(self) -> Option<Right> {
        match self {
            Self::Join => Some(Right::Join),
            Self::Leave => None,
            Self::Publish => Some(Right::Publish),
            Self::Members => Some(Right::Members),
        }
    }

    /// Returns the name of the built-in method, to which the client appends the room's name.
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
context!(CallContext, NotificationContext, DisconnectContext, RoomContext, PublishContext);

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
message_context!(CallContext, NotificationContext, PublishContext);

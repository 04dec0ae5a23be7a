//! Extractors, which create the arguments of handlers.

use axum::Extension;
use axum::Json;
use axum::extract::{FromRef, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use roomcast_core::{RoomName, UserId};
use roomcast_protocol::Name;
use serde::de::DeserializeOwned;

use crate::app::context::{
    CallContext, Context, DisconnectContext, MessageContext, PublishContext, RoomAction, RoomContext,
};
use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::end::Disconnected;
use crate::error::{CallError, Code};

/// An argument of handlers. It is created from the context `C` that the handler runs in and the
/// router's state `S`.
///
/// | argument | value | which handlers can take it |
/// |---|---|---|
/// | [`Socket`] | the connection | all |
/// | [`State<T>`] | the router's [state](crate::Router::with_state), or a part of it | all |
/// | [`Extension<T>`] | [data](crate::SocketIoUpgrade::with) of the connection, or an extension of the request, if the upgrade [keeps the request](crate::SocketIoUpgrade::keep_request) | all |
/// | [`UserId`] | the connection's user; without a user, the handler fails with `UNAUTHENTICATED` | all |
/// | `Option<UserId>` | the connection's user, if it has one | all |
/// | `Result<T, CallError>` | another argument `T`, or the error of creating it | those that can take `T` |
/// | [`HeaderMap`], [`Uri`] | the headers and the URI of the request that opened the connection, if the upgrade [keeps the request](crate::SocketIoUpgrade::keep_request) | all |
/// | [`Bytes`], [`Text`], [`Json<T>`] | the payload | handlers of calls, notifications and [publishes](crate::Router::on_publish) |
/// | [`Name`] | the name of the method or event | the same |
/// | [`Cancel`] | the call's cancellation | call handlers |
/// | [`Disconnected`] | how the connection ended | disconnect handlers |
/// | [`RoomName`] | the room | handlers of [`client_rooms`](crate::Router::client_rooms), of [joins](crate::Router::on_join) and of publishes |
/// | [`RoomAction`] | what the client requests for the room | handlers of [`client_rooms`](crate::Router::client_rooms) and of joins |
///
/// [`State`], [`Extension`], [`Json`], [`HeaderMap`] and [`Uri`] are axum's types. Connect
/// handlers always have the request.
///
/// [`State`]: https://docs.rs/axum/0.8/axum/extract/struct.State.html
/// [`State<T>`]: https://docs.rs/axum/0.8/axum/extract/struct.State.html
/// [`Extension`]: https://docs.rs/axum/0.8/axum/struct.Extension.html
/// [`Extension<T>`]: https://docs.rs/axum/0.8/axum/struct.Extension.html
/// [`Json`]: https://docs.rs/axum/0.8/axum/struct.Json.html
/// [`Json<T>`]: https://docs.rs/axum/0.8/axum/struct.Json.html
/// [`HeaderMap`]: https://docs.rs/http/1/http/header/struct.HeaderMap.html
/// [`Uri`]: https://docs.rs/http/1/http/uri/struct.Uri.html
/// [`Bytes`]: https://docs.rs/bytes/1/bytes/struct.Bytes.html
///
/// # Write your own
///
/// If the argument cannot be created, the client receives the error.
///
/// ```
/// use roomcast::{CallError, Code, Context, FromContext, Socket};
///
/// /// A member of the staff.
/// struct Staff(String);
///
/// impl<C: Context, S: Sync> FromContext<C, S> for Staff {
///     async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
///         match context.socket().user() {
///             Some(user) if user.starts_with("staff-") => Ok(Self(user.to_string())),
///             _ => Err(CallError::new(Code::PermissionDenied, "this is for the staff")),
///         }
///     }
/// }
///
/// async fn close_shop(Staff(name): Staff) -> String {
///     format!("{name} has closed the shop")
/// }
/// # fn add(router: roomcast::Router) -> roomcast::Router { router.call("close", close_shop) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler that is run for `{C}`",
    note = "every handler takes Socket, State<T>, Extension<T>, UserId, HeaderMap, Uri and types of yours that implement FromContext",
    note = "calls and notifications also have Bytes, Text, Json<T> and Name; only calls have Cancel"
)]
pub trait FromContext<C, S = ()>: Sized {
    /// Creates the argument.
    ///
    /// # Errors
    /// Returns the error that the client receives if the argument cannot be created.
    fn from_context(context: &C, state: &S) -> impl Future<Output = Result<Self, CallError>> + Send;
}

/// The payload as UTF-8 text.
///
/// ```
/// use roomcast::Text;
///
/// async fn shout(Text(text): Text) -> String {
///     text.to_uppercase()
/// }
/// # fn add(router: roomcast::Router) -> roomcast::Router { router.call("shout", shout) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl<C: MessageContext, S: Sync> FromContext<C, S> for Bytes {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        Ok(context.payload().clone())
    }
}

impl<C: MessageContext, S: Sync> FromContext<C, S> for Text {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        match std::str::from_utf8(context.payload()) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(error) => Err(CallError::invalid_argument(format!("the payload is not UTF-8: {error}"))),
        }
    }
}

impl<T: DeserializeOwned, C: MessageContext, S: Sync> FromContext<C, S> for Json<T> {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        match serde_json::from_slice(context.payload()) {
            Ok(value) => Ok(Self(value)),
            Err(error) => {
                Err(CallError::invalid_argument(format!("the payload is not the JSON that is expected: {error}")))
            }
        }
    }
}

impl<C: MessageContext, S: Sync> FromContext<C, S> for Name {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        Ok(context.name().clone())
    }
}

impl<S: Sync> FromContext<CallContext, S> for Cancel {
    async fn from_context(context: &CallContext, _state: &S) -> Result<Self, CallError> {
        Ok(context.cancel.clone())
    }
}

impl<S: Sync> FromContext<DisconnectContext, S> for Disconnected {
    async fn from_context(context: &DisconnectContext, _state: &S) -> Result<Self, CallError> {
        Ok(context.disconnected.clone())
    }
}

impl<S: Sync> FromContext<RoomContext, S> for RoomAction {
    async fn from_context(context: &RoomContext, _state: &S) -> Result<Self, CallError> {
        Ok(context.action)
    }
}

impl<S: Sync> FromContext<RoomContext, S> for RoomName {
    async fn from_context(context: &RoomContext, _state: &S) -> Result<Self, CallError> {
        Ok(context.room.clone())
    }
}

impl<S: Sync> FromContext<PublishContext, S> for RoomName {
    async fn from_context(context: &PublishContext, _state: &S) -> Result<Self, CallError> {
        Ok(context.room.clone())
    }
}

impl<C: Context, S: Sync> FromContext<C, S> for Socket {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        Ok(context.socket().clone())
    }
}

impl<T: FromRef<S>, C: Context, S: Sync> FromContext<C, S> for State<T> {
    async fn from_context(_context: &C, state: &S) -> Result<Self, CallError> {
        Ok(Self(T::from_ref(state)))
    }
}

impl<T: Clone + Send + Sync + 'static, C: Context, S: Sync> FromContext<C, S> for Extension<T> {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        let data = context.socket().get();
        let data = data.or_else(|| context.request().and_then(|request| request.extensions.get()));
        data.cloned()
            .map(Self)
            .ok_or_else(|| missing(std::any::type_name::<T>(), "give it to the connection with SocketIoUpgrade::with, or keep the request's extensions with keep_request"))
    }
}

impl<C: Context, S: Sync> FromContext<C, S> for UserId {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        let user = context.socket().user().cloned();
        user.ok_or_else(|| CallError::new(Code::Unauthenticated, "this method needs an authenticated user"))
    }
}

impl<C: Context, S: Sync> FromContext<C, S> for HeaderMap {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        request(context).map(|request| request.headers.clone())
    }
}

impl<C: Context, S: Sync> FromContext<C, S> for Uri {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        request(context).map(|request| request.uri.clone())
    }
}

impl<C: Context, S: Sync> FromContext<C, S> for Option<UserId> {
    async fn from_context(context: &C, _state: &S) -> Result<Self, CallError> {
        Ok(context.socket().user().cloned())
    }
}

impl<T: FromContext<C, S>, C: Sync, S: Sync> FromContext<C, S> for Result<T, CallError> {
    async fn from_context(context: &C, state: &S) -> Result<Self, CallError> {
        Ok(T::from_context(context, state).await)
    }
}

fn request(context: &impl Context) -> Result<&Parts, CallError> {
    context.request().ok_or_else(|| missing("the connection's request", "keep it with SocketIoUpgrade::keep_request"))
}

/// A handler needs something that no upgrade provided. This is a defect of the application, so its
/// log contains the details.
fn missing(what: &str, hint: &str) -> CallError {
    tracing::error!("a handler needs {what}, which its connection does not have: {hint}");
    CallError::new(Code::Internal, "the server did not set up the connection for this method")
}

//! Payloads, and the return values of handlers.

use axum::Json;
use bytes::Bytes;
use serde::Serialize;

use crate::error::{CallError, InvalidPayload};

/// A value that can be sent as a payload: bytes, text,
/// [`Json`](https://docs.rs/axum/0.8/axum/struct.Json.html), or `()` for an empty payload.
///
/// ```
/// use axum::Json;
/// use roomcast::{NotifyError, Socket};
///
/// #[derive(serde::Serialize)]
/// struct Moved {
///     x: i32,
///     y: i32,
/// }
///
/// fn send(socket: &Socket) -> Result<(), NotifyError> {
///     socket.notify("hello", "you")?;
///     socket.notify("moved", Json(Moved { x: 4, y: 2 }))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a payload",
    note = "payloads are (), Bytes, Vec<u8>, String, &str, &[u8] and Json<T>"
)]
pub trait IntoPayload {
    /// Converts the value to the payload's bytes.
    ///
    /// # Errors
    /// Returns [`InvalidPayload`] if the value cannot be serialized to JSON.
    fn into_payload(self) -> Result<Bytes, InvalidPayload>;
}

/// A handler's return value: a payload, or a `Result` of a payload and an error that converts into
/// [`CallError`].
///
/// ```
/// use roomcast::{CallError, Code, Socket};
///
/// enum ShopError {
///     SoldOut,
///     /// An error of the library's own functions.
///     Call(CallError),
/// }
///
/// impl From<CallError> for ShopError {
///     fn from(error: CallError) -> Self {
///         Self::Call(error)
///     }
/// }
///
/// impl From<ShopError> for CallError {
///     fn from(error: ShopError) -> Self {
///         match error {
///             ShopError::SoldOut => Self::new(Code::FailedPrecondition, "all cups are sold"),
///             ShopError::Call(error) => error,
///         }
///     }
/// }
///
/// async fn buy(socket: Socket) -> Result<&'static str, ShopError> {
///     socket.join("customers").await?;
///     socket.notify("receipt", "1 cup").map_err(CallError::from)?;
///     Err(ShopError::SoldOut)
/// }
/// # fn add(router: roomcast::Router) -> roomcast::Router { router.call("buy", buy) }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "handlers return (), bytes, text, Json<T>, or a Result of these whose error converts into CallError"
)]
pub trait IntoReply {
    /// Converts the value to the response's payload, or to the call's error.
    ///
    /// # Errors
    /// Returns the error that the client receives.
    fn into_reply(self) -> Result<Bytes, CallError>;
}

impl IntoPayload for () {
    fn into_payload(self) -> Result<Bytes, InvalidPayload> {
        Ok(Bytes::new())
    }
}

macro_rules! bytes_payload {
    ($($type:ty),*) => {$(
        impl IntoPayload for $type {
            fn into_payload(self) -> Result<Bytes, InvalidPayload> {
                Ok(self.into())
            }
        }
    )*};
}
bytes_payload!(Bytes, Vec<u8>, String);

macro_rules! borrowed_payload {
    ($($type:ty),*) => {$(
        impl IntoPayload for $type {
            fn into_payload(self) -> Result<Bytes, InvalidPayload> {
                Ok(Bytes::copy_from_slice(self.as_ref()))
            }
        }
    )*};
}
borrowed_payload!(&str, &String, &[u8], &Vec<u8>);

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_payload(self) -> Result<Bytes, InvalidPayload> {
        match serde_json::to_vec(&self.0) {
            Ok(json) => Ok(json.into()),
            Err(error) => Err(InvalidPayload(error.to_string())),
        }
    }
}

impl<T: IntoPayload> IntoReply for T {
    fn into_reply(self) -> Result<Bytes, CallError> {
        Ok(self.into_payload()?)
    }
}

/// For handlers that always fail, such as a fallback.
impl IntoReply for CallError {
    fn into_reply(self) -> Result<Bytes, CallError> {
        Err(self)
    }
}

impl<T: IntoPayload, E: Into<CallError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Bytes, CallError> {
        Ok(self.map_err(Into::into)?.into_payload()?)
    }
}

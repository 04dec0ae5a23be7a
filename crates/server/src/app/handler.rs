//! Handlers: async functions of what they need, returning what they answer.

use std::future::Future;

use axum::Extension;
use bytes::Bytes;
use roomcast_core::{BoxFuture, UserId};
use roomcast_protocol::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::socket::Socket;
use crate::call::cancel::Cancel;
use crate::error::{CallError, Code};

/// A call or notification on its way to its handler.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) name: Name,
    pub(crate) payload: Bytes,
    pub(crate) socket: Socket,
    /// `None` for a notification.
    pub(crate) cancel: Option<Cancel>,
}

impl Request {
    /// The procedure's or event's name.
    pub fn method(&self) -> &str {
        &self.name
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The connection that it came on.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Something that a handler can ask for.
///
/// ```
/// use roomcast::{CallError, Code, FromRequest, Request};
///
/// /// The user, who must be known.
/// struct User(String);
///
/// impl FromRequest for User {
///     fn from_request(request: &Request) -> Result<Self, CallError> {
///         let user = request.socket().user();
///         let user = user.ok_or_else(|| CallError::new(Code::Unauthenticated, "log in first"))?;
///         Ok(Self(user.to_string()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler can't ask for `{Self}`",
    note = "handlers ask for Bytes, Text, Json<T>, Method, Socket, UserId, Extension<T>, Cancel, or a type of yours that implements FromRequest"
)]
pub trait FromRequest: Sized {
    /// Takes it from the request.
    ///
    /// # Errors
    /// What the client is answered if it can't be had.
    fn from_request(request: &Request) -> Result<Self, CallError>;
}

/// Something that a handler can answer with.
#[diagnostic::on_unimplemented(
    message = "a handler can't answer with `{Self}`",
    note = "handlers return (), bytes, text, Json<T>, or a Result of these whose error converts into CallError"
)]
pub trait IntoAnswer {
    /// The answer's payload, or its error.
    ///
    /// # Errors
    /// What the client is told.
    fn into_answer(self) -> Result<Bytes, CallError>;
}

/// A handler: an async function of up to four [`FromRequest`] arguments that returns an [`IntoAnswer`].
///
/// A closure that has state is called many times, so each call takes a clone:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use roomcast::{Node, Options, Router};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let visits = Arc::new(AtomicU64::new(0));
/// let router = Router::new(Node::embedded(Options::default())).call("visit", move || {
///     let visits = Arc::clone(&visits);
///     async move { visits.fetch_add(1, Ordering::Relaxed).to_string() }
/// });
/// # let _ = router; }
/// ```
#[diagnostic::on_unimplemented(
    message = "this is no handler of calls or notifications",
    note = "a handler is an async function of up to four arguments that implement FromRequest; it returns an IntoAnswer",
    note = "a closure that has state clones it for each call, before its async block: see the example at `Handler`"
)]
pub trait Handler<Arguments>: Send + Sync + 'static {
    /// Handles one request.
    fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

/// The payload as UTF-8 text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub String);

/// The payload as JSON, or a JSON answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// The procedure's or event's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(pub Name);

impl FromRequest for Bytes {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        Ok(request.payload.clone())
    }
}

impl FromRequest for Text {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        match std::str::from_utf8(&request.payload) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(error) => Err(CallError::invalid_argument(format!("the payload is not UTF-8: {error}"))),
        }
    }
}

impl<T: DeserializeOwned> FromRequest for Json<T> {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        match serde_json::from_slice(&request.payload) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(CallError::invalid_argument(format!("the payload is not the JSON expected: {error}"))),
        }
    }
}

impl FromRequest for Method {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        Ok(Self(request.name.clone()))
    }
}

impl FromRequest for Socket {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        Ok(request.socket.clone())
    }
}

/// Data that the connection was given with [`SocketIoUpgrade::with`](crate::SocketIoUpgrade::with).
impl<T: Clone + Send + Sync + 'static> FromRequest for Extension<T> {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        request.socket.get().cloned().map(Self).ok_or_else(|| {
            let data = std::any::type_name::<T>();
            tracing::error!(method = request.method(), data, "a handler asks for data that no upgrade gives");
            CallError::new(Code::Internal, "the server misses data of this connection")
        })
    }
}

/// The connection's user. Without one, the call fails with `UNAUTHENTICATED`.
impl FromRequest for UserId {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        let user = request.socket.user().cloned();
        user.ok_or_else(|| CallError::new(Code::Unauthenticated, "this needs a user"))
    }
}

impl FromRequest for Cancel {
    fn from_request(request: &Request) -> Result<Self, CallError> {
        let cancel = request.cancel.clone();
        cancel.ok_or_else(|| CallError::new(Code::Internal, "a notification can't be cancelled, only a call"))
    }
}

impl IntoAnswer for () {
    fn into_answer(self) -> Result<Bytes, CallError> {
        Ok(Bytes::new())
    }
}

macro_rules! answer_bytes {
    ($($type:ty),*) => {$(
        impl IntoAnswer for $type {
            fn into_answer(self) -> Result<Bytes, CallError> {
                Ok(self.into())
            }
        }
    )*};
}
answer_bytes!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

impl<T: Serialize> IntoAnswer for Json<T> {
    fn into_answer(self) -> Result<Bytes, CallError> {
        match serde_json::to_vec(&self.0) {
            Ok(json) => Ok(json.into()),
            Err(error) => Err(CallError::new(Code::Internal, format!("the answer is no JSON: {error}"))),
        }
    }
}

impl<T: IntoAnswer, E: Into<CallError>> IntoAnswer for Result<T, E> {
    fn into_answer(self) -> Result<Bytes, CallError> {
        self.map_err(Into::into)?.into_answer()
    }
}

macro_rules! handler {
    ($($argument:ident),*) => {
        impl<F, Fut, $($argument),*> Handler<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoAnswer> + Send + 'static,
            $($argument: FromRequest,)*
        {
            #[allow(unused_variables, reason = "a handler without arguments asks nothing of its request")]
            fn handle(&self, request: Request) -> BoxFuture<'static, Result<Bytes, CallError>> {
                let extract = || Ok(self($($argument::from_request(&request)?),*));
                match extract() {
                    Ok(future) => Box::pin(async move { future.await.into_answer() }),
                    Err(error) => Box::pin(std::future::ready(Err(error))),
                }
            }
        }
    };
}
handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);

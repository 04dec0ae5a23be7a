//! Handlers: async functions that take what they need and return their reply.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::BoxFuture;

use crate::app::extract::FromContext;
use crate::error::CallError;
use crate::payload::IntoReply;

/// A handler: an async function of up to eight [arguments](FromContext) that returns an
/// [`IntoReply`](crate::IntoReply). It runs in a context `C`, with a router's state `S`.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use axum::extract::State;
/// use roomcast::{Node, Options, Router, Socket, Text};
///
/// #[derive(Default)]
/// struct Shop {
///     visits: AtomicU64,
/// }
///
/// async fn greet(State(shop): State<Arc<Shop>>, Text(name): Text) -> String {
///     let visits = shop.visits.fetch_add(1, Ordering::Relaxed);
///     format!("Hello, {name}! You are visitor {visits}.")
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let router = Router::new(Node::embedded(Options::default()))
///     .with_state(Arc::new(Shop::default()))
///     .call("greet", greet)
///     .notify("wave", async |socket: Socket| socket.notify("wave", "back"));
/// # let _ = router; }
/// ```
///
/// If a closure captures a value, clone the value for each call, because the future outlives the
/// closure: `move |…| { let shop = shop.clone(); async move { … } }`. With `State`, you need no
/// captures.
///
/// # Write your own
///
/// Implement this trait for a type that handles calls with data of its own, such as a connection to
/// another service:
///
/// ```
/// use std::sync::Arc;
///
/// use bytes::Bytes;
/// use roomcast::{BoxFuture, CallContext, CallError, Handler, MessageContext};
///
/// struct Reverse;
///
/// impl<S> Handler<CallContext, (), S> for Reverse {
///     fn handle(self: Arc<Self>, call: CallContext, _state: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>> {
///         Box::pin(async move { Ok(call.payload().iter().rev().copied().collect()) })
///     }
/// }
/// # fn add(router: roomcast::Router) -> roomcast::Router { router.call("reverse", Reverse) }
/// ```
#[diagnostic::on_unimplemented(
    message = "this is not a handler that can be run for `{C}` with the state `{S}`",
    note = "a handler is an async function of up to eight arguments that implement FromContext; it returns (), text, bytes, Json<T>, or a Result of one of these whose error converts into CallError",
    note = "only handlers of calls take Cancel; State<T> needs a router whose state is T: call Router::with_state before adding the handler",
    note = "an argument of text is `Text`, one of numbers or of a struct is `Json<T>`; to find the argument at fault, let the compiler check `<Argument as FromContext<C, State>>::from_context`, with the context named above as C",
    note = "its future must be Send: it must not hold an Rc, or a lock's guard, across an await"
)]
pub trait Handler<C, Arguments, S>: Send + Sync + 'static {
    /// Handles one message or event of a connection.
    fn handle(self: Arc<Self>, context: C, state: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

macro_rules! handler {
    ($($argument:ident),*) => {
        impl<F, Fut, C, S, $($argument),*> Handler<C, ($($argument,)*), S> for F
        where
            F: Fn($($argument),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: IntoReply> + Send + 'static,
            C: Send + Sync + 'static,
            S: Send + Sync + 'static,
            $($argument: FromContext<C, S> + Send,)*
        {
            #[allow(unused_variables, clippy::unused_async, reason = "a handler without arguments needs no state")]
            #[allow(non_snake_case, reason = "each argument has the name of its type")]
            fn handle(self: Arc<Self>, context: C, state: &Arc<S>) -> BoxFuture<'static, Result<Bytes, CallError>> {
                let state = Arc::clone(state);
                Box::pin(async move {
                    $(let $argument = $argument::from_context(&context, &state).await?;)*
                    // The payload and its memory now belong to the handler, or are freed.
                    drop(context);
                    self($($argument),*).await.into_reply()
                })
            }
        }
    };
}
handler!();
handler!(A1);
handler!(A1, A2);
handler!(A1, A2, A3);
handler!(A1, A2, A3, A4);
handler!(A1, A2, A3, A4, A5);
handler!(A1, A2, A3, A4, A5, A6);
handler!(A1, A2, A3, A4, A5, A6, A7);
handler!(A1, A2, A3, A4, A5, A6, A7, A8);

//! The API of the [tutorial](crate#the-tutorial): a loop that receives what its client sends.
//!
//! For new code, use a [`Router`](crate::Router).
//! [`on_upgrade`](crate::SocketIoUpgrade::on_upgrade) lists what connections of such a loop lack.

// This module imports `connection` and `call`. A client's frame enters through `LoopApp` of
// `socket_io` and waits in `inbox` until the loop receives it as a `procedure`. These connections
// belong to no node; `standalone` holds the state that they share.

mod end_known;
pub(crate) mod inbox;
pub(crate) mod notifier;
mod procedure;
pub(crate) mod socket_io;
pub(crate) mod standalone;

pub use notifier::Notifier;
pub use procedure::{Message, Procedure, Response};
pub use socket_io::SocketIo;

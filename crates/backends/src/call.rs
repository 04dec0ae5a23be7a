//! The call that a request is for.

use roomcast::{Cancel, ConnectionId, Grace};

use crate::in_flight::Sent;

/// The call that a request is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedCall<'a> {
    /// The id that the backend gets in `Roomcast-Call`.
    pub(crate) id: &'a str,
    pub(crate) connection: ConnectionId,
    pub(crate) user: Option<&'a str>,
    pub(crate) cancel: &'a Cancel,
    /// Whether its request was sent.
    pub(crate) sent: &'a Sent,
    /// `None` if the request ends with the call.
    pub(crate) grace: Option<&'a Grace>,
}

impl ServedCall<'_> {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Counts an Item, if it is late.
    pub(crate) fn item_received(&self) {
        if let Some(grace) = self.grace {
            grace.item_received();
        }
    }
}

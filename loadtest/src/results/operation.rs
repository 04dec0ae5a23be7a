//! What is measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Something that takes time. Latencies of what is planned count from the planned time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// From the planned time to the end of the opening handshake.
    Connect,
    /// A room joined: request to answer.
    Join,
    /// A room left: request to answer.
    Leave,
    /// An event published: planned time to answer.
    Publish,
    /// An event at one member: planned time to receipt.
    Delivery,
    /// A call: planned time to answer.
    Call,
    /// Cancellation: planned time of the Reset to the node's word that the work has ended.
    Cancel,
    /// A lost connection: until it is open again and has joined its rooms.
    Reconnect,
    /// The generator's own lateness: from the planned time until it turns to it. It is a part of the latencies above.
    SendDelay,
}

impl Operation {
    /// All, in the order of reports.
    pub(crate) const ALL: [Self; 9] = [
        Self::Connect,
        Self::Join,
        Self::Leave,
        Self::Publish,
        Self::Delivery,
        Self::Call,
        Self::Cancel,
        Self::Reconnect,
        Self::SendDelay,
    ];

    /// As in JSON and in thresholds.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Leave => "leave",
            Self::Publish => "publish",
            Self::Delivery => "delivery",
            Self::Call => "call",
            Self::Cancel => "cancel",
            Self::Reconnect => "reconnect",
            Self::SendDelay => "send_delay",
        }
    }
}

/// What a run is about: the first of these that it has. A threshold on a latency without an operation is about it.
pub(crate) fn main_operation<V>(operations: &BTreeMap<Operation, V>) -> Option<Operation> {
    use Operation::{Call, Cancel, Connect, Delivery, Join, Publish};
    [Delivery, Call, Cancel, Publish, Join, Connect].into_iter().find(|operation| operations.contains_key(operation))
}

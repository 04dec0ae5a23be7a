//! What a node does, or tells, when it is asked about its own connections: by another node, or by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use roomcast_protocol::{CloseCode, CloseFrame, Frame, Name, encode_frame};

use crate::hub::{Hub, JoinError};
use crate::id::{ConnectionId, RoomName};
use crate::message::{Answer, Question};
use crate::outbox::{Outgoing, Rejected};
use crate::peer::Peer;

/// How many members of a room one node lists. About 60 bytes each on their way; the count is exact.
pub const MAX_LISTED_MEMBERS: usize = 10_000;

/// How many rooms a list has at most.
pub const MAX_LISTED_ROOMS: usize = 1000;

impl Question {
    /// Whether computing the answer takes so long that the node's events should not wait for it.
    pub(crate) fn takes_time(&self) -> bool {
        !self.has_effect()
    }
}

impl Hub {
    /// Answers for this node.
    pub(crate) async fn answer(&self, question: Question, payload: Bytes) -> Answer {
        match question {
            Question::NotifyConnection { connection, event } => {
                Answer::Reached(notify(self.connection(connection), event, payload))
            }
            Question::NotifyUser { user, event } => Answer::Reached(notify(self.peers_of(&user), event, payload)),
            Question::CloseConnection { connection, code, reason } => {
                Answer::Reached(close(self.connection(connection), code, &reason))
            }
            Question::CloseUser { user, code, reason } => Answer::Reached(close(self.peers_of(&user), code, &reason)),
            Question::Join { connection, room } => self.answer_join(connection, &room).await,
            Question::Leave { connection, room } => {
                let peer = self.connection(connection);
                Answer::Reached(peer.iter().map(|peer| self.leave(peer, &room)).count())
            }
            Question::Members { room } => {
                let (count, members) = self.list_members(&room, MAX_LISTED_MEMBERS);
                Answer::Members { count, members }
            }
            Question::Rooms { prefix, after, limit } => {
                // One more than a list has, by which the asker sees that there are more.
                Answer::Rooms(self.list_rooms(&prefix, &after, limit.min(MAX_LISTED_ROOMS + 1)))
            }
        }
    }

    async fn answer_join(&self, connection: ConnectionId, room: &RoomName) -> Answer {
        let Some(peer) = self.connection(connection) else { return Answer::Reached(0) };
        match self.join(&peer, room).await {
            Ok(()) => Answer::Reached(1),
            Err(JoinError::Closed) => Answer::Reached(0),
            Err(error) => Answer::JoinFailed(error),
        }
    }

    /// The first rooms of this node, by name.
    fn list_rooms(&self, prefix: &str, after: &str, limit: usize) -> Vec<(RoomName, usize)> {
        let mut first = BTreeMap::new();
        self.each_room(|room, members| {
            let wanted = room.starts_with(prefix) && **room > *after && !room.is_internal();
            let has_place = first.len() < limit || first.last_key_value().is_some_and(|(last, _)| room < last);
            if wanted && has_place {
                first.insert(room.clone(), members);
                if first.len() > limit {
                    first.pop_last();
                }
            }
        });
        first.into_iter().collect()
    }
}

/// Queues an event to connections, and says to how many.
fn notify(peers: impl IntoIterator<Item = Arc<Peer>>, event: Name, payload: Bytes) -> usize {
    let mut bytes = BytesMut::new();
    encode_frame(&mut bytes, &Frame::Notify { name: event, payload });
    let outgoing = Outgoing { bytes: bytes.freeze(), accepted_at: None };
    let queued = peers.into_iter().filter(|peer| match peer.outbox.push(outgoing.clone()) {
        Ok(()) => true,
        Err(Rejected::Full) => {
            tracing::info!(connection = %peer.id, "slow consumer");
            false
        }
        Err(Rejected::Closed) => false,
    });
    queued.count()
}

/// Closes connections, and says how many were not being closed already.
fn close(peers: impl IntoIterator<Item = Arc<Peer>>, code: u16, reason: &str) -> usize {
    let close = CloseFrame::new(CloseCode(code), reason);
    peers.into_iter().filter(|peer| peer.outbox.close(close.clone())).count()
}

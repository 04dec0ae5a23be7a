//! What can be asked of all nodes, from any: the questions with their answers put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_protocol::{CloseFrame, Name};
use serde::Serialize;

use crate::answer::MAX_LISTED_ROOMS;
use crate::hub::{Hub, Member};
use crate::id::{ConnectionId, NodeId, RoomName, UserId};
use crate::message::{Answer, Question};
use crate::neighbours::{AskError, Asked};
use crate::requests::Answers;

/// A room's members over the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Members {
    /// How many there are on the nodes that answered.
    pub count: usize,
    /// Who they are, up to 10,000 of each node.
    pub members: Vec<Member>,
    /// Live nodes that did not answer in time, so that their members are missing.
    pub missing_nodes: Vec<NodeId>,
}

/// Which rooms to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsQuery {
    /// With what their names begin.
    pub prefix: String,
    /// Only those whose names come after this one: the last of the list before.
    pub after: String,
    /// How many, at most 1,000.
    pub limit: usize,
}

impl Default for RoomsQuery {
    /// The first 1,000 of all.
    fn default() -> Self {
        Self { prefix: String::new(), after: String::new(), limit: MAX_LISTED_ROOMS }
    }
}

/// One room of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomCount {
    /// Its name.
    pub room: RoomName,
    /// How many members it has on the nodes that answered.
    pub members: usize,
}

/// Rooms over the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rooms {
    /// By name.
    pub rooms: Vec<RoomCount>,
    /// After which name to go on, if there are more.
    pub next: Option<RoomName>,
    /// Live nodes that did not answer in time, so that their rooms and members are missing.
    pub missing_nodes: Vec<NodeId>,
}

/// What was done to a user's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// To how many it was done, at least one.
    pub connections: usize,
    /// Live nodes that did not answer in time; whether there are connections of the user, and whether it
    /// was done to them, is not known.
    pub missing_nodes: Vec<NodeId>,
}

impl Hub {
    /// A room's members, on all nodes. Who asks for the same room at the same time shares the answer.
    ///
    /// # Errors
    /// [`AskError`] if the nodes could not be asked.
    pub async fn cluster_members(&self, room: &RoomName) -> Result<Arc<Members>, AskError> {
        self.neighbours.looks.ask(room, || self.ask_members(room)).await
    }

    async fn ask_members(&self, room: &RoomName) -> Result<Arc<Members>, AskError> {
        let asked = self.ask(Asked::All, Question::Members { room: room.clone() }, Bytes::new()).await?;
        let mut all = Members { count: 0, members: Vec::new(), missing_nodes: asked.missing };
        for answer in asked.answers {
            if let Answer::Members { count, members } = answer {
                all.count += count;
                all.members.extend(members);
            }
        }
        Ok(Arc::new(all))
    }

    /// Rooms that have members on any node.
    ///
    /// # Errors
    /// [`AskError`] if the nodes could not be asked.
    pub async fn cluster_rooms(&self, query: RoomsQuery) -> Result<Rooms, AskError> {
        let limit = query.limit.min(MAX_LISTED_ROOMS);
        // If a room is among the first of all, it is among the first of each node that has it: so the
        // lists together are exact.
        let question = Question::Rooms { prefix: query.prefix, after: query.after, limit: limit + 1 };
        let asked = self.ask(Asked::All, question, Bytes::new()).await?;
        let mut counts = BTreeMap::<RoomName, usize>::new();
        for answer in asked.answers {
            if let Answer::Rooms(rooms) = answer {
                for (room, members) in rooms {
                    *counts.entry(room).or_default() += members;
                }
            }
        }
        let has_more = counts.len() > limit;
        let rooms: Vec<_> = counts.into_iter().take(limit).map(|(room, members)| RoomCount { room, members }).collect();
        let next = rooms.last().filter(|_| has_more).map(|last| last.room.clone());
        Ok(Rooms { rooms, next, missing_nodes: asked.missing })
    }

    /// Sends an event to one connection, on whatever node it is. When this returns, it is queued there.
    ///
    /// # Errors
    /// [`AskError`]; unless it is [`NoAnswer`](AskError::NoAnswer) or [`Broker`](AskError::Broker), the event was
    /// not queued.
    pub async fn notify_connection(&self, to: ConnectionId, event: Name, payload: Bytes) -> Result<(), AskError> {
        self.ask_owner(to, Question::NotifyConnection { connection: to, event }, payload).await
    }

    /// Sends an event to all connections of a user. When this returns, it is queued to so many.
    ///
    /// # Errors
    /// [`AskError`]; unless it is [`NoAnswer`](AskError::NoAnswer) or [`Broker`](AskError::Broker), the event was
    /// not queued.
    pub async fn notify_user(&self, user: &UserId, event: Name, payload: Bytes) -> Result<Reached, AskError> {
        let question = Question::NotifyUser { user: user.clone(), event };
        reached("user", self.ask(Asked::All, question, payload).await?)
    }

    /// Closes one connection, on whatever node it is.
    ///
    /// # Errors
    /// [`AskError`]; not found is also what is being closed already.
    pub async fn close_connection(&self, id: ConnectionId, close: CloseFrame) -> Result<(), AskError> {
        let question = Question::CloseConnection { connection: id, code: close.code.0, reason: close.reason };
        self.ask_owner(id, question, Bytes::new()).await
    }

    /// Closes all connections of a user, and says how many.
    ///
    /// # Errors
    /// [`AskError`]; not found is also what is being closed already.
    pub async fn close_user(&self, user: &UserId, close: CloseFrame) -> Result<Reached, AskError> {
        let question = Question::CloseUser { user: user.clone(), code: close.code.0, reason: close.reason };
        reached("user", self.ask(Asked::All, question, Bytes::new()).await?)
    }

    /// Makes a connection a member of a room, on whatever node it is. When this returns, every event that
    /// is published later reaches it.
    ///
    /// # Errors
    /// [`AskError`]; unless it is [`NoAnswer`](AskError::NoAnswer) or [`Broker`](AskError::Broker), the connection
    /// is not a member by this.
    pub async fn join_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), AskError> {
        self.ask_owner(id, Question::Join { connection: id, room: room.clone() }, Bytes::new()).await
    }

    /// Ends a connection's membership, on whatever node it is. When this returns, no event of the room is
    /// queued to it any more. To have been no member is no error.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn leave_connection(&self, id: ConnectionId, room: &RoomName) -> Result<(), AskError> {
        self.ask_owner(id, Question::Leave { connection: id, room: room.clone() }, Bytes::new()).await
    }

    /// Asks the node that owns a connection; if that is this one, the broker is not needed.
    async fn ask_owner(&self, id: ConnectionId, question: Question, payload: Bytes) -> Result<(), AskError> {
        let answers = if id.node == self.node() {
            Answers { answers: vec![self.answer(question, payload).await], missing: Vec::new() }
        } else if self.is_live(id.node) {
            self.ask(Asked::One(id.node), question, payload).await?
        } else {
            self.check_others_can_be_asked()?;
            // A node that is gone has no connections; one that is cut off has, and is not found either.
            Answers::default()
        };
        reached("connection", answers).map(drop)
    }
}

/// Adds up what was done.
fn reached(what: &'static str, asked: Answers) -> Result<Reached, AskError> {
    let mut connections = 0;
    for answer in asked.answers {
        match answer {
            Answer::Reached(count) => connections += count,
            Answer::JoinFailed(error) => return Err(error.into()),
            Answer::Members { .. } | Answer::Rooms(_) => {}
        }
    }
    match (connections, asked.missing) {
        (0, missing) if missing.is_empty() => Err(AskError::NotFound { what }),
        (0, nodes) => Err(AskError::NoAnswer { nodes }),
        (connections, missing_nodes) => Ok(Reached { connections, missing_nodes }),
    }
}

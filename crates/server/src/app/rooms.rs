//! The built-in procedures by which clients join, leave, publish and look.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_core::{ConnectionId, Members, NodeId, RoomName, UserId, check_event};
use roomcast_protocol::Name;
use serde::Serialize;

use crate::app::handler::Request;
use crate::app::handling::Handling;
use crate::app::publishing;
use crate::app::socket::Socket;
use crate::error::{CallError, Code};

/// What a client wants of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RoomAction {
    /// To become a member.
    Join,
    /// To end its membership.
    Leave,
    /// To send an event to the members.
    Publish,
    /// To see who is a member, on all nodes.
    Members,
}

/// Which clients may use the `rooms/…` procedures, and how.
#[derive(Clone)]
pub struct RoomAccess(Rule);

type Check = dyn Fn(&Socket, RoomAction, &RoomName) -> bool + Send + Sync;

#[derive(Clone)]
enum Rule {
    Nobody,
    Everybody,
    Checked(Arc<Check>),
}

impl RoomAccess {
    /// Rooms are the server's to handle.
    pub fn nobody() -> Self {
        Self(Rule::Nobody)
    }

    /// Everybody may do everything. For demos and closed networks.
    pub fn everybody() -> Self {
        Self(Rule::Everybody)
    }

    /// Asks for each use. The check must not block.
    pub fn checked(check: impl Fn(&Socket, RoomAction, &RoomName) -> bool + Send + Sync + 'static) -> Self {
        Self(Rule::Checked(Arc::new(check)))
    }

    fn check(&self, socket: &Socket, action: RoomAction, room: &RoomName) -> Result<(), CallError> {
        let allowed = match &self.0 {
            Rule::Nobody => false,
            Rule::Everybody => true,
            Rule::Checked(check) => check(socket, action, room),
        };
        match allowed {
            true => Ok(()),
            false => Err(CallError::new(Code::PermissionDenied, format!("{action:?} is not allowed in room {room:?}"))),
        }
    }
}

impl fmt::Debug for RoomAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Rule::Nobody => "Nobody",
            Rule::Everybody => "Everybody",
            Rule::Checked(_) => "Checked",
        })
    }
}

const PREFIX: &str = "rooms/";

impl RoomAction {
    /// In the order of their discriminants.
    pub(crate) const ALL: [Self; 4] = [Self::Join, Self::Leave, Self::Publish, Self::Members];

    /// The procedure's name, to which the room's name is appended.
    pub(crate) fn procedure(self) -> &'static str {
        match self {
            Self::Join => "rooms/join",
            Self::Leave => "rooms/leave",
            Self::Publish => "rooms/publish",
            Self::Members => "rooms/members",
        }
    }

    /// The action that a procedure's name asks for, and what comes after it.
    pub(crate) fn parse(name: &str) -> Option<(Self, &str)> {
        let (action, rest) = name.strip_prefix(PREFIX)?.split_once('/')?;
        let action = match action {
            "join" => Self::Join,
            "leave" => Self::Leave,
            "publish" => Self::Publish,
            "members" => Self::Members,
            _ => return None,
        };
        Some((action, rest))
    }

    /// Does it.
    pub(crate) fn perform(self, access: &RoomAccess, request: Request) -> Handling {
        let prepared = self.prepare(access, &request);
        Box::pin(async move {
            let (room, event) = prepared?;
            let Request { socket, payload, cancel, .. } = request;
            let hub = socket.node.hub();
            match self {
                Self::Join => hub.local().join(&socket.context.peer, &room).await?,
                Self::Leave => hub.local().leave(&socket.context.peer, &room),
                Self::Publish if cancel.is_none() => {
                    publishing::publish_unawaited(&socket.context, hub, room, event, payload).await?;
                }
                Self::Publish => publishing::publish(&socket.context, hub, room, event, payload).await?,
                Self::Members => return members_json(&*hub.cluster().members(&room).await?),
            }
            Ok(Bytes::new())
        })
    }

    /// Reads the names, and asks whether it is allowed.
    fn prepare(self, access: &RoomAccess, request: &Request) -> Result<(RoomName, Name), CallError> {
        let (_, rest) = Self::parse(request.method()).unwrap_or((self, ""));
        let (room, event) = match self {
            Self::Publish => {
                let (room, event) = rest.split_once('/').ok_or_else(|| {
                    CallError::invalid_argument("a publish names its room and event: rooms/publish/<room>/<event>")
                })?;
                (room, check_event(event)?)
            }
            Self::Join | Self::Leave | Self::Members => (rest, Name::default()),
        };
        let room = RoomName::new(room)?;
        access.check(request.socket(), self, &room)?;
        Ok((room, event))
    }
}

/// What clients get for `rooms/members/<room>`.
#[derive(Serialize)]
struct MembersBody<'a> {
    count: usize,
    members: Vec<MemberBody<'a>>,
    unresponsive_nodes: &'a [NodeId],
}

#[derive(Serialize)]
struct MemberBody<'a> {
    connection: ConnectionId,
    user: Option<&'a UserId>,
}

fn members_json(members: &Members) -> Result<Bytes, CallError> {
    let listed = members.members.iter();
    let json = serde_json::to_vec(&MembersBody {
        count: members.count,
        members: listed
            .map(|member| MemberBody { connection: member.connection, user: member.user.as_ref() })
            .collect(),
        unresponsive_nodes: &members.unresponsive_nodes,
    });
    json.map(Bytes::from).map_err(|error| CallError::new(Code::Internal, error.to_string()))
}

//! The method `rooms/members/<room>`, which lists a room's members page by page.

use bytes::Bytes;
use roomcast_core::{ConnectionId, Members, NodeId, UserId};
use serde::{Deserialize, Serialize};

use crate::error::{CallError, Code};

/// How many members one response lists. A list of a large room would otherwise be larger than
/// everything else that a client gets.
const PAGE: usize = 100;

/// The payload of a request, if it is not empty.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageRequest {
    /// The last member of the previous page.
    after: Option<ConnectionId>,
}

impl PageRequest {
    /// Reads the payload of a request.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` if the payload is not empty and not such an object.
    pub(crate) fn parse(payload: &Bytes) -> Result<Self, CallError> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(payload).map_err(|error| {
            CallError::invalid_argument(format!("send no payload, or {{\"after\":\"<connection>\"}}: {error}"))
        })
    }
}

/// The response.
#[derive(Serialize)]
struct Page<'a> {
    count: usize,
    members: Vec<MemberBody<'a>>,
    /// The last member of this page, if there is another page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<ConnectionId>,
    unresponsive_nodes: &'a [NodeId],
}

#[derive(Serialize)]
struct MemberBody<'a> {
    connection: ConnectionId,
    user: Option<&'a UserId>,
}

/// Creates the response with one page of the members, in the order of their ids.
pub(crate) fn page(members: &Members, request: &PageRequest) -> Result<Bytes, CallError> {
    let later = members.members.iter().filter(|member| request.after.is_none_or(|after| member.connection > after));
    let mut listed: Vec<_> =
        later.map(|member| MemberBody { connection: member.connection, user: member.user.as_ref() }).collect();
    let has_more = listed.len() > PAGE;
    if has_more {
        listed.select_nth_unstable_by_key(PAGE, |member| member.connection);
        listed.truncate(PAGE);
    }
    listed.sort_unstable_by_key(|member| member.connection);
    let next = listed.last().map(|member| member.connection).filter(|_| has_more);
    let page = Page { count: members.count, members: listed, next, unresponsive_nodes: &members.unresponsive_nodes };
    serde_json::to_vec(&page).map(Bytes::from).map_err(|error| CallError::new(Code::Internal, error.to_string()))
}

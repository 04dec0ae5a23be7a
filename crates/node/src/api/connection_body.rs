//! How connections are shown.

use roomcast::{ConnectionDetails, ConnectionSummary, Connections, Denial, Grant, Names};
use serde::Serialize;
use utoipa::ToSchema;

/// Connections of the cluster.
#[derive(Serialize, ToSchema)]
#[schema(as = Connections)]
pub(super) struct ConnectionsBody {
    /// The connections, in the order of `sort`
    connections: Vec<SummaryBody>,
    /// The `after` of the next page; null on the last page, and for other orders than `age`
    #[schema(required = true)]
    next: Option<String>,
    /// Ids of the nodes that did not respond in time; their connections are missing
    unresponsive_nodes: Vec<String>,
}

impl From<Connections> for ConnectionsBody {
    fn from(list: Connections) -> Self {
        Self {
            connections: list.connections.into_iter().map(SummaryBody::from).collect(),
            next: list.next.map(|place| format!("{}.{}", place.connected_ms, place.connection)),
            unresponsive_nodes: list.unresponsive_nodes.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A connection in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectionSummary)]
struct SummaryBody {
    /// The connection's id
    #[schema(example = "0123456789abcdef-1f")]
    connection: String,
    /// The id of its node
    node: String,
    /// Its user, if it has one
    #[schema(required = true)]
    user: Option<String>,
    /// The client's IP address
    #[schema(required = true)]
    address: Option<String>,
    /// Milliseconds since 1970 at which it opened
    connected_ms: u64,
    /// The number of rooms that it is in
    rooms: usize,
    /// Memory of output that the client has not read yet
    outbound_bytes: usize,
    /// Memory of input that handlers have not finished
    inbound_bytes: usize,
    /// Calls in flight
    calls: u32,
    /// Messages that the client has sent since the connection opened
    messages: u64,
    /// Messages in the last second, only with `sort=message_rate`
    #[serde(skip_serializing_if = "Option::is_none")]
    message_rate: Option<u64>,
}

impl From<ConnectionSummary> for SummaryBody {
    fn from(summary: ConnectionSummary) -> Self {
        Self {
            connection: summary.connection.to_string(),
            node: summary.connection.node.to_string(),
            user: summary.user.map(|user| user.to_string()),
            address: summary.address.map(|address| address.to_string()),
            connected_ms: summary.connected_ms,
            rooms: summary.rooms,
            outbound_bytes: summary.outbound_bytes,
            inbound_bytes: summary.inbound_bytes,
            calls: summary.calls,
            messages: summary.messages,
            message_rate: summary.message_rate,
        }
    }
}

/// A connection.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
pub(super) struct ConnectionBody {
    /// As in a list
    summary: SummaryBody,
    /// The names of its rooms
    rooms: Vec<String>,
    /// What the client may do; null if the node does not authenticate clients
    #[schema(required = true)]
    access: Option<AccessBody>,
}

impl From<ConnectionDetails> for ConnectionBody {
    fn from(details: ConnectionDetails) -> Self {
        let access = details.access.map(|access| AccessBody {
            grants: access.grants.into_iter().map(GrantBody::from).collect(),
            added_grants: access.added_grants.into_iter().map(GrantBody::from).collect(),
            expires_ms: access.expires_ms,
            jti: access.credential,
            denials: access.denials.into_iter().map(DenialBody::from).collect(),
        });
        let rooms = details.rooms.into_iter().map(String::from).collect();
        Self { summary: details.summary.into(), rooms, access }
    }
}

/// What a client may do.
#[derive(Serialize, ToSchema)]
#[schema(as = Access)]
struct AccessBody {
    /// The rights from its token and its roles, or those of anonymous clients
    grants: Vec<GrantBody>,
    /// The rights that requests have added
    added_grants: Vec<GrantBody>,
    /// Milliseconds since 1970 at which its token expires; null for an anonymous client
    #[schema(required = true)]
    expires_ms: Option<u64>,
    /// The claim `jti` of its token
    #[schema(required = true)]
    jti: Option<String>,
    /// The last 8 requests that were denied, the latest last
    denials: Vec<DenialBody>,
}

/// Rights on rooms or methods.
#[derive(Serialize, ToSchema)]
#[schema(as = Grant)]
struct GrantBody {
    /// `rooms` or `calls`
    names: &'static str,
    /// The pattern, with the values of placeholders
    pattern: String,
    /// The rights
    #[serde(rename = "do")]
    rights: Vec<&'static str>,
}

impl From<Grant> for GrantBody {
    fn from(grant: Grant) -> Self {
        let names = match grant.names {
            Names::Rooms => "rooms",
            Names::Calls => "calls",
        };
        let rights = grant.rights.into_iter().map(|right| right.as_str()).collect();
        Self { names, pattern: grant.pattern, rights }
    }
}

/// A request that was denied.
#[derive(Serialize, ToSchema)]
#[schema(as = Denial)]
struct DenialBody {
    /// The right that the client lacked
    right: &'static str,
    /// The name of the room or method
    name: String,
    /// Milliseconds since 1970
    at_ms: u64,
}

impl From<Denial> for DenialBody {
    fn from(denial: Denial) -> Self {
        Self { right: denial.right.as_str(), name: denial.name, at_ms: denial.at_ms }
    }
}

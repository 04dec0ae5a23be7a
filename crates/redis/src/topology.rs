//! Which server owns which room, as fred knows it.

use fred::clients::Client;
use fred::interfaces::{ClusterInterface, ServerInterface};
use fred::types::cluster::ClusterRouting;
use fred::types::config::{Server, ServerConfig};

/// The servers that take publishes and subscriptions.
#[derive(Debug, Clone)]
pub(crate) enum Topology {
    /// One server has all rooms.
    Single(Server),
    /// Each has its slots.
    Cluster(ClusterRouting),
}

impl Topology {
    /// The present one. `None`: not known yet.
    pub(crate) fn known_to(client: &Client, config: &ServerConfig) -> Option<Self> {
        match config {
            ServerConfig::Centralized { server } => Some(Self::Single(server.clone())),
            ServerConfig::Sentinel { .. } => client.sentinel_primary().map(Self::Single),
            ServerConfig::Clustered { .. } => {
                client.cached_cluster_state().filter(|routing| routing.len() > 0).map(Self::Cluster)
            }
        }
    }

    /// Who owns a slot. In a cluster, nobody may.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Server> {
        match self {
            Self::Single(server) => Some(server),
            Self::Cluster(routing) => routing.get_server(slot),
        }
    }

    /// All that own something.
    pub(crate) fn servers(&self) -> Vec<Server> {
        match self {
            Self::Single(server) => vec![server.clone()],
            Self::Cluster(routing) => routing.unique_primary_nodes(),
        }
    }

    /// Whether a command may name keys and channels of one slot only.
    pub(crate) fn has_slots(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

//! Which server owns which room.

use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;

/// The servers that accept publishes and subscriptions.
#[derive(Debug, Clone)]
pub(crate) enum Topology {
    /// One server owns all rooms.
    Single(Server),
    /// Each server owns some of the slots.
    Cluster(ClusterRouting),
}

impl Topology {
    /// Returns the server that owns a slot. In a cluster, a slot may have no owner.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Server> {
        match self {
            Self::Single(server) => Some(server),
            Self::Cluster(routing) => routing.get_server(slot),
        }
    }

    /// Returns all servers that own something.
    pub(crate) fn servers(&self) -> Vec<Server> {
        match self {
            Self::Single(server) => vec![server.clone()],
            Self::Cluster(routing) => routing.unique_primary_nodes(),
        }
    }

    /// Returns whether a command may name keys and channels of only one slot.
    pub(crate) fn has_slots(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// A redirection by Redis, which names the server that has a slot or will have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redirection {
    /// The slot has moved to this server.
    Moved(Server),
    /// The slot is being moved to this server, which already has the requested key.
    Ask(Server),
}

impl Redirection {
    /// Parses Redis' error, such as `MOVED 3999 127.0.0.1:6381`. If it has no host, the host is
    /// that of the server that sent it.
    pub(crate) fn of(error: &str, said_by: &Server) -> Option<Self> {
        let mut words = error.split(' ');
        let (kind, _slot, address) = (words.next()?, words.next()?, words.next()?);
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { &*said_by.host } else { host };
        let server = Server::new(host, port.parse().ok()?);
        match kind {
            "MOVED" => Some(Self::Moved(server)),
            "ASK" => Some(Self::Ask(server)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read_from_what_redis_says() {
        let said_by = Server::new("10.0.0.1", 6379);
        let of = |error| Redirection::of(error, &said_by);
        assert_eq!(of("MOVED 3999 127.0.0.1:6381"), Some(Redirection::Moved(Server::new("127.0.0.1", 6381))));
        assert_eq!(of("ASK 3999 ::1:6381"), Some(Redirection::Ask(Server::new("::1", 6381))));
        assert_eq!(of("MOVED 3999 :6381"), Some(Redirection::Moved(Server::new("10.0.0.1", 6381))));
        for other in ["", "TRYAGAIN Multiple keys request during rehashing of slot", "MOVED 3999", "ASK 1 host:port"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}

//! Which server owns which room.

use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;

/// The servers that take publishes and subscriptions.
#[derive(Debug, Clone)]
pub(crate) enum Topology {
    /// One server has all rooms.
    Single(Server),
    /// Each has its slots.
    Cluster(ClusterRouting),
}

impl Topology {
    /// The server that owns a slot. In a cluster, there may be none.
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

/// A redirection by Redis: where a slot is, or is going to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Redirection {
    /// It has moved there.
    Moved(Server),
    /// It is moving there, and the requested key is there already.
    Ask(Server),
}

impl Redirection {
    /// Reads Redis' error, `MOVED 3999 127.0.0.1:6381`. A missing host is that of the server that sent it.
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

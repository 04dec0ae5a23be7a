//! How the process' file descriptors are divided among its sockets.

/// File descriptors reserved for everything but clients: an eighth of the limit, within these bounds. Half of them are
/// for the internal listener; the other half, at least 24, is for the process itself and its connections to Redis.
const MIN_RESERVE: usize = 48;
const MAX_RESERVE: usize = 1024;

/// Sockets of the public listener that may be open without being upgraded: a sixteenth of the descriptors for clients,
/// within these bounds. The upper one has room for a storm of reconnects; with few descriptors, at most a quarter of
/// them is used.
const MIN_HTTP_CONNECTIONS: usize = 64;
const MAX_HTTP_CONNECTIONS: usize = 4096;

/// The process' limit on file descriptors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors(usize);

impl Descriptors {
    /// Raises the limit as far as the system allows. Many systems allow 1,024 until a process asks for more.
    pub(crate) fn raise() -> Self {
        let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
            tracing::warn!(%error, "cannot raise the limit on file descriptors");
            rlimit::Resource::NOFILE.get().map(|(soft, _)| soft)
        });
        Self(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Divides the descriptors. Warns if they do not suffice for `max_connections`.
    pub(crate) fn divide(self, max_connections: usize) -> SocketLimits {
        let limits = SocketLimits::within(self.0, max_connections);
        if limits.connections < max_connections {
            tracing::warn!(
                descriptors = self.0,
                "max_connections is lowered from {max_connections} to {}: each connection needs a file descriptor; raise the limit on \
                 open files (ulimit -n)",
                limits.connections
            );
        }
        limits
    }
}

/// How many sockets of each kind may be open, so that together they fit in the process' descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketLimits {
    /// Upgraded connections.
    pub(crate) connections: usize,
    /// Sockets of the public listener that are not upgraded.
    pub(crate) public: usize,
    /// Sockets of the internal listener.
    pub(crate) internal: usize,
}

impl SocketLimits {
    fn within(descriptors: usize, configured: usize) -> Self {
        let reserve = (descriptors / 8).clamp(MIN_RESERVE, MAX_RESERVE);
        let for_clients = descriptors.saturating_sub(reserve);
        let public = (for_clients / 16).clamp(MIN_HTTP_CONNECTIONS, MAX_HTTP_CONNECTIONS).min(for_clients / 4).max(1);
        let connections = for_clients.saturating_sub(public).min(configured);
        Self { connections, public, internal: reserve / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_all_kinds_together_leave_descriptors_for_the_process() {
        for descriptors in [64, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            for configured in [10, 100_000, usize::MAX] {
                let limits = SocketLimits::within(descriptors, configured);
                let all = limits.connections + limits.public + limits.internal;
                assert!(all + MIN_RESERVE / 2 <= descriptors, "{limits:?} of {descriptors}");
                assert!(limits.connections <= configured && limits.public <= MAX_HTTP_CONNECTIONS, "{limits:?}");
                assert!(limits.connections.min(limits.public).min(limits.internal) > 0, "{limits:?} of {descriptors}");
            }
        }
    }
}

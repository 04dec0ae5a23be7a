//! How many connections each client's address has, and how often it opens one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::limits;
use crate::rate::{Bucket, RateLimit};

/// Addresses without a connection are remembered for their rate. Beyond this number, their rates are
/// forgotten. A client with so many addresses has no use for the rate of one.
const MAX_IDLE: usize = 64 * 1024;

/// The smallest number of addresses at which the map is searched for those that it can forget.
const MIN_PRUNED: usize = 1024;

/// How long a client waits before it tries again if its address has too many connections. They can
/// stay open for hours.
const CROWDED_RETRY: Duration = Duration::from_secs(30);

/// What a client cannot easily change of its address: an IPv4 address, or the first 64 bits of an
/// IPv6 address. The first 32 bits of an IPv4 address are 0, which no IPv6 address of the internet
/// has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Network(u64);

impl Network {
    /// Returns `None` for an address that is not of the internet. It belongs to a client in a private
    /// network, or to a proxy that hides many clients.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [first, second, ..] = address.octets();
                let is_shared = first == 100 && second & 0b1100_0000 == 64; // RFC 6598
                let is_inside = address.is_loopback() || address.is_private() || address.is_link_local();
                (!is_inside && !is_shared).then(|| Self(u64::from(address.to_bits())))
            }
            IpAddr::V6(address) => {
                let is_inside = address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local();
                (!is_inside).then(|| Self((address.to_bits() >> 64) as u64))
            }
        }
    }
}

/// Why a client must not open a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its address has the maximum number of connections.
    Crowded,
    /// Its address opens connections too often.
    TooOften {
        /// The time until it may open one.
        retry_after: Duration,
    },
}

impl Refused {
    /// Returns the name of the limit in options and metrics.
    pub(crate) fn limit_name(self) -> &'static str {
        match self {
            Self::Crowded => limits::MAX_CONNECTIONS_PER_ADDRESS,
            Self::TooOften { .. } => limits::CONNECTIONS,
        }
    }

    pub(crate) fn retry_after(self) -> Duration {
        match self {
            Self::Crowded => CROWDED_RETRY,
            Self::TooOften { retry_after } => retry_after,
        }
    }
}

/// The addresses that have connections, or have had some lately.
#[derive(Debug)]
pub(crate) struct Addresses {
    since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<Network, Address>,
    /// The number of addresses at which those without use are forgotten.
    prune_at: usize,
}

#[derive(Debug, Default)]
struct Address {
    connections: u32,
    opened: Bucket,
}

impl Addresses {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        let state = State { addresses: HashMap::new(), prune_at: MIN_PRUNED };
        Arc::new(Self { since: now, state: Mutex::new(state) })
    }

    /// Counts a connection of an address until the result is dropped.
    ///
    /// # Errors
    /// Returns [`Refused`] if the connection exceeds a limit.
    pub(crate) fn open(
        self: &Arc<Self>,
        network: Network,
        max: usize,
        rate: RateLimit,
        now: Instant,
    ) -> Result<AddressPlace, Refused> {
        let now = now.saturating_duration_since(self.since);
        let mut state = self.state.lock();
        if state.addresses.len() >= state.prune_at {
            state.prune(now);
        }
        let address = state.addresses.entry(network).or_default();
        if address.connections as usize >= max {
            return Err(Refused::Crowded);
        }
        address.opened.take(rate, now).map_err(|retry_after| Refused::TooOften { retry_after })?;
        address.connections += 1;
        drop(state);
        Ok(AddressPlace { addresses: Arc::clone(self), network })
    }
}

impl State {
    /// Forgets the addresses that have no connection and whose rate is not used up in part.
    fn prune(&mut self, now: Duration) {
        self.addresses.retain(|_, address| address.connections > 0 || !address.opened.is_full(now));
        let idle = self.addresses.values().filter(|address| address.connections == 0).count();
        if idle > MAX_IDLE {
            self.addresses.retain(|_, address| address.connections > 0);
        }
        self.prune_at = (2 * self.addresses.len()).max(MIN_PRUNED);
    }
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Arc<Addresses>,
    network: Network,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let Some(address) = self.addresses.state.lock().addresses.get_mut(&self.network) {
            address.connections -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const RATE: RateLimit = RateLimit::per_second(10).burst(5);

    fn network(address: &str) -> Option<Network> {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address_and_an_ipv4_address_is_one_however_it_is_written() {
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_eq!(network("203.0.113.9"), network("::ffff:203.0.113.9"));
        assert_ne!(network("203.0.113.9"), network("203.0.113.10"));
    }

    #[test]
    fn addresses_inside_private_networks_are_not_limited() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(network(inside), None, "{inside}");
        }
        for outside in ["172.32.0.1", "100.128.0.1", "192.169.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert!(network(outside).is_some(), "{outside}");
        }
    }

    #[test]
    fn an_address_has_so_many_connections_at_once_and_a_closed_one_makes_room() {
        let start = Instant::now();
        let addresses = Addresses::new(start);
        let (one, other) = (network("203.0.113.1").unwrap(), network("203.0.113.2").unwrap());
        let open = |network| addresses.open(network, 2, RateLimit::UNLIMITED, start);
        let first = open(one).unwrap();
        let _second = open(one).unwrap();
        assert_eq!(open(one).unwrap_err(), Refused::Crowded);
        open(other).unwrap();
        drop(first);
        open(one).unwrap();
    }

    #[test]
    fn an_address_opens_so_many_connections_in_a_second_even_if_it_closes_them() {
        let start = Instant::now();
        let addresses = Addresses::new(start);
        let one = network("203.0.113.1").unwrap();
        for _ in 0..5 {
            addresses.open(one, 10, RATE, start).unwrap();
        }
        let refused = addresses.open(one, 10, RATE, start).unwrap_err();
        assert_eq!(refused, Refused::TooOften { retry_after: Duration::from_millis(100) });
        addresses.open(one, 10, RATE, start + refused.retry_after()).unwrap();
    }

    #[test]
    fn addresses_without_connections_are_forgotten_once_their_rate_is_unused() {
        let start = Instant::now();
        let addresses = Addresses::new(start);
        let kept = addresses.open(network("203.0.113.1").unwrap(), 1, RATE, start).unwrap();
        let tracked = || addresses.state.lock().addresses.len();
        for number in 0..3 * MAX_IDLE as u32 {
            let address = Network::of(Ipv4Addr::from_bits(0x0100_0000 + number).into()).unwrap();
            drop(addresses.open(address, 1, RATE, start));
        }
        assert!(tracked() <= 2 * MAX_IDLE + MIN_PRUNED, "{}", tracked());
        let later = start + Duration::from_secs(1);
        for number in 0..3 * MAX_IDLE as u128 {
            let address = Network::of(Ipv6Addr::from_bits((0x2001 << 112) + (number << 64)).into()).unwrap();
            drop(addresses.open(address, 1, RATE, later + Duration::from_millis(number as u64)));
        }
        assert!(tracked() <= 2 * MIN_PRUNED, "{}", tracked());
        assert!(matches!(addresses.open(kept.network, 1, RATE, later), Err(Refused::Crowded)));
    }
}

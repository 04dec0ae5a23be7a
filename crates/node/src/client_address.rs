//! The address of a client behind proxies: whose `X-Forwarded-For` is trusted, and what it contains. The PROXY
//! protocol is in `proxy_protocol`.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};

/// Each proxy adds the address that the request came to it from, behind what was there before. The client
/// can write anything into it.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The bits before the IPv4 address in an IPv6 address that stands for it.
const MAPPED_PREFIX: u8 = 96;

/// The proxies that are trusted to name their clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Reads addresses and networks with commas between them.
    pub(crate) fn parse(list: &str) -> Option<Self> {
        list.split(',').map(|entry| parse_network(entry.trim())).collect::<Option<_>>().map(Self)
    }

    /// The client's address for a request that came from `peer`: as far back as every proxy on the way is trusted.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
        let mut client = peer;
        while self.contain(client.ip())
            && let Some(before) = entries.next().and_then(parse_entry)
        {
            client = before;
        }
        client
    }

    /// Whether a host is one of the proxies.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.addr().to_ipv4_mapped()
        && let Some(prefix_len) = mapped.prefix_len().checked_sub(MAPPED_PREFIX)
    {
        return Ipv4Net::new(address, prefix_len).ok().map(IpNet::from);
    }
    Some(network)
}

/// An address with its port, or with 0 if it has none.
fn parse_entry(entry: &[u8]) -> Option<SocketAddr> {
    let entry = str::from_utf8(entry).ok()?.trim();
    let with_port = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0)));
    with_port.ok().map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const TRUSTED: &str = "10.0.0.0/8, fd00::/8,192.0.2.1,::ffff:198.51.100.0/120";

    fn proxies() -> TrustedProxies {
        TrustedProxies::parse(TRUSTED).expect("a list")
    }

    fn client(peer: &str, lines: &[&[u8]]) -> String {
        let lines = lines.iter().map(|line| (FORWARDED_FOR, HeaderValue::from_bytes(line).expect("a header")));
        proxies().client(peer.parse().expect("an address"), &lines.collect()).to_string()
    }

    /// What a list of header lines means when it comes from a trusted proxy.
    fn forwarded(lines: &[&str]) -> String {
        client("10.0.0.1:5", &lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn who_is_not_trusted_is_not_believed() {
        for peer in ["203.0.113.9:5", "11.0.0.0:5", "192.0.2.2:5", "[fe00::1]:5", "[::ffff:203.0.113.9]:5"] {
            assert_eq!(client(peer, &[b"1.2.3.4"]), peer);
        }
        for peer in ["10.255.255.255:5", "192.0.2.1:5", "198.51.100.7:5", "[fd12::1]:5", "[::ffff:10.0.0.1]:5"] {
            assert_eq!(client(peer, &[b"1.2.3.4"]), "1.2.3.4:0", "{peer}");
        }
    }

    #[test]
    fn the_client_is_the_right_most_who_is_no_trusted_proxy() {
        assert_eq!(forwarded(&["6.6.6.6, 1.2.3.4, 10.0.0.2,192.0.2.1"]), "1.2.3.4:0");
        assert_eq!(forwarded(&["6.6.6.6", "6.6.6.6, 1.2.3.4", "10.0.0.2"]), "1.2.3.4:0");
        assert_eq!(forwarded(&["6.6.6.6, 1.2.3.4, ::ffff:10.0.0.2"]), "1.2.3.4:0");
    }

    #[test]
    fn if_all_are_trusted_it_is_the_left_most() {
        assert_eq!(forwarded(&["10.0.0.4, 10.0.0.3", "10.0.0.2"]), "10.0.0.4:0");
        assert_eq!(forwarded(&[]), "10.0.0.1:5");
    }

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        for (entry, read) in [
            ("1.2.3.4", "1.2.3.4:0"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:1.2.3.4", "1.2.3.4:0"),
            ("[::ffff:1.2.3.4]:80", "1.2.3.4:80"),
            (" \t1.2.3.4 ", "1.2.3.4:0"),
        ] {
            assert_eq!(forwarded(&[entry]), read);
        }
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_way_back() {
        for entry in ["", "unknown", "1.2.3", "1.2.3.4:x", "1.2.3.4:65536", "example.org", "\"1.2.3.4\"", "for=1.2.3.4"]
        {
            assert_eq!(forwarded(&[entry]), "10.0.0.1:5", "{entry:?}");
            assert_eq!(forwarded(&[&format!("6.6.6.6, {entry}, 10.0.0.2:7")]), "10.0.0.2:7", "{entry:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_who_wrote_them() {
        assert_eq!(client("10.0.0.1:5", &[b"\xff, 1.2.3.4"]), "1.2.3.4:0");
        assert_eq!(client("10.0.0.1:5", &[b"1.2.3.4, \xff"]), "10.0.0.1:5");
    }

    #[test]
    fn a_list_with_anything_but_addresses_and_networks_is_none() {
        for bad in ["", ",", "10.0.0.0/8,", "10.0.0.0/33", "10.0.0", "fd00::/129", "localhost", "10.0.0.1:80", "*"] {
            assert_eq!(TrustedProxies::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_client_changes_nothing_by_what_it_writes_before_the_proxies_do(
            forged in vec(prop_oneof![Just("6.6.6.6".to_owned()), Just("10.0.0.3".to_owned()), "[ -~]{0,20}"], 0..6),
            in_one_line: bool,
            proxies in 0..4_usize,
        ) {
            let mut lines = forged;
            lines.push(format!("1.2.3.4{}", ", 10.0.0.2".repeat(proxies)));
            if in_one_line {
                lines = vec![lines.join(",")];
            }
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(forwarded(&lines), "1.2.3.4:0");
        }
    }
}

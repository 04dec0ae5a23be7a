//! `roomcast health`: checks a node on this machine, where there is no shell and no curl.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long the whole check may take: a node that works responds in less than a millisecond, and supervisors give up
/// health checks after a few seconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// The longest first line of an answer, in bytes: what sends more is no node.
const MAX_STATUS_LINE: u64 = 1024;

/// The request, and why its response was not a good one.
#[derive(Debug, Error)]
#[error("GET http://{address}/healthz: {reason}")]
pub(crate) struct Unhealthy {
    address: SocketAddr,
    reason: Reason,
}

#[derive(Debug, Error)]
enum Reason {
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    #[error("no response within {DEADLINE:?}; check that the node runs with this configuration")]
    TimedOut,
    #[error("the response is {0:?} instead of 200")]
    Refused(String),
}

/// Whether the node with this internal listener works.
pub(crate) fn ask(internal_listen: SocketAddr) -> Result<(), Unhealthy> {
    let address = SocketAddr::new(reachable(internal_listen.ip()), internal_listen.port());
    let in_time = async {
        let answer = tokio::time::timeout(DEADLINE, status_line(address)).await;
        let line = answer.map_err(|_| Reason::TimedOut)??;
        if line.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(Reason::Refused(line)) }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map_err(Reason::from).and_then(|runtime| runtime.block_on(in_time));
    asked.map_err(|reason| Unhealthy { address, reason })
}

/// Where a listener that is bound to this address can be reached from its own machine.
pub(crate) fn reachable(bound: IpAddr) -> IpAddr {
    match bound {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

async fn status_line(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_STATUS_LINE)).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_the_loopback_of_its_family() {
        for (bound, asked) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.1.2.3", "10.1.2.3"), ("fd00::1", "fd00::1")]
        {
            let [bound, asked] = [bound, asked].map(|address| address.parse::<IpAddr>().expect("an address"));
            assert_eq!(reachable(bound), asked);
        }
    }
}

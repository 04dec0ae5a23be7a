//! HAProxy in front of nodes.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Instant;

use tokio::net::TcpStream;

use crate::program::{DEADLINE, Directory, POLL, PORT_ATTEMPTS, Program};
use crate::{Node, free_port};

/// A load balancer that sends each new connection to the next ready node. It is killed when
/// dropped.
#[derive(Debug)]
pub struct HaProxy {
    /// Declared before the directory, so that the program ends before its files are removed.
    _program: Program,
    _directory: Directory,
    port: u16,
}

impl HaProxy {
    /// Starts the load balancer and waits until it accepts connections.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start(nodes: &[&Node]) -> Self {
        Self::start_with(|port| configuration(port, nodes)).await
    }

    /// Starts a load balancer that forwards TCP to a node, without HTTP. `options` is what follows
    /// the node's address, such as `send-proxy-v2`.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_tcp(node: &Node, options: &str) -> Self {
        Self::start_with(|port| tcp_configuration(port, node, options)).await
    }

    /// Starts a proxy that forwards requests to a server, over HTTP/2 with prior knowledge or over
    /// HTTP/1.1 on both sides. It passes on the end of a request whose client has gone.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_http(server: SocketAddr, http2: bool) -> Self {
        Self::start_with(|port| http_configuration(port, server, http2)).await
    }

    async fn start_with(configuration: impl Fn(u16) -> String) -> Self {
        let directory = Directory::create();
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port();
            directory.write("haproxy.cfg", &configuration(port));
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(directory.file("haproxy.cfg"));
            let mut program = Program::start(command, &directory.file("log"));
            let started = Instant::now();
            // HAProxy exits if its port is taken.
            while program.is_running() {
                if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return Self { _program: program, _directory: directory, port };
                }
                assert!(started.elapsed() < DEADLINE, "HAProxy does not answer:\n{}", directory.read("log"));
                tokio::time::sleep(POLL).await;
            }
        }
        panic!("HAProxy does not start:\n{}", directory.read("log"));
    }

    /// Returns the address that clients connect to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the URL of the nodes' socket.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/socket", self.port)
    }
}

/// Returns a configuration with timeouts for connections that are long and mostly idle.
fn configuration(port: u16, nodes: &[&Node]) -> String {
    let mut lines = format!(
        "global\n  fd-hard-limit 20000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 1h\n\
         frontend clients\n  bind 127.0.0.1:{port} backlog 4096\n  default_backend nodes\n\
         backend nodes\n  balance roundrobin\n  option httpchk GET /readyz\n"
    );
    for (index, node) in nodes.iter().enumerate() {
        let (address, internal) = (&node.address, &node.internal);
        writeln!(lines, "  server node{index} {address} check inter 500ms addr 127.0.0.1 port {}", port_of(internal))
            .expect("a string takes all");
    }
    lines
}

fn tcp_configuration(port: u16, node: &Node, options: &str) -> String {
    let address = &node.address;
    format!(
        "global\n  fd-hard-limit 20000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen clients\n  bind 127.0.0.1:{port}\n  server node {address} {options}\n"
    )
}

fn http_configuration(port: u16, server: SocketAddr, http2: bool) -> String {
    let version = if http2 { "proto h2" } else { "" };
    format!(
        "global\n  fd-hard-limit 20000\n  tune.h2.max-concurrent-streams 10000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  option abortonclose\n\
         listen clients\n  bind 127.0.0.1:{port} {version}\n  server server {server} {version}\n"
    )
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').expect("an address with a port").1
}

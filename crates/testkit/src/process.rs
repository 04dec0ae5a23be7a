//! A node in a process of its own.

use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::{DEADLINE, POLL, PORT_ATTEMPTS};

/// A running node. It is killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// The address of the public listener.
    pub address: String,
    /// The address of the internal listener.
    pub internal: String,
}

impl Node {
    /// Starts `roomcast serve` on free ports, with these further arguments, and waits until it is
    /// ready.
    ///
    /// # Panics
    /// Panics if the node does not become ready.
    pub async fn start(binary: &Path, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary), arguments).await
    }

    /// Like [`start`](Self::start), but runs a command of yours, to which it appends the node's
    /// arguments. The command may set other variables, or be a launcher that becomes the node, such
    /// as `prlimit`.
    ///
    /// # Panics
    /// Panics if the node does not become ready.
    pub async fn start_by(command: Command, arguments: &[&str]) -> Self {
        Self::start_until(command, arguments, "/readyz").await
    }

    /// Like [`start_by`](Self::start_by), but waits until this path of the internal listener
    /// responds with the status 200.
    ///
    /// # Panics
    /// Panics if it does not.
    pub async fn start_until(mut command: Command, arguments: &[&str], path: &str) -> Self {
        remove_inherited_options(&mut command);
        command.arg("serve").args(arguments).stdin(Stdio::null());
        for _ in 0..PORT_ATTEMPTS {
            let [address, internal] = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
            let command = command.env("ROOMCAST_LISTEN", &address).env("ROOMCAST_INTERNAL_LISTEN", &internal);
            let child = command.spawn().expect("the node's binary starts");
            let mut node = Self { child, address, internal };
            if node.becomes_ready(path).await {
                return node;
            }
        }
        panic!("no attempt to start the node succeeds");
    }

    /// Waits until a path of the internal listener responds with the status 200. Returns `false` if
    /// the node ends, for example because another program has taken its port meanwhile.
    async fn becomes_ready(&mut self, path: &str) -> bool {
        let started = Instant::now();
        while http_get(&self.internal, path).await.is_none_or(|(status, _)| status != 200) {
            if self.child.try_wait().expect("a child of this process").is_some() {
                return false;
            }
            assert!(started.elapsed() < DEADLINE, "waited in vain until the node is ready");
            tokio::time::sleep(POLL).await;
        }
        true
    }

    /// Returns the URL of the node's socket.
    pub fn url(&self) -> String {
        format!("ws://{}/socket", self.address)
    }

    /// Returns the node's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the node a signal by its name, such as `TERM`.
    ///
    /// # Panics
    /// Panics if there is no command `kill`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.expect("the kill command runs").success(), "the process is there");
    }

    /// Waits until the node has exited.
    ///
    /// # Panics
    /// Panics if it does not exit.
    pub async fn exit(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                return status;
            }
            assert!(started.elapsed() < DEADLINE, "the node did not end");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Returns the value of a metric. For a metric with labels, pass all of them, as `name{…}`.
    ///
    /// # Panics
    /// Panics if there is no such metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, body) = http_get(&self.internal, "/metrics").await.expect("the internal listener answers");
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name} in:\n{body}"))
    }

    /// Waits for a condition.
    ///
    /// # Panics
    /// Panics if it does not become true in time.
    pub async fn wait_until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !condition().await {
            assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The node may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes the node's variables from a command, except for those that the command itself sets. The
/// others belong to the tests and their scripts, and a node rejects unknown variables.
fn remove_inherited_options(command: &mut Command) {
    let own: Vec<_> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    let inherited = std::env::vars_os().map(|(name, _)| name);
    for name in inherited.filter(|name| name.to_string_lossy().starts_with("ROOMCAST_") && !own.contains(name)) {
        command.env_remove(name);
    }
}

/// The range of ports to choose from. It is below the range that kernels use for outgoing
/// connections, so that a program that restarts finds its port free.
const PORTS: Range<u32> = 18_400..32_000;

/// Returns a port that was free a moment ago. No two calls in a process return the same port, and
/// other processes begin elsewhere in the range.
///
/// # Panics
/// Panics if no port is free.
pub fn free_port() -> u16 {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    let begin = process::id().wrapping_mul(997) % count;
    let port = (0..count).find_map(|_| {
        let offset = (begin + CALLS.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(PORTS.start + offset).expect("it is in the range");
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    });
    port.expect("a free port")
}

/// Sends a GET request, and returns the status and the body. Returns `None` if there is no
/// response.
pub async fn http_get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut response = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut response)).await.ok()?.ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

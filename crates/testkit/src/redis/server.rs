//! A `redis-server` process.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::resp;
use crate::program::{DEADLINE, Directory, POLL, PORT_ATTEMPTS, Program};
use crate::{certificate, free_port};

/// The user of the fixtures themselves, for servers on which the default user is disabled.
const ADMINISTRATOR: (&str, &str) = ("testkit", "testkit");

/// The configuration of a server. By default, it has no password and no TLS, and its data does not
/// survive a restart.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The name and password of the only user that clients can use.
    pub user: Option<(&'static str, &'static str)>,
    /// The user's permissions, as in `ACL SETUSER`. By default, the user may do everything.
    pub rights: Option<&'static str>,
    /// Whether the server accepts only TLS connections. [`RedisServer::ca_certificate`] signed its
    /// certificate.
    pub tls: bool,
    /// Whether data survives a restart.
    pub append_only: bool,
    /// Further lines for the configuration file.
    pub configuration: Vec<String>,
}

/// A running server. It is killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    /// `None` after a kill. Declared before the directory, so that the program ends before its
    /// files are removed.
    program: Option<Program>,
    directory: Directory,
    port: u16,
    bus_port: u16,
    options: RedisOptions,
    role: Role,
}

/// The role of a server among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Single,
    ClusterMember,
    Sentinel,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it replies.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start(options: RedisOptions) -> Self {
        Self::start_as(options, Role::Single).await
    }

    /// Starts a server that can become a member of a cluster.
    pub(super) async fn start_cluster_member(options: RedisOptions) -> Self {
        Self::start_as(options, Role::ClusterMember).await
    }

    /// Starts a sentinel, which is the same program.
    pub(super) async fn start_sentinel(options: RedisOptions) -> Self {
        Self::start_as(options, Role::Sentinel).await
    }

    async fn start_as(options: RedisOptions, role: Role) -> Self {
        let directory = Directory::create();
        if options.tls {
            certificate::create(&directory);
        }
        let mut server = Self { program: None, directory, port: 0, bus_port: 0, options, role };
        for _ in 0..PORT_ATTEMPTS {
            (server.port, server.bus_port) = (free_port(), free_port());
            server.directory.write("redis.conf", &server.configuration());
            if server.launch().await {
                return server;
            }
        }
        panic!("Redis does not start:\n{}", server.directory.read("log"));
    }

    fn configuration(&self) -> String {
        let Self { port, options, directory, .. } = self;
        let path = |name: &str| directory.file(name).display().to_string();
        let (plain, tls) = if options.tls { (0, *port) } else { (*port, 0) };
        let mut lines = format!(
            "bind 127.0.0.1\nport {plain}\ntls-port {tls}\nunixsocket {}\ndir {}\nlogfile \"\"\n",
            path("socket"),
            path(""),
        );
        if self.role == Role::ClusterMember {
            write!(lines, "cluster-enabled yes\ncluster-port {}\n", self.bus_port).expect("a string takes all");
        }
        if self.role != Role::Sentinel {
            // A replica's copy begins at once. It does not wait for other replicas that could share
            // it.
            lines += "save \"\"\nrepl-diskless-sync-delay 0\n";
        }
        if options.append_only {
            lines += "appendonly yes\n";
        }
        if options.tls {
            let (ca_certificate, certificate, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
            write!(lines, "tls-ca-cert-file {ca_certificate}\ntls-cert-file {certificate}\ntls-key-file {key}\n")
                .expect("a string takes all");
            lines += "tls-auth-clients no\n";
        }
        if let Some((name, password)) = options.user {
            let rights = options.rights.unwrap_or("~* &* +@all");
            let (administrator, secret) = ADMINISTRATOR;
            write!(
                lines,
                "user default off\nuser {administrator} on >{secret} ~* &* +@all\nuser {name} on >{password} {rights}\n"
            )
            .expect("a string takes all");
        }
        lines + &options.configuration.join("\n") + "\n"
    }

    /// Starts the process. Returns whether it runs and replies. It exits if its port is taken.
    async fn launch(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.arg(self.directory.file("redis.conf"));
        if self.role == Role::Sentinel {
            command.arg("--sentinel");
        }
        let mut program = Program::start(command, &self.directory.file("log"));
        let started = Instant::now();
        while !self.try_command(&["PING"]).await.is_ok_and(|answer| answer == "PONG") {
            if !program.is_running() {
                return false;
            }
            assert!(started.elapsed() < DEADLINE, "Redis does not answer:\n{}", self.directory.read("log"));
            tokio::time::sleep(POLL).await;
        }
        self.program = Some(program);
        true
    }

    /// Returns the server's TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the port at which other members of a cluster reach the server.
    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port
    }

    /// Returns the server's address, as `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the server's URL, with the user's name and password.
    pub fn url(&self) -> String {
        self.url_at(&self.address())
    }

    /// Returns the URL for clients that reach the server at another address, such as that of a
    /// [`FaultyLink`](crate::FaultyLink).
    pub fn url_at(&self, address: &str) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let user = self.options.user.map(|(name, password)| format!("{name}:{password}@"));
        format!("{scheme}://{}{address}", user.unwrap_or_default())
    }

    /// Returns the path of the CA certificate that signed the server's certificate.
    pub fn ca_certificate(&self) -> PathBuf {
        self.directory.file("ca.pem")
    }

    /// Returns whether the server was started and not killed.
    pub fn is_running(&self) -> bool {
        self.program.is_some()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Restarts the server on the same port, and kills it first if it is running. Its data is lost
    /// unless it is [append-only](RedisOptions::append_only).
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn restart(&mut self) {
        self.kill();
        for _ in 0..PORT_ATTEMPTS {
            if self.launch().await {
                return;
            }
        }
        panic!("Redis does not start again:\n{}", self.directory.read("log"));
    }

    /// Stops the server with SIGSTOP. Connections stay open, and the server replies to nothing.
    ///
    /// # Panics
    /// Panics if the server is not running.
    pub fn pause(&self) {
        self.program.as_ref().expect("it runs").signal("STOP");
    }

    /// Continues the server after [`pause`](Self::pause).
    ///
    /// # Panics
    /// Panics if the server is not running.
    pub fn resume(&self) {
        self.program.as_ref().expect("it runs").signal("CONT");
    }

    /// Runs a command and returns its reply: text, or the items of an array, one in each line.
    ///
    /// # Panics
    /// Panics if Redis replies with an error or does not reply.
    pub async fn command(&self, command: &[&str]) -> String {
        self.try_command(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Like [`command`](Self::command), but returns errors.
    ///
    /// # Errors
    /// Returns Redis' error, or that of the connection.
    pub async fn try_command(&self, command: &[&str]) -> Result<String, String> {
        let socket = self.directory.file("socket");
        let (name, password) = ADMINISTRATOR;
        match self.options.user {
            Some(_) => resp::command(&socket, &[&["AUTH", name, password], command]).await,
            None => resp::command(&socket, &[command]).await,
        }
    }

    /// Returns the server's id in its cluster.
    pub(super) async fn id(&self) -> String {
        self.command(&["CLUSTER", "MYID"]).await
    }

    /// Returns a field of `INFO`.
    pub(super) async fn info(&self, field: &str) -> Option<String> {
        let info = self.try_command(&["INFO"]).await.ok()?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }
}

//! One `redis-server` process.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use super::{certificate, resp};
use crate::free_port;
use crate::program::{DEADLINE, Directory, POLL, PORT_ATTEMPTS, Program};

/// The fixtures' own user where the default one is switched off.
const ADMINISTRATOR: (&str, &str) = ("testkit", "testkit");

/// How a server is set up. By default: no password, no TLS, and nothing survives its end.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The name and password of the only user whom clients may be.
    pub user: Option<(&'static str, &'static str)>,
    /// What that user may do, as in `ACL SETUSER`; everything by default.
    pub rights: Option<&'static str>,
    /// Only TLS connections are accepted; [`RedisServer::ca_certificate`] signed the server's certificate.
    pub tls: bool,
    /// Data survive a restart.
    pub append_only: bool,
    /// More lines for its configuration file.
    pub configuration: Vec<String>,
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    /// Nothing after a kill. Before the directory, so that it ends before its files.
    program: Option<Program>,
    directory: Directory,
    port: u16,
    bus_port: u16,
    options: RedisOptions,
    role: Role,
}

/// What a server is among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Single,
    ClusterMember,
    Sentinel,
}

impl RedisServer {
    /// Starts one on a free port and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(options: RedisOptions) -> Self {
        Self::start_as(options, Role::Single).await
    }

    /// Starts a server that others can be joined with to a cluster.
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
            // A replica's copy begins at once, not when others may have come to share it.
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

    /// Whether it runs and answers; it ends by itself if its port is taken.
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

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port at which other members of a cluster reach it.
    pub(super) fn bus_port(&self) -> u16 {
        self.bus_port
    }

    /// Its address, as `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its URL, with the user's name and password.
    pub fn url(&self) -> String {
        self.url_at(&self.address())
    }

    /// Its URL for clients that reach it at another address, such as a [`FaultyLink`](crate::FaultyLink)'s.
    pub fn url_at(&self, address: &str) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let user = self.options.user.map(|(name, password)| format!("{name}:{password}@"));
        format!("{scheme}://{}{address}", user.unwrap_or_default())
    }

    /// The file with the CA certificate that signed the server's.
    pub fn ca_certificate(&self) -> PathBuf {
        self.directory.file("ca.pem")
    }

    /// Whether it was started and not killed.
    pub fn is_running(&self) -> bool {
        self.program.is_some()
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it again on the same port, killing it before if it runs. It has lost its data unless it
    /// keeps a log of them.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.kill();
        for _ in 0..PORT_ATTEMPTS {
            if self.launch().await {
                return;
            }
        }
        panic!("Redis does not start again:\n{}", self.directory.read("log"));
    }

    /// Stops it by SIGSTOP: connections stay, and nothing is answered.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pause(&self) {
        self.program.as_ref().expect("it runs").signal("STOP");
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Panics
    /// If it does not run.
    pub fn resume(&self) {
        self.program.as_ref().expect("it runs").signal("CONT");
    }

    /// A command's answer: text, or the items of an array, one in each line.
    ///
    /// # Panics
    /// If Redis answers with an error, or not at all.
    pub async fn command(&self, command: &[&str]) -> String {
        self.try_command(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// As [`command`](Self::command).
    ///
    /// # Errors
    /// What Redis said, or what became of the connection.
    pub async fn try_command(&self, command: &[&str]) -> Result<String, String> {
        let socket = self.directory.file("socket");
        let (name, password) = ADMINISTRATOR;
        match self.options.user {
            Some(_) => resp::command(&socket, &[&["AUTH", name, password], command]).await,
            None => resp::command(&socket, &[command]).await,
        }
    }

    /// What the other members of a cluster call it.
    pub(super) async fn id(&self) -> String {
        self.command(&["CLUSTER", "MYID"]).await
    }

    /// A field of `INFO`.
    pub(super) async fn info(&self, field: &str) -> Option<String> {
        let info = self.try_command(&["INFO"]).await.ok()?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }
}

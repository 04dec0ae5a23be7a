//! Commands to Redis' servers and sentinels, with one fred client for each of them.
//!
//! fred's client for clusters is not used. An error while it follows a redirection ends its task,
//! and all later commands to all slots fail. This module therefore follows redirections itself.
//! fred's client for Sentinel is not used either, because it stays with a former master for as long
//! as that server accepts connections. This module therefore queries the sentinels itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::cluster::ClusterRouting;
use fred::types::config::{
    Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{Builder, ConnectHandle, Value};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::state::attempts::Attempt;
use crate::state::placement::Published;
use crate::state::topology::Topology;

/// The beginning of the error of a server that is not a master.
const READONLY: &str = "READONLY";

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection without a reply for this long is reopened.
const UNRESPONSIVE: Duration = Duration::from_secs(3);

/// How long after its end a connection is reopened, in ms.
const RETRY_MS: u32 = 200;

/// How long a server may take to list the slots before the next server is tried.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long sentinels may take to name the master. Later replies are ignored.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(300);

/// How long a sentinel with an earlier configuration is ignored. After this time, the sentinels may
/// have been set up again.
const LATEST_PATIENCE: Duration = Duration::from_secs(30);

/// A script with its keys and arguments.
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<Value>,
}

/// The clients of servers and sentinels.
pub(crate) struct Commands {
    config: Config,
    clients: Mutex<HashMap<Server, Connected>>,
    sentinels: Mutex<HashMap<Server, Connected>>,
    /// How many times the topology was requested.
    asked: AtomicUsize,
    /// The epoch of the latest configuration that a sentinel had, and when that was last confirmed.
    latest: Mutex<Option<(u64, Instant)>>,
}

/// A client, and the task that connects it. Aborting the task ends the client's connections.
struct Connected {
    client: Client,
    task: ConnectHandle,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Commands {
    /// Creates the state without connecting.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            clients: Mutex::default(),
            sentinels: Mutex::default(),
            asked: AtomicUsize::new(0),
            latest: Mutex::default(),
        }
    }

    /// Runs the publish script on a server. If the slot belongs to another server, the error begins with `MOVED` or `ASK`.
    /// Returns within the attempt's time.
    pub(crate) async fn publish(&self, script: &Script<'_>, attempt: &Attempt) -> Result<Published, Error> {
        let reply = self.evaluate(script, attempt).await?;
        let unexpected = || Error::new(ErrorKind::Protocol, "unexpected reply to the publish script");
        let published = reply.as_str().and_then(|reply| Published::parse(&reply)).ok_or_else(unexpected)?;
        let mut failed = published.messages.iter().filter_map(|message| message.as_ref().err());
        if failed.any(|reason| reason.starts_with(READONLY)) {
            self.reconnect(&attempt.server);
        }
        Ok(published)
    }

    /// Runs a script like [`publish`](Self::publish), but returns the script's reply, whatever it is.
    pub(crate) async fn evaluate(&self, script: &Script<'_>, attempt: &Attempt) -> Result<Value, Error> {
        let client = self.client_of(&attempt.server)?;
        let reply = match attempt.asking {
            false => evaluate(&client, script, attempt).await,
            true => evaluate_asking(&client, script, attempt.time).await,
        };
        if reply.as_ref().is_err_and(|error| error.details().starts_with(READONLY)) {
            self.reconnect(&attempt.server);
        }
        reply
    }

    /// Reconnects to a server that is no longer a master, in the background, because another server
    /// may now have its address. The next attempt finds out.
    fn reconnect(&self, server: &Server) {
        if let Ok(client) = self.client_of(server) {
            tokio::spawn(async move { client.force_reconnection().await });
        }
    }

    /// Returns which server owns which slot, according to the first known server that replies.
    /// Returns `None` if no server replies.
    pub(crate) async fn topology(&self) -> Option<Topology> {
        let seeds = match &self.config.server {
            ServerConfig::Centralized { server } => return Some(Topology::Single(server.clone())),
            ServerConfig::Sentinel { hosts, service_name, .. } => {
                return self.master(hosts, service_name).await.map(Topology::Single);
            }
            ServerConfig::Clustered { hosts, .. } => hosts,
        };
        let mut servers: Vec<_> = self.clients.lock().keys().cloned().collect();
        servers.extend(seeds.iter().filter(|seed| !servers.contains(seed)).cloned().collect::<Vec<_>>());
        // Each request starts with another server, because a server that is cut off from the others
        // may only have an old state.
        let count = servers.len().max(1);
        servers.rotate_left(self.asked.fetch_add(1, Ordering::Relaxed) % count);
        servers.sort_by_key(|server| !self.is_connected(server));
        for server in servers {
            let answer = timeout(TOPOLOGY_TIMEOUT, self.ask_slots(&server)).await;
            if let Ok(Ok(routing)) = answer
                && routing.len() > 0
            {
                return Some(Topology::Cluster(routing));
            }
        }
        None
    }

    /// Returns the master according to the sentinel with the latest configuration. A sentinel that
    /// was cut off from the others, or has not been informed of a failover yet, names a former
    /// master.
    async fn master(&self, sentinels: &[Server], service: &str) -> Option<Server> {
        let ask = |sentinel| timeout(SENTINEL_TIMEOUT, self.ask_sentinel(sentinel, service));
        let answers = join_all(sentinels.iter().map(ask)).await;
        let answers = answers.into_iter().filter_map(|answer| answer.ok()?.ok());
        let (epoch, master) = answers.max_by_key(|(epoch, _)| *epoch)?;
        let (mut latest, now) = (self.latest.lock(), Instant::now());
        if latest.is_some_and(|(known, at)| epoch < known && now.duration_since(at) < LATEST_PATIENCE) {
            return None; // the sentinels with a later configuration have not replied in time
        }
        *latest = Some((epoch, now));
        Some(master)
    }

    /// Returns the epoch of a sentinel's configuration, and the master that the sentinel names.
    async fn ask_sentinel(&self, sentinel: &Server, service: &str) -> Result<(u64, Server), Error> {
        let (username, password) = match &self.config.server {
            ServerConfig::Sentinel { username, password, .. } => (username.clone(), password.clone()),
            _ => (None, None),
        };
        // Sentinels have no databases.
        let config = Config { username, password, database: None, ..self.config.clone() };
        let client = client_in(&self.sentinels, sentinel, config)?;
        let sentinel = || fred::cmd!("SENTINEL");
        let state: HashMap<String, String> = client.custom(sentinel(), vec!["MASTER", service]).await?;
        let (host, port) = client.custom(sentinel(), vec!["GET-MASTER-ADDR-BY-NAME", service]).await?;
        let epoch = state.get("config-epoch").and_then(|epoch| epoch.parse().ok());
        Ok((epoch.unwrap_or(0), Server::new::<String>(host, port)))
    }

    /// Returns a section of a server's INFO.
    pub(crate) async fn info(&self, server: &Server, section: &'static str) -> Result<String, Error> {
        self.client_of(server)?.custom(fred::cmd!("INFO"), vec![section]).await
    }

    /// Returns the problem while there is no topology.
    pub(crate) fn no_topology(&self) -> String {
        let servers = self.config.server.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.config.server {
            ServerConfig::Sentinel { service_name, .. } => {
                format!("no sentinel ({servers}) names a master {service_name:?}")
            }
            _ => format!("no server ({servers}) lists the slots of a Redis Cluster"),
        }
    }

    /// Returns how old the known topology may be. Nothing announces a new master to a node, and the
    /// former master may continue as if it were still the master.
    pub(crate) fn max_topology_age(&self) -> Duration {
        match self.config.server {
            ServerConfig::Sentinel { .. } => Duration::from_millis(500),
            _ => Duration::from_secs(10),
        }
    }

    /// Drops the clients of servers that no longer own anything.
    pub(crate) fn keep_only(&self, servers: &[Server]) {
        self.clients.lock().retain(|server, _| servers.contains(server));
    }

    async fn ask_slots(&self, server: &Server) -> Result<ClusterRouting, Error> {
        let slots: Value = self.client_of(server)?.custom(fred::cmd!("CLUSTER"), vec!["SLOTS"]).await?;
        ClusterRouting::from_cluster_slots(slots, server.host.clone())
    }

    fn is_connected(&self, server: &Server) -> bool {
        self.clients.lock().get(server).is_some_and(|connected| connected.client.is_connected())
    }

    fn client_of(&self, server: &Server) -> Result<Client, Error> {
        client_in(&self.clients, server, self.config.clone())
    }
}

/// Returns the digest by which Redis finds a script.
pub(crate) fn digest(script: &str) -> String {
    use sha1::Digest;
    sha1::Sha1::digest(script).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a server's client. It is created when it is first needed, and again if its task has
/// ended.
fn client_in(clients: &Mutex<HashMap<Server, Connected>>, server: &Server, config: Config) -> Result<Client, Error> {
    let mut clients = clients.lock();
    if let Some(connected) = clients.get(server).filter(|connected| !connected.task.is_finished()) {
        return Ok(connected.client.clone());
    }
    let client = build(Config { server: ServerConfig::Centralized { server: server.clone() }, ..config })?;
    let task = client.connect();
    clients.insert(server.clone(), Connected { client: client.clone(), task });
    Ok(client)
}

impl Script<'_> {
    /// Returns the arguments of `EVALSHA`, or of `EVAL` if the text is sent.
    fn words(&self, with_text: bool) -> Vec<Value> {
        let script = if with_text { self.text } else { self.digest };
        let mut words = Vec::with_capacity(2 + self.keys.len() + self.arguments.len());
        words.extend([script.into(), Value::Integer(self.keys.len() as i64)]);
        words.extend(self.keys.iter().map(Value::from));
        words.extend(self.arguments.iter().cloned());
        words
    }
}

/// Runs a script with a custom command, because fred's own commands for scripts ignore their
/// timeout.
async fn evaluate(client: &Client, script: &Script<'_>, attempt: &Attempt) -> Result<Value, Error> {
    let options = Options { timeout: Some(attempt.time), ..Options::default() };
    let command = if attempt.with_text { fred::cmd!("EVAL") } else { fred::cmd!("EVALSHA") };
    client.with_options(&options).custom(command, script.words(attempt.with_text)).await
}

/// Runs a script after `ASKING`. It sends the script's text, because a server that an `ASK` names
/// has rarely run the script before.
async fn evaluate_asking(client: &Client, script: &Script<'_>, time: Duration) -> Result<Value, Error> {
    let pipeline = client.pipeline();
    let evaluated = async {
        let _: () = pipeline.custom(fred::cmd!("ASKING"), Vec::<Value>::new()).await?;
        let _: () = pipeline.custom(fred::cmd!("EVAL"), script.words(true)).await?;
        let results = pipeline.try_all::<Value>().await;
        let missing =
            || Err(Error::new(ErrorKind::Protocol, "the server that the slot is moving to did not reply to EVAL"));
        results.into_iter().nth(1).unwrap_or_else(missing)
    };
    let timed_out = |_| Error::new(ErrorKind::Timeout, "the server that the slot is moving to did not reply in time");
    timeout(time, evaluated).await.map_err(timed_out)?
}

/// Creates a client that connects when `connect` is called, and again whenever its connection ends.
pub(crate) fn build(config: Config) -> Result<Client, Error> {
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: CONNECT_TIMEOUT,
        unresponsive: UnresponsiveConfig { max_timeout: Some(UNRESPONSIVE), interval: Duration::from_secs(1) },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let performance = PerformanceConfig { default_command_timeout: UNRESPONSIVE, ..PerformanceConfig::default() };
    Builder::from_config(config)
        .set_connection_config(connection)
        .set_performance_config(performance)
        .set_policy(ReconnectPolicy::new_constant(0, RETRY_MS))
        .build()
}

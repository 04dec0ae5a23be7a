//! Commands to Redis' servers, through fred: one client for each server.
//!
//! Not through fred's client for clusters: an error while it follows a redirection ends the task behind it,
//! and with it every later command, of all slots. So redirections are followed here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface, ServerInterface};
use fred::types::cluster::ClusterRouting;
use fred::types::config::{
    Config, ConnectionConfig, Options, PerformanceConfig, ReconnectPolicy, Server, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{Builder, ConnectHandle, Value};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::topology::Topology;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After so long without an answer a connection is opened anew.
const UNRESPONSIVE: Duration = Duration::from_secs(3);

/// How long until a connection that ended is opened again, in ms.
const RETRY_MS: u32 = 200;

/// How long a server may take to tell the slots before the next is asked.
const TOPOLOGY_TIMEOUT: Duration = Duration::from_secs(1);

/// A script and what it is given.
pub(crate) struct Script<'a> {
    pub(crate) text: &'a str,
    pub(crate) digest: &'a str,
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Vec<Value>,
}

/// The servers' clients.
pub(crate) struct Commands {
    config: Config,
    clients: Mutex<HashMap<Server, Connected>>,
    /// How often the topology was asked for.
    asked: AtomicUsize,
}

/// A client, and the task that connects it; the connections end with it.
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
    /// Connects to nobody yet.
    pub(crate) fn new(config: Config) -> Self {
        Self { config, clients: Mutex::default(), asked: AtomicUsize::new(0) }
    }

    /// Runs a script on a server, which may say that its slot is another's: then the error begins with `MOVED` or
    /// `ASK`. `asking`: the server was named by such an `ASK`.
    pub(crate) async fn run(
        &self,
        server: &Server,
        script: &Script<'_>,
        asking: bool,
        time: Duration,
    ) -> Result<(), Error> {
        let client = self.client_of(server)?;
        let result = match asking {
            false => evaluate(&client, script, time).await,
            true => evaluate_asking(&client, script, time).await,
        };
        if is(&result, "READONLY") {
            // A former master. Whoever is behind the name now is asked next.
            let _ = client.force_reconnection().await;
        }
        result
    }

    /// Who owns which slot, by whoever answers first of the servers that are known. `None`: nobody does.
    pub(crate) async fn topology(&self) -> Option<Topology> {
        let seeds = match &self.config.server {
            ServerConfig::Centralized { server } => return Some(Topology::Single(server.clone())),
            ServerConfig::Sentinel { hosts, .. } => {
                // All commands go through one client, which asks the sentinels when it must.
                let client = self.client_of(hosts.first()?).ok()?;
                return client.sentinel_primary().map(Topology::Single);
            }
            ServerConfig::Clustered { hosts, .. } => hosts,
        };
        let mut servers: Vec<_> = self.clients.lock().keys().cloned().collect();
        servers.extend(seeds.iter().filter(|seed| !servers.contains(seed)).cloned().collect::<Vec<_>>());
        // Another each time: one that lost touch with the others may know an old state only.
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

    /// Drops the clients of servers that own nothing any more.
    pub(crate) fn keep_only(&self, servers: &[Server]) {
        if self.config.server.is_clustered() {
            self.clients.lock().retain(|server, _| servers.contains(server));
        }
    }

    async fn ask_slots(&self, server: &Server) -> Result<ClusterRouting, Error> {
        let slots: Value = self.client_of(server)?.custom(fred::cmd!("CLUSTER"), vec!["SLOTS"]).await?;
        ClusterRouting::from_cluster_slots(slots, server.host.clone())
    }

    fn is_connected(&self, server: &Server) -> bool {
        self.clients.lock().get(server).is_some_and(|connected| connected.client.is_connected())
    }

    /// The client of a server, made when it is asked for first, and again if its task has ended.
    fn client_of(&self, server: &Server) -> Result<Client, Error> {
        // A single server and Sentinel have one client; which server that is, is fred's matter.
        let (key, target) = match &self.config.server {
            ServerConfig::Clustered { .. } => (server.clone(), ServerConfig::Centralized { server: server.clone() }),
            other => (Server::new("", 0), other.clone()),
        };
        let mut clients = self.clients.lock();
        if let Some(connected) = clients.get(&key).filter(|connected| !connected.task.is_finished()) {
            return Ok(connected.client.clone());
        }
        let client = build(Config { server: target, ..self.config.clone() })?;
        let task = client.connect();
        clients.insert(key, Connected { client: client.clone(), task });
        Ok(client)
    }
}

fn is(result: &Result<(), Error>, prefix: &str) -> bool {
    result.as_ref().is_err_and(|error| error.details().starts_with(prefix))
}

async fn evaluate(client: &Client, script: &Script<'_>, time: Duration) -> Result<(), Error> {
    let options = Options { timeout: Some(time), ..Options::default() };
    let client = client.with_options(&options);
    let (keys, arguments) = (script.keys.clone(), script.arguments.clone());
    let result = client.evalsha::<Value, _, _, _>(script.digest, keys, arguments).await.map(drop);
    if !is(&result, "NOSCRIPT") {
        return result;
    }
    let (keys, arguments) = (script.keys.clone(), script.arguments.clone());
    client.eval::<Value, _, _, _>(script.text, keys, arguments).await.map(drop)
}

/// The script's text is sent: a server that is asked so has seldom run it before.
async fn evaluate_asking(client: &Client, script: &Script<'_>, time: Duration) -> Result<(), Error> {
    let mut words: Vec<Value> = vec![script.text.into(), Value::Integer(script.keys.len() as i64)];
    words.extend(script.keys.iter().map(Value::from));
    words.extend(script.arguments.iter().cloned());
    let pipeline = client.pipeline();
    let _: () = pipeline.custom(fred::cmd!("ASKING"), Vec::<Value>::new()).await?;
    let _: () = pipeline.custom(fred::cmd!("EVAL"), words).await?;
    let results = timeout(time, pipeline.try_all::<Value>()).await.unwrap_or_default();
    match results.into_iter().nth(1) {
        Some(result) => result.map(drop),
        None => Err(Error::new(ErrorKind::Timeout, "a server that a slot moves to did not answer")),
    }
}

/// A client that connects when it is told to, and again whenever its connection ends.
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

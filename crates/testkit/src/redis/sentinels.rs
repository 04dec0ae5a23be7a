//! A master with replicas that sentinels watch.

use super::{RedisOptions, RedisServer};
use crate::program::wait_until;

/// The master's name in the configuration of the sentinels.
const SERVICE: &str = "mymaster";

const REPLICAS: usize = 2;
const SENTINELS: usize = 3;

/// One master, two replicas and three sentinels. They are killed when dropped.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts the servers and sentinels. Waits until they have found each other and the replicas
    /// have a copy. Sentinels consider a master dead after one second of silence.
    ///
    /// # Panics
    /// Panics if they do not become ready.
    pub async fn start() -> Self {
        let master = RedisServer::start(RedisOptions::default()).await;
        let replica_of = vec![format!("replicaof 127.0.0.1 {}", master.port())];
        let watch = vec![
            format!("sentinel monitor {SERVICE} 127.0.0.1 {} 2", master.port()),
            format!("sentinel down-after-milliseconds {SERVICE} 1000"),
            format!("sentinel failover-timeout {SERVICE} 6000"),
        ];
        let mut servers = vec![master];
        for _ in 0..REPLICAS {
            let options = RedisOptions { configuration: replica_of.clone(), ..RedisOptions::default() };
            servers.push(RedisServer::start(options).await);
        }
        let mut sentinels = Vec::new();
        for _ in 0..SENTINELS {
            let options = RedisOptions { configuration: watch.clone(), ..RedisOptions::default() };
            sentinels.push(RedisServer::start_sentinel(options).await);
        }
        let all = Self { servers, sentinels };
        wait_until("sentinels and replicas know each other", async || all.is_settled().await).await;
        all
    }

    async fn is_settled(&self) -> bool {
        for replica in &self.servers[1..] {
            if replica.info("master_link_status").await.as_deref() != Some("up") {
                return false;
            }
        }
        for sentinel in &self.sentinels {
            let state = sentinel.command(&["SENTINEL", "MASTER", SERVICE]).await;
            let lines: Vec<_> = state.lines().collect();
            let has = |name: &str, value: usize| lines.windows(2).any(|pair| pair == [name, &value.to_string()]);
            if !has("num-slaves", REPLICAS) || !has("num-other-sentinels", SENTINELS - 1) {
                return false;
            }
        }
        true
    }

    /// Returns the URL, with all sentinels.
    pub fn url(&self) -> String {
        let [first, second, third] = [0, 1, 2].map(|index| self.sentinels[index].address());
        format!("redis-sentinel://{first}?node={second}&node={third}&sentinelServiceName={SERVICE}")
    }

    /// Returns the servers. At the start, the first one is the master.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns the index of the master, according to the first sentinel.
    ///
    /// # Panics
    /// Panics if the sentinel does not reply, or names a server that is not one of these.
    pub async fn master(&self) -> usize {
        let address = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
        let is_it = |server: &RedisServer| address.ends_with(&format!("\n{}", server.port()));
        self.servers.iter().position(is_it).unwrap_or_else(|| panic!("nobody is at {address:?}"))
    }

    /// Kills the master and returns its index. The sentinels choose another one after some time.
    ///
    /// # Panics
    /// Panics for the same reasons as [`master`](Self::master).
    pub async fn kill_master(&mut self) -> usize {
        let master = self.master().await;
        self.servers[master].kill();
        master
    }

    /// Waits until a server other than this one is the master, also according to itself.
    ///
    /// # Panics
    /// Panics if that does not happen in time.
    pub async fn wait_for_another_master_than(&self, old: usize) {
        wait_until("there is another master", async || {
            let master = self.master().await;
            master != old && self.servers[master].info("role").await.as_deref() == Some("master")
        })
        .await;
    }

    /// Makes another server the master while all servers work, and waits until it is.
    ///
    /// # Panics
    /// Panics if that does not happen in time.
    pub async fn failover(&self) {
        let old = self.master().await;
        // A sentinel that has not received the state of the others yet replies with INPROG or
        // NOGOODSLAVE.
        wait_until("a sentinel begins the failover", async || {
            self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", SERVICE]).await.is_ok()
        })
        .await;
        self.wait_for_another_master_than(old).await;
    }

    /// Restarts a killed server. The sentinels make it a replica.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn restart(&mut self, server: usize) {
        self.servers[server].restart().await;
    }
}

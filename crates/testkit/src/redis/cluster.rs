//! Redis Cluster: masters that share the 16,384 slots, and replicas that can take their place.

use std::future::Future;
use std::time::Duration;

use super::{RedisOptions, RedisServer};
use crate::program::wait_until;

const SLOTS: u16 = 16384;

/// How many keys are moved by one command.
const KEYS_AT_ONCE: &str = "100";

/// Longer than a replica tries to take over when asked to.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);

/// A cluster. Killed when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<RedisServer>,
}

/// A line of `CLUSTER NODES`.
struct Member<'a> {
    flags: Vec<&'a str>,
    master: &'a str,
    epoch: u64,
    slots: Vec<&'a str>,
}

impl<'a> Member<'a> {
    fn all(nodes: &'a str) -> impl Iterator<Item = Self> {
        nodes.lines().filter_map(|line| {
            let mut fields = line.split(' ');
            let (_id, _address) = (fields.next()?, fields.next()?);
            let (flags, master) = (fields.next()?.split(',').collect(), fields.next()?);
            let (_ping, _pong) = (fields.next()?, fields.next()?);
            let (epoch, _link) = (fields.next()?.parse().ok()?, fields.next()?);
            Some(Self { flags, master, epoch, slots: fields.collect() })
        })
    }

    fn is(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }

    fn owns(&self, slot: u16) -> bool {
        // Slots that are on their way stand in brackets, and are owned as long as they stand plain too.
        self.slots.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bounds = (first.parse::<u16>(), last.parse::<u16>());
            matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        })
    }
}

impl RedisCluster {
    /// Starts the masters, each with so many replicas, and waits until all slots are served and every
    /// replica has its copy. A member is taken for dead after two seconds of silence.
    ///
    /// # Panics
    /// If it does not get ready.
    pub async fn start(masters: usize, replicas: usize) -> Self {
        let mut servers = Vec::new();
        for _ in 0..masters * (1 + replicas) {
            servers.push(RedisServer::start_cluster_member(member_options()).await);
        }
        for (index, server) in servers.iter().enumerate() {
            // Different from the start, so that the members need not first agree on that.
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            let (port, bus_port) = (server.port().to_string(), server.bus_port().to_string());
            servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]).await;
        }
        for (index, master) in servers[..masters].iter().enumerate() {
            let bound = |index: usize| usize::from(SLOTS) * index / masters;
            let (first, last) = (bound(index).to_string(), (bound(index + 1) - 1).to_string());
            master.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        }
        let cluster = Self { servers };
        wait_until("the members have met", async || cluster.have_met().await).await;
        for (index, replica) in cluster.servers[masters..].iter().enumerate() {
            let id = cluster.servers[index % masters].id().await;
            wait_until("a replica has found its master", async || {
                replica.try_command(&["CLUSTER", "REPLICATE", &id]).await.is_ok()
            })
            .await;
        }
        wait_until("all slots are served and copied", async || {
            cluster.is_settled().await && cluster.replicas_known(masters * replicas).await
        })
        .await;
        cluster
    }

    async fn have_met(&self) -> bool {
        for server in &self.servers {
            let nodes = server.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).filter(|member| !member.is("handshake")).count() != self.servers.len() {
                return false;
            }
        }
        true
    }

    /// Whether every member has heard of all replicas: those that have not would not vote for one.
    async fn replicas_known(&self, replicas: usize) -> bool {
        for server in &self.servers {
            let nodes = server.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).filter(|member| member.is("slave")).count() != replicas {
                return false;
            }
        }
        true
    }

    /// Whether every running member knows an owner of every slot, and every running replica has its copy.
    pub async fn is_settled(&self) -> bool {
        for server in self.running() {
            let state = server.try_command(&["CLUSTER", "INFO"]).await.unwrap_or_default();
            let is_whole = state.contains("cluster_state:ok") && state.contains("cluster_slots_ok:16384");
            let link = server.info("master_link_status").await;
            if !is_whole || link.is_some_and(|link| link != "up") {
                return false;
            }
        }
        true
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.servers.iter().filter(|server| server.is_running())
    }

    /// The URL, with all members.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().map(RedisServer::address).collect();
        format!("redis-cluster://{}?node={}", addresses[0], addresses[1..].join("&node="))
    }

    /// The servers: at the start first the masters, then their replicas.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// The slot of a key.
    ///
    /// # Panics
    /// If nobody runs.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let server = self.running().next().expect("a member runs");
        server.command(&["CLUSTER", "KEYSLOT", key]).await.parse().expect("a slot")
    }

    /// The place of the running server that owns a slot in its own eyes, if there is one; of two, that
    /// with the later right.
    pub async fn owner(&self, slot: u16) -> Option<usize> {
        let mut owner = None;
        for (index, server) in self.servers.iter().enumerate().filter(|(_, server)| server.is_running()) {
            let nodes = server.try_command(&["CLUSTER", "NODES"]).await.unwrap_or_default();
            let own = Member::all(&nodes).find(|member| member.is("myself"));
            if let Some(own) = own.filter(|own| own.is("master") && own.owns(slot)) {
                owner = owner.max(Some((own.epoch, index)));
            }
        }
        owner.map(|(_, index)| index)
    }

    /// The place of the server that owns a slot.
    ///
    /// # Panics
    /// If nobody does.
    pub async fn owner_of_slot(&self, slot: u16) -> usize {
        self.owner(slot).await.unwrap_or_else(|| panic!("nobody owns slot {slot}"))
    }

    /// Kills a slot's owner and returns its place. Its replica takes over by and by.
    ///
    /// # Panics
    /// If nobody owns the slot.
    pub async fn kill_owner(&mut self, slot: u16) -> usize {
        let owner = self.owner_of_slot(slot).await;
        self.servers[owner].kill();
        owner
    }

    /// Waits until another server than this owns a slot, and all members agree on all slots.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn wait_for_another_owner_than(&self, old: usize, slot: u16) {
        wait_until("a slot has another owner", async || {
            self.owner(slot).await.is_some_and(|owner| owner != old) && self.is_settled().await
        })
        .await;
    }

    /// Makes a replica the owner of its master's slots while all are well, and waits for that.
    ///
    /// # Panics
    /// If the slot's owner has no replica, or that does not happen.
    pub async fn failover(&self, slot: u16) {
        let owner = self.owner_of_slot(slot).await;
        let id = self.servers[owner].id().await;
        for replica in self.running() {
            let nodes = replica.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).any(|member| member.is("myself") && member.master == id) {
                let done = self.wait_for_another_owner_than(owner, slot);
                return asking_for_failover(replica, done).await;
            }
        }
        panic!("the owner of slot {slot} has no replica");
    }

    /// Starts a killed server again; it becomes a replica if another has taken its place.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self, server: usize) {
        self.servers[server].restart().await;
    }

    /// Moves a slot with its keys to another master, as `redis-cli --cluster reshard` does, while
    /// clients use them.
    ///
    /// # Panics
    /// If a member refuses.
    pub async fn migrate_slot(&self, slot: u16, to: usize) {
        if self.owner_of_slot(slot).await != to {
            self.migrate_keys(slot, to).await;
            self.finish_migration(slot, to).await;
        }
    }

    /// Does the first part of a slot's move: its keys are with the new owner, but the slot is not yet. With
    /// a slot of many keys, this takes long.
    ///
    /// # Panics
    /// If a member refuses.
    pub async fn migrate_keys(&self, slot: u16, to: usize) {
        let (source, target) = (&self.servers[self.owner_of_slot(slot).await], &self.servers[to]);
        let (source_id, target_id) = (source.id().await, target.id().await);
        let slot = slot.to_string();
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await;
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await;
        let port = target.port().to_string();
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE]).await;
            if keys.is_empty() {
                return;
            }
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            source.command(&head.into_iter().chain(keys.lines()).collect::<Vec<_>>()).await;
        }
    }

    /// Does the last part of a slot's move: everybody learns of the new owner.
    ///
    /// # Panics
    /// If a member refuses.
    pub async fn finish_migration(&self, slot: u16, to: usize) {
        let (source, target) = (&self.servers[self.owner_of_slot(slot).await], &self.servers[to]);
        let (slot, target_id) = (slot.to_string(), target.id().await);
        let assign = ["CLUSTER", "SETSLOT", &slot, "NODE", &target_id];
        // The new owner first: the old one would send clients to somebody who does not know of it yet.
        target.command(&assign).await;
        source.command(&assign).await;
        for server in self.running() {
            let nodes = server.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).any(|member| member.is("myself") && member.is("master")) {
                server.command(&assign).await;
            }
        }
    }

    /// Moves slots one after another to the next master each, and returns how many.
    ///
    /// # Panics
    /// If a member refuses.
    pub async fn migrate_slots(&self, slots: impl IntoIterator<Item = u16>) -> usize {
        let mut moved = 0;
        for slot in slots {
            let from = self.owner_of_slot(slot).await;
            let to = self.next_master(from).await;
            self.migrate_slot(slot, to).await;
            moved += 1;
        }
        moved
    }

    /// The next running master after this one.
    ///
    /// # Panics
    /// If there is no other.
    pub async fn next_master(&self, from: usize) -> usize {
        let count = self.servers.len();
        for index in (from + 1..from + count).map(|index| index % count) {
            if self.servers[index].is_running() && self.servers[index].info("role").await.as_deref() == Some("master") {
                return index;
            }
        }
        panic!("there is no other master");
    }
}

/// Asks a replica to take over until it has. The replica gives up, silently, if the other masters have
/// not heard of the latest changes yet and don't vote for it.
async fn asking_for_failover(replica: &RedisServer, done: impl Future<Output = ()>) {
    let mut done = std::pin::pin!(done);
    loop {
        // Refused by one that has just become master.
        let _ = replica.try_command(&["CLUSTER", "FAILOVER"]).await;
        if tokio::time::timeout(FAILOVER_TIMEOUT, &mut done).await.is_ok() {
            return;
        }
    }
}

fn member_options() -> RedisOptions {
    let configuration = [
        "cluster-node-timeout 2000",
        // Whatever its copy's age: a test that kills a master wants its replica to take over.
        "cluster-replica-validity-factor 0",
        "cluster-allow-replica-migration no",
    ];
    RedisOptions { configuration: configuration.map(str::to_owned).to_vec(), ..RedisOptions::default() }
}

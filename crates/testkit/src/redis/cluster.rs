//! Redis Cluster: masters that share the 16,384 slots, and replicas that can replace them.

use std::future::Future;
use std::time::Duration;

use super::{RedisOptions, RedisServer};
use crate::program::wait_until;

const SLOTS: u16 = 16384;

/// How many keys one command moves.
const KEYS_AT_ONCE: &str = "100";

/// Longer than a replica that was asked to take over tries to do so.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(6);

/// A cluster. It is killed when dropped.
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
        // Slots that are being moved are in brackets. The member owns them while they are also
        // listed without brackets.
        self.slots.iter().any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bounds = (first.parse::<u16>(), last.parse::<u16>());
            matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
        })
    }
}

impl RedisCluster {
    /// Starts the masters and this number of replicas for each of them. Waits until all slots are
    /// served and every replica has its copy. Members consider a member dead after two seconds of
    /// silence.
    ///
    /// # Panics
    /// Panics if the cluster does not become ready.
    pub async fn start(masters: usize, replicas: usize) -> Self {
        let mut servers = Vec::new();
        for _ in 0..masters * (1 + replicas) {
            servers.push(RedisServer::start_cluster_member(member_options()).await);
        }
        for (index, server) in servers.iter().enumerate() {
            // The epochs differ from the start, so the members need not agree on them first.
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

    /// Returns whether every member has information about all replicas. A member without it would
    /// not vote for a replica.
    async fn replicas_known(&self, replicas: usize) -> bool {
        for server in &self.servers {
            let nodes = server.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).filter(|member| member.is("slave")).count() != replicas {
                return false;
            }
        }
        true
    }

    /// Returns whether every running member has an owner for every slot, and every running replica
    /// has its copy.
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

    /// Returns the URL, with all members.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.servers.iter().map(RedisServer::address).collect();
        format!("redis-cluster://{}?node={}", addresses[0], addresses[1..].join("&node="))
    }

    /// Returns the servers. At the start, the masters are first, and their replicas follow.
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns the slot of a key.
    ///
    /// # Panics
    /// Panics if no server is running.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let server = self.running().next().expect("a member runs");
        server.command(&["CLUSTER", "KEYSLOT", key]).await.parse().expect("a slot")
    }

    /// Returns the index of the running server that owns a slot according to itself, if there is
    /// one. If there are two, returns the one with the later epoch.
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

    /// Returns the index of the server that owns a slot.
    ///
    /// # Panics
    /// Panics if no server owns it.
    pub async fn owner_of_slot(&self, slot: u16) -> usize {
        self.owner(slot).await.unwrap_or_else(|| panic!("nobody owns slot {slot}"))
    }

    /// Kills a slot's owner and returns its index. Its replica takes over after some time.
    ///
    /// # Panics
    /// Panics if no server owns the slot.
    pub async fn kill_owner(&mut self, slot: u16) -> usize {
        let owner = self.owner_of_slot(slot).await;
        self.servers[owner].kill();
        owner
    }

    /// Waits until a server other than this one owns a slot, and all members agree on all slots.
    ///
    /// # Panics
    /// Panics if that does not happen in time.
    pub async fn wait_for_another_owner_than(&self, old: usize, slot: u16) {
        wait_until("a slot has another owner", async || {
            self.owner(slot).await.is_some_and(|owner| owner != old) && self.is_settled().await
        })
        .await;
    }

    /// Makes a replica the owner of its master's slots while all servers work, and waits until it
    /// is.
    ///
    /// # Panics
    /// Panics if the slot's owner has no replica, or if the failover does not happen in time.
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

    /// Restarts a killed server. It becomes a replica if another server has replaced it.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn restart(&mut self, server: usize) {
        self.servers[server].restart().await;
    }

    /// Moves a slot and its keys to another master, while clients use them. `redis-cli --cluster
    /// reshard` moves slots in the same way.
    ///
    /// # Panics
    /// Panics if a member rejects a command.
    pub async fn migrate_slot(&self, slot: u16, to: usize) {
        if self.owner_of_slot(slot).await != to {
            self.migrate_keys(slot, to).await;
            self.finish_migration(slot, to).await;
        }
    }

    /// Does the first part of moving a slot: the new owner has the keys, but not the slot yet. If
    /// the slot has many keys, this takes long.
    ///
    /// # Panics
    /// Panics if a member rejects a command.
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

    /// Does the last part of moving a slot: all members are informed of the new owner.
    ///
    /// # Panics
    /// Panics if a member rejects a command.
    pub async fn finish_migration(&self, slot: u16, to: usize) {
        let (source, target) = (&self.servers[self.owner_of_slot(slot).await], &self.servers[to]);
        let (slot, target_id) = (slot.to_string(), target.id().await);
        let assign = ["CLUSTER", "SETSLOT", &slot, "NODE", &target_id];
        // The new owner must be first. Otherwise the old owner would send clients to a server that
        // does not accept them yet.
        target.command(&assign).await;
        source.command(&assign).await;
        for server in self.running() {
            let nodes = server.command(&["CLUSTER", "NODES"]).await;
            if Member::all(&nodes).any(|member| member.is("myself") && member.is("master")) {
                server.command(&assign).await;
            }
        }
    }

    /// Moves slots one by one, each to the next master, and returns how many.
    ///
    /// # Panics
    /// Panics if a member rejects a command.
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

    /// Returns the index of the next running master after this one.
    ///
    /// # Panics
    /// Panics if there is no other.
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

/// Asks a replica to take over, again and again, until it has. The replica gives up without an
/// error if the other masters have not received the latest changes yet and do not vote for it.
async fn asking_for_failover(replica: &RedisServer, done: impl Future<Output = ()>) {
    let mut done = std::pin::pin!(done);
    loop {
        // A replica that has just become master rejects the command.
        let _ = replica.try_command(&["CLUSTER", "FAILOVER"]).await;
        if tokio::time::timeout(FAILOVER_TIMEOUT, &mut done).await.is_ok() {
            return;
        }
    }
}

fn member_options() -> RedisOptions {
    let configuration = [
        "cluster-node-timeout 2000",
        // The age of a replica's copy does not matter, because a test that kills a master needs its
        // replica to take over.
        "cluster-replica-validity-factor 0",
        "cluster-allow-replica-migration no",
    ];
    RedisOptions { configuration: configuration.map(str::to_owned).to_vec(), ..RedisOptions::default() }
}

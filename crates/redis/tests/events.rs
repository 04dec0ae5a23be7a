//! Lifecycle events over a real Redis and over the store in memory: what a backend receives when nodes
//! die, when it is down itself, and when Redis restarts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roomcast_core::{
    BoxFuture, Broker, BrokerStatus, Codec, ConnectionGuard, Ending, EventBatch, EventKind, EventOptions, EventRules,
    EventSink, EventStore, Hub, HubOptions, LifecycleEvent, MemoryBroker, MemoryEvents, RoomName, UserId,
};
use roomcast_redis::{RedisBroker, RedisOptions};
use roomcast_testkit::{RedisCluster, RedisOptions as ServerOptions, RedisServer};
use serde_json::Value;
use tokio::task::JoinHandle;

/// No test waits longer for one thing.
const DEADLINE: Duration = Duration::from_secs(60);

/// All rights of a node that reports lifecycle events, as in docs/guides/redis.md.
const RIGHTS: &str = "~roomcast:* &roomcast:* -@all +hello +auth +client|setname +client|id +select +ping +echo \
    +quit +role +info +time +eval +evalsha +get +set +del +rpush +ltrim +lrange +pexpire +spublish +ssubscribe +sunsubscribe \
    +cluster|slots +asking +expire +hget +hmget +hset +hdel +hlen +hgetall +hincrby +hrandfield +xadd +xrange +xlen +xdel \
    +zadd +zrem +zrangebyscore";

/// Short times, so that the tests end soon.
fn rules() -> EventRules {
    let mut rules = EventRules::default();
    rules.lost_after = Duration::from_secs(2);
    rules.return_time = Duration::from_millis(500);
    rules.outage_after = Duration::from_millis(1_500);
    rules
}

/// A backend, which may be down.
#[derive(Debug, Default)]
struct Backend(Mutex<Received>);

#[derive(Debug, Default)]
struct Received {
    is_down: bool,
    attempts: usize,
    /// All events by id, and their ids in the order in which they arrived first.
    events: BTreeMap<String, Value>,
    order: Vec<String>,
}

impl EventSink for Backend {
    fn deliver(&self, batch: EventBatch) -> BoxFuture<'static, Result<(), String>> {
        let mut received = self.0.lock();
        received.attempts += 1;
        let result = if received.is_down { Err("it is down".to_owned()) } else { Ok(()) };
        if result.is_ok() {
            for event in serde_json::from_slice::<Vec<Value>>(&batch.body).unwrap() {
                let id = event["id"].as_str().unwrap().to_owned();
                match received.events.insert(id.clone(), event.clone()) {
                    None => received.order.push(id),
                    Some(known) => assert_eq!(known["type"], event["type"], "an id is of one event"),
                }
            }
        }
        Box::pin(std::future::ready(result))
    }
}

impl Backend {
    fn set_down(&self, is_down: bool) {
        self.0.lock().is_down = is_down;
    }

    /// Returns the ids of the events of a kind without the kind, in the order in which they arrived.
    fn ids(&self, kind: EventKind) -> Vec<String> {
        let suffix = format!(".{kind}");
        self.0.lock().order.iter().filter_map(|id| id.strip_suffix(&suffix)).map(ToOwned::to_owned).collect()
    }

    fn event(&self, id: &str, kind: EventKind) -> Value {
        self.0.lock().events[&format!("{id}.{kind}")].clone()
    }

    async fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("waited in vain for {what}: {:#?}", self.0.lock());
        }
    }

    /// Waits until each connection that has opened has ended, and checks the order.
    async fn wait_for_all_ends(&self, connections: usize) {
        self.wait("all connections", |backend| {
            [EventKind::Connected, EventKind::Disconnected].iter().all(|kind| backend.ids(*kind).len() == connections)
        })
        .await;
        let order = self.0.lock().order.clone();
        let place = |id: String| order.iter().position(|known| *known == id).unwrap();
        for id in self.ids(EventKind::Connected) {
            assert!(place(format!("{id}.connected")) < place(format!("{id}.disconnected")), "{id} is in order");
        }
    }
}

struct Node {
    hub: Arc<Hub>,
    running: JoinHandle<()>,
}

impl Node {
    fn start(store: Arc<dyn EventStore>, backend: &Arc<Backend>) -> Self {
        let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
        let kinds = EventKind::ALL.into_iter().collect();
        let mut options = EventOptions::new(kinds, store, Arc::clone(backend) as Arc<dyn EventSink>);
        options.occupancy = "lobby".parse().unwrap();
        hub.report_events(options);
        let running = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { hub.run().await }
        });
        Self { hub, running }
    }

    async fn connect(&self, user: &str, room: &str) -> ConnectionGuard {
        let connection = self.hub.local().connect(Some(UserId::new(user).unwrap()), Codec::RpcV01);
        self.hub.local().join(connection.shared(), &RoomName::new(room).unwrap()).await.unwrap();
        self.hub.local().report_connected(&connection);
        connection
    }

    fn end(&self, connection: &ConnectionGuard) {
        connection.leave_rooms();
        self.hub.local().report_disconnected(connection, &Ending::new("client", 1000));
    }

    /// Ends the node as if its process had been killed.
    fn kill(self) {
        self.running.abort();
    }
}

async fn redis_store(url: String, secret: &str) -> (RedisBroker, Arc<dyn EventStore>) {
    let mut options = RedisOptions::new(url);
    options.cluster_secrets = vec![secret.to_owned()];
    let broker = RedisBroker::start(options).unwrap();
    tokio::time::timeout(DEADLINE, broker.status().wait_for(|status| *status == BrokerStatus::Up))
        .await
        .unwrap()
        .unwrap();
    let store = Arc::new(broker.events(rules()));
    (broker, store)
}

async fn a_killed_node_is_reported(stores: [Arc<dyn EventStore>; 2]) {
    let backend = Arc::new(Backend::default());
    let [first, second] = stores.map(|store| Node::start(store, &backend));
    let (ann, bob) = (first.connect("ann", "lobby").await, first.connect("bob", "lobby").await);
    backend.wait("both", |backend| backend.ids(EventKind::Joined).len() == 2).await;
    first.kill();
    let returned = second.connect("ann", "lobby").await;
    backend.wait("ends", |backend| backend.ids(EventKind::Disconnected).len() == 2).await;
    let lost = backend.event(&bob.id.to_string(), EventKind::Disconnected);
    assert_eq!((&lost["data"]["cause"], &lost["data"]["user"]), (&"node_lost".into(), &"bob".into()));
    assert_eq!(lost["source"], format!("/nodes/{}", bob.id.node));
    backend.wait("bob leaves", |backend| backend.ids(EventKind::Left).len() == 1).await;
    second.end(&returned);
    backend.wait_for_all_ends(3).await;
    backend.wait("ann leaves", |backend| backend.ids(EventKind::Left).len() == 2).await;
    backend.wait("nobody is there", |backend| backend.ids(EventKind::Vacated).len() == 1).await;
    let count = |kind| backend.ids(kind).len();
    assert_eq!((count(EventKind::Joined), count(EventKind::Occupied)), (2, 1), "ann has returned");
    assert_eq!(backend.ids(EventKind::Left)[1], backend.ids(EventKind::Joined)[0], "ann's events have one base");
    drop((ann, returned));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_reported_by_another_and_who_returns_does_not_leave() {
    let options = ServerOptions { user: Some(("app", "secret")), rights: Some(RIGHTS), ..ServerOptions::default() };
    let (server, cluster) = (RedisServer::start(options).await, RedisCluster::start(3, 0).await);
    for url in [server.url(), cluster.url()] {
        let (_first, first) = redis_store(url.clone(), "secret").await;
        let (_second, second) = redis_store(url, "secret").await;
        a_killed_node_is_reported([first, second]).await;
    }
    let memory: Arc<dyn EventStore> = Arc::new(MemoryEvents::new(rules()));
    a_killed_node_is_reported([Arc::clone(&memory), memory]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_empty_while_the_backend_is_down_costs_no_event() {
    let mut server = RedisServer::start(ServerOptions::default()).await;
    let (_broker, store) = redis_store(server.url(), "secret").await;
    let backend = Arc::new(Backend::default());
    let node = Node::start(Arc::clone(&store), &backend);
    let early = node.connect("early", "lobby").await;
    backend.wait("the first event", |backend| backend.ids(EventKind::Connected).len() == 1).await;
    backend.set_down(true);
    let ended = node.connect("ended", "lobby").await;
    node.end(&ended);
    let open = node.connect("open", "lobby").await;
    backend.wait("an attempt", |backend| backend.0.lock().attempts > 1).await;
    server.restart().await;
    let during = node.connect("during", "lobby").await;
    backend.set_down(false);
    backend.wait("all of them", |backend| backend.ids(EventKind::Connected).len() == 4).await;
    // What the node had open before the restart is known again, so its death is reported.
    node.kill();
    let (_survivor, store) = redis_store(server.url(), "secret").await;
    let _survivor = Node::start(store, &backend);
    backend.wait_for_all_ends(4).await;
    drop((early, open, during));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_delivers_until_it_ends_and_then_another_does() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let (_first, first) = redis_store(server.url(), "secret").await;
    let (_second, second) = redis_store(server.url(), "secret").await;
    let backends = [(); 2].map(|()| Arc::new(Backend::default()));
    let one = Node::start(first, &backends[0]);
    let ann = one.connect("ann", "lobby").await;
    backends[0].wait("it delivers", |backend| backend.ids(EventKind::Connected).len() == 1).await;
    let other = Node::start(second, &backends[1]);
    let bob = other.connect("bob", "lobby").await;
    backends[0].wait("it still delivers", |backend| backend.ids(EventKind::Connected).len() == 2).await;
    one.end(&ann);
    tokio::time::timeout(DEADLINE, one.hub.flush_events()).await.expect("it flushes");
    other.end(&bob);
    backends[1]
        .wait("the other one delivers", |backend| backend.ids(EventKind::Disconnected).contains(&bob.id.to_string()))
        .await;
    let delivered: usize = backends.iter().map(|backend| backend.ids(EventKind::Disconnected).len()).sum();
    assert_eq!(delivered, 2, "both ends are delivered, each once");
}

async fn too_many_events_are_dead_and_can_be_replayed(store: Arc<dyn EventStore>) {
    let backend = Arc::new(Backend::default());
    backend.set_down(true);
    let node = Node::start(Arc::clone(&store), &backend);
    let mut connections = Vec::new();
    for number in 0..4 {
        connections.push(node.connect(&format!("user{number}"), "elsewhere").await);
    }
    let dead = async {
        loop {
            let dead = store.dead(100).await.unwrap();
            if dead.len() == 3 {
                return dead;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let dead: Vec<LifecycleEvent> = tokio::time::timeout(DEADLINE, dead).await.expect("three are dead");
    assert_eq!(dead[0].to_cloud_event().unwrap()["type"], "com.roomcast.room.joined");
    backend.set_down(false);
    backend.wait("five", |backend| backend.0.lock().order.len() == 5).await;
    // An accepted event waits until the deliverer asks for the next ones.
    let mut replayed = 0;
    while replayed < 3 {
        replayed += store.replay().await.unwrap();
    }
    backend.wait("all", |backend| backend.0.lock().order.len() == 8).await;
    assert_eq!(store.dead(100).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beyond_the_maximum_are_dead_until_they_are_replayed() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let broker = RedisBroker::start(RedisOptions::new(server.url())).unwrap();
    broker.status().wait_for(|status| *status == BrokerStatus::Up).await.unwrap();
    let mut rules = rules();
    rules.max_waiting = 5;
    too_many_events_are_dead_and_can_be_replayed(Arc::new(broker.events(rules))).await;
    too_many_events_are_dead_and_can_be_replayed(Arc::new(MemoryEvents::new(rules))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_cluster_has_not_signed_are_not_delivered() {
    let server = RedisServer::start(ServerOptions::default()).await;
    let (_broker, store) = redis_store(server.url(), "other").await;
    let forgotten = Arc::new(Backend::default());
    forgotten.set_down(true);
    let node = Node::start(store, &forgotten);
    let ann = node.connect("ann", "lobby").await;
    forgotten.wait("an attempt", |backend| backend.0.lock().attempts > 0).await;
    node.kill();
    let backend = Arc::new(Backend::default());
    let (_broker, store) = redis_store(server.url(), "secret").await;
    let node = Node::start(store, &backend);
    let bob = node.connect("bob", "lobby").await;
    backend.wait("the event", |backend| !backend.ids(EventKind::Connected).is_empty()).await;
    assert_eq!(backend.ids(EventKind::Connected), [bob.id.to_string()]);
    drop(ann);
}

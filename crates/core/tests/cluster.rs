//! Nodes that send each other requests: what each does with, and reports about, the connections of all.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Client, Spy, event, options, room, user, within};
use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, ConnectionId, HEARTBEAT_INTERVAL, Hub, HubOptions, JoinError,
    MemoryBroker, MemoryBus, NODE_TIMEOUT, NodeId, Position, Publication, Publish, REQUEST_TIMEOUT, RequestError,
    RoomName, RoomsQuery,
};
use roomcast_protocol::{CloseCode, CloseFrame, MAX_PAYLOAD};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

// === requests that fail ===

/// A node's messages to the others are held longer than it waits for responses; then its requests are delivered.
#[tokio::test(start_paused = true)]
async fn what_failed_is_not_done_later_though_it_arrives() {
    let bus = MemoryBus::new();
    let hold = watch::Sender::new(false);
    let [b] = start_nodes(&bus).await;
    let a = Node::start(Arc::new(Holdable::attach(&bus, hold.subscribe())), HubOptions::default());
    wait_until("both are known", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let mut client = Client::connect(&b, Some(user("ann"))).await;
    let (id, lounge) = (client.peer().id, room("lounge"));
    a.cluster().join_connection(id, &lounge).await.expect("as long as the way is open");
    a.cluster().leave_connection(id, &lounge).await.expect("as long as the way is open");

    hold.send_replace(true);
    let is_unavailable = |error: &RequestError| matches!(error, RequestError::Broker(BrokerError::Unavailable { .. }));
    let started = Instant::now();
    let (join, close, notify) = tokio::join!(
        a.cluster().join_connection(id, &lounge),
        a.cluster().close_connection(id, CloseFrame::new(CloseCode::DISCONNECTED, "")),
        a.cluster().notify_connection(id, event("late"), Bytes::new()),
    );
    for failed in [join, close, notify] {
        assert!(is_unavailable(&failed.clone().expect_err("nothing gets through")), "{failed:?}");
    }
    let by_user = a.cluster().notify_user(&user("ann"), event("late"), Bytes::new()).await;
    assert!(is_unavailable(&by_user.expect_err("nothing gets through")));
    assert!(started.elapsed() >= REQUEST_TIMEOUT);
    // A newer request, by another way.
    b.cluster().leave_connection(id, &lounge).await.expect("its own node needs nobody");
    hold.send_replace(false);
    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    assert_eq!(b.local().members(&lounge), vec![]);
    a.cluster().notify_connection(id, event("in-time"), Bytes::new()).await.expect("the way is open again");
    assert_eq!(client.next().await.0, "in-time", "nothing that failed comes before it, and it was not closed");
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_too_large_for_brokers_reaches_none() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    wait_until("both are known", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let mut client = Client::connect(&b, Some(user("ann"))).await;
    let (id, payload) = (client.peer().id, Bytes::from(vec![0; MAX_PAYLOAD + 1]));
    let too_large = |error: &BrokerError| matches!(error, BrokerError::TooLarge { max: MAX_PAYLOAD, .. });

    let published = a.publish_to_user(&user("ann"), event("large"), payload.clone()).await;
    assert_eq!(published, Err(BrokerError::TooLarge { size: MAX_PAYLOAD + 1, max: MAX_PAYLOAD }.into()));
    let notified = a.cluster().notify_connection(id, event("large"), payload.clone()).await;
    assert!(matches!(&notified, Err(RequestError::Broker(error)) if too_large(error)), "{notified:?}");
    let notified = a.cluster().notify_user(&user("ann"), event("large"), payload).await;
    assert!(matches!(&notified, Err(RequestError::Broker(error)) if too_large(error)), "{notified:?}");

    a.publish_to_user(&user("ann"), event("small"), Bytes::new()).await.expect("there is place");
    assert_eq!(client.next().await.0, "small", "the only one");
}

/// A node that has come back, or is new, gets requests from nodes that have no heartbeat of it yet.
#[tokio::test(start_paused = true)]
async fn a_node_that_the_asker_does_not_know_yet_does_what_it_is_asked() {
    let bus = MemoryBus::new();
    let hold = watch::Sender::new(false);
    let [a] = start_nodes(&bus).await;
    // The others get none of its messages, though it gets theirs.
    let b = Node::start(Arc::new(Holdable::attach(&bus, hold.subscribe())), HubOptions::default());
    wait_until("both are known", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    hold.send_replace(true);
    let mut client = Client::connect(&b, Some(user("ann"))).await;
    wait_until("it is forgotten", || a.cluster().nodes().len() == 1).await;
    let reached = a.cluster().notify_user(&user("ann"), event("hello"), Bytes::new()).await;
    assert_eq!(reached, Err(RequestError::NotFound { what: "user" }), "its answer does not come");
    assert_eq!(client.next().await.0, "hello");
}

/// One node's requests are carried out in their order, even if the first one has to wait for something.
#[tokio::test(start_paused = true)]
async fn a_leave_that_is_asked_after_a_join_comes_after_it() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    wait_until("both are known", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let client = Client::connect(&b, None).await;
    let id = client.peer().id;
    let lounge = room("lounge");
    let (join, leave) =
        tokio::join!(a.cluster().join_connection(id, &lounge), a.cluster().leave_connection(id, &lounge));
    assert_eq!((join, leave), (Ok(()), Ok(())));
    assert_eq!(b.local().members(&lounge), vec![]);
}

// === who is there ===

#[tokio::test(start_paused = true)]
async fn a_new_node_knows_all_others_and_they_know_it_before_the_next_heartbeat() {
    let bus = MemoryBus::new();
    let old = start_nodes::<3>(&bus).await;
    tokio::time::sleep(HEARTBEAT_INTERVAL / 2).await;
    let started = Instant::now();
    let [new] = start_nodes(&bus).await;
    let mut ids: Vec<_> = old.iter().chain([&new]).map(|node| node.local().id()).collect();
    ids.sort_unstable();
    for node in old.iter().chain([&new]) {
        wait_until("all are known", || node.cluster().nodes().len() == ids.len()).await;
        assert_eq!(node.cluster().nodes().iter().map(|info| info.node).collect::<Vec<_>>(), ids);
        assert_eq!(node.metrics().nodes.get(), 4);
    }
    assert!(started.elapsed() < HEARTBEAT_INTERVAL / 2, "nobody waited for a heartbeat");
    let client = Client::connect(&new, None).await;
    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    let infos = old[0].cluster().nodes();
    let info = infos.iter().find(|info| info.node == new.local().id()).expect("it is known");
    assert_eq!((info.connections, info.uptime_seconds), (1, HEARTBEAT_INTERVAL.as_secs()));
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_is_gone_at_once() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    let [c] = start_nodes(&bus).await;
    wait_until("all are known", || a.cluster().nodes().len() == 3).await;
    let started = Instant::now();
    b.cluster().leave().await;
    wait_until("it is gone", || a.cluster().nodes().len() == 2).await;
    c.close();
    wait_until("it is gone, too", || a.cluster().nodes().len() == 1).await;
    assert!(started.elapsed() < HEARTBEAT_INTERVAL, "it was told, not missed");
    // One of them still runs, and sends no more heartbeats.
    tokio::time::sleep(2 * HEARTBEAT_INTERVAL).await;
    assert_eq!(a.cluster().nodes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_missing_from_answers_and_then_gone() {
    let bus = MemoryBus::new();
    let [a, b, c] = start_nodes(&bus).await;
    let lobby = room("lobby");
    let _members = [Client::member(&a, &lobby).await, Client::member(&b, &lobby).await];
    let lost = Client::member(&c, &lobby).await;
    c.task.abort();

    let started = Instant::now();
    let members = a.cluster().members(&lobby).await.expect("the others answer");
    assert_eq!((members.count, members.members.len(), &members.unresponsive_nodes), (2, 2, &vec![c.local().id()]));
    assert!(started.elapsed() <= REQUEST_TIMEOUT + Duration::from_millis(1), "it took {:?}", started.elapsed());
    let no_answer = RequestError::NoResponse { nodes: vec![c.local().id()] };
    assert_eq!(
        a.cluster().notify_connection(lost.peer().id, event("hello"), Bytes::new()).await,
        Err(no_answer.clone())
    );
    assert_eq!(a.cluster().notify_user(&user("ann"), event("hello"), Bytes::new()).await, Err(no_answer));

    tokio::time::sleep(NODE_TIMEOUT + HEARTBEAT_INTERVAL).await;
    assert_eq!(a.cluster().nodes().len(), 2);
    let asked = Instant::now();
    let members = a.cluster().members(&lobby).await.expect("all answer");
    assert_eq!((members.count, &members.unresponsive_nodes), (2, &vec![]));
    assert_eq!(a.cluster().notify_connection(lost.peer().id, event("hello"), Bytes::new()).await, no_connection());
    assert!(asked.elapsed() < Duration::from_millis(10), "nobody waited for the dead");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_is_asked_is_not_waited_for() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    b.task.abort();
    let started = Instant::now();
    let lobby = room("lobby");
    let (members, ()) = tokio::join!(biased; a.cluster().members(&lobby), b.cluster().leave());
    assert_eq!(members.expect("nobody is left to ask").unresponsive_nodes, []);
    assert!(started.elapsed() < REQUEST_TIMEOUT);
}

// === requests to all nodes ===

#[tokio::test]
async fn members_are_those_of_all_nodes_and_vanish_at_once() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    let lobby = room("lobby");
    let ann = Client::connect(&a, Some(user("ann"))).await;
    a.local().join(ann.peer(), &lobby).await.expect("there is no reason not to");
    let guest = Client::member(&b, &lobby).await;
    for node in [&a, &b] {
        let members = node.cluster().members(&lobby).await.expect("all answer");
        let mut found: Vec<_> = members.members.iter().map(|m| (m.connection, m.user.clone())).collect();
        found.sort_unstable();
        let mut expected = vec![(ann.peer().id, Some(user("ann"))), (guest.peer().id, None)];
        expected.sort_unstable();
        assert_eq!((members.count, found, &members.unresponsive_nodes), (2, expected, &vec![]));
    }
    b.local().leave(guest.peer(), &lobby);
    assert_eq!(a.cluster().members(&lobby).await.expect("all answer").count, 1);
    drop(ann);
    assert_eq!(b.cluster().members(&lobby).await.expect("all answer").count, 0);
}

#[tokio::test]
async fn rooms_are_listed_exactly_page_by_page() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    // Every third room has members on both nodes.
    let (on_a, on_b) = (Client::connect(&a, Some(user("ann"))).await, Client::connect(&b, None).await);
    let mut expected = Vec::new();
    for number in 0..30 {
        let name = room(&format!("room-{number:02}"));
        if number % 3 != 1 {
            a.local().join(on_a.peer(), &name).await.expect("there is place");
        }
        if number % 3 != 2 {
            b.local().join(on_b.peer(), &name).await.expect("there is place");
        }
        expected.push((name.to_string(), if number % 3 == 0 { 2 } else { 1 }));
    }
    let _other = [Client::member(&a, &room("another")).await, Client::member(&b, &room("sofa")).await];
    for limit in [1, 7, 30, 1000] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let mut query = RoomsQuery::default();
            (query.prefix, query.after, query.limit) = ("room-".to_owned(), after.clone(), limit);
            let page = a.cluster().rooms(query).await.expect("all answer");
            assert!(page.rooms.len() <= limit && page.unresponsive_nodes.is_empty());
            found.extend(page.rooms.into_iter().map(|room| (room.room.to_string(), room.members)));
            let Some(next) = page.next else { break };
            after = next.to_string();
        }
        assert_eq!(found, expected, "in pages of {limit}");
    }
    let all = b.cluster().rooms(RoomsQuery::default()).await.expect("all answer");
    assert_eq!(all.rooms.len(), 32, "neither users' nor nodes' rooms are shown: {:?}", all.rooms);
}

// === requests to one node ===

#[tokio::test]
async fn a_connection_is_reached_joined_and_closed_from_another_node() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    let lobby = room("lobby");
    let mut client = Client::connect(&b, None).await;
    let id = client.peer().id;
    for node in [&a, &b] {
        node.cluster().notify_connection(id, event("hello"), "you\n".into()).await.expect("it is there");
        assert_eq!(client.next().await, ("hello".to_owned(), "you\n".to_owned()));

        node.cluster().join_connection(id, &lobby).await.expect("there is place");
        common::publish(&a, &lobby, "all").await;
        assert_eq!(client.payload().await, "all");
        node.cluster().leave_connection(id, &lobby).await.expect("it is there");
        assert_eq!(b.local().members(&lobby), []);
        node.cluster().leave_connection(id, &lobby).await.expect("to be no member is no error");
    }
    let close = CloseFrame::new(CloseCode::DISCONNECTED, "out");
    a.cluster().close_connection(id, close.clone()).await.expect("it is there");
    assert_eq!(client.connection.outbox.take_command(), Some(roomcast_core::Command::Close(close.clone())));
    assert_eq!(a.cluster().close_connection(id, close.clone()).await, no_connection(), "it is being closed");
    client.connection.leave_rooms();
    assert_eq!(a.cluster().join_connection(id, &lobby).await, no_connection(), "it has ended, but for its last output");
    drop(client);
    for id in [id, ConnectionId { node: NodeId::random(), ..id }] {
        assert_eq!(a.cluster().notify_connection(id, event("hello"), Bytes::new()).await, no_connection());
        assert_eq!(a.cluster().join_connection(id, &lobby).await, no_connection());
        assert_eq!(a.cluster().leave_connection(id, &lobby).await, no_connection());
        assert_eq!(a.cluster().close_connection(id, close.clone()).await, no_connection());
    }
}

#[tokio::test]
async fn a_users_connections_are_reached_on_all_nodes_in_order_and_counted() {
    let bus = MemoryBus::new();
    let [a, b] = start_nodes(&bus).await;
    let ann = user("ann");
    let mut clients = [
        Client::connect(&a, Some(ann.clone())).await,
        Client::connect(&b, Some(ann.clone())).await,
        Client::connect(&b, Some(ann.clone())).await,
    ];
    let mut bob = Client::connect(&b, Some(user("bob"))).await;
    for number in 0..20 {
        let reached =
            a.cluster().notify_user(&ann, event("mail"), number.to_string().into()).await.expect("ann is there");
        assert_eq!((reached.connections, reached.unresponsive_nodes), (3, vec![]));
    }
    for client in &mut clients {
        assert_eq!(client.payloads(20).await, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    let close = CloseFrame::new(CloseCode::DISCONNECTED, "out");
    assert_eq!(b.cluster().close_user(&ann, close.clone()).await.map(|reached| reached.connections), Ok(3));
    assert_eq!(bob.queued(), Vec::<String>::new());
    let nobody = RequestError::NotFound { what: "user" };
    assert_eq!(a.cluster().close_user(&ann, close).await, Err(nobody.clone()));
    assert_eq!(a.cluster().notify_user(&user("eve"), event("mail"), Bytes::new()).await, Err(nobody));
}

#[tokio::test]
async fn a_join_from_another_node_is_answered_when_it_is_effective_or_with_its_error() {
    let bus = MemoryBus::new();
    let [a] = start_nodes(&bus).await;
    let spy = Spy::new(bus.attach());
    let options = options(|options| options.max_rooms = 1);
    let b = Node::start(Arc::clone(&spy) as _, options);
    wait_until("they know each other", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let client = Client::connect(&b, None).await;
    let id = client.peer().id;

    spy.hold();
    let joining = tokio::spawn({
        let a = Arc::clone(&a.hub);
        async move { a.cluster().join_connection(id, &room("lobby")).await }
    });
    wait_until("the node has asked its broker", || b.local().members(&room("lobby")).len() == 1).await;
    // Meanwhile that node answers others.
    assert_eq!(a.cluster().members(&room("lobby")).await.expect("it answers").count, 1);
    assert!(!joining.is_finished(), "it is not effective yet");
    assert_eq!(spy.answer(&Ok(())), 1);
    assert_eq!(within("the join", joining).await.expect("no panic"), Ok(()));
    let full = RequestError::Join(JoinError::TooManyRooms { max: 1 });
    assert_eq!(a.cluster().join_connection(id, &room("hall")).await, Err(full));
}

#[tokio::test]
async fn a_join_from_another_node_fails_if_the_connection_s_node_is_full() {
    let bus = MemoryBus::new();
    let [a] = start_nodes(&bus).await;
    let b = Node::start(Arc::new(bus.attach()), options(|options| options.max_node_rooms = 1));
    wait_until("they know each other", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let client = Client::connect(&b, None).await;
    let id = client.peer().id;
    assert_eq!(a.cluster().join_connection(id, &room("lobby")).await, Ok(()));
    let full = RequestError::Join(JoinError::NodeFull { max: 1 });
    assert_eq!(a.cluster().join_connection(id, &room("hall")).await, Err(full));
}

// === without a broker ===

#[tokio::test(start_paused = true)]
async fn without_a_broker_only_what_needs_other_nodes_fails_and_at_once_and_nobody_is_forgotten() {
    let bus = MemoryBus::new();
    let up = watch::channel(BrokerStatus::Up).0;
    let [a, b] = [(); 2].map(|()| {
        let broker = Cuttable { inner: bus.attach(), status: up.subscribe() };
        Node::start(Arc::new(broker), HubOptions::default())
    });
    wait_until("they know each other", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    let (mut own, other) = (Client::connect(&a, None).await, Client::connect(&b, None).await);
    up.send_replace(BrokerStatus::Down);
    tokio::time::sleep(10 * NODE_TIMEOUT).await;

    let started = Instant::now();
    a.cluster().notify_connection(own.peer().id, event("hello"), "you".into()).await.expect("its own is reached");
    assert_eq!(own.payload().await, "you");
    a.cluster().leave_connection(own.peer().id, &room("lobby")).await.expect("its own is reached");
    let is_unavailable = |error: &RequestError| matches!(error, RequestError::Broker(BrokerError::Unavailable { .. }));
    let unknown = ConnectionId { node: NodeId::random(), serial: 1 };
    for id in [other.peer().id, unknown] {
        assert!(
            a.cluster().notify_connection(id, event("hello"), Bytes::new()).await.is_err_and(|e| is_unavailable(&e))
        );
    }
    assert!(a.cluster().members(&room("lobby")).await.is_err_and(|error| is_unavailable(&error)));
    assert!(
        a.cluster().notify_user(&user("ann"), event("hello"), Bytes::new()).await.is_err_and(|e| is_unavailable(&e))
    );
    assert_eq!(started.elapsed(), Duration::ZERO, "nothing waited");
    assert_eq!(a.cluster().nodes().len(), 2, "nobody could be heard");

    b.task.abort();
    up.send_replace(BrokerStatus::Up);
    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
    assert_eq!(a.cluster().nodes().len(), 2, "its silence counts from now on");
    wait_until("it has been silent for long enough", || a.cluster().nodes().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_broker_comes_up_late_is_known_from_then_on() {
    let bus = MemoryBus::new();
    let [a] = start_nodes(&bus).await;
    let up = watch::channel(BrokerStatus::Down).0;
    let broker = Cuttable { inner: bus.attach(), status: up.subscribe() };
    let b = Node::start(Arc::new(broker), HubOptions::default());
    tokio::time::sleep(HEARTBEAT_INTERVAL / 2).await;
    assert_eq!((a.cluster().nodes().len(), b.cluster().nodes().len()), (1, 1));
    let started = Instant::now();
    up.send_replace(BrokerStatus::Up);
    wait_until("they know each other", || a.cluster().nodes().len() == 2 && b.cluster().nodes().len() == 2).await;
    assert!(started.elapsed() < HEARTBEAT_INTERVAL / 2, "it did not wait for its next heartbeat");
}

// === what they use ===

/// A hub that runs, and can be stopped as by a power cut.
struct Node {
    hub: Arc<Hub>,
    task: JoinHandle<()>,
}

impl std::ops::Deref for Node {
    type Target = Arc<Hub>;
    fn deref(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Node {
    fn start(broker: Arc<dyn Broker>, options: HubOptions) -> Self {
        let hub = Hub::new(broker, options);
        let running = Arc::clone(&hub);
        Self { hub, task: tokio::spawn(async move { running.run().await }) }
    }
}

/// Nodes on a bus that know one another.
async fn start_nodes<const N: usize>(bus: &MemoryBus) -> [Node; N] {
    let nodes: [Node; N] = std::array::from_fn(|_| Node::start(Arc::new(bus.attach()), HubOptions::default()));
    for node in &nodes {
        wait_until("they know one another", || node.cluster().nodes().len() >= N).await;
    }
    nodes
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(4 * NODE_TIMEOUT, holds).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

fn no_connection() -> Result<(), RequestError> {
    Err(RequestError::NotFound { what: "connection" })
}

/// A memory broker whose publishes wait while it is held, and then reach the others in their order.
#[derive(Debug)]
struct Holdable {
    inner: Arc<MemoryBroker>,
    held: watch::Receiver<bool>,
    queue: tokio::sync::mpsc::UnboundedSender<Publish>,
}

impl Holdable {
    fn attach(bus: &MemoryBus, held: watch::Receiver<bool>) -> Self {
        let inner = Arc::new(bus.attach());
        let (queue, mut waiting) = tokio::sync::mpsc::unbounded_channel();
        let (broker, mut gate) = (Arc::clone(&inner), held.clone());
        tokio::spawn(async move {
            while let Some(publish) = waiting.recv().await {
                gate.wait_for(|held| !held).await.expect("the test goes on");
                broker.publish(publish).await.expect("there is place");
            }
        });
        Self { inner, held, queue }
    }
}

impl Broker for Holdable {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.queue.send(publish).expect("the task runs");
        let mut held = self.held.clone();
        Box::pin(async move {
            held.wait_for(|held| !held).await.expect("the test goes on");
            Ok(Position::NONE)
        })
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        self.inner.next_publications(publications)
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.inner.status()
    }

    fn close(&self) {
        self.inner.close();
    }
}

/// A memory broker that a test can set to down.
#[derive(Debug)]
struct Cuttable {
    inner: MemoryBroker,
    status: watch::Receiver<BrokerStatus>,
}

impl Broker for Cuttable {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        match *self.status.borrow() {
            BrokerStatus::Up => self.inner.publish(publish),
            BrokerStatus::Down => Box::pin(async { Err(BrokerError::Unavailable { reason: "it was cut".to_owned() }) }),
        }
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        self.inner.next_publications(publications)
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.status.clone()
    }

    fn close(&self) {
        self.inner.close();
    }
}

//! Rooms over two nodes of one process: who gets what, in which order, and what is left afterwards.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Spy, event, options, publish, room, start_hub, start_hubs, user, within};
use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;
use roomcast_core::{
    BoxFuture, Broker, BrokerError, BrokerStatus, Codec, Command, FRAME_OVERHEAD, Hub, HubOptions, JoinError,
    MemoryBroker, MemoryBus, NodeId, Position, Publication, Publish, PublishError, RoomName,
};
use roomcast_protocol::CloseCode;
use tokio::sync::watch;

const EVENTS: usize = 300;

// === delivery ===

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_of_all_nodes_reach_exactly_the_members_each_once_in_one_order() {
    let [a, b] = start_hubs(HubOptions::default());
    let lobby = room("lobby");
    let mut members =
        [Client::member(&a, &lobby).await, Client::member(&a, &lobby).await, Client::member(&b, &lobby).await];
    let mut others = [Client::member(&a, &room("other")).await, Client::connect(&b, None).await];
    let publishers = [(&a, "a"), (&a, "a2"), (&b, "b")].map(|(hub, name)| {
        let (hub, lobby) = (Arc::clone(hub), lobby.clone());
        tokio::spawn(async move {
            for number in 0..EVENTS {
                publish(&hub, &lobby, format!("{name} {number}")).await;
            }
        })
    });
    let mut orders = Vec::new();
    for member in &mut members {
        orders.push(member.payloads(3 * EVENTS).await);
    }
    for publisher in publishers {
        publisher.await.expect("a publisher does not panic");
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "the members saw different orders");
    for publisher in ["a ", "a2 ", "b "] {
        let numbers = orders[0].iter().filter_map(|event| event.strip_prefix(publisher));
        assert!(numbers.eq((0..EVENTS).map(|n| n.to_string())), "{publisher}'s events are not in its order, each once");
    }
    // Had more come to anybody, it would come before this.
    join(&a, &others[0], &lobby).await;
    join(&b, &others[1], &lobby).await;
    publish(&b, &lobby, "marker").await;
    for client in members.iter_mut().chain(&mut others) {
        assert_eq!(client.next().await, ("event".to_owned(), "marker".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_published_after_a_join_was_answered_arrives() {
    let [a, b] = start_hubs(HubOptions::default());
    for number in 0..200 {
        let lobby = room(&format!("lobby-{number}"));
        let mut client = Client::member(&a, &lobby).await;
        publish(&b, &lobby, "at once").await;
        assert_eq!(client.payload().await, "at once");
    }
}

#[test]
fn when_leave_returns_nothing_is_queued_any_more() {
    let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
    let lobby = room("lobby");
    let member = || {
        let client = Client::of(hub.local().connect(None, Codec::default()));
        assert_eq!(hub.local().join(client.peer(), &lobby).now_or_never(), Some(Ok(())));
        client
    };
    // Fan-out stops at those before and behind the leaver, until it has left.
    let (before, mut leaver, behind) = (member(), member(), member());
    let (in_fan_out, fan_out) = mpsc::channel();
    let (leave, left) = mpsc::channel();
    let stop = Waker::from(Arc::new(Stop { in_fan_out, left: Mutex::new(left) }));
    for client in [&before, &behind] {
        client.connection.outbox.take_or_sleep(&mut VecDeque::new(), &Context::from_waker(&stop));
    }
    hub.publish(lobby.clone(), event("event"), "late".into())
        .now_or_never()
        .expect("an outcome")
        .expect("there is place");
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let clock = common::clock();
            let _entered = clock.enter();
            hub.run().now_or_never()
        });
        fan_out.recv_timeout(Duration::from_secs(10)).expect("fan-out begins");
        hub.local().leave(leaver.peer(), &lobby);
        leaver.queued();
        leave.send(()).expect("those who stop it are there");
        assert_eq!(running.join().expect("the hub does not panic"), None);
    });
    assert_eq!(leaver.queued(), <[String; 0]>::default());
}

/// A driver's task that stops whoever wakes it.
struct Stop {
    in_fan_out: mpsc::Sender<()>,
    left: Mutex<mpsc::Receiver<()>>,
}

impl Wake for Stop {
    fn wake(self: Arc<Self>) {
        // The test waits for the first only.
        let _ = self.in_fan_out.send(());
        // Where leave waits for fan-out, this waits in vain.
        let _ = self.left.lock().recv_timeout(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_user_is_reached_on_all_nodes_and_nobody_else() {
    let [a, b] = start_hubs(HubOptions::default());
    let mut ann = [
        Client::connect(&a, Some(user("ann"))).await,
        Client::connect(&b, Some(user("ann"))).await,
        Client::connect(&b, Some(user("ann"))).await,
    ];
    let mut bob = Client::connect(&a, Some(user("bob"))).await;
    let mut namesake = Client::member(&a, &room("ann")).await;
    for hub in [&a, &b] {
        hub.publish_to_user(&user("ann"), event("hello"), "from".into()).await.expect("the broker takes it");
    }
    for client in &mut ann {
        for _ in [&a, &b] {
            assert_eq!(client.next().await, ("hello".to_owned(), "from".to_owned()));
        }
    }
    b.publish_to_user(&user("bob"), event("hello"), "for bob".into()).await.expect("the broker takes it");
    publish(&b, &room("ann"), "for the room").await;
    assert_eq!((bob.payload().await, namesake.payload().await), ("for bob".to_owned(), "for the room".to_owned()));
}

#[tokio::test]
async fn a_full_outbox_closes_that_connection_alone() {
    const PUBLISHED: usize = 20;
    // WebSocket header 2, opcode 1, length of the name 1, name 5, payload 100.
    const WITHIN_THE_BOUND: usize = 2000 / (109 + FRAME_OVERHEAD);
    let [a, b] = start_hubs(options(|options| options.max_outbound = 2000));
    let lobby = room("lobby");
    let mut slow = Client::member(&a, &lobby).await;
    let mut quick = [Client::member(&a, &lobby).await, Client::member(&b, &lobby).await];
    for number in 0..PUBLISHED {
        let payload = format!("{number:0100}");
        publish(&b, &lobby, payload.clone()).await;
        for client in &mut quick {
            assert_eq!(client.payload().await, payload);
        }
    }
    let Some(Command::Close(close)) = slow.connection.outbox.take_command() else { panic!("it is told to close") };
    assert_eq!(close.code, CloseCode::SLOW_CONSUMER);
    for client in &quick {
        assert!(!client.connection.outbox.is_closed());
    }
    assert_eq!(slow.queued().len(), WITHIN_THE_BOUND);
    assert_eq!(a.metrics().deliveries.get() as usize, PUBLISHED + WITHIN_THE_BOUND);
}

/// What watches the memory and keeps in touch with other nodes runs in the same task.
#[tokio::test]
async fn a_broker_that_always_has_events_leaves_time_for_the_rest_of_the_hub() {
    const TURNS: usize = 10_000;
    let broker = Arc::new(Flood { inner: MemoryBroker::single(), turns_left: AtomicUsize::new(TURNS) });
    let hub = Hub::new(Arc::clone(&broker) as _, HubOptions::default());
    assert_eq!(hub.run().now_or_never(), None);
    assert!(broker.turns_left.load(Ordering::Relaxed) > 0, "it took all events before it let anything else run");
}

#[tokio::test]
async fn events_that_waited_come_together_in_pieces_of_at_most_64_kib() {
    let hub = Hub::new(Arc::new(MemoryBroker::single()), HubOptions::default());
    let (lobby, other) = (room("lobby"), room("other"));
    let mut client = Client::member(&hub, &lobby).await;
    let mut bystander = Client::member(&hub, &other).await;
    for (number, kib) in [30, 30, 30, 30, 1, 100, 1].into_iter().enumerate() {
        publish(&hub, &lobby, format!("{number} {}", "-".repeat(kib * 1024))).await;
        publish(&hub, &other, number.to_string()).await;
    }
    hub.close();
    within("the hub's end", hub.run()).await;
    let first_words = |piece: Vec<String>| -> Vec<char> { piece.iter().filter_map(|p| p.chars().next()).collect() };
    let pieces: Vec<_> = client.pieces().into_iter().map(first_words).collect();
    assert_eq!(pieces, [vec!['0', '1'], vec!['2', '3', '4'], vec!['5'], vec!['6']]);
    assert_eq!(bystander.pieces().len(), 1);
}

// === membership ===

#[tokio::test]
async fn the_end_of_a_connection_takes_it_out_of_its_rooms() {
    let spy = Spy::new(MemoryBroker::single());
    let hub = start_hub(Arc::clone(&spy) as _, HubOptions::default());
    let client = Client::connect(&hub, Some(user("ann"))).await;
    let stays = Client::member(&hub, &room("shared")).await;
    for name in ["shared", "alone"] {
        join(&hub, &client, &room(name)).await;
    }
    assert_eq!(spy.subscribed(), ["alone", "shared", "user/ann"]);
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (3, 4));
    let id = client.connection.id;
    publish(&hub, &room("alone"), "never read").await;
    drop(client);
    assert_eq!(spy.subscribed(), ["shared"]);
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (1, 1));
    assert_eq!(hub.local().members(&room("shared")).len(), 1);
    assert!(hub.local().connection(id).is_none());
    drop(stays);
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (0, 0));
    assert_eq!((spy.subscribed(), hub.local().connection_count()), (vec![], 0));
    assert_eq!(hub.metrics().outbound_memory.get(), 0);
}

#[tokio::test]
async fn a_user_is_reached_when_the_broker_is_back_and_nobody_waits_for_it() {
    let (spy, hub) = slow_broker();
    spy.status.send_replace(BrokerStatus::Down);
    let mut client = Client::of(hub.local().connect(Some(user("ann")), Codec::default()));
    assert_eq!(hub.local().join_user(client.peer()).now_or_never(), Some(Ok(())));
    spy.answer(&Err(BrokerError::Unavailable { reason: "it is away".to_owned() }));
    spy.status.send_replace(BrokerStatus::Up);
    let reached = async {
        while client.queued().is_empty() {
            spy.answer(&Ok(()));
            let _ = hub.publish_to_user(&user("ann"), event("event"), "x".into()).await;
            tokio::task::yield_now().await;
        }
    };
    within("an event of the user", reached).await;
}

#[tokio::test]
async fn a_connection_that_has_ended_joins_nothing() {
    let spy = Spy::new(MemoryBroker::single());
    let hub = start_hub(Arc::clone(&spy) as _, HubOptions::default());
    let client = Client::connect(&hub, None).await;
    let peer = Arc::clone(client.peer());
    drop(client);
    assert_eq!(hub.local().join(&peer, &room("lobby")).await, Err(JoinError::Closed));
    assert_eq!((hub.local().members(&room("lobby")), spy.subscribed()), (vec![], vec![]));
    assert_eq!(hub.metrics().memberships.get(), 0);
}

#[tokio::test]
async fn a_connection_is_in_as_many_rooms_as_it_may_be_and_no_more() {
    let hub = start_hub(Arc::new(MemoryBroker::single()), options(|options| options.max_rooms = 2));
    let client = Client::connect(&hub, None).await;
    join(&hub, &client, &room("one")).await;
    join(&hub, &client, &room("two")).await;
    // Joining again is no further room.
    join(&hub, &client, &room("two")).await;
    assert_eq!(hub.local().join(client.peer(), &room("three")).await, Err(JoinError::TooManyRooms { max: 2 }));
    assert_eq!(hub.local().members(&room("three")), []);
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (2, 2));
    hub.local().leave(client.peer(), &room("one"));
    hub.local().leave(client.peer(), &room("one"));
    join(&hub, &client, &room("three")).await;
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (2, 2));
}

// === a broker that takes its time ===

#[tokio::test]
async fn a_join_is_answered_when_the_subscription_is_and_not_before() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let (first, second) = (Client::connect(&hub, None).await, Client::connect(&hub, None).await);
    let mut first_joins = Box::pin(hub.local().join(first.peer(), &lobby));
    let mut second_joins = Box::pin(hub.local().join(second.peer(), &lobby));
    assert_eq!(first_joins.as_mut().now_or_never(), None);
    // It finds a member there, but the room's events do not come yet.
    assert_eq!(second_joins.as_mut().now_or_never(), None, "the second member was answered too early");
    spy.answer(&Ok(()));
    assert_eq!(within("both answers", async { (first_joins.await, second_joins.await) }).await, (Ok(()), Ok(())));
    assert_eq!(hub.local().members(&lobby).len(), 2);
}

#[tokio::test]
async fn a_join_whose_subscription_fails_leaves_nothing_behind() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let client = Client::connect(&hub, None).await;
    let mut joins = Box::pin(hub.local().join(client.peer(), &lobby));
    assert_eq!(joins.as_mut().now_or_never(), None);
    assert_eq!(spy.answer(&Err(BrokerError::Closed)), 1);
    assert_eq!(within("the answer", joins).await, Err(JoinError::Broker(BrokerError::Closed)));
    assert_eq!((hub.local().members(&lobby), spy.subscribed()), (vec![], vec![]));
    assert_eq!((hub.metrics().rooms.get(), hub.metrics().memberships.get()), (0, 0));
}

#[tokio::test]
async fn who_joins_while_others_fail_waits_for_a_subscription_of_its_own() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let [first, second, third] = [(); 3].map(|()| Client::connect(&hub, None));
    let (first, second, third) = (first.await, second.await, third.await);
    let mut first_joins = Box::pin(hub.local().join(first.peer(), &lobby));
    let mut second_joins = Box::pin(hub.local().join(second.peer(), &lobby));
    assert_eq!((first_joins.as_mut().now_or_never(), second_joins.as_mut().now_or_never()), (None, None));
    assert_eq!(spy.answer(&Err(BrokerError::Closed)), 1);
    assert!(within("the first's answer", first_joins).await.is_err());
    // The second has not seen its failure yet, so the room is not empty.
    let mut third_joins = Box::pin(hub.local().join(third.peer(), &lobby));
    assert_eq!(third_joins.as_mut().now_or_never(), None, "nobody has confirmed a subscription");
    assert!(within("the second's answer", second_joins).await.is_err());
    assert_eq!(spy.answer(&Ok(())), 1);
    assert_eq!(within("the third's answer", third_joins).await, Ok(()));
    assert_eq!(hub.local().members(&lobby).len(), 1);
}

#[tokio::test]
async fn nobody_is_left_a_member_of_a_room_whose_subscription_failed() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let (first, second) = (Client::connect(&hub, None).await, Client::connect(&hub, None).await);
    let mut first_joins = Box::pin(hub.local().join(first.peer(), &lobby));
    let mut second_joins = Box::pin(hub.local().join(second.peer(), &lobby));
    assert_eq!(first_joins.as_mut().now_or_never(), None);
    let mut second_answer = second_joins.as_mut().now_or_never();
    spy.answer(&Err(BrokerError::Closed));
    assert_eq!(within("the answer", first_joins).await, Err(JoinError::Broker(BrokerError::Closed)));
    // The second one may have tried for itself.
    while second_answer.is_none() {
        spy.answer(&Err(BrokerError::Closed));
        second_answer = second_joins.as_mut().now_or_never();
    }
    assert_eq!(second_answer, Some(Err(JoinError::Broker(BrokerError::Closed))));
    assert_eq!((hub.local().members(&lobby), spy.subscribed()), (vec![], vec![]));
}

#[tokio::test]
async fn a_join_that_is_given_up_half_way_is_ended_by_leave() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let client = Client::connect(&hub, None).await;
    assert_eq!(hub.local().join(client.peer(), &lobby).now_or_never(), None);
    assert_eq!((hub.local().members(&lobby).len(), spy.subscribed()), (1, vec!["lobby".to_owned()]));
    hub.local().leave(client.peer(), &lobby);
    assert_eq!((hub.local().members(&lobby), spy.subscribed()), (vec![], vec![]));
}

#[tokio::test]
async fn a_join_that_fails_after_a_leave_does_not_end_a_later_membership() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let mut client = Client::connect(&hub, None).await;
    let mut old_join = Box::pin(hub.local().join(client.peer(), &lobby));
    assert_eq!(old_join.as_mut().now_or_never(), None);
    hub.local().leave(client.peer(), &lobby);
    let old_subscription = spy.take_held();
    let mut new_join = Box::pin(hub.local().join(client.peer(), &lobby));
    assert_eq!(new_join.as_mut().now_or_never(), None);
    drop(old_subscription);
    assert!(within("the old join's answer", old_join).await.is_err());
    assert_eq!(spy.answer(&Ok(())), 1);
    assert_eq!(within("the new join's answer", new_join).await, Ok(()));
    assert_eq!((hub.local().members(&lobby).len(), spy.subscribed()), (1, vec!["lobby".to_owned()]));
    publish(&hub, &lobby, "arrives").await;
    assert_eq!(client.payload().await, "arrives");
}

#[tokio::test]
async fn of_two_joins_that_wait_for_one_membership_the_newer_decides() {
    let (spy, hub) = slow_broker();
    let lobby = room("lobby");
    let client = Client::connect(&hub, None).await;
    let mut older = Box::pin(hub.local().join(client.peer(), &lobby));
    assert_eq!(older.as_mut().now_or_never(), None);
    assert_eq!(spy.answer(&Err(BrokerError::Closed)), 1);
    let mut newer = Box::pin(hub.local().join(client.peer(), &lobby));
    assert_eq!(newer.as_mut().now_or_never(), None, "it waits for a subscription that has not failed");
    assert!(within("the older join's answer", older).await.is_err());
    assert_eq!(spy.answer(&Ok(())), 1);
    assert_eq!(within("the newer join's answer", newer).await, Ok(()));
    assert_eq!(hub.local().members(&lobby).len(), 1);
}

#[tokio::test]
async fn a_failed_join_does_not_end_a_membership_that_outlasts_failures() {
    let (spy, hub) = slow_broker();
    spy.status.send_replace(BrokerStatus::Down);
    let lobby = room("lobby");
    let client = Client::connect(&hub, None).await;
    let joins = || Box::pin(hub.local().join(client.peer(), &lobby));
    // Before and after: whichever comes first, the membership outlasts the failure.
    let mut before = joins();
    assert_eq!(before.as_mut().now_or_never(), None);
    assert_eq!(within("an answer", hub.local().join_eventually(client.peer(), &lobby)).await, Ok(()));
    let mut after = joins();
    assert_eq!(after.as_mut().now_or_never(), None);
    assert_eq!(spy.answer(&Err(BrokerError::Closed)), 1);
    assert!(within("both answers", async { before.await.is_err() && after.await.is_err() }).await);
    assert_eq!(hub.local().members(&lobby).len(), 1);
    // The broker is back: a join waits for a new subscription instead of the one that failed.
    let mut joins_again = joins();
    assert_eq!(joins_again.as_mut().now_or_never(), None);
    assert_eq!(spy.answer(&Ok(())), 1);
    assert_eq!(within("the answer", joins_again).await, Ok(()));
}

// === what is counted, and the end ===

#[tokio::test]
async fn publishes_and_deliveries_are_counted_exactly() {
    let [a, b] = start_hubs(HubOptions::default());
    let lobby = room("lobby");
    let mut members =
        [Client::member(&a, &lobby).await, Client::member(&a, &lobby).await, Client::member(&b, &lobby).await];
    for number in 0..5 {
        publish(&a, &lobby, number.to_string()).await;
    }
    publish(&b, &room("nobody"), "is there").await;
    publish(&b, &lobby, "last").await;
    for member in &mut members {
        assert_eq!(member.payloads(6).await, ["0", "1", "2", "3", "4", "last"]);
    }
    let counts = |hub: &Hub| {
        let outcome = |outcome| hub.metrics().publishes.with_label_values(&[outcome]).get();
        (outcome("ok"), outcome("UNAVAILABLE"), hub.metrics().deliveries.get())
    };
    assert_eq!((counts(&a), counts(&b)), ((5, 0, 12), (2, 0, 6)));
    a.close();
    let refused = a.publish(lobby, event("event"), "refused".into()).await;
    assert_eq!(refused, Err(PublishError::Broker(BrokerError::Closed)));
    assert_eq!((counts(&a), counts(&b)), ((5, 1, 12), (2, 0, 6)));
    assert_eq!(a.metrics().broker_publish_duration.get_sample_count(), 6);
    assert_eq!((a.metrics().broker_up.get(), b.metrics().broker_up.get()), (0, 1));
}

#[tokio::test]
async fn a_closed_hub_delivers_what_was_accepted_and_ends() {
    let bus = MemoryBus::new();
    let hub = Hub::new(Arc::new(bus.attach()), HubOptions::default());
    let lobby = room("lobby");
    let mut client = Client::member(&hub, &lobby).await;
    for payload in ["one", "two"] {
        publish(&hub, &lobby, payload).await;
    }
    hub.close();
    within("the hub's end", hub.run()).await;
    assert_eq!(client.queued(), ["one", "two"]);
}

// === what they use ===

async fn join(hub: &Hub, client: &Client, room: &RoomName) {
    within("an answer to a join", hub.local().join(client.peer(), room)).await.expect("there is no reason not to");
}

/// A hub whose subscriptions wait for the test's answer.
fn slow_broker() -> (Arc<Spy>, Arc<Hub>) {
    let spy = Spy::new(MemoryBroker::single());
    spy.hold();
    let hub = start_hub(Arc::clone(&spy) as _, HubOptions::default());
    (spy, hub)
}

/// A broker whose next event is always there, for so many turns.
#[derive(Debug)]
struct Flood {
    inner: MemoryBroker,
    turns_left: AtomicUsize,
}

impl Broker for Flood {
    fn publish(&self, publish: Publish) -> BoxFuture<'static, Result<Position, BrokerError>> {
        self.inner.publish(publish)
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.inner.unsubscribe(room);
    }

    fn next_publications<'a>(&'a self, publications: &'a mut Vec<Publication>) -> BoxFuture<'a, bool> {
        if self.turns_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            return self.inner.next_publications(publications);
        }
        let published_at = Instant::now();
        let origin = NodeId::from_u64(1);
        let publish = Publish {
            origin,
            room: room("lobby"),
            event: event("event"),
            payload: "x".into(),
            published_at,
            trace: None,
        };
        publications.push(publish.accepted(Position { epoch: 1, offset: 1 }));
        Box::pin(ready(true))
    }

    fn status(&self) -> watch::Receiver<BrokerStatus> {
        self.inner.status()
    }

    fn close(&self) {
        self.inner.close();
    }
}

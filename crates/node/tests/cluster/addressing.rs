//! Connections and rooms are reached from whatever node is asked.

use std::time::Duration;

use roomcast_testkit::{RedisCluster, RedisOptions, RedisServer};

use crate::gathering::{Gathering, Guest, Host, encode, figures};
use crate::support::in_time;
use crate::turn;

/// Something done.
const DONE: (u16, &str) = (204, "");
const PUBLISHED: (u16, &str) = (200, "");
const NOT_FOUND: (u16, &str) = (404, "NOT_FOUND");
const INVALID: (u16, &str) = (400, "INVALID_ARGUMENT");

/// All that can be asked about one connection.
fn requests_about(id: &str) -> [(&'static str, String); 4] {
    [
        ("POST", format!("/v1/connections/{id}/events/said")),
        ("PUT", format!("/v1/rooms/hall/members/{id}")),
        ("DELETE", format!("/v1/rooms/hall/members/{id}")),
        ("DELETE", format!("/v1/connections/{id}")),
    ]
}

/// Every node notifies every guest, and nobody else gets it, or gets it twice.
async fn notify_each_from_each(gathering: &mut Gathering) {
    let (hosts, guests) = (&gathering.hosts, &mut gathering.guests);
    for round in ["direct", "last"] {
        for (number, host) in hosts.iter().enumerate() {
            for (place, guest) in guests.iter().enumerate() {
                let path = format!("/v1/connections/{}/events/{round}", guest.id);
                let reply = host.ask("POST", &path, format!("{number} to {place}").as_bytes()).await;
                assert_eq!(reply.outcome(), DONE, "{reply:?}");
            }
        }
    }
    // What one got too much would come before the last.
    for (place, guest) in guests.iter_mut().enumerate() {
        for round in ["direct", "last"] {
            for number in 0..hosts.len() {
                assert_eq!(guest.event().await, (round.to_owned(), format!("{number} to {place}")));
            }
        }
    }
}

/// Every node publishes to a room; its members get it once, others don't.
async fn publish_from_each(gathering: &mut Gathering, room: &str) {
    let (hosts, guests) = (&gathering.hosts, &mut gathering.guests);
    for (number, host) in hosts.iter().enumerate() {
        let path = format!("/v1/rooms/{}/events/spoken", encode(room));
        let reply = host.ask("POST", &path, number.to_string().as_bytes()).await;
        assert_eq!(reply.outcome(), PUBLISHED, "{reply:?}");
    }
    let mut members = 0;
    for guest in guests.iter_mut().filter(|guest| guest.rooms.contains(room)) {
        for number in 0..hosts.len() {
            assert_eq!(guest.event().await, ("spoken".to_owned(), number.to_string()));
        }
        members += 1;
    }
    assert!(members > 0, "somebody is in {room}");
    for guest in guests {
        notify(&hosts[0], guest, "marker").await;
        assert_eq!(guest.event().await, ("said".to_owned(), "marker".to_owned()));
    }
}

async fn notify(host: &Host, guest: &Guest, payload: &str) {
    let reply = host.ask("POST", &format!("/v1/connections/{}/events/said", guest.id), payload.as_bytes()).await;
    assert_eq!(reply.outcome(), DONE, "{reply:?}");
}

/// Every node disconnects a guest of the next with a code and a reason; it is gone when asked again.
async fn disconnect_from_each(gathering: &mut Gathering) {
    for host in 0..gathering.hosts.len() {
        let owner = (host + 1) % gathering.hosts.len();
        let mut guest = gathering.take_guest_of(owner);
        let (query, expected) = match host {
            0 => ("", (4409, "disconnected by an operator")),
            1 => ("?code=4001&reason=see%20you", (4001, "see you")),
            _ => ("?code=1000&reason=caf%C3%A9", (1000, "café")),
        };
        let path = format!("/v1/connections/{}", guest.id);
        let reply = gathering.hosts[host].ask("DELETE", &format!("{path}{query}"), b"").await;
        assert_eq!(reply.outcome(), DONE, "{reply:?}");
        for host in &gathering.hosts {
            let again = host.ask("DELETE", &path, b"").await;
            assert_eq!(again.outcome(), NOT_FOUND, "it is being closed already: {again:?}");
        }
        let (code, reason) = in_time("it is closed", guest.client.closed()).await.expect("in order");
        assert_eq!((code, reason.as_str()), expected);
    }
    gathering.settled("connections were closed by the API").await;
}

/// The whole of it, shortly: for a cluster that has been through something.
pub(crate) async fn works(gathering: &mut Gathering) {
    notify_each_from_each(gathering).await;
    publish_from_each(gathering, "all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_notifies_and_disconnects_every_connection() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 3).await;
    notify_each_from_each(&mut gathering).await;
    for room in ["all", "café", "node-1"] {
        publish_from_each(&mut gathering, room).await;
    }
    disconnect_from_each(&mut gathering).await;
    works(&mut gathering).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_over_redis_cluster_is_one_as_well() {
    let _turn = turn().await;
    let redis = RedisCluster::start(3, 0).await;
    let mut gathering = Gathering::start(&redis.url(), 3).await;
    works(&mut gathering).await;
    change_memberships(&mut gathering, 10).await;
    disconnect_from_each(&mut gathering).await;
    gathering.guest_of(0).leave("all").await;
    gathering.settled("somebody has left").await;
    works(&mut gathering).await;
}

/// Changes memberships by a node that does not own the connection, and publishes by a third: they count from
/// the moment at which the change is answered.
async fn change_memberships(gathering: &mut Gathering, rounds: usize) {
    for round in 0..rounds {
        // The owner, the node that is asked, and the one that publishes, in all orders.
        let (owner, step) = (round % 3, 1 + round / 3 % 2);
        let (asked, third) = ((owner + step) % 3, (owner + 2 * step) % 3);
        let (mut guest, mut witness) = (gathering.take_guest_of(owner), gathering.take_guest_of(owner));
        let [asked, third] = [asked, third].map(|host| &gathering.hosts[host]);
        change_membership(&format!("hall-{round}"), &mut guest, &mut witness, asked, third).await;
        gathering.guests.extend([guest, witness]);
    }
    assert_eq!(gathering.compare(&[]).await, Ok(()), "nobody is left in the rooms");
    for guest in &mut gathering.guests {
        notify(&gathering.hosts[0], guest, "marker").await;
        assert_eq!(guest.event().await, ("said".to_owned(), "marker".to_owned()));
    }
}

/// In a room that is new to the guest's node at first. A witness on that node tells when an event has come
/// that the guest must not get.
async fn change_membership(room: &str, guest: &mut Guest, witness: &mut Guest, asked: &Host, third: &Host) {
    const TURNS: usize = 3;
    let membership = format!("/v1/rooms/{room}/members/{}", guest.id);
    let change = async |method: &str| {
        let changed = asked.ask(method, &membership, b"").await;
        assert_eq!(changed.outcome(), DONE, "{method} {membership}: {changed:?}");
    };
    let publish = async |event: &str| {
        let published = third.ask("POST", &format!("/v1/rooms/{room}/events/{event}"), b"").await;
        assert_eq!(published.outcome(), PUBLISHED, "{published:?}");
    };
    let event = |name: &str| (name.to_owned(), String::new());

    publish("before").await;
    change("PUT").await;
    publish("first").await;
    assert_eq!(guest.event().await, event("first"), "{room}");
    change("DELETE").await;
    change("PUT").await;
    publish("second").await;
    assert_eq!(guest.event().await, event("second"), "{room}");

    witness.join(room).await;
    for turn in 0..TURNS {
        let (without, with) = (format!("without-{turn}"), format!("with-{turn}"));
        change("DELETE").await;
        publish(&without).await;
        assert_eq!(witness.event().await, event(&without), "{room}");
        change("PUT").await;
        publish(&with).await;
        for member in [&mut *guest, &mut *witness] {
            assert_eq!(member.event().await, event(&with), "{room}");
        }
    }
    change("DELETE").await;
    witness.leave(room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_counts_from_its_answer_on() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 3).await;
    change_memberships(&mut gathering, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_what_is_malformed_is_refused() {
    let _turn = turn().await;
    let redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 2).await;
    let live = gathering.guest_of(0).id.clone();

    let closed = gathering.take_guest_of(0);
    let mut gone = vec![format!("{live}0"), "0123456789abcdef-1".to_owned(), closed.id.clone()];
    closed.client.close().await.expect("it is closed in order");
    let (mut drained, guests) = gathering.take_host(2);
    drained.node.signal("TERM");
    assert!(drained.node.exit().await.success());
    gone.extend(guests.iter().map(|guest| guest.id.clone()));
    let (dead, guests) = gathering.take_host(1);
    dead.node.signal("KILL");
    let slowest = ask_about_the_dead(&gathering, &guests[0].id).await;
    gathering.nodes_settled("a dead node was forgotten").await;
    gone.extend(guests.iter().map(|guest| guest.id.clone()));

    gathering.add_node().await;
    gathering.settled("a node has come").await;
    for host in &gathering.hosts {
        for id in &gone {
            for (method, path) in requests_about(id) {
                let reply = host.ask(method, &path, b"").await;
                assert_eq!(reply.outcome(), NOT_FOUND, "{method} {path}: {reply:?}");
            }
        }
        let uppercase = gone[1].to_uppercase();
        let trailing = format!("{}-", gone[1]);
        let negative = gone[1].replace("-1", "--1");
        let padded = gone[1].replace("-1", "-01");
        for id in ["me", "1-1", "-", "0123456789abcdef", &uppercase, &trailing, &negative, &padded, "%00", "a%2Fb"] {
            for (method, path) in requests_about(id) {
                let reply = host.ask(method, &path, b"").await;
                assert_eq!(reply.outcome(), INVALID, "{method} {path}: {reply:?}");
            }
        }
    }
    refuse_what_is_wrong_about_a_connection(&mut gathering).await;
    figures(&format!("a connection of a node that has just died: {slowest:.1?} at most until an answer"));
}

/// Until a dead node is forgotten nobody knows what it has done; that is said soon, and in the end it is
/// not found. Returns how long the slowest answer took.
async fn ask_about_the_dead(gathering: &Gathering, id: &str) -> Duration {
    const SOON: Duration = Duration::from_secs(5);
    let mut slowest = Duration::ZERO;
    for host in &gathering.hosts {
        for (method, path) in requests_about(id) {
            let reply = host.ask(method, &path, b"").await;
            let allowed = [(504, "DEADLINE_EXCEEDED"), NOT_FOUND];
            assert!(allowed.contains(&reply.outcome()), "{method} {path}: {reply:?}");
            slowest = slowest.max(reply.took);
        }
    }
    assert!(slowest < SOON, "answered only after {slowest:?}");
    slowest
}

/// Names, codes and reasons that may not be, about a connection that is there; it notices nothing.
async fn refuse_what_is_wrong_about_a_connection(gathering: &mut Gathering) {
    gathering.add_guest(0, &["all"]).await;
    let mut guest = gathering.guests.pop().expect("it has just come");
    let (id, long) = (&guest.id, "x".repeat(201));
    let requests = [
        ("PUT", format!("/v1/rooms/a%2Fb/members/{id}")),
        ("PUT", format!("/v1/rooms/{long}/members/{id}")),
        ("DELETE", format!("/v1/rooms/a%20b/members/{id}")),
        ("POST", format!("/v1/connections/{id}/events/{}", "x".repeat(256))),
        ("POST", format!("/v1/connections/{id}/events/%FF")),
        ("DELETE", format!("/v1/connections/{id}?code=1006")),
        ("DELETE", format!("/v1/connections/{id}?code=x")),
        ("DELETE", format!("/v1/connections/{id}?reason={long}")),
        ("DELETE", format!("/v1/connections/{id}?cod=4000")),
    ];
    for host in &gathering.hosts {
        for (method, path) in &requests {
            let reply = host.ask(method, path, b"").await;
            assert_eq!(reply.outcome(), INVALID, "{method} {path}: {reply:?}");
        }
    }
    notify(&gathering.hosts[1], &guest, "unharmed").await;
    assert_eq!(guest.event().await, ("said".to_owned(), "unharmed".to_owned()));
    gathering.guests.push(guest);
    gathering.settled("nothing has happened").await;
}

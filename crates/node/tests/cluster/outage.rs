//! Without Redis each node still serves its own connections and refuses what needs others, soon; when Redis is
//! back, all is as it was.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use roomcast_testkit::{Client, Node, RedisOptions, RedisServer};
use tokio::task::JoinSet;

use crate::addressing;
use crate::gathering::{Gathering, Reply, ask, figures};
use crate::support::{BINARY, get, in_time, wait_until, without_options};
use crate::turn;

/// Nobody waits longer for an answer, whatever has happened to Redis.
const ANSWERED: Duration = Duration::from_secs(5);

/// When Redis is back, nodes find one another within 5 s; some more for slow machines.
const RECOVERED: Duration = Duration::from_secs(15);

/// As in any other case, but from when Redis is back.
const FORGOTTEN: Duration = Duration::from_secs(20);

const DONE: (u16, &str) = (204, "");
const UNAVAILABLE: (u16, &str) = (503, "UNAVAILABLE");
const NO_ANSWER: (u16, &str) = (504, "DEADLINE_EXCEEDED");

/// How much is known about Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It has just gone: nodes may still wait for it.
    Unnoticed,
    /// Nodes say that they are cut off.
    Noticed,
}

/// Whom a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// A connection of the node that is asked.
    Own,
    /// A connection of another node.
    Other,
    /// All nodes.
    All,
}

struct Asked {
    about: About,
    request: String,
    reply: Reply,
}

/// Asks each node at once about its own connections, others, and all.
async fn ask_everything(gathering: &mut Gathering, event: &str) -> Vec<Asked> {
    let mut asking = JoinSet::new();
    for host in 0..gathering.hosts.len() {
        let other = (host + 1) % gathering.hosts.len();
        let (own, other) = (gathering.guest_of(host).id.clone(), gathering.guest_of(other).id.clone());
        let requests = [
            (About::Own, "POST", format!("/v1/connections/{own}/events/{event}")),
            // A room that it is not in: nothing changes, but it is answered.
            (About::Own, "DELETE", format!("/v1/rooms/nobody/members/{own}")),
            (About::Other, "POST", format!("/v1/connections/{other}/events/{event}-by-another")),
            (About::Other, "PUT", format!("/v1/rooms/all/members/{other}")),
            (About::Other, "DELETE", format!("/v1/rooms/nobody/members/{other}")),
            (About::Other, "DELETE", "/v1/connections/0123456789abcdef-1".to_owned()),
            (About::All, "GET", "/v1/rooms".to_owned()),
            (About::All, "GET", "/v1/rooms/all".to_owned()),
            (About::All, "POST", "/v1/rooms/nobody/events/said".to_owned()),
            (About::All, "POST", format!("/v1/users/nobody/events/{event}")),
            (About::All, "DELETE", "/v1/users/nobody".to_owned()),
        ];
        for (about, method, path) in requests {
            let address = gathering.hosts[host].node.internal.clone();
            asking.spawn(async move {
                let reply = ask(&address, method, &path, b"").await;
                Asked { about, request: format!("{method} {path} of node {host}"), reply }
            });
        }
    }
    asking.join_all().await
}

/// How often which status was answered.
fn statuses(asked: &[Asked]) -> BTreeMap<(About, u16), usize> {
    let mut statuses = BTreeMap::new();
    for Asked { about, reply, .. } in asked {
        *statuses.entry((*about, reply.status)).or_default() += 1;
    }
    statuses
}

/// What must be said in a phase. Returns the slowest answers.
fn check(phase: Phase, asked: &[Asked]) -> BTreeMap<About, Duration> {
    let mut slowest = BTreeMap::<About, Duration>::new();
    for Asked { about, request, reply } in asked {
        let outcome = reply.outcome();
        let is_right = match (about, phase) {
            (About::Own, _) => outcome == DONE,
            (_, Phase::Noticed) => outcome == UNAVAILABLE,
            // A question that was on its way when Redis went may not be answered, and may have been asked; a
            // list is of those who answered then. And nobody waits for a node that nobody knows.
            (About::Other, Phase::Unnoticed) => {
                [UNAVAILABLE, NO_ANSWER].contains(&outcome) || request.contains("0123456789abcdef-1")
            }
            (About::All, Phase::Unnoticed) => outcome == UNAVAILABLE,
        };
        assert!(is_right, "{phase:?}: {request}: {reply:?}");
        assert!(reply.took < ANSWERED, "{phase:?}: {request}: {reply:?}");
        let slow = slowest.entry(*about).or_default();
        *slow = (*slow).max(reply.took);
    }
    slowest
}

/// The first guest of each node gets what its own node was asked to send.
async fn check_own_events(gathering: &mut Gathering, event: &str) {
    for host in 0..gathering.hosts.len() {
        let guest = gathering.guest_of(host);
        // What another node was asked to send it may have been on its way.
        while guest.event().await.0 != event {}
    }
}

async fn wait_for_readiness(gathering: &Gathering, status: u16) {
    for host in &gathering.hosts {
        let is_so = async || get(&host.node.internal, "/readyz").await.status == status;
        wait_until(&format!("/readyz says {status}"), is_so).await;
    }
}

/// A guest of each node is disconnected by its own node.
async fn disconnect_own(gathering: &mut Gathering) {
    for host in 0..gathering.hosts.len() {
        let mut guest = gathering.take_guest_of(host);
        let path = format!("/v1/connections/{}?code=4000&reason=bye", guest.id);
        let reply = gathering.hosts[host].ask("DELETE", &path, b"").await;
        assert_eq!(reply.outcome(), DONE, "{reply:?}");
        let closed = in_time("it is closed", guest.client.closed()).await.expect("in order");
        assert_eq!(closed, (4000, "bye".to_owned()));
    }
}

/// A Redis goes away and comes back.
async fn outage(
    title: &str,
    redis: &mut RedisServer,
    stop: fn(&mut RedisServer),
    back: impl AsyncFnOnce(&mut RedisServer),
) {
    let mut gathering = Gathering::start(&redis.url(), 4).await;
    let stopped = Instant::now();
    stop(redis);
    let first = ask_everything(&mut gathering, "first").await;
    let (first, statuses) = (check(Phase::Unnoticed, &first), statuses(&first));
    check_own_events(&mut gathering, "first").await;
    wait_for_readiness(&gathering, 503).await;
    let unready = stopped.elapsed();
    let second = ask_everything(&mut gathering, "second").await;
    let second = check(Phase::Noticed, &second);
    check_own_events(&mut gathering, "second").await;
    disconnect_own(&mut gathering).await;

    let returned = Instant::now();
    back(redis).await;
    let running = returned.elapsed();
    wait_for_readiness(&gathering, 200).await;
    let ready = returned.elapsed();
    gathering.nodes_settled(title).await;
    gathering.settled(title).await;
    let whole = returned.elapsed();
    forget_what_was_on_its_way(&mut gathering).await;
    addressing::works(&mut gathering).await;
    figures(&format!(
        "{title}: not ready after {unready:.1?}; slowest answers at first {first:.1?} \
         ({statuses:?}), then {second:.1?}; it came back \
         in {running:.1?}; ready after {ready:.1?}, all lists right after {whole:.1?}, all reached after {:.1?}",
        returned.elapsed()
    ));
    assert!(returned.elapsed() < RECOVERED, "back only after {:?}", returned.elapsed());
}

/// Events of the time before may come late, but none twice.
async fn forget_what_was_on_its_way(gathering: &mut Gathering) {
    for place in 0..gathering.guests.len() {
        let guest = &mut gathering.guests[place];
        let node = guest.node().to_owned();
        let host = gathering.hosts.iter().find(|host| host.id() != node).expect("another node");
        let path = format!("/v1/connections/{}/events/marker", guest.id);
        let reply = host.ask("POST", &path, b"").await;
        assert_eq!(reply.outcome(), DONE, "{reply:?}");
        let mut seen = Vec::new();
        loop {
            let (event, _) = guest.event().await;
            if event == "marker" {
                break;
            }
            assert!(!seen.contains(&event), "{event} came twice");
            seen.push(event);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_serve_their_own_while_redis_is_dead_and_all_when_it_is_back() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    outage("SIGKILL of Redis", &mut redis, RedisServer::kill, async |redis| redis.restart().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_serve_their_own_while_redis_is_frozen_and_all_when_it_goes_on() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    outage("SIGSTOP of Redis", &mut redis, |redis| redis.pause(), async |redis| redis.resume()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_redis_is_away_is_forgotten_when_it_is_back() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    let mut gathering = Gathering::start(&redis.url(), 3).await;
    redis.kill();
    wait_for_readiness(&gathering, 503).await;

    let (dead, _guests) = gathering.take_host(2);
    dead.node.signal("KILL");
    let (mut drained, guests) = gathering.take_host(1);
    drained.node.signal("TERM");
    for mut guest in guests.into_iter().chain([drained.observer]) {
        let (code, _) = in_time("it is closed", guest.client.closed()).await.expect("in order");
        assert_eq!(code, 1001);
    }
    let draining = Instant::now();
    assert!(in_time("the node ends", drained.node.exit()).await.success());
    let draining = draining.elapsed();
    gathering.take_guest_of(0).client.close().await.expect("it is closed in order");

    let returned = Instant::now();
    redis.restart().await;
    gathering.nodes_settled("nodes ended while Redis was away").await;
    gathering.settled("nodes ended while Redis was away").await;
    let whole = returned.elapsed();
    figures(&format!(
        "A node killed and one drained while Redis was dead: drained {draining:.1?} after its last connection; the \
         lists were right {whole:.1?} after Redis was back"
    ));
    assert!(whole < FORGOTTEN, "forgotten only after {whole:?}");
}

/// A call to a node that works is answered sooner, whatever has happened to Redis.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_redis_answers_calls_and_delivers_events_when_redis_comes() {
    let _turn = turn().await;
    let mut redis = RedisServer::start(RedisOptions::default()).await;
    redis.kill();
    let mut command = Command::new(BINARY);
    without_options(&mut command);
    let url = redis.url();
    let node = Node::start_until(command, &["--log=error", "--demo", "--redis", &url], "/healthz").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let calling = async {
            let mut client = Client::connect(&node.url()).await.expect("the node serves");
            assert_eq!(client.call_text("echo", "x").await.expect("calls are answered"), "x");
            client
        };
        clients.push(tokio::time::timeout(AT_ONCE, calling).await.expect("the call is answered at once"));
    }
    redis.restart().await;
    // A broadcast is refused until the broker is back; its own client gets it, too.
    for client in &mut clients {
        in_time("a broadcast arrives", async {
            while client.take_event().is_none() {
                client.notify("broadcast", "all").await.expect("the node serves");
                client.call("echo", "").await.expect("calls are answered");
            }
        })
        .await;
    }
}

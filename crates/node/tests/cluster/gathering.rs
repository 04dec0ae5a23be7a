//! Nodes with known clients on each, and whether every node says the same of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use roomcast_protocol::CallId;
use roomcast_testkit::{Client, Event, Node};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::DEADLINE;
use crate::support::{http, in_time, start_node};

/// How often is looked whether all is as it should be.
const LOOK: Duration = Duration::from_millis(20);

/// The room that the demo puts everybody into.
pub(crate) const MAIN: &str = "main";

/// Prints a test's result.
#[expect(clippy::print_stderr, reason = "the figures are a result too")]
pub(crate) fn figures(text: &str) {
    eprintln!("{text}\n");
}

// === the API ===

/// A request's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Null if there is none.
    pub(crate) body: Value,
    pub(crate) took: Duration,
}

impl Reply {
    /// The status, and the code of an error, which is always told in the same form.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        if self.status < 400 {
            return (self.status, "");
        }
        let error = &self.body["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        (self.status, error["code"].as_str().unwrap_or_else(|| panic!("no code: {self:?}")))
    }
}

/// Asks a node's API.
pub(crate) async fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> Reply {
    let started = Instant::now();
    let answer = http(address, method, path, "", body).await;
    let took = started.elapsed();
    let body = match answer.body.as_str() {
        "" => Value::Null,
        text => {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}: {answer:?}");
            serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {method} {path}: {answer:?}"))
        }
    };
    Reply { status: answer.status, body, took }
}

/// A name as a part of a path.
pub(crate) fn encode(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

// === who is there ===

/// A client with the id of its connection, and the rooms that it is in.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) rooms: BTreeSet<String>,
}

impl Guest {
    /// Connects, and learns the connection's id from being alone in a room.
    pub(crate) async fn connect(node: &Node) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let alone = format!("alone-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = Client::connect(&node.url()).await.expect("the node serves");
        let mut guest = Self { client, id: String::new(), rooms: BTreeSet::from([MAIN.to_owned()]) };
        guest.join(&alone).await;
        let members = ask(&node.internal, "GET", &format!("/v1/rooms/{alone}"), b"").await;
        guest.id = members.body["members"][0]["connection"].as_str().expect("it is the only member").to_owned();
        guest.leave(&alone).await;
        guest
    }

    pub(crate) async fn join(&mut self, room: &str) {
        assert_eq!(self.client.call_text(&format!("rooms/join/{room}"), "").await.expect("an answer"), "");
        self.rooms.insert(room.to_owned());
    }

    pub(crate) async fn leave(&mut self, room: &str) {
        assert_eq!(self.client.call_text(&format!("rooms/leave/{room}"), "").await.expect("an answer"), "");
        self.rooms.remove(room);
    }

    /// The node that owns its connection.
    pub(crate) fn node(&self) -> &str {
        let (node, _) = self.id.split_once('-').expect("a node's id and a number");
        node
    }

    /// The next event's name and payload.
    pub(crate) async fn event(&mut self) -> (String, String) {
        let event = in_time("an event comes", self.client.event()).await;
        let Event { name, payload } = event.expect("the connection is open");
        (name, String::from_utf8_lossy(&payload).into_owned())
    }
}

/// A node and somebody on it who asks by the protocol.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) observer: Guest,
}

impl Host {
    /// Its id, another at each start.
    pub(crate) fn id(&self) -> &str {
        self.observer.node()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        ask(&self.node.internal, method, path, body).await
    }
}

/// Nodes with guests. What they do and suffer is noted here, and compared with what the nodes say.
#[derive(Debug)]
pub(crate) struct Gathering {
    redis: String,
    pub(crate) hosts: Vec<Host>,
    pub(crate) guests: Vec<Guest>,
}

impl Gathering {
    /// Three nodes with so many guests each: all in the rooms `all` and `node-N`, one of each in `café`.
    pub(crate) async fn start(redis: &str, guests: usize) -> Self {
        let mut gathering = Self { redis: redis.to_owned(), hosts: Vec::new(), guests: Vec::new() };
        for number in 0..3 {
            gathering.add_node().await;
            for index in 0..guests {
                let rooms = [&format!("node-{number}"), "all", "café"];
                gathering.add_guest(number, &rooms[..if index == 0 { 3 } else { 2 }]).await;
            }
        }
        gathering.settled("all have come").await;
        gathering
    }

    /// Starts a node. Its clients are not pinged, because those of a test read only what it waits for.
    pub(crate) async fn add_node(&mut self) {
        let options = ["--demo", "--redis-unready-after=2s", "--ping-interval=1h", "--drain-delay=0s"];
        let redis = ["--drain-duration=100ms", "--redis", &self.redis];
        let node = start_node(&[&options[..], &redis].concat()).await;
        let observer = Guest::connect(&node).await;
        self.hosts.push(Host { node, observer });
    }

    /// Connects a guest to a node.
    pub(crate) async fn add_guest(&mut self, host: usize, rooms: &[&str]) {
        let mut guest = Guest::connect(&self.hosts[host].node).await;
        for room in rooms {
            guest.join(room).await;
        }
        self.guests.push(guest);
    }

    /// The first guest of a node.
    pub(crate) fn guest_of(&mut self, host: usize) -> &mut Guest {
        let place = self.place_of_guest(host);
        &mut self.guests[place]
    }

    /// The first guest of a node, who is about to go.
    pub(crate) fn take_guest_of(&mut self, host: usize) -> Guest {
        let place = self.place_of_guest(host);
        self.guests.remove(place)
    }

    fn place_of_guest(&self, host: usize) -> usize {
        let id = self.hosts[host].id();
        self.guests.iter().position(|guest| guest.node() == id).expect("the node has guests")
    }

    /// A node that is about to go, and its guests.
    pub(crate) fn take_host(&mut self, host: usize) -> (Host, Vec<Guest>) {
        let host = self.hosts.remove(host);
        let (lost, left) = self.guests.drain(..).partition(|guest| guest.node() == host.id());
        self.guests = left;
        (host, lost)
    }

    /// Who is in which room, as it should be.
    fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut rooms = BTreeMap::<_, BTreeSet<_>>::new();
        for guest in self.hosts.iter().map(|host| &host.observer).chain(&self.guests) {
            for room in &guest.rooms {
                rooms.entry(room.clone()).or_default().insert(guest.id.clone());
            }
        }
        rooms
    }

    // === what the nodes say ===

    /// Waits until every node says of rooms, members and nodes what is true, and how long that took.
    pub(crate) async fn settled(&mut self, what: &str) -> Duration {
        self.settled_but_for(what, &[]).await
    }

    /// As [`settled`](Self::settled), while these nodes are still waited for.
    pub(crate) async fn settled_but_for(&mut self, what: &str, missing: &[&str]) -> Duration {
        let started = Instant::now();
        while let Err(difference) = self.compare(missing).await {
            assert!(started.elapsed() < DEADLINE, "{what}: {difference}");
            tokio::time::sleep(LOOK).await;
        }
        started.elapsed()
    }

    /// Waits until every node says that these nodes are there, and how long that took.
    pub(crate) async fn nodes_settled(&self, what: &str) -> Duration {
        let started = Instant::now();
        loop {
            let mut known = Vec::new();
            for host in &self.hosts {
                known.push(node_ids(&host.ask("GET", "/v1/nodes", b"").await));
            }
            if known.iter().all(|known| *known == self.node_ids(&[])) {
                return started.elapsed();
            }
            assert!(started.elapsed() < DEADLINE, "{what}: {known:?}, not {:?}", self.node_ids(&[]));
            tokio::time::sleep(LOOK).await;
        }
    }

    fn node_ids(&self, missing: &[&str]) -> BTreeSet<String> {
        self.hosts.iter().map(Host::id).chain(missing.iter().copied()).map(str::to_owned).collect()
    }

    /// Asks every node everything, in both ways. All at once: when a node does not answer, each question
    /// takes two seconds.
    pub(crate) async fn compare(&mut self, missing: &[&str]) -> Result<(), String> {
        let (rooms, nodes) = (self.rooms(), self.node_ids(missing));
        let listed: Vec<_> = rooms.iter().map(|(room, ids)| json!({ "room": room, "members": ids.len() })).collect();
        let mut expected = vec![
            ("/v1/nodes".to_owned(), json!(nodes)),
            (
                "/v1/rooms?limit=1000".to_owned(),
                json!({ "rooms": listed, "next": null, "unresponsive_nodes": missing }),
            ),
        ];
        for (room, ids) in &rooms {
            let members: Vec<_> = ids.iter().map(|id| json!({ "connection": id, "user": null })).collect();
            let all = json!({ "count": ids.len(), "members": members, "unresponsive_nodes": missing });
            expected.push((format!("/v1/rooms/{}", encode(room)), all.clone()));
            expected.push((format!("rooms/members/{room}"), all));
        }
        let mut asked = Vec::new();
        for (place, host) in self.hosts.iter_mut().enumerate() {
            for (question, expected) in &expected {
                let asking = Asking::start(host, question).await;
                asked.push((place, question, expected, asking));
            }
        }
        let mut result = Ok(());
        for (place, question, expected, asking) in asked {
            let found = asking.answer(&mut self.hosts[place]).await;
            if found != *expected && result.is_ok() {
                result = Err(format!("{question} of node {place} is\n{found}, not\n{expected}"));
            }
        }
        result
    }
}

/// A question that waits for its answer.
enum Asking {
    Api(JoinHandle<Reply>),
    Protocol(CallId),
}

impl Asking {
    async fn start(host: &mut Host, question: &str) -> Self {
        if question.starts_with('/') {
            let (address, path) = (host.node.internal.clone(), question.to_owned());
            return Self::Api(tokio::spawn(async move { ask(&address, "GET", &path, b"").await }));
        }
        Self::Protocol(host.observer.client.start(question, "").await.expect("the node serves"))
    }

    /// In the order that is compared: that of members is not defined, and what else is told of nodes changes.
    async fn answer(self, host: &mut Host) -> Value {
        let mut found = match self {
            Self::Api(reply) => {
                let reply = reply.await.expect("the request does not panic");
                if reply.body["nodes"].is_array() {
                    return json!(node_ids(&reply));
                }
                reply.body
            }
            Self::Protocol(call) => {
                let answer = host.observer.client.answer(call).await.expect("the node serves");
                serde_json::from_slice(&answer).expect("JSON")
            }
        };
        if let Some(members) = found.get_mut("members").and_then(Value::as_array_mut) {
            members.sort_by_key(|member| member["connection"].to_string());
        }
        found
    }
}

fn node_ids(reply: &Reply) -> BTreeSet<String> {
    let nodes = reply.body["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {reply:?}"));
    nodes.iter().map(|node| node["node"].as_str().expect("an id").to_owned()).collect()
}

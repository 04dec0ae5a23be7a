//! The servers, with a subscriber connection to each, their replies on it, and their faults.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use bytes::{Bytes, BytesMut};
use fred::types::Value;
use fred::types::cluster::ClusterRouting;
use fred::types::config::Server;
use redis_protocol::resp3::decode::complete::decode_bytes_mut;
use redis_protocol::resp3::types::BytesFrame;
use roomcast_core::RoomName;

use super::script::{Moment, Published, PublishedMessage, RoomKeys};
use crate::state::keys::{Keys, SLOTS};
use crate::state::resp::bytes_of;
use crate::state::topology::Topology;

/// One server's data.
type Data = BTreeMap<RoomName, RoomKeys>;

/// The server's end of a node's subscriber connection.
#[derive(Debug, Default)]
struct Connection {
    commands: VecDeque<Vec<String>>,
    output: VecDeque<BytesFrame>,
    channels: BTreeSet<String>,
}

#[derive(Debug)]
struct Node {
    address: Server,
    writer: String,
    data: Data,
    /// The data after each script. A lagging replica may have any of these.
    past: Vec<Data>,
    connection: Option<Connection>,
}

/// All servers.
#[derive(Debug)]
pub(super) struct Servers {
    keys: Keys,
    nodes: Vec<Node>,
    /// The server that owns all rooms. `None` means that each slot has an owner.
    master: Option<usize>,
    owners: BTreeMap<u16, usize>,
    /// Slots whose keys have already moved to another server, and that server.
    migrating: BTreeMap<u16, usize>,
    micros: u64,
    writers: u64,
    /// How many times a room lost events.
    pub(super) rollbacks: usize,
    /// How many times a room got another writer, with or without loss.
    pub(super) successions: usize,
}

impl Servers {
    pub(super) fn new(count: usize, is_cluster: bool) -> Self {
        let node = |number: usize| Node {
            address: Server::new(format!("server-{number}"), 6379),
            writer: format!("{:016x}", number + 1),
            data: Data::new(),
            past: Vec::new(),
            connection: None,
        };
        Self {
            keys: Keys::new("test", 0),
            nodes: (0..count).map(node).collect(),
            master: (!is_cluster).then_some(0),
            owners: BTreeMap::new(),
            migrating: BTreeMap::new(),
            micros: 1_700_000_000_000_000,
            writers: count as u64,
            rollbacks: 0,
            successions: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn index_of(&self, address: &Server) -> usize {
        self.nodes.iter().position(|node| node.address == *address).expect("a server of this world")
    }

    pub(super) fn owner(&self, room: &RoomName) -> usize {
        self.owner_of_slot(Keys::slot(room))
    }

    fn owner_of_slot(&self, slot: u16) -> usize {
        self.master.unwrap_or_else(|| self.owners.get(&slot).copied().unwrap_or_default())
    }

    /// Assigns a room's slot to a server. All other slots belong to the first server.
    pub(super) fn assign(&mut self, room: &RoomName, owner: usize) {
        self.owners.insert(Keys::slot(room), owner);
    }

    /// Returns whether the server accepts subscribers. A replica does not.
    pub(super) fn is_master(&self, node: usize) -> bool {
        self.master.is_none_or(|master| master == node)
    }

    /// Returns what CLUSTER SLOTS, or a sentinel, replies now.
    pub(super) fn topology(&self) -> Topology {
        if let Some(master) = self.master {
            return Topology::Single(self.nodes[master].address.clone());
        }
        let range = |from: u16, to: u16, owner: usize| {
            let address = &self.nodes[owner].address;
            let place = [Value::from(address.host.clone()), Value::from(i64::from(address.port)), Value::from("id")];
            Value::Array(vec![i64::from(from).into(), i64::from(to).into(), Value::Array(place.into())])
        };
        let (mut ranges, mut next) = (Vec::new(), 0);
        for (slot, owner) in &self.owners {
            if next < *slot {
                ranges.push(range(next, slot - 1, 0));
            }
            ranges.push(range(*slot, *slot, *owner));
            next = slot + 1;
        }
        if next < SLOTS {
            ranges.push(range(next, SLOTS - 1, 0));
        }
        let routing = ClusterRouting::from_cluster_slots(Value::Array(ranges), "nobody");
        Topology::Cluster(routing.expect("an answer to CLUSTER SLOTS"))
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.micros += millis * 1000;
    }

    // === publishers ===

    /// Runs the script, or returns an error if the room's slot is being moved to another server.
    pub(super) fn publish(
        &mut self,
        room: &RoomName,
        publish: &PublishedMessage,
        accepted: impl Iterator<Item = usize>,
    ) -> Result<Published, ()> {
        if self.migrating.contains_key(&Keys::slot(room)) {
            return Err(());
        }
        self.micros += 1;
        let channel = self.keys.channel(room);
        let owner = self.owner(room);
        let node = &mut self.nodes[owner];
        let moment = Moment { micros: self.micros, writer: &node.writer };
        let keys = node.data.entry(room.clone()).or_default();
        let subscriber = node.connection.as_mut().filter(|to| to.channels.contains(&channel));
        let published = keys.publish(moment, publish, subscriber.is_some());
        let Some(sent) = published.sent.clone() else { return Ok(published) };
        keys.timeline.extend(accepted);
        node.past.push(node.data.clone());
        if let Some(connection) = subscriber {
            connection.output.push_back(push("smessage", &channel, blob(sent)));
        }
        Ok(published)
    }

    /// Returns a room's keys on its owner.
    pub(super) fn room(&self, room: &RoomName) -> RoomKeys {
        let slot = Keys::slot(room);
        let holder = *self.migrating.get(&slot).unwrap_or(&self.owner(room));
        self.nodes[holder].data.get(room).cloned().unwrap_or_default()
    }

    /// Returns whether an event was dropped from a history.
    pub(super) fn has_trimmed(&self) -> bool {
        self.nodes.iter().flat_map(|node| node.data.values()).any(|keys| keys.trimmed)
    }

    // === the node's connections ===

    pub(super) fn connect(&mut self, node: usize) {
        self.nodes[node].connection = Some(Connection::default());
    }

    pub(super) fn disconnect(&mut self, node: usize) {
        self.nodes[node].connection = None;
    }

    pub(super) fn is_connected(&self, node: usize) -> bool {
        self.nodes[node].connection.is_some()
    }

    /// Returns the servers that send this room's messages to the node.
    pub(super) fn subscribed_at(&self, room: &RoomName) -> Vec<usize> {
        let channel = self.keys.channel(room);
        let has = |node: &Node| node.connection.as_ref().is_some_and(|to| to.channels.contains(&channel));
        (0..self.nodes.len()).filter(|index| has(&self.nodes[*index])).collect()
    }

    /// Accepts bytes that the node wrote.
    pub(super) fn take(&mut self, node: usize, bytes: &Bytes) {
        let mut bytes = BytesMut::from(&bytes[..]);
        while let Some((frame, ..)) = decode_bytes_mut(&mut bytes).expect("RESP") {
            let BytesFrame::Array { data, .. } = frame else { panic!("a command is an array: {frame:?}") };
            let word = |frame| String::from_utf8(bytes_of(frame).expect("a bulk string").into()).expect("UTF-8");
            let connection = self.nodes[node].connection.as_mut().expect("it is connected");
            connection.commands.push_back(data.into_iter().map(word).collect());
        }
        assert!(bytes.is_empty(), "half a command");
    }

    /// Executes this many commands. Returns how many there were.
    pub(super) fn serve(&mut self, node: usize, count: usize) -> usize {
        let next = |all: &mut Self| all.nodes[node].connection.as_mut()?.commands.pop_front();
        for served in 0..count {
            let Some(command) = next(self) else { return served };
            let words: Vec<_> = command.iter().map(String::as_str).collect();
            let frames = self.answer(node, &words);
            self.nodes[node].connection.as_mut().expect("it is connected").output.extend(frames);
        }
        count
    }

    /// Returns the next frame that the node has not read.
    pub(super) fn next_output(&mut self, node: usize) -> Option<BytesFrame> {
        self.nodes[node].connection.as_mut()?.output.pop_front()
    }

    fn answer(&mut self, node: usize, words: &[&str]) -> Vec<BytesFrame> {
        let names = match words {
            ["ECHO", text] => return vec![blob((*text).to_owned().into())],
            ["SSUBSCRIBE" | "SUNSUBSCRIBE", channels @ ..] => channels,
            ["EVAL", _, "2", keys @ .., _from] => keys,
            [_, name, ..] => std::slice::from_ref(name),
            _ => panic!("not a command: {words:?}"),
        };
        if let Some(error) = self.refusal(node, words[0], names) {
            return vec![BytesFrame::SimpleError { data: error.into(), attributes: None }];
        }
        let millis = self.micros / 1000;
        let room = |name: &str| RoomName::new(name.split_once("}:").expect("a hash tag").1.get(2..)?).ok();
        match words {
            ["SSUBSCRIBE" | "SUNSUBSCRIBE", ..] => {
                let is_new = words[0] == "SSUBSCRIBE";
                let all = &mut self.nodes[node].connection.as_mut().expect("it is connected").channels;
                let confirmations = names.iter().map(|channel| {
                    if is_new {
                        all.insert((*channel).to_owned())
                    } else {
                        all.remove(*channel)
                    };
                    confirmation(if is_new { "ssubscribe" } else { "sunsubscribe" }, channel, all.len())
                });
                confirmations.collect()
            }
            ["GET", key] => {
                let keys = self.nodes[node].data.get_mut(&room(key).expect("a room's key"));
                let position = keys.and_then(|keys| keys.position(millis));
                vec![position.map_or(BytesFrame::Null, |position| blob(position.into()))]
            }
            ["EVAL", _, "2", position, _, from] => {
                let from = from.parse().expect("a number");
                let keys = self.nodes[node].data.get_mut(&room(position).expect("a room's key"));
                let (position, messages) =
                    keys.map(|keys| (keys.position(millis), keys.history(millis, from))).unwrap_or_default();
                let position = position.map_or(BytesFrame::Null, |position| blob(position.into()));
                vec![array(vec![position, array(messages.into_iter().map(blob).collect())])]
            }
            _ => panic!("not a command of a subscriber: {words:?}"),
        }
    }

    /// Returns why a member of a cluster rejects a command, or `None` if it does not.
    fn refusal(&self, node: usize, command: &str, names: &[&str]) -> Option<String> {
        if self.master.is_some() {
            return None;
        }
        let slots: BTreeSet<_> = names.iter().map(|name| fred::util::redis_keyslot(name.as_bytes())).collect();
        let [slot] = slots.into_iter().collect::<Vec<_>>()[..] else {
            return Some("CROSSSLOT Keys in request don't hash to the same slot".into());
        };
        let (owner, is_about_keys) = (self.owner_of_slot(slot), !command.ends_with("SUBSCRIBE"));
        if owner != node {
            return Some(format!("MOVED {slot} {}", self.nodes[owner].address));
        }
        let to = self.migrating.get(&slot).filter(|_| is_about_keys)?;
        Some(format!("ASK {slot} {}", self.nodes[*to].address))
    }

    // === faults ===

    /// Ends a server, and replaces it with a replica that had not received its last scripts. The
    /// replica has the address of `to`, which may be the same.
    pub(super) fn fail_over(&mut self, from: usize, to: usize, lag: usize) {
        let known = self.nodes[from].past.len().saturating_sub(lag);
        self.successions += 1;
        self.rollbacks += usize::from(known < self.nodes[from].past.len());
        let mut past = mem::take(&mut self.nodes[from].past);
        past.truncate(known);
        let data = past.last().cloned().unwrap_or_default();
        for node in [from, to] {
            self.disconnect(node);
            self.nodes[node].data.clear();
        }
        self.writers += 1;
        let writer = format!("{:016x}", self.writers);
        let heir = &mut self.nodes[to];
        (heir.data, heir.past, heir.writer) = (data, past, writer);
        if self.master == Some(from) {
            self.master = Some(to);
        }
    }

    /// Moves a slot's keys to another server, which does not own the slot yet.
    pub(super) fn begin_migration(&mut self, room: &RoomName, to: usize) {
        let (slot, from) = (Keys::slot(room), self.owner(room));
        if self.master.is_some() || from == to || self.migrating.contains_key(&slot) {
            return;
        }
        let in_slot = |name: &RoomName| Keys::slot(name) == slot;
        let rooms: Vec<_> = self.nodes[from].data.keys().filter(|name| in_slot(name)).cloned().collect();
        for name in rooms {
            let keys = self.nodes[from].data.remove(&name).expect("it was just there");
            self.nodes[to].data.insert(name, keys);
        }
        // Another test checks what a replica has without these keys.
        for node in [from, to] {
            self.nodes[node].past = vec![self.nodes[node].data.clone()];
        }
        self.migrating.insert(slot, to);
        self.successions += 1;
    }

    /// Gives the slot to the other server. The old owner ends the subscriptions.
    pub(super) fn end_migration(&mut self, room: &RoomName) {
        let (slot, from) = (Keys::slot(room), self.owner(room));
        let Some(to) = self.migrating.remove(&slot) else { return };
        self.owners.insert(slot, to);
        let Some(connection) = &mut self.nodes[from].connection else { return };
        let in_slot = |channel: &String| fred::util::redis_keyslot(channel.as_bytes()) == slot;
        for channel in connection.channels.extract_if(.., in_slot).collect::<Vec<_>>() {
            let left = connection.channels.len();
            connection.output.push_back(confirmation("sunsubscribe", &channel, left));
        }
    }
}

fn blob(data: Bytes) -> BytesFrame {
    BytesFrame::BlobString { data, attributes: None }
}

fn array(data: Vec<BytesFrame>) -> BytesFrame {
    BytesFrame::Array { data, attributes: None }
}

fn push(kind: &'static str, channel: &str, last: BytesFrame) -> BytesFrame {
    BytesFrame::Push { data: vec![blob(kind.into()), blob(channel.to_owned().into()), last], attributes: None }
}

fn confirmation(kind: &'static str, channel: &str, left: usize) -> BytesFrame {
    push(kind, channel, BytesFrame::Number { data: left as i64, attributes: None })
}

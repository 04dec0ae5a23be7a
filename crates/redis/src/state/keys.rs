//! The place of a room in Redis: its slot, its channel and its keys.

use roomcast_core::{NodeId, RoomName};

/// How many hash slots a Redis Cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// Creates the names of everything that belongs to a room. All names of a room have the same hash
/// tag, so that a script may access them together. The tag is a hash of the room's name as a
/// number. Braces in names of rooms therefore have no effect, and rooms are distributed evenly over
/// the slots.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
    /// The part of a channel's name that identifies its kind: a letter, and the number of the
    /// database.
    channel_kind: String,
}

impl Keys {
    /// Creates the names with a prefix, so that several clusters may share one Redis. Channel names
    /// contain the number of the database, because SELECT applies to keys, not to channels.
    pub(crate) fn new(prefix: &str, database: u8) -> Self {
        Self { prefix: prefix.to_owned(), channel_kind: format!("c{database}") }
    }

    /// Returns a room's hash slot (Redis Cluster specification, "key distribution model").
    pub(crate) fn slot(room: &str) -> u16 {
        fred::util::redis_keyslot(tag(room).to_string().as_bytes())
    }

    /// Returns the sharded channel that carries a room's events.
    pub(crate) fn channel(&self, room: &RoomName) -> String {
        self.name(&self.channel_kind, room)
    }

    /// Returns the room of a channel.
    pub(crate) fn room_of<'a>(&self, channel: &'a str) -> Option<&'a str> {
        let (_tag, named) = channel.strip_prefix(&*self.prefix)?.strip_prefix(":{")?.split_once("}:")?;
        named.strip_prefix(&*self.channel_kind)?.strip_prefix(':')
    }

    /// Returns the key of a room's position, which `stored` describes.
    pub(crate) fn position(&self, room: &RoomName) -> String {
        self.name("p", room)
    }

    /// Returns the key of a room's history, which is a list of its last messages.
    pub(crate) fn history(&self, room: &RoomName) -> String {
        self.name("h", room)
    }

    /// Returns the keys of the ledger: its position, and the list of its records.
    pub(crate) fn ledger(&self) -> [String; 2] {
        ["lp", "l"].map(|kind| self.name(kind, &RoomName::internal("nodes", "ledger")))
    }

    /// Returns the keys of lifecycle events.
    pub(crate) fn events(&self) -> EventKeys {
        EventKeys(self.name("e", &EventKeys::room()))
    }

    fn name(&self, kind: &str, room: &RoomName) -> String {
        format!("{}:{{{}}}:{kind}:{room}", self.prefix, tag(room))
    }
}

/// The keys of lifecycle events. `stored/events_report.lua` describes their values.
pub(crate) struct EventKeys(String);

impl EventKeys {
    /// Returns the room whose slot contains the keys.
    pub(crate) fn room() -> RoomName {
        RoomName::internal("nodes", "events")
    }

    /// Returns the keys of a node's report.
    pub(crate) fn report(&self, node: NodeId, lost: NodeId) -> Vec<String> {
        let single = ["waiting", "dead", "nodes", "applied", "delivered", "groups", "due", "state"];
        let open = [node, lost].map(|node| format!("{}:open:{node}", self.0));
        single.into_iter().map(|name| self.named(name)).chain(open).collect()
    }

    pub(crate) fn take(&self) -> Vec<String> {
        ["waiting", "dead", "delivered", "state"].map(|name| self.named(name)).into()
    }

    pub(crate) fn replay(&self) -> Vec<String> {
        ["waiting", "dead"].map(|name| self.named(name)).into()
    }

    pub(crate) fn dead(&self) -> Vec<String> {
        vec![self.named("dead")]
    }

    /// Returns the text to which MACs bind the events.
    pub(crate) fn seal_channel(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn named(&self, name: &str) -> String {
        format!("{}:{name}", self.0)
    }
}

/// The prefix of probe rooms, with which a node checks its own path through Redis. They are rooms
/// of nodes.
pub(crate) const PROBES: &str = "nodes/probe/";

/// Returns the hash tag, which stands between the braces.
fn tag(room: &str) -> u16 {
    fred::util::redis_keyslot(room.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_a_room_are_in_its_slot_whatever_it_is_called() {
        let keys = Keys::new("roomcast", 0);
        for name in ["lobby", "{a}b", "}{", "{}", "a}:c:b", "user/ann", "日本語"] {
            // Clients cannot create names with a slash, but the node itself can.
            let Ok(room) = RoomName::new(&name.replace('/', "-")) else { panic!("{name} is a valid room") };
            for key in [keys.channel(&room), keys.position(&room), keys.history(&room)] {
                assert_eq!(fred::util::redis_keyslot(key.as_bytes()), Keys::slot(&room), "{key}");
            }
            assert_eq!(keys.room_of(&keys.channel(&room)), Some(&*room));
        }
        assert_eq!(keys.room_of("other:{1}:c0:lobby"), None);
    }

    #[test]
    fn another_database_has_other_channels() {
        let room = RoomName::new("lobby").expect("a valid name");
        let [first, second] = [0, 1].map(|database| Keys::new("roomcast", database));
        assert_ne!(first.channel(&room), second.channel(&room));
        assert_eq!(first.room_of(&second.channel(&room)), None);
        assert_eq!(Keys::new("roomcast", 10).room_of(&second.channel(&room)), None);
    }

    #[test]
    fn rooms_spread_evenly_over_shards() {
        const ROOMS: usize = 30_000;
        for shards in [3, 16, 64] {
            let mut rooms_of = vec![0; shards];
            for room in 0..ROOMS {
                rooms_of[usize::from(Keys::slot(&format!("room-{room}"))) * shards / usize::from(SLOTS)] += 1;
            }
            let fair = ROOMS / shards;
            assert!(rooms_of.iter().all(|rooms| (fair * 7 / 10..fair * 13 / 10).contains(rooms)), "{rooms_of:?}");
        }
    }
}

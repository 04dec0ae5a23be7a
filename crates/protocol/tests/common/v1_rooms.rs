//! A server's rooms, for the tests: it makes valid frames, and knows the position that each leads to.

use std::collections::BTreeMap;

use roomcast_protocol::Name;
use roomcast_protocol::v1::{ClientEvent, Event, Frame, Reason, Room, Rooms};

/// The client's rooms, as they must be.
type Positions = BTreeMap<String, (String, u64)>;

#[derive(Default)]
pub(crate) struct RoomModel {
    now: BTreeMap<u64, Room>,
    /// The rooms after each frame that was made.
    history: Vec<Positions>,
    received: usize,
    epochs: u64,
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a short name")
}

impl RoomModel {
    /// Makes the next frame. The choice decides which room it concerns, and what happens there.
    pub(crate) fn next(&mut self, choice: u64) -> Frame {
        let (room, what) = (choice % 3, choice / 3 % 8);
        let step = 1 + choice / 24 % 5;
        self.epochs += 1;
        let announced = |offset, epoch: u64| Frame::Room {
            room,
            offset,
            epoch: name(&epoch.to_string()),
            name: name(&format!("room {room}")),
        };
        let frame = match self.now.get_mut(&room) {
            None => announced(step, self.epochs),
            Some(_) if what == 0 => announced(0, self.epochs),
            Some(_) if what == 1 => Frame::Left { room, reason: Reason::truncated("bye") },
            Some(at) if what == 2 => Frame::Gap { room, from: at.offset + 1, to: at.offset + step },
            Some(at) => Frame::Event(Event {
                room,
                offset: at.offset + step,
                sender: name(""),
                name: name("said"),
                payload: "hi".into(),
            }),
        };
        self.apply(&frame);
        let positions = self.now.values();
        self.history.push(positions.map(|at| (at.name.to_string(), (at.epoch.to_string(), at.offset))).collect());
        frame
    }

    fn apply(&mut self, frame: &Frame) {
        let offset_of =
            |now: &mut BTreeMap<u64, Room>, room, offset| now.get_mut(room).expect("announced").offset = offset;
        match frame {
            Frame::Room { room, offset, epoch, name } => {
                self.now.insert(*room, Room { name: name.clone(), epoch: epoch.clone(), offset: *offset });
            }
            Frame::Left { room, .. } => {
                self.now.remove(room);
            }
            Frame::Gap { room, to, .. } => offset_of(&mut self.now, room, *to),
            Frame::Event(event) => offset_of(&mut self.now, &event.room, event.offset),
            other => panic!("{other:?} concerns no room"),
        }
    }

    /// The client has received the next frame. Its positions are those that the frame leads to.
    pub(crate) fn on_received(&mut self, event: &ClientEvent, rooms: &Rooms) {
        let positions = rooms.iter().map(|at| (at.name.to_string(), (at.epoch.to_string(), at.offset)));
        assert_eq!(positions.collect::<Positions>(), self.history[self.received], "after {event:?}");
        self.received += 1;
    }

    #[track_caller]
    pub(crate) fn assert_all_received(&self) {
        assert_eq!(self.received, self.history.len(), "frames of rooms are lost");
    }
}

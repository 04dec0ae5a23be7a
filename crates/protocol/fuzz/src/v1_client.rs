//! Any messages of a server, with any actions of a client between them: the client's end never panics, no call has
//! two outcomes, no Item exceeds the credit, positions only increase within an epoch, and nothing is left at the
//! end.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use roomcast_protocol::v1::{ClientConnection, ClientEvent, MAX_ROOMS, Side};
use roomcast_protocol_fuzz::End;

// The input: for each message an action, its length, and the message. The Welcome comes from the harness, unless the
// first action is 255.
fuzz_target!(|input: &[u8]| {
    let mut connection = ClientConnection::new();
    let mut end = End::new(Side::Client);
    if input.first() != Some(&255) {
        connection.receive(Bytes::from_static(b"\x0B{}")).expect("a Welcome comes first");
    }
    let mut rest = input;
    while let [action, len, later @ ..] = rest {
        let (message, later) = later.split_at(later.len().min(usize::from(*len)));
        rest = later;
        end.act(*action);
        if receive(&mut connection, &mut end, Bytes::copy_from_slice(message)).is_none() {
            break;
        }
    }
    end.finish();
});

/// Returns `None` after a violation.
fn receive(connection: &mut ClientConnection, end: &mut End, message: Bytes) -> Option<()> {
    let before: Vec<_> = connection.rooms().iter().cloned().collect();
    match connection.receive(message) {
        Ok(ClientEvent::Call(frame)) => end.receive(frame)?,
        Ok(ClientEvent::Event(event)) => {
            let now = connection.rooms().get(event.room).expect("its room was announced");
            assert_eq!(now.offset, event.offset);
            assert!(before.iter().any(|at| at.name == now.name && at.epoch == now.epoch && at.offset < now.offset));
        }
        Ok(ClientEvent::Gap { room, from, to }) => {
            let now = connection.rooms().get(room).expect("its room was announced");
            assert!(from <= to && now.offset == to);
            assert!(before.iter().any(|at| at.name == now.name && at.epoch == now.epoch && at.offset < from));
        }
        Ok(ClientEvent::Room { room }) => assert!(connection.rooms().get(room).is_some()),
        Ok(ClientEvent::Left { room, .. }) => assert!(before.contains(&room)),
        Ok(_) => {}
        Err(violation) => {
            assert!(violation.close_frame().code.is_valid_on_the_wire(), "{violation:?}");
            return None;
        }
    }
    assert!(connection.rooms().iter().count() <= MAX_ROOMS);
    Some(())
}

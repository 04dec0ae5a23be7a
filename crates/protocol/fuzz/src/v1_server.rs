//! Any bytes of a client, in any reads, with any actions of a server between them: the server's end never
//! panics, no call has two outcomes, no Item exceeds the credit, and nothing is left at the end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roomcast_protocol::Limits;
use roomcast_protocol::v1::{ServerConnection, ServerEvent, Side};
use roomcast_protocol_fuzz::{End, MAX_PAYLOAD};

// The input: how many actions to take, the actions, then the client's bytes. Each action is preceded by a read.
fuzz_target!(|input: &[u8]| {
    let Some((planned, rest)) = input.split_first() else { return };
    let Some((actions, mut stream)) = rest.split_at_checked(2 * usize::from(planned % 32)) else { return };
    let mut connection = ServerConnection::new(Limits::new(MAX_PAYLOAD));
    let mut end = End::new(Side::Server);
    for action in actions.chunks(2) {
        let (read, later) = stream.split_at(stream.len().min(usize::from(action[0])));
        stream = later;
        if receive(&mut connection, &mut end, read).is_none() {
            break;
        }
        end.act(action[1]);
    }
    receive(&mut connection, &mut end, stream);
    end.finish();
});

/// Returns `None` after a violation.
fn receive(connection: &mut ServerConnection, end: &mut End, mut bytes: &[u8]) -> Option<()> {
    loop {
        match connection.receive(&mut bytes) {
            Ok(Some(ServerEvent::Call(frame))) => end.receive(frame)?,
            Ok(Some(ServerEvent::Notify { payload, .. })) => assert!(payload.len() <= MAX_PAYLOAD),
            Ok(Some(ServerEvent::Ping(_) | ServerEvent::Pong | ServerEvent::Close(_))) => {}
            Ok(None) => break,
            Err(violation) => {
                assert!(violation.close_frame().code.is_valid_on_the_wire(), "{violation:?}");
                return None;
            }
        }
    }
    assert!(bytes.is_empty(), "it wants no more, but left bytes");
    Some(())
}

//! The tutorial's methods, for `--demo`: every client may do everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use roomcast::{CallError, Cancel, Code, NotifyError, Router, Socket, Text};

/// The room that every connection joins by itself.
const MAIN_ROOM: &str = "main";

/// The longest text, in bytes, that is converted on the connection's own task, which takes 80 µs. 1 MiB takes 20 ms,
/// during which the client's other messages would wait.
const QUICK_TEXT: usize = 4096;

const LONG_RUNNING: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(600);

/// Adds the tutorial's methods.
pub(crate) fn add(router: Router) -> Router {
    let running = Running::default();
    let (long_running, long) = (running.clone(), running.clone());
    router
        .open_rooms()
        .on_connect(async |socket: Socket| socket.join_eventually(MAIN_ROOM).await)
        .quick_notify("ping", ping)
        .quick_notify("broadcast", broadcast)
        .quick_call("myip", my_ip)
        .quick_call("uppercase", uppercase)
        .quick_call("echo", echo)
        .quick_call("long_runing_task", move || long_running.clone().finish_after(LONG_RUNNING))
        .quick_call("long", move || long.clone().finish_after(LONG))
        .quick_call("running", move || std::future::ready(running.count().to_string()))
}

/// What a person at a terminal reads once the demo runs: what to open, and what to try.
pub(crate) fn welcome(page: &str, api: Option<&str>, needs_key: bool) -> String {
    let mut text =
        format!("\nThe demo is running. Open this page in two browser tabs, and chat between them:\n\n    {page}\n\n");
    if let Some(api) = api {
        let key = if needs_key { "-H \"Authorization: Bearer $ROOMCAST_API_KEY\" " } else { "" };
        text += "Publish to the chat from another terminal:\n\n";
        text += &format!("    curl {key}--data-binary hello {api}/v1/rooms/lobby/events/chat.lobby\n\n");
    }
    text += "Press Ctrl-C to stop the node.\n";
    text
}

async fn ping(socket: Socket, payload: Bytes) -> Result<(), NotifyError> {
    socket.notify("pong", payload)
}

async fn broadcast(socket: Socket, payload: Bytes) -> Result<(), CallError> {
    socket.node().room(MAIN_ROOM).publish("message", payload).await?;
    Ok(())
}

async fn my_ip(socket: Socket) -> Result<String, CallError> {
    let address =
        socket.peer_addr().ok_or_else(|| CallError::new(Code::Internal, "the address of the client is unknown"))?;
    Ok(address.to_string())
}

async fn uppercase(Text(text): Text, cancel: Cancel) -> Result<String, CallError> {
    if text.len() <= QUICK_TEXT {
        return Ok(text.to_uppercase());
    }
    let computing = cancel.spawn_blocking(move |_| text.to_uppercase());
    computing.await.map_err(|error| CallError::new(Code::Internal, error.to_string()))
}

async fn echo(payload: Bytes) -> Bytes {
    payload
}

/// The calls of this node that have not ended, however they end.
#[derive(Debug, Clone, Default)]
struct Running(Arc<AtomicUsize>);

struct RunningGuard(Running);

impl Running {
    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Counts as running until the time is over or the call is cancelled.
    async fn finish_after(self, time: Duration) -> &'static str {
        self.0.fetch_add(1, Ordering::AcqRel);
        let _running = RunningGuard(self);
        tokio::time::sleep(time).await;
        "done!"
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_welcome_has_a_command_for_the_api_only_if_there_is_one_and_a_key_only_if_it_needs_one() {
        let page = "http://127.0.0.1:3000";
        let with_api = |needs_key| welcome(page, Some("http://127.0.0.1:3001"), needs_key);
        assert!(with_api(false).contains("    http://127.0.0.1:3000\n"));
        assert!(with_api(false).contains("curl --data-binary hello http://127.0.0.1:3001/v1/rooms/lobby"));
        assert!(with_api(true).contains("curl -H \"Authorization: Bearer $ROOMCAST_API_KEY\" --data-binary"));
        assert!(!welcome(page, None, true).contains("curl"));
    }
}

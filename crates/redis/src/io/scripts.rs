//! Runs the scripts of the ledger and of lifecycle events, whose keys belong to rooms of nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::error::{Error, ErrorKind};
use fred::types::Value;
use roomcast_core::{BrokerError, RoomName};

use crate::io::commands::{Commands, Script};
use crate::io::publisher::Publisher;
use crate::state::attempts::{Attempts, Step};

/// How long a script may take, with all attempts. Nodes repeat it.
const DEADLINE: Duration = Duration::from_millis(1500);

/// Runs scripts on the server that owns a room's slot.
pub(crate) struct Scripts {
    commands: Arc<Commands>,
    publisher: Arc<Publisher>,
    room: RoomName,
}

impl Scripts {
    pub(crate) fn new(commands: Arc<Commands>, publisher: Arc<Publisher>, room: RoomName) -> Self {
        Self { commands, publisher, room }
    }

    /// Runs a script, and returns its reply.
    pub(crate) async fn run(&self, script: &Script<'_>) -> Result<Value, Error> {
        let owner = || self.publisher.owner_of(&self.room);
        let mut attempts = Attempts::until(Instant::now() + DEADLINE);
        let mut step = attempts.next(owner(), Instant::now());
        let mut last = Err(Error::new(ErrorKind::Timeout, "Redis did not reply in time"));
        loop {
            step = match step {
                Step::Send(attempt) => {
                    last = self.commands.evaluate(script, &attempt).await;
                    let ran = last.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
                    attempts.on_result(ran, owner(), Instant::now())
                }
                Step::Pause(time) => {
                    self.publisher.request_topology();
                    tokio::time::sleep(time).await;
                    attempts.next(owner(), Instant::now())
                }
                Step::Finish(outcome) => return outcome.result.and(last),
            };
        }
    }
}

/// Returns the error of a script that failed.
pub(crate) fn unavailable(error: &Error) -> BrokerError {
    BrokerError::Unavailable { reason: error.details().to_owned() }
}

/// Returns the error of a reply that cannot be read.
pub(crate) fn unexpected(script: &str) -> BrokerError {
    BrokerError::Unavailable { reason: format!("unexpected reply to the script {script}") }
}

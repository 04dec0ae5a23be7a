//! The attempts to send a batch of publishes: to which server, in which form, and how often until
//! the deadline. This module does no I/O, and time is an argument.
//!
//! If an error leaves open whether a batch was published, the batch is sent again. The script
//! recognises its events by their numbers and publishes them only once.

use std::time::{Duration, Instant};

use fred::error::{Error, ErrorKind};
use fred::types::config::Server;

use crate::state::placement::Placement;
use crate::state::topology::Redirection;

/// How long to wait before a batch is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The result of a script's run: for each message, where its events are, or why it failed.
pub(crate) type Ran = Result<Vec<Result<Placement, String>>, Error>;

/// The attempts to send one batch.
#[derive(Debug)]
pub(crate) struct Attempts {
    deadline: Instant,
    redirection: Option<Redirection>,
    /// Whether the text of the script must be sent, because the server does not have it.
    with_text: bool,
    asked: Option<Server>,
    last_error: Error,
}

/// An attempt, which must end within `time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) server: Server,
    /// Whether an `ASK` named the server.
    pub(crate) asking: bool,
    /// Whether to send the script's text, not its digest.
    pub(crate) with_text: bool,
    pub(crate) time: Duration,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    Send(Attempt),
    /// Request the topology, and continue after this time.
    Pause(Duration),
    Finish(Outcome),
}

/// The result of a batch, and the server to which it was sent last.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) server: Option<Server>,
    pub(crate) result: Ran,
}

impl Attempts {
    pub(crate) fn until(deadline: Instant) -> Self {
        let last_error = Error::new(ErrorKind::Timeout, "Redis did not reply in time");
        Self { deadline, redirection: None, with_text: false, asked: None, last_error }
    }

    /// Returns the first attempt, or the next one after a pause. `owner` is the current owner of
    /// the batch's slot.
    pub(crate) fn next(&mut self, owner: Option<Server>, now: Instant) -> Step {
        let time = self.deadline.saturating_duration_since(now);
        if time.is_zero() {
            return self.give_up();
        }
        let (server, asking) = match self.redirection.take() {
            Some(Redirection::Moved(server)) => (Some(server), false),
            Some(Redirection::Ask(server)) => (Some(server), true),
            None => (owner, false),
        };
        self.asked.clone_from(&server);
        match server {
            // A server that an `ASK` names has rarely run the script before.
            Some(server) => Step::Send(Attempt { server, asking, with_text: self.with_text || asking, time }),
            None => {
                self.last_error = Error::new(ErrorKind::Cluster, "no server owns the room's slot");
                self.pause(now)
            }
        }
    }

    /// Records the result of the attempt that [`next`](Self::next) returned.
    pub(crate) fn on_result(&mut self, ran: Ran, owner: Option<Server>, now: Instant) -> Step {
        let error = match ran {
            Ok(messages) => {
                let mut failed = messages.iter().filter_map(|message| message.as_ref().err());
                match failed.find(|reason| begins_with_one_of(reason, &OF_THE_SERVER)) {
                    Some(reason) => Error::new(ErrorKind::Unknown, reason.clone()),
                    None => return Step::Finish(Outcome { server: self.asked.take(), result: Ok(messages) }),
                }
            }
            Err(error) => error,
        };
        if error.details().starts_with("NOSCRIPT") && !self.with_text {
            self.with_text = true;
            return self.next(owner, now);
        }
        self.redirection = self.asked.as_ref().and_then(|server| Redirection::of(error.details(), server));
        let retries = is_of_the_server(&error) || is_of_the_slot(&error);
        self.last_error = error;
        match &self.redirection {
            _ if !retries => self.give_up(),
            Some(Redirection::Ask(_)) => self.next(owner, now),
            _ => self.pause(now),
        }
    }

    fn pause(&mut self, now: Instant) -> Step {
        match self.deadline.saturating_duration_since(now) {
            Duration::ZERO => self.give_up(),
            left => Step::Pause(left.min(RETRY_DELAY)),
        }
    }

    fn give_up(&mut self) -> Step {
        Step::Finish(Outcome { server: self.asked.take(), result: Err(self.last_error.clone()) })
    }
}

/// The beginnings of errors that concern the server. The last one is fred's own: connections have
/// ended too often during one command.
const OF_THE_SERVER: [&str; 6] =
    ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "Too many failed write attempts"];

/// Returns whether the connection or the server has a problem, not the command. The problem may be
/// temporary.
pub(crate) fn is_of_the_server(error: &Error) -> bool {
    let of_the_way =
        matches!(error.kind(), ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Sentinel);
    of_the_way || begins_with_one_of(error.details(), &OF_THE_SERVER)
}

/// Returns whether the slot is being moved to another server, which is temporary.
fn is_of_the_slot(error: &Error) -> bool {
    let of_routing = matches!(error.kind(), ErrorKind::Cluster | ErrorKind::Routing);
    of_routing || begins_with_one_of(error.details(), &["TRYAGAIN", "MOVED", "ASK"])
}

fn begins_with_one_of(error: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| error.starts_with(prefix))
}

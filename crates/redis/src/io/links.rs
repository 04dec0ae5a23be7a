//! A node's subscriber connections: one to each server, which is reopened when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::io::connection::{self, Credentials, Report};
use crate::state::room::SessionIndex;
use crate::state::session::Known;

/// How long after its end a connection is reopened: at first, and at most.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// How many reports of connections may wait. Each report is one read.
const MAX_REPORTS: usize = 64;

/// How many chunks may wait to be written to a connection. Further chunks wait in the server's
/// session, whose window bounds them.
const MAX_UNWRITTEN: usize = 8;

/// How long the node continues to read a former master. The former master may continue as a master.
/// Nodes find the new master within 0.8 s of each other, and from then on publish to neither of the
/// two for a while. After this time, the publishers of all nodes have therefore left the former
/// master.
const FORMER_MASTER_PATIENCE: Duration = Duration::from_secs(1);

/// How often the node reconnects to a server that evicts keys, to read its policy again, while the
/// policy prevents the node from working.
const EVICTION_INTERVAL: Duration = Duration::from_secs(5);

/// The connections, by the index of their servers' sessions.
pub(crate) struct Links {
    links: Vec<Link>,
    credentials: Arc<Credentials>,
    reports: mpsc::Sender<(SessionIndex, u64, Report)>,
    inbox: mpsc::Receiver<(SessionIndex, u64, Report)>,
}

/// A connection to a server, including all its reconnects.
struct Link {
    /// Distinguishes this connection's reports from those of earlier connections.
    generation: u64,
    /// Dropping this ends the connection.
    output: Option<mpsc::Sender<Bytes>>,
    retry_at: Instant,
    retry_delay: Duration,
    /// Why the last connection ended or could not be opened.
    error: Option<String>,
    /// The policy by which the server evicts keys, or `None` if it evicts none.
    evicts: Option<String>,
    connected_at: Instant,
    /// When to leave the server, if it is no longer the master.
    leave_at: Option<Instant>,
}

impl Links {
    /// Creates the state without connecting.
    pub(crate) fn new(credentials: Credentials) -> Self {
        let (reports, inbox) = mpsc::channel(MAX_REPORTS);
        Self { links: Vec::new(), credentials: Arc::new(credentials), reports, inbox }
    }

    /// Opens the connections that are due, to servers that own something. While the node is leaving
    /// a former master, it opens none.
    pub(crate) fn open_due(&mut self, servers: &[Known], now: Instant) {
        let is_leaving = self.links.iter().any(|link| link.leave_at.is_some() && link.output.is_some());
        for Known { index, server, owns, .. } in servers {
            if self.links.len() <= *index {
                self.links.push(Link::new(now));
            }
            let link = &mut self.links[*index];
            if *owns && !is_leaving && link.output.is_none() && link.retry_at <= now {
                link.generation += 1;
                let (output, to_write) = mpsc::channel(MAX_UNWRITTEN);
                link.output = Some(output);
                let (reports, index, generation) = (self.reports.clone(), *index, link.generation);
                let report = async move |report| {
                    // The subscriber's task may have ended.
                    let _ = reports.send((index, generation, report)).await;
                };
                tokio::spawn(connection::run(server.clone(), Arc::clone(&self.credentials), to_write, report));
            }
        }
    }

    /// Returns the next report of a connection that has not been given up.
    pub(crate) async fn next_report(&mut self) -> Option<(SessionIndex, Report)> {
        loop {
            let (index, generation, report) = self.inbox.recv().await?;
            if self.links[index].generation == generation {
                return Some((index, report));
            }
        }
    }

    /// Returns the number of servers that have a link.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// Returns a permit to write to a server. Returns `None` if there is no connection, or if it
    /// already has enough to write.
    pub(crate) fn output(&self, index: SessionIndex) -> Option<mpsc::Permit<'_, Bytes>> {
        self.links[index].output.as_ref()?.try_reserve().ok()
    }

    pub(crate) fn on_connected(&mut self, index: SessionIndex, evicts: Option<String>, now: Instant) {
        let link = &mut self.links[index];
        (link.evicts, link.connected_at, link.retry_delay) = (evicts, now, MIN_RETRY);
    }

    /// Records that a connection has ended or could not be opened. Returns whether it had been
    /// open.
    pub(crate) fn on_ended(&mut self, index: SessionIndex, error: String, now: Instant) -> bool {
        let link = &mut self.links[index];
        let was_open = link.retry_delay == MIN_RETRY;
        (link.output, link.error, link.retry_at) = (None, Some(error), now + link.retry_delay);
        link.retry_delay = (link.retry_delay * 2).min(MAX_RETRY);
        was_open
    }

    /// Ends a connection. It is reopened if it is still needed. Its later reports are ignored.
    pub(crate) fn give_up(&mut self, index: SessionIndex, why: &str, now: Instant) {
        let link = &mut self.links[index];
        link.generation += 1;
        (link.output, link.error, link.retry_at, link.leave_at) = (None, Some(why.to_owned()), now, None);
    }

    /// Returns the servers whose connections have become useless, with the reasons. A policy that
    /// evicts keys is read again only if it matters.
    pub(crate) fn to_give_up<'a>(
        &self,
        servers: &'a [Known],
        eviction_matters: bool,
        now: Instant,
    ) -> Vec<(&'a Known, &'static str)> {
        let reason = |known: &Known| {
            let link = self.links.get(known.index)?;
            let evicts = eviction_matters && link.evicts.is_some() && known.owns && known.is_connected;
            if link.leave_at.is_some_and(|at| at <= now) {
                Some("another server is the master now")
            } else if evicts && now.duration_since(link.connected_at) > EVICTION_INTERVAL {
                Some("the maxmemory-policy is not noeviction")
            } else {
                None
            }
        };
        servers.iter().filter_map(|known| Some((known, reason(known)?))).collect()
    }

    /// Records which connections lead to a former master. Returns whether one of the servers has
    /// just ceased to be the master.
    pub(crate) fn note_former_masters(&mut self, servers: &[Known], now: Instant) -> bool {
        let mut has_changed = false;
        for Known { index, owns, is_connected, .. } in servers {
            let Some(link) = self.links.get_mut(*index) else { continue };
            if *owns || link.output.is_none() {
                link.leave_at = None;
            } else if *is_connected && link.leave_at.is_none() {
                link.leave_at = Some(now + FORMER_MASTER_PATIENCE);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Returns why the last connection to a server ended or could not be opened.
    pub(crate) fn error(&self, index: SessionIndex) -> Option<&String> {
        self.links.get(index)?.error.as_ref()
    }

    /// Returns the policy by which a server evicts keys, or `None` if it evicts none.
    pub(crate) fn eviction_policy(&self, index: SessionIndex) -> Option<&String> {
        self.links.get(index)?.evicts.as_ref()
    }
}

impl Link {
    /// Creates a link whose connection is opened immediately.
    fn new(now: Instant) -> Self {
        Self {
            generation: 0,
            output: None,
            retry_at: now,
            retry_delay: MIN_RETRY,
            error: None,
            evicts: None,
            connected_at: now,
            leave_at: None,
        }
    }
}

//! The requests that wait for responses of other nodes. It does no I/O.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::cluster::message::Response;
use crate::id::NodeId;

/// How long a node waits for other nodes' responses. They arrive within milliseconds, unless a node
/// has just died.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How many requests may wait at once. Further requests fail, because the other nodes cannot keep
/// up.
pub const MAX_REQUESTS: usize = 10_000;

/// The waiting requests, by the id that their responses contain.
#[derive(Debug, Default)]
pub(crate) struct PendingRequests {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// The nodes that have not responded yet.
    missing: HashSet<NodeId>,
    responded: HashSet<NodeId>,
    /// The nodes that responded, but whose version does not support the request.
    unsupported: Vec<NodeId>,
    /// Whether the request goes to all nodes, including those whose heartbeat has not arrived yet.
    to_all: bool,
    responses: Vec<Response>,
    /// Notified when no response is missing.
    complete: Option<oneshot::Sender<()>>,
}

/// The result of a request.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    pub(crate) responses: Vec<Response>,
    /// The nodes that should have responded and did not, or whose version does not support the
    /// request.
    pub(crate) unresponsive: Vec<NodeId>,
}

impl PendingRequests {
    /// Starts a request to these nodes. Returns its id, and a receiver that resolves when all nodes
    /// have responded. Returns `None` if too many requests wait.
    pub(crate) fn start(&mut self, nodes: HashSet<NodeId>, to_all: bool) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.waiting.len() >= MAX_REQUESTS {
            return None;
        }
        self.last += 1;
        let (complete, completed) = oneshot::channel();
        let mut waiting = Waiting {
            missing: nodes,
            responded: HashSet::new(),
            unsupported: Vec::new(),
            to_all,
            responses: Vec::new(),
            complete: Some(complete),
        };
        waiting.notify_if_complete();
        self.waiting.insert(self.last, waiting);
        Some((self.last, completed))
    }

    /// Records a node's response. If the request goes to all nodes, responses of nodes that have
    /// become live since count as well.
    pub(crate) fn on_response(&mut self, id: u64, from: NodeId, is_live: bool, response: Response) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        let is_first = match waiting.missing.remove(&from) {
            true => true,
            false => is_live && waiting.to_all && !waiting.responded.contains(&from),
        };
        if is_first {
            waiting.responded.insert(from);
            match response {
                Response::Unsupported | Response::Unknown => waiting.unsupported.push(from),
                response => waiting.responses.push(response),
            }
            waiting.notify_if_complete();
        }
    }

    /// Records that a node has left. It has ended its connections, so it has nothing to report.
    pub(crate) fn on_leave(&mut self, node: NodeId) {
        for waiting in self.waiting.values_mut() {
            waiting.missing.remove(&node);
            waiting.notify_if_complete();
        }
    }

    /// Ends the wait for a request, and returns the responses.
    pub(crate) fn finish(&mut self, id: u64) -> Responses {
        let Some(waiting) = self.waiting.remove(&id) else { return Responses::default() };
        let mut unresponsive: Vec<_> = waiting.missing.into_iter().chain(waiting.unsupported).collect();
        unresponsive.sort_unstable();
        Responses { responses: waiting.responses, unresponsive }
    }
}

impl Waiting {
    fn notify_if_complete(&mut self) {
        if self.missing.is_empty()
            && let Some(complete) = self.complete.take()
        {
            // The requester may no longer wait.
            let _ = complete.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_requests_wait_and_no_more() {
        let mut requests = PendingRequests::default();
        let started: Vec<_> =
            (0..MAX_REQUESTS).map(|_| requests.start(HashSet::new(), true).expect("there is place")).collect();
        assert!(requests.start(HashSet::new(), true).is_none());
        requests.finish(started[0].0);
        assert!(requests.start(HashSet::new(), true).is_some());
    }

    #[test]
    fn a_question_is_complete_when_the_last_node_has_answered_or_left() {
        let [one, two, three] = [1, 2, 3].map(NodeId::from_u64);
        let mut requests = PendingRequests::default();
        let (id, mut completed) = requests.start(HashSet::from([one, two, three]), true).expect("there is place");
        requests.on_response(id, one, true, Response::Reached { count: 1 });
        requests.on_response(id + 1, two, true, Response::Reached { count: 1 });
        requests.on_leave(three);
        assert!(completed.try_recv().is_err(), "one is missing");
        requests.on_response(id, two, true, Response::Reached { count: 2 });
        assert_eq!(completed.try_recv(), Ok(()));
        let responses = requests.finish(id);
        assert_eq!(
            (responses.responses, responses.unresponsive),
            (vec![Response::Reached { count: 1 }, Response::Reached { count: 2 }], vec![])
        );
    }

    #[test]
    fn a_node_answers_once_and_only_what_it_was_asked() {
        let [one, two, three] = [1, 2, 3].map(NodeId::from_u64);
        let mut requests = PendingRequests::default();
        let (to_one, _) = requests.start(HashSet::from([one]), false).expect("there is place");
        let (to_all, _) = requests.start(HashSet::from([one]), true).expect("there is place");
        for id in [to_one, to_all] {
            for (from, is_live) in [(one, true), (one, true), (two, true), (two, true), (three, false)] {
                requests.on_response(id, from, is_live, Response::Reached { count: 1 });
            }
        }
        assert_eq!(requests.finish(to_one).responses.len(), 1);
        assert_eq!(requests.finish(to_all).responses.len(), 2, "one that came meanwhile, and none that nobody knows");
    }
}

//! The questions that a node has asked and whose answers it waits for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::id::NodeId;
use crate::message::Answer;

/// How long a node waits for others' answers. They come within milliseconds, unless a node has just died.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Questions that may wait at once. Over it a node asks nothing more: others don't keep up.
pub const MAX_REQUESTS: usize = 10_000;

/// Questions by the number that their answers name.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Who has not answered yet.
    missing: HashSet<NodeId>,
    answered: HashSet<NodeId>,
    /// All nodes were asked, including those not known yet.
    asks_all: bool,
    answers: Vec<Answer>,
    /// Told when nobody is missing.
    complete: Option<oneshot::Sender<()>>,
}

/// What came of a question.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) answers: Vec<Answer>,
    /// Who should have answered and did not.
    pub(crate) missing: Vec<NodeId>,
}

impl Requests {
    /// A new question to these nodes: its number, and what is told when all have answered. `None`: too
    /// many wait.
    pub(crate) fn start(&mut self, nodes: HashSet<NodeId>, asks_all: bool) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.waiting.len() >= MAX_REQUESTS {
            return None;
        }
        self.last += 1;
        let (complete, completed) = oneshot::channel();
        let mut waiting = Waiting {
            missing: nodes,
            answered: HashSet::new(),
            asks_all,
            answers: Vec::new(),
            complete: Some(complete),
        };
        waiting.tell_if_complete();
        self.waiting.insert(self.last, waiting);
        Some((self.last, completed))
    }

    /// A node has answered. If all nodes were asked, one that was unknown then counts, too, if it is known by now.
    pub(crate) fn on_answer(&mut self, id: u64, from: NodeId, is_live: bool, answer: Answer) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        let is_first = match waiting.missing.remove(&from) {
            true => true,
            false => is_live && waiting.asks_all && !waiting.answered.contains(&from),
        };
        if is_first {
            waiting.answered.insert(from);
            waiting.answers.push(answer);
            waiting.tell_if_complete();
        }
    }

    /// A node has left in an orderly way, without connections: it has nothing to answer.
    pub(crate) fn on_goodbye(&mut self, node: NodeId) {
        for waiting in self.waiting.values_mut() {
            waiting.missing.remove(&node);
            waiting.tell_if_complete();
        }
    }

    /// Ends the wait.
    pub(crate) fn finish(&mut self, id: u64) -> Answers {
        let Some(waiting) = self.waiting.remove(&id) else { return Answers::default() };
        let mut missing: Vec<_> = waiting.missing.into_iter().collect();
        missing.sort_unstable();
        Answers { answers: waiting.answers, missing }
    }
}

impl Waiting {
    fn tell_if_complete(&mut self) {
        if self.missing.is_empty()
            && let Some(complete) = self.complete.take()
        {
            // Who asked may have gone.
            let _ = complete.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_questions_wait_and_no_more() {
        let mut requests = Requests::default();
        let started: Vec<_> =
            (0..MAX_REQUESTS).map(|_| requests.start(HashSet::new(), true).expect("there is place")).collect();
        assert!(requests.start(HashSet::new(), true).is_none());
        requests.finish(started[0].0);
        assert!(requests.start(HashSet::new(), true).is_some());
    }

    #[test]
    fn a_question_is_complete_when_the_last_node_has_answered_or_left() {
        let [one, two, three] = [1, 2, 3].map(NodeId::from_u64);
        let mut requests = Requests::default();
        let (id, mut completed) = requests.start(HashSet::from([one, two, three]), true).expect("there is place");
        requests.on_answer(id, one, true, Answer::Reached(1));
        requests.on_answer(id + 1, two, true, Answer::Reached(1));
        requests.on_goodbye(three);
        assert!(completed.try_recv().is_err(), "one is missing");
        requests.on_answer(id, two, true, Answer::Reached(2));
        assert_eq!(completed.try_recv(), Ok(()));
        let answers = requests.finish(id);
        assert_eq!((answers.answers, answers.missing), (vec![Answer::Reached(1), Answer::Reached(2)], vec![]));
    }

    #[test]
    fn a_node_answers_once_and_only_what_it_was_asked() {
        let [one, two, three] = [1, 2, 3].map(NodeId::from_u64);
        let mut requests = Requests::default();
        let (to_one, _) = requests.start(HashSet::from([one]), false).expect("there is place");
        let (to_all, _) = requests.start(HashSet::from([one]), true).expect("there is place");
        for id in [to_one, to_all] {
            for (from, is_live) in [(one, true), (one, true), (two, true), (two, true), (three, false)] {
                requests.on_answer(id, from, is_live, Answer::Reached(1));
            }
        }
        assert_eq!(requests.finish(to_one).answers.len(), 1);
        assert_eq!(requests.finish(to_all).answers.len(), 2, "one that came meanwhile, and none that nobody knows");
    }
}

//! A fault's figures, and what they must be.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::actors::Calls;
use crate::judge::{EventId, Outcome, Published, Verdict};

/// After that time everything must be normal again. What is promised is 5 s; this machine may be slow.
const RECOVERY: Duration = Duration::from_secs(15);

/// An event that takes longer was held up by what nobody was to notice.
const EVENT_TIME: Duration = Duration::from_secs(5);

/// A call that takes longer was held up by the fault. So is one on a machine that has stopped altogether.
const CALL_TIME: Duration = Duration::from_secs(5);

/// What a dead Redis takes with it: events that were accepted shortly before.
pub(crate) const IN_FLIGHT: Duration = Duration::from_secs(1);

/// What happened during a fault.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: String,
    pub(crate) verdict: Verdict,
    pub(crate) published: Vec<Published>,
    /// How often publishes were refused with which answer.
    pub(crate) refusals: BTreeMap<String, usize>,
    /// Losses that nodes announced, and events that they missed at first and got later, by node.
    pub(crate) announced: BTreeMap<usize, usize>,
    pub(crate) repaired: BTreeMap<usize, usize>,
    pub(crate) reconnects: usize,
    /// Members that lost their connection though their node went on.
    pub(crate) disconnected: usize,
    /// When it began, when the test had ended it, and when all was normal again.
    pub(crate) fault: Duration,
    pub(crate) over: Duration,
    pub(crate) normal: Option<Duration>,
    /// How long an event took at most from the fault on.
    pub(crate) slowest: Duration,
    /// By node that went on.
    pub(crate) calls: BTreeMap<usize, Calls>,
}

impl Report {
    /// What must hold whatever fails.
    #[track_caller]
    fn assert_sound(&self) {
        let verdict = &self.verdict;
        assert_eq!((verdict.duplicated, verdict.reordered, verdict.misrouted), (0, 0, 0), "{self}");
        assert_eq!(self.disconnected, 0, "clients stay connected: {self}");
        let normal = self.normal.unwrap_or_else(|| panic!("it did not get normal again: {self}"));
        assert!(normal.saturating_sub(self.over) < RECOVERY, "{self}");
        for (node, calls) in &self.calls {
            assert_eq!(calls.failures, Vec::<String>::new(), "node {node}: {self}");
            assert!(!calls.cancellations.is_empty(), "node {node} cancelled no call: {self}");
            let longest = calls.latencies.iter().chain(&calls.cancellations).max().expect("there were calls");
            assert!(*longest < CALL_TIME, "node {node} held a call up for {longest:?}: {self}");
        }
    }

    /// Nothing was lost.
    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        self.assert_sound();
        assert_eq!(self.verdict.lost(), 0, "{self}\n{:?}", self.verdict.lost);
    }

    /// What was lost, its node knows of.
    #[track_caller]
    pub(crate) fn assert_every_loss_announced(&self) {
        self.assert_sound();
        assert_eq!(self.verdict.silently_lost(&self.announced), 0, "{self}\n{:?}", self.verdict.lost);
    }

    /// Nothing was lost, and nothing was held up: this was not an outage.
    #[track_caller]
    pub(crate) fn assert_unnoticed(&self) {
        self.assert_complete();
        assert!(self.slowest < EVENT_TIME, "an event took {:?}: {self}", self.slowest);
    }

    /// Nothing was lost but what was accepted shortly before the fault by a Redis that then died.
    #[track_caller]
    pub(crate) fn assert_lost_at_most_what_died(&self) {
        self.assert_sound();
        let answered = |id: &EventId| self.published.iter().find(|event| event.id == *id).map(|event| event.outcome);
        let died_with_redis = |id: &&EventId| match answered(id) {
            Some(Outcome::Acked(at)) => at + IN_FLIGHT > self.fault && at < self.fault + IN_FLIGHT,
            _ => false,
        };
        let others: Vec<_> = self.verdict.lost.values().flatten().filter(|id| !died_with_redis(id)).collect();
        assert_eq!(others, Vec::<&EventId>::new(), "these were not in flight: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { published, acked, refused, unknown, delivered, duplicated, reordered, misrouted, .. } =
            &self.verdict;
        let (lost, silent) = (self.verdict.lost(), self.verdict.silently_lost(&self.announced));
        let sum = |counts: &BTreeMap<usize, usize>| counts.values().sum::<usize>();
        let (announced, repaired) = (sum(&self.announced), sum(&self.repaired));
        write!(
            f,
            "{}: published {published}, acked {acked}, refused {refused}, unknown {unknown}; delivered {delivered}, \
             lost {lost}, announced {announced}, silently lost {silent}, duplicated {duplicated}, reordered \
             {reordered}, misrouted {misrouted}; repaired {repaired}, reconnects {}; slowest event {:.2?}, fault \
             lasted {:.2?}",
            self.title,
            self.reconnects,
            self.slowest,
            self.over - self.fault,
        )?;
        match self.normal {
            Some(normal) => write!(
                f,
                ", normal {:.2?} after it began, {:.2?} after it ended",
                normal - self.fault,
                normal.saturating_sub(self.over),
            )?,
            None => f.write_str(", not normal again")?,
        }
        for (node, calls) in &self.calls {
            let (calls, resets) = (Quantiles::of(&calls.latencies), Quantiles::of(&calls.cancellations));
            write!(f, "; node {node}: calls {calls}, cancellations {resets}")?;
        }
        for (answer, times) in &self.refusals {
            write!(f, "; refused {times} times with {answer}")?;
        }
        Ok(())
    }
}

/// The number of times, and their median, 99th percentile and maximum.
struct Quantiles(usize, [Duration; 3]);

impl Quantiles {
    fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort();
        let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
        Self(times.len(), [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or_default()))
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, [median, p99, max]) = self;
        write!(f, "{count} p50 {median:.1?} p99 {p99:.1?} max {max:.1?}")
    }
}

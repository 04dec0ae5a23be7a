//! Waves of calls that are cancelled: how long does the work go on?
//!
//! A connection's frames are handled in order, so the answer to a gauge that is asked right behind the Resets tells
//! whether the work has ended by then. The time counts from the planned moment of the Resets to the first answer that
//! is not above what ran before the wave.

use std::collections::BTreeMap;

use bytes::Bytes;
use roomcast_protocol::{CallId, Name};

use crate::clock::{self, MILLISECOND, Nanos};
use crate::generator::calls::{Call, Purpose};
use crate::generator::fleet::Fleet;
use crate::generator::pacer::every;
use crate::results::Operation;
use crate::scenario::{Cancel, Scenario};

use super::activity::Activity;

/// How long after an answer the gauge is asked again, at first; later, after this part of the time that has passed.
const ASK_AGAIN: Nanos = MILLISECOND;
const ASK_AGAIN_PART: Nanos = 10;

#[derive(Debug)]
pub(crate) struct Cancelling {
    cancel: Cancel,
    method: Name,
    gauge: Name,
    timeout: Nanos,
    /// Waves still to come, the next one last.
    waves: Vec<Nanos>,
    clients: Vec<u32>,
    /// What ran before, by client; asked at the beginning.
    before: BTreeMap<u32, u64>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Begin,
    Waiting,
    /// The wave's calls run.
    Running {
        reset_at: Nanos,
        calls: Vec<(u32, CallId)>,
    },
    /// They are cancelled; who does not know yet that all have ended, when to ask again, and what the last answer was above
    /// what ran before.
    Ending {
        since: Nanos,
        asking: BTreeMap<u32, Asking>,
    },
}

#[derive(Debug, Clone, Copy, Default)]
struct Asking {
    /// None: an answer is under way.
    again_at: Option<Nanos>,
    too_many: u64,
}

impl Cancelling {
    /// None if there is nothing to cancel here: one process does it for all.
    pub(crate) fn new(scenario: &Scenario, fleet: &Fleet, start: Nanos, end: Nanos) -> Option<Self> {
        let cancel = scenario.cancel.clone();
        // The last wave has to end in time.
        let mut waves: Vec<_> = every(cancel.every, start, end.saturating_sub(clock::nanos(cancel.after))).collect();
        waves.reverse();
        let (method, gauge) = (Name::new(&cancel.method).ok()?, Name::new(&cancel.gauge).ok()?);
        let clients: Vec<_> = (0..cancel.connections.min(fleet.len())).collect();
        let is_here = fleet.share.index == 0 && !waves.is_empty() && !clients.is_empty();
        is_here.then(|| Self {
            cancel,
            method,
            gauge,
            timeout: fleet.clients.timeout,
            waves,
            clients,
            before: BTreeMap::new(),
            phase: Phase::Begin,
        })
    }

    fn ask(&self, client: u32, planned: Nanos, now: Nanos, fleet: &mut Fleet) {
        let call = Call { purpose: Purpose::Gauge, planned, name: self.gauge.clone(), payload: Bytes::new() };
        fleet.call(client, call, now);
    }

    /// What ran before is asked while no wave runs: at the beginning, and of who was away then after a wave.
    fn ask_before(&self, now: Nanos, fleet: &mut Fleet) {
        for client in self.clients.iter().filter(|client| !self.before.contains_key(client)) {
            if fleet.is_usable(*client) {
                self.ask(*client, now, now, fleet);
            }
        }
    }

    fn start_wave(&mut self, planned: Nanos, now: Nanos, fleet: &mut Fleet) {
        let ready: Vec<_> = self
            .clients
            .iter()
            .copied()
            .filter(|client| fleet.is_usable(*client) && self.before.contains_key(client))
            .collect();
        if ready.is_empty() {
            fleet.clients.recorder.counts.unsent += 1;
            return;
        }
        let calls = ready.iter().cycle().take(self.cancel.calls as usize).map(|client| {
            let name = self.method.clone();
            (*client, fleet.call(*client, Call { purpose: Purpose::Long, planned, name, payload: Bytes::new() }, now))
        });
        self.phase = Phase::Running { calls: calls.collect(), reset_at: planned + clock::nanos(self.cancel.after) };
    }

    fn reset(&mut self, since: Nanos, calls: &[(u32, CallId)], now: Nanos, fleet: &mut Fleet) {
        let mut asking = BTreeMap::new();
        for (client, id) in calls {
            fleet.cancel(*client, *id);
            asking.insert(*client, Asking::default());
        }
        // Who is gone has no calls any more.
        asking.retain(|client, _| fleet.is_usable(*client));
        for client in asking.keys() {
            self.ask(*client, since, now, fleet);
        }
        self.phase = Phase::Ending { since, asking };
    }

    fn on_gauge(&mut self, (client, asked): (u32, Nanos), value: u64, now: Nanos, fleet: &mut Fleet) {
        match &mut self.phase {
            Phase::Begin | Phase::Waiting => {
                self.before.insert(client, value);
            }
            // An answer that came too late for its wave.
            Phase::Running { .. } => {}
            Phase::Ending { since, .. } if *since != asked => {}
            Phase::Ending { since, asking } => {
                let before = self.before.get(&client).copied().unwrap_or_default();
                if value <= before {
                    if asking.remove(&client).is_some() {
                        fleet.clients.recorder.record(Operation::Cancel, *since, now);
                    }
                } else if let Some(asking) = asking.get_mut(&client) {
                    let wait = ASK_AGAIN.max(now.saturating_sub(*since) / ASK_AGAIN_PART);
                    *asking = Asking { again_at: Some(now + wait), too_many: value - before };
                }
            }
        }
    }

    /// Ends a wave whose work has ended, or should have long ago.
    fn go_on_ending(&mut self, now: Nanos, fleet: &mut Fleet) {
        let Phase::Ending { since, asking } = &mut self.phase else { return };
        let since = *since;
        asking.retain(|client, _| fleet.is_usable(*client));
        if now > since + self.timeout {
            // All clients of a node count the same calls.
            fleet.clients.rooms.roomless.orphaned +=
                asking.values().map(|asking| asking.too_many).max().unwrap_or_default();
            // They are known now: the next wave counts from there.
            for (client, asking) in std::mem::take(asking) {
                *self.before.entry(client).or_default() += asking.too_many;
            }
        }
        if asking.is_empty() {
            self.phase = Phase::Waiting;
            return self.ask_before(now, fleet);
        }
        let due = |(client, asking): (&u32, &mut Asking)| asking.again_at.take_if(|at| *at <= now).map(|_| *client);
        let due: Vec<_> = asking.iter_mut().filter_map(due).collect();
        for client in due {
            self.ask(client, since, now, fleet);
        }
    }
}

impl Activity for Cancelling {
    fn next_at(&mut self) -> Option<Nanos> {
        match &self.phase {
            Phase::Begin => Some(0),
            Phase::Waiting => self.waves.last().copied(),
            Phase::Running { reset_at, .. } => Some(*reset_at),
            Phase::Ending { since, asking } => {
                asking.values().filter_map(|asking| asking.again_at).chain([since + self.timeout + 1]).min()
            }
        }
    }

    fn act(&mut self, now: Nanos, fleet: &mut Fleet) {
        for (client, asked, value) in std::mem::take(&mut fleet.clients.gauges) {
            self.on_gauge((client, asked), value, now, fleet);
        }
        if let Phase::Begin = self.phase {
            self.phase = Phase::Waiting;
            self.ask_before(now, fleet);
        }
        self.go_on_ending(now, fleet);
        if let Phase::Running { reset_at, calls } = &mut self.phase
            && *reset_at <= now
        {
            let (reset_at, calls) = (*reset_at, std::mem::take(calls));
            self.reset(reset_at, &calls, now, fleet);
        }
        if matches!(self.phase, Phase::Waiting)
            && let Some(planned) = self.waves.pop_if(|at| *at <= now)
        {
            self.start_wave(planned, now, fleet);
        }
    }

    /// Whether a wave's work has ended is known, at the latest, when its time is over.
    fn finish(&mut self) -> bool {
        self.waves.clear();
        !matches!(self.phase, Phase::Begin | Phase::Waiting)
    }
}

//! The circuit breaker, which stops calls of a backend that fails. No I/O, and the time is an
//! argument.

use std::time::{Duration, Instant};

/// Failures count for this long.
const WINDOW: Duration = Duration::from_secs(10);

/// The window consists of this many parts, which are forgotten one by one.
const PARTS: usize = 10;
const PART: Duration = Duration::from_secs(WINDOW.as_secs() / PARTS as u64);

/// The breaker stays closed below this number of calls in the window.
const MIN_CALLS: u32 = 20;

/// How long the breaker stays open before it lets one call through.
const OPEN: Duration = Duration::from_secs(5);

/// Opens after at least half of at least 20 calls in 10 s have failed. 5 s later, it lets one call
/// through, the probe, whose outcome closes it or keeps it open for another 5 s.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// The number of times that the breaker has opened or closed. The outcome of a call that began
    /// before does not count.
    changes: u64,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Instant, is_probing: bool },
}

/// What operators see of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    Closed,
    /// It lets one call through, or waits for the outcome of this call.
    HalfOpen,
    Open,
}

/// The permission to call the backend. Its owner records the outcome of the call.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass {
    changes: u64,
    is_probe: bool,
}

/// What a call shows about the health of its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend responded.
    Success,
    /// The backend could not be reached, failed, or took longer than its own timeout.
    Failure,
    /// Nothing, because the caller ended the call.
    Neither,
}

impl Pass {
    /// Returns whether the outcome decides if the breaker closes.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Closed(Window::new(now)), changes: 0 }
    }

    /// Returns the permission for a call.
    ///
    /// # Errors
    /// Returns the time after which to try again, if the breaker is open.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        let is_probe = match &mut self.state {
            State::Closed(_) => false,
            State::Open { until, .. } if now < *until => return Err(*until - now),
            // The head of its response arrives within the backend's timeout, and decides.
            State::Open { is_probing: true, .. } => return Err(PART),
            State::Open { is_probing, .. } => {
                *is_probing = true;
                true
            }
        };
        Ok(Pass { changes: self.changes, is_probe })
    }

    /// Records the outcome of a call.
    pub(crate) fn record(&mut self, pass: &Pass, outcome: Outcome, now: Instant) {
        if pass.changes != self.changes {
            return;
        }
        match (&mut self.state, outcome) {
            (State::Closed(_), Outcome::Neither) => {}
            (State::Closed(window), outcome) => {
                if window.count(outcome == Outcome::Failure, now) {
                    self.open(now);
                }
            }
            (State::Open { is_probing, .. }, Outcome::Neither) => *is_probing = false,
            (State::Open { .. }, Outcome::Success) => {
                self.state = State::Closed(Window::new(now));
                self.changes += 1;
            }
            (State::Open { .. }, Outcome::Failure) => self.open(now),
        }
        debug_assert!(!pass.is_probe || !matches!(self.state, State::Open { is_probing: true, .. }));
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed(_) => BreakerState::Closed,
            State::Open { until, .. } if now < until => BreakerState::Open,
            State::Open { .. } => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now + OPEN, is_probing: false };
        self.changes += 1;
    }
}

/// The calls of the last 10 s, and how many of them failed.
#[derive(Debug)]
struct Window {
    parts: [Counts; PARTS],
    /// The part that counts, and when it began.
    current: usize,
    began: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { parts: Default::default(), current: 0, began: now }
    }

    /// Counts a call, and returns whether too many calls have failed.
    fn count(&mut self, has_failed: bool, now: Instant) -> bool {
        if now.saturating_duration_since(self.began) >= WINDOW + PART {
            *self = Self::new(now);
        }
        while now.saturating_duration_since(self.began) >= PART {
            self.began += PART;
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Counts::default();
        }
        let part = &mut self.parts[self.current];
        part.calls = part.calls.saturating_add(1);
        part.failures = part.failures.saturating_add(u32::from(has_failed));
        let sum = |count: fn(&Counts) -> u32| self.parts.iter().map(count).fold(0, u32::saturating_add);
        let (calls, failures) = (sum(|part| part.calls), sum(|part| part.failures));
        calls >= MIN_CALLS && failures >= calls.div_ceil(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(breaker: &mut Breaker, outcome: Outcome, now: Instant) {
        let pass = breaker.admit(now).unwrap();
        breaker.record(&pass, outcome, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        for _ in 0..20 {
            assert_eq!(breaker.state(now), BreakerState::Closed);
            call(&mut breaker, Outcome::Failure, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        breaker
    }

    #[test]
    fn it_opens_when_half_of_20_calls_in_10_s_have_failed() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        for second in 0..10 {
            for outcome in [Outcome::Success, Outcome::Success, Outcome::Neither, Outcome::Failure] {
                call(&mut breaker, outcome, start + second * SECOND);
            }
        }
        assert_eq!(breaker.state(start), BreakerState::Closed, "a third has failed");
        // The first second is forgotten: 9 of 27 calls failed. Then 10 of 28, and so on until 18 of 36.
        let now = start + 10 * SECOND;
        for further in 0..9 {
            assert_eq!(breaker.state(now), BreakerState::Closed, "after {further}");
            call(&mut breaker, Outcome::Failure, now);
        }
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert_eq!(breaker.admit(now + SECOND).unwrap_err(), 4 * SECOND);
    }

    #[test]
    fn failures_are_forgotten_after_10_s() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        for second in [0, 15, 30] {
            for _ in 0..19 {
                call(&mut breaker, Outcome::Failure, start + second * SECOND);
            }
        }
        assert_eq!(breaker.state(start), BreakerState::Closed);
    }

    #[test]
    fn one_probe_decides_whether_it_closes() {
        let start = Instant::now();
        for (outcome, state) in [(Outcome::Success, BreakerState::Closed), (Outcome::Failure, BreakerState::Open)] {
            let mut breaker = opened(start);
            let later = start + OPEN;
            assert_eq!(breaker.state(later), BreakerState::HalfOpen);
            let probe = breaker.admit(later).unwrap();
            assert!(breaker.admit(later).is_err(), "one at a time");
            breaker.record(&probe, outcome, later + SECOND);
            assert_eq!(breaker.state(later + SECOND), state);
        }
    }

    #[test]
    fn a_probe_that_its_caller_ends_makes_room_for_another() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let probe = breaker.admit(start + OPEN).unwrap();
        breaker.record(&probe, Outcome::Neither, start + OPEN);
        assert!(breaker.admit(start + OPEN).is_ok());
    }

    #[test]
    fn calls_that_began_before_it_opened_do_not_count_after_it() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        let early: Vec<_> = (0..40).map(|_| breaker.admit(start).unwrap()).collect();
        for pass in &early[..20] {
            breaker.record(pass, Outcome::Failure, start + SECOND);
        }
        let later = start + SECOND + OPEN;
        let probe = breaker.admit(later).unwrap();
        for pass in &early[20..30] {
            breaker.record(pass, Outcome::Success, later);
        }
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        breaker.record(&probe, Outcome::Success, later);
        for pass in &early[30..] {
            breaker.record(pass, Outcome::Failure, later);
        }
        assert_eq!(breaker.state(later), BreakerState::Closed);
    }
}

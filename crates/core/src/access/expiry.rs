//! The expiry of a connection's credential: first a reminder, then the end of the connection.

use std::time::{Duration, Instant};

/// The shortest time from the reminder to the expiry, in which a client must be able to get a new
/// credential.
const MIN_NOTICE: Duration = Duration::from_secs(30);

/// The time over which the reminders of credentials that expire together are spread, so that their
/// refreshes are spread, too.
const NOTICE_SPREAD: Duration = Duration::from_secs(30);

/// The longest time that is added to the current time. A longer one stands for "never", and could
/// overflow.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What to do for a connection whose credential expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryEvent {
    /// Remind the client.
    Remind {
        /// The time until the expiry.
        expires_in: Duration,
    },
    /// End the connection, because the credential has expired and the grace time is over.
    End,
}

/// The times of one credential: a reminder 60 to 30 s before it expires, and the end of the
/// connection after the grace time.
///
/// ```
/// # use roomcast_core as roomcast;
/// use std::time::{Duration, Instant};
///
/// use roomcast::{Expiry, ExpiryEvent};
///
/// let (now, second) = (Instant::now(), Duration::from_secs(1));
/// let mut expiry = Expiry::new(now, 100 * second, 25 * second, 0);
/// assert_eq!(expiry.next(), now + 40 * second);
/// assert_eq!(expiry.on_time(now + 40 * second), Some(ExpiryEvent::Remind { expires_in: 60 * second
/// }));
/// assert_eq!(expiry.on_time(now + 124 * second), None);
/// assert_eq!(expiry.on_time(now + 125 * second), Some(ExpiryEvent::End));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// `None` after the reminder.
    remind_at: Option<Instant>,
    expires_at: Instant,
    ends_at: Instant,
}

impl Expiry {
    /// Creates the times of a credential that expires in `expires_in`, or after 100 years if this is
    /// longer. `seed` determines the time of the reminder. Different seeds, even consecutive ones,
    /// spread the reminders.
    pub fn new(now: Instant, expires_in: Duration, grace: Duration, seed: u64) -> Self {
        // Fibonacci hashing spreads the top 16 bits evenly, even for consecutive seeds.
        let fraction = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32;
        let notice = MIN_NOTICE + NOTICE_SPREAD - NOTICE_SPREAD * fraction / (1 << 16);
        let (expires_in, grace) = (expires_in.min(FOREVER), grace.min(FOREVER));
        let expires_at = now + expires_in;
        Self { remind_at: Some(now + expires_in.saturating_sub(notice)), expires_at, ends_at: expires_at + grace }
    }

    /// Creates the times of a connection that ends in `ends_in` without a reminder.
    pub fn without_reminder(now: Instant, ends_in: Duration) -> Self {
        Self { remind_at: None, ..Self::new(now, ends_in, Duration::ZERO, 0) }
    }

    /// Returns the time of the next event.
    pub fn next(&self) -> Instant {
        self.remind_at.unwrap_or(self.ends_at)
    }

    /// Returns the event that is due at a time, if there is one.
    pub fn on_time(&mut self, now: Instant) -> Option<ExpiryEvent> {
        if now >= self.ends_at {
            return Some(ExpiryEvent::End);
        }
        self.remind_at.take_if(|at| *at <= now)?;
        Some(ExpiryEvent::Remind { expires_in: self.expires_at.saturating_duration_since(now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reminders_of_credentials_that_expire_together_are_spread_evenly() {
        let now = Instant::now();
        let mut per_second = [0; 30];
        for seed in 0..100_000 {
            let wait = Expiry::new(now, 3600 * SECOND, SECOND, seed).next() - now;
            let before = 3600 * SECOND - wait;
            assert!(MIN_NOTICE < before && before <= 60 * SECOND, "{before:?} before the expiry");
            per_second[(wait - 3540 * SECOND).as_secs() as usize] += 1;
        }
        assert!(per_second.iter().all(|reminders| (3_200..=3_500).contains(reminders)), "{per_second:?}");
    }

    #[test]
    fn a_credential_that_never_expires_has_times_that_never_come() {
        let now = Instant::now();
        for (expires_in, grace) in [(Duration::MAX, SECOND), (SECOND, Duration::MAX), (Duration::MAX, Duration::MAX)] {
            let mut expiry = Expiry::new(now, expires_in, grace, 1);
            assert_ne!(expiry.on_time(now + Duration::from_secs(90 * 366 * 86_400)), Some(ExpiryEvent::End));
        }
    }

    #[test]
    fn a_short_lived_credential_is_reminded_of_at_once() {
        let now = Instant::now();
        let mut expiry = Expiry::new(now, 10 * SECOND, 5 * SECOND, 7);
        assert_eq!(expiry.on_time(now), Some(ExpiryEvent::Remind { expires_in: 10 * SECOND }));
        assert_eq!((expiry.on_time(now), expiry.next()), (None, now + 15 * SECOND));
        assert_eq!(expiry.on_time(now + 15 * SECOND), Some(ExpiryEvent::End));
    }
}

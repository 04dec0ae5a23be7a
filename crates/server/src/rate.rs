//! How often something may happen, as a value.

use std::time::Duration;

const SECOND: u64 = 1_000_000_000;

/// How often a client may do something: a number of times per second on average, and a number of
/// times at once.
///
/// ```
/// use roomcast::{Options, RateLimit};
///
/// let options = Options::default().with(|options| {
///     options.rates.calls = RateLimit::per_second(50).burst(200);
///     options.rates.publishes = RateLimit::UNLIMITED;
/// });
/// assert_eq!(options.rates.calls.to_string(), "50/s burst 200");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    per_second: u32,
    burst: u32,
}

impl RateLimit {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 0 };

    /// Creates a limit of this number per second, all of which may happen at once. 0 counts as 1.
    pub const fn per_second(number: u32) -> Self {
        let number = if number == 0 { 1 } else { number };
        Self { per_second: number, burst: number }
    }

    /// Sets how many times the action may happen at once. 0 counts as 1.
    #[must_use]
    pub const fn burst(mut self, number: u32) -> Self {
        self.burst = if number == 0 { 1 } else { number };
        self
    }

    fn is_unlimited(self) -> bool {
        self.per_second == 0
    }

    /// Returns the time between two actions at the average rate, in nanoseconds.
    fn interval(self) -> u64 {
        SECOND / u64::from(self.per_second.max(1))
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            limit if limit.is_unlimited() => f.write_str("off"),
            Self { per_second, burst } if per_second == burst => write!(f, "{per_second}/s"),
            Self { per_second, burst } => write!(f, "{per_second}/s burst {burst}"),
        }
    }
}

/// What a client does, as far as its rate is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Frame,
    ControlFrame,
    Join,
    Call,
    Publish,
    NewRoom,
}

impl Action {
    pub(crate) const ALL: [Self; 6] =
        [Self::Frame, Self::ControlFrame, Self::Join, Self::Call, Self::Publish, Self::NewRoom];

    /// Returns the name of the action's limit in options and metrics.
    pub(crate) fn limit_name(self) -> &'static str {
        match self {
            Self::Frame => "frames",
            Self::ControlFrame => "control_frames",
            Self::Join => "joins",
            Self::Call => "calls",
            Self::Publish => "publishes",
            Self::NewRoom => "new_rooms",
        }
    }
}

/// A token bucket in 8 bytes: the time at which it is full again, in nanoseconds on the clock of its
/// owner. (This is the generic cell rate algorithm.) The limit is not a part of it, because many
/// buckets share one limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Takes a token.
    ///
    /// # Errors
    /// Returns the time until there is a token.
    pub(crate) fn take(&mut self, limit: RateLimit, now: Duration) -> Result<(), Duration> {
        if limit.is_unlimited() {
            return Ok(());
        }
        let (now, interval) = (nanos(now), limit.interval());
        let full_at = self.full_at.max(now).saturating_add(interval);
        let latest = now.saturating_add(interval.saturating_mul(u64::from(limit.burst)));
        match full_at.checked_sub(latest) {
            Some(wait) if wait > 0 => Err(Duration::from_nanos(wait)),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// Returns whether no token is missing, so that a new bucket would be the same.
    pub(crate) fn is_full(self, now: Duration) -> bool {
        self.full_at <= nanos(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit::per_second(10).burst(3);

    fn taken(bucket: &mut Bucket, now: Duration) -> usize {
        std::iter::from_fn(|| bucket.take(LIMIT, now).ok()).take(1000).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let (mut bucket, start) = (Bucket::default(), Duration::from_secs(5));
        assert_eq!(taken(&mut bucket, start), 3);
        assert_eq!(bucket.take(LIMIT, start), Err(Duration::from_millis(100)));
        let in_ten_seconds: usize =
            (1..=1000).map(|hundredth| taken(&mut bucket, start + Duration::from_millis(10) * hundredth)).sum();
        assert_eq!(in_ten_seconds, 100);
    }

    #[test]
    fn a_bucket_is_full_again_after_a_pause_and_holds_no_more_than_its_burst() {
        let (mut bucket, start) = (Bucket::default(), Duration::ZERO);
        assert!(bucket.is_full(start));
        assert_eq!(taken(&mut bucket, start), 3);
        assert!(!bucket.is_full(start + Duration::from_millis(299)));
        assert!(bucket.is_full(start + Duration::from_millis(300)));
        assert_eq!(taken(&mut bucket, start + Duration::from_secs(3600)), 3);
    }

    #[test]
    fn an_unlimited_bucket_is_always_full() {
        let mut bucket = Bucket::default();
        for _ in 0..100_000 {
            assert_eq!(bucket.take(RateLimit::UNLIMITED, Duration::ZERO), Ok(()));
        }
        assert!(bucket.is_full(Duration::ZERO));
    }

    #[test]
    fn limits_of_0_and_clocks_that_go_back_do_no_harm() {
        let mut bucket = Bucket::default();
        let limit = RateLimit::per_second(0).burst(0);
        assert_eq!(limit, RateLimit::per_second(1));
        assert_eq!(bucket.take(limit, Duration::MAX), Ok(()));
        assert!(bucket.take(limit, Duration::ZERO).is_err());
        assert_eq!(bucket.take(RateLimit::per_second(u32::MAX), Duration::MAX), Ok(()));
    }
}

//! The keys that an issuer publishes at a URL: how long they are used, and when to fetch them. No
//! I/O, and the time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use crate::keys::Keys;

/// The shortest time between the starts of two fetches. It bounds what clients can cause by naming
/// unknown keys in their tokens.
pub(crate) const FETCH_INTERVAL: Duration = Duration::from_secs(30);

/// The time between two fetches that succeed. It bounds how long a key is still used after the
/// issuer has withdrawn it.
pub(crate) const REFRESH_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How long keys are used while they cannot be fetched again.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The keys from the last fetch that succeeded, and how the last fetch went.
#[derive(Debug, Default)]
pub(crate) struct FetchedKeys {
    /// The keys, and when they arrived.
    fetched: Option<(Arc<Keys>, Instant)>,
    /// When the last fetch began.
    began: Option<Instant>,
    is_running: bool,
    /// Whether the last fetch that ended has failed.
    is_failing: bool,
}

/// What is known about the key of a token.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// At least one of these keys may have signed the token.
    Found(Arc<Keys>),
    /// The issuer may have a new key. Request a fetch, and look again after it.
    Fetch,
    /// The issuer has no such key.
    Unknown,
    /// The last fetch failed, so the issuer may have such a key.
    Unavailable,
}

/// Whether a failed fetch is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The first failure after a success, or after the start.
    First,
    /// The keys have just become too old to be used.
    Expired,
    /// Another failure.
    Repeated,
}

impl FetchedKeys {
    /// Looks for the keys that may have signed a token with this key id and algorithm.
    pub(crate) fn lookup(&self, id: Option<&str>, algorithm: Algorithm, now: Instant) -> Lookup {
        match &self.fetched {
            Some((keys, fetched))
                if now.duration_since(*fetched) <= MAX_AGE && keys.candidates(id, algorithm).next().is_some() =>
            {
                Lookup::Found(Arc::clone(keys))
            }
            _ if self.is_running || self.may_fetch(now) => Lookup::Fetch,
            _ if self.is_failing => Lookup::Unavailable,
            _ => Lookup::Unknown,
        }
    }

    /// Returns when to fetch the keys even if no token requires it. `None` means at once.
    pub(crate) fn next_fetch(&self) -> Option<Instant> {
        let interval = if self.is_failing { FETCH_INTERVAL } else { REFRESH_INTERVAL };
        self.began.map(|began| began + interval)
    }

    /// Begins a fetch, unless another one began less than [`FETCH_INTERVAL`] ago. Returns whether to
    /// fetch.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let begins = self.may_fetch(now);
        if begins {
            (self.began, self.is_running) = (Some(now), true);
        }
        begins
    }

    /// Ends a fetch that has succeeded. Returns whether the fetch before it had failed.
    pub(crate) fn succeed(&mut self, keys: Keys, now: Instant) -> bool {
        self.is_running = false;
        self.fetched = Some((Arc::new(keys), now));
        std::mem::take(&mut self.is_failing)
    }

    /// Ends a fetch that has failed. The keys stay in use until they are too old.
    pub(crate) fn fail(&mut self, now: Instant) -> Failure {
        self.is_running = false;
        let failed_before = std::mem::replace(&mut self.is_failing, true);
        match self.age(now) {
            Some(age) if age > MAX_AGE => {
                self.fetched = None;
                Failure::Expired
            }
            _ if failed_before => Failure::Repeated,
            _ => Failure::First,
        }
    }

    /// Returns these keys, which are to be fetched at once.
    pub(crate) fn not_yet_fetched_again(&self) -> Self {
        Self { fetched: self.fetched.clone(), ..Self::default() }
    }

    /// Returns the time since the keys were fetched, or `None` if there are no keys.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        self.fetched.as_ref().map(|(_, fetched)| now.duration_since(*fetched))
    }

    /// Returns whether no fetch has ended yet.
    pub(crate) fn is_new(&self) -> bool {
        self.fetched.is_none() && !self.is_failing
    }

    fn may_fetch(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now.duration_since(began) >= FETCH_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn keys(id: &str) -> Keys {
        let set = format!(
            r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{id}", "use": "sig",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
        );
        Keys::from_jwks(set.as_bytes()).unwrap()
    }

    fn lookup(fetched: &FetchedKeys, id: &str, now: Instant) -> &'static str {
        match fetched.lookup(Some(id), Algorithm::EdDSA, now) {
            Lookup::Found(_) => "found",
            Lookup::Fetch => "fetch",
            Lookup::Unknown => "unknown",
            Lookup::Unavailable => "unavailable",
        }
    }

    #[test]
    fn unknown_key_ids_cause_one_fetch_in_30_s() {
        let start = Instant::now();
        let mut fetched = FetchedKeys::default();
        assert_eq!((lookup(&fetched, "a", start), fetched.next_fetch()), ("fetch", None));
        assert!(fetched.begin(start) && !fetched.begin(start));
        assert_eq!(lookup(&fetched, "a", start), "fetch", "it is running");
        assert!(!fetched.succeed(keys("a"), start + SECOND));
        for second in 1..30 {
            let now = start + second * SECOND;
            assert_eq!([lookup(&fetched, "a", now), lookup(&fetched, "b", now)], ["found", "unknown"]);
            assert!(!fetched.begin(now));
        }
        let later = start + FETCH_INTERVAL;
        assert_eq!([lookup(&fetched, "a", later), lookup(&fetched, "b", later)], ["found", "fetch"]);
        assert!(fetched.begin(later));
        fetched.succeed(keys("b"), later);
        assert_eq!(
            [lookup(&fetched, "a", later), lookup(&fetched, "b", later)],
            ["unknown", "found"],
            "a is withdrawn"
        );
        assert_eq!(fetched.next_fetch(), Some(later + REFRESH_INTERVAL));
    }

    #[test]
    fn keys_are_used_for_24_h_while_their_issuer_is_down() {
        let start = Instant::now();
        let mut fetched = FetchedKeys::default();
        assert!(fetched.begin(start));
        assert_eq!(fetched.fail(start), Failure::First);
        assert_eq!(lookup(&fetched, "a", start), "unavailable", "it may exist");
        assert_eq!(fetched.next_fetch(), Some(start + FETCH_INTERVAL));

        let up = start + FETCH_INTERVAL;
        assert!(fetched.begin(up) && fetched.succeed(keys("a"), up));
        let down = up + REFRESH_INTERVAL;
        assert!(fetched.begin(down));
        assert_eq!(fetched.fail(down), Failure::First);
        assert_eq!([lookup(&fetched, "a", down), lookup(&fetched, "b", down)], ["found", "unavailable"]);
        assert!(fetched.begin(up + MAX_AGE));
        assert_eq!(fetched.fail(up + MAX_AGE), Failure::Repeated);
        assert_eq!(lookup(&fetched, "a", up + MAX_AGE), "found");

        let expired = up + MAX_AGE + FETCH_INTERVAL;
        assert_eq!(lookup(&fetched, "a", up + MAX_AGE + SECOND), "unavailable");
        assert!(fetched.begin(expired));
        assert_eq!(fetched.fail(expired), Failure::Expired);
        assert_eq!(fetched.age(expired), None);
    }
}

//! A limit on log lines that clients cause, so that no client can flood the log.

use std::io;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::RwLock;
use prometheus::IntCounter;
use tracing::{Level, Metadata};

/// Fields of lines about one client.
const CLIENT_FIELDS: [&str; 2] = ["connection", "peer"];

/// Drops lines beyond a rate.
#[derive(Debug)]
pub(crate) struct ClientLines {
    /// `None`: no limit.
    rate: RwLock<Option<DefaultDirectRateLimiter>>,
    dropped: IntCounter,
}

impl ClientLines {
    pub(crate) fn new(rate: Option<NonZeroU32>) -> io::Result<Self> {
        let dropped = IntCounter::new(
            "roomcast_client_log_lines_dropped_total",
            "Log lines about clients dropped because there were more than log_rate in a second",
        );
        let lines = Self { rate: RwLock::default(), dropped: dropped.map_err(io::Error::other)? };
        lines.set_rate(rate);
        Ok(lines)
    }

    pub(crate) fn set_rate(&self, rate: Option<NonZeroU32>) {
        *self.rate.write() = rate.map(|rate| RateLimiter::direct(Quota::per_second(rate)));
    }

    /// Counts the lines that were dropped.
    pub(crate) fn dropped(&self) -> &IntCounter {
        &self.dropped
    }

    /// Whether a line may be written. Counts it if not.
    pub(crate) fn allows(&self, metadata: &Metadata<'_>) -> bool {
        let allowed = !is_about_a_client(metadata) || self.rate.read().as_ref().is_none_or(|rate| rate.check().is_ok());
        if !allowed {
            self.dropped.inc();
        }
        allowed
    }
}

/// Whether clients can cause a line as often as they like. At `debug` and `trace`, that holds for most lines, and for
/// those of libraries.
fn is_about_a_client(metadata: &Metadata<'_>) -> bool {
    *metadata.level() >= Level::DEBUG || CLIENT_FIELDS.iter().any(|field| metadata.fields().field(field).is_some())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::{Layer as _, fmt};

    use super::*;
    use crate::log_filter::{Followed, LogFilter, LogRules};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// How many lines get through, and how many were dropped, when each of them is logged so often.
    fn logged(rate: Option<u32>, log: impl Fn()) -> (usize, u64) {
        let output = Output::default();
        let writer = output.clone();
        let rules = LogRules {
            targets: Targets::new().with_default(LevelFilter::DEBUG),
            followed: Followed::parse("user=ann,room=lobby").expect("valid"),
            rate: rate.and_then(NonZeroU32::new),
        };
        let filter = LogFilter::new(rules).expect("a counter");
        let lines_written = fmt::layer().with_writer(move || writer.clone()).with_filter(filter.clone());
        let logs = tracing_subscriber::registry().with(lines_written);
        tracing::subscriber::with_default(logs, || (0..10_000).for_each(|_| log()));
        let text = String::from_utf8(output.0.lock().clone()).expect("text");
        (text.lines().count(), filter.dropped().get())
    }

    #[test]
    fn lines_about_clients_are_dropped_beyond_the_rate_and_counted() {
        let by_connection = || tracing::warn!(connection = 7, "a call failed");
        let by_peer = || tracing::info!(peer = %"203.0.113.9:1", "a handshake failed");
        let at_debug = || tracing::debug!(error = 1, "a token was rejected");
        for log in [&by_connection as &dyn Fn(), &by_peer, &at_debug] {
            let (written, dropped) = logged(Some(10), log);
            // A slow machine may take seconds for it.
            assert!((10..5_000).contains(&written), "{written}");
            assert_eq!(written as u64 + dropped, 10_000);
        }
    }

    #[test]
    fn other_lines_and_lines_without_a_rate_are_never_dropped() {
        assert_eq!(logged(Some(10), || tracing::warn!(server = 1, "Redis cannot be used")), (10_000, 0));
        assert_eq!(logged(None, || tracing::debug!("a detail")), (10_000, 0));
    }

    #[test]
    fn lines_about_what_is_followed_are_neither_dropped_nor_counted() {
        let followed = [
            &(|| tracing::debug!(user = "ann", "a call failed")) as &dyn Fn(),
            &|| tracing::debug!(room = %"lobby", "a connection has joined"),
        ];
        for log in followed {
            assert_eq!(logged(Some(10), log), (10_000, 0));
        }
        let (written, _) = logged(Some(10), || tracing::debug!(user = "bob", room = "ann", "a call failed"));
        assert!(written < 5_000, "{written}");
    }
}

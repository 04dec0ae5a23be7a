//! Which log lines are written: those that `log` enables, up to `log_rate`, and all lines about what `log_follow` names.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::{fmt, io};

use parking_lot::RwLock;
use prometheus::IntCounter;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, callsite};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Filter};

use crate::client_lines::ClientLines;

/// The fields of log lines that can be followed.
const FIELDS: [&str; 3] = ["connection", "room", "user"];

/// How many users, connections and rooms can be followed. Each log line at debug is compared with all of them.
const MAX_FOLLOWED: usize = 16;

/// The most detailed level of the lines that are followed.
const FOLLOWED_LEVEL: Level = Level::DEBUG;

/// The crates whose lines can be followed, as a prefix of their targets.
const FOLLOWED_TARGETS: &str = "roomcast";

/// The users, connections and rooms whose log lines are written whatever the filter and the rate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followed(Vec<(&'static str, String)>);

impl Followed {
    /// Parses a list such as `user=ann,room=lobby`.
    ///
    /// # Errors
    /// Which part of the list is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parse_one = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let field = FIELDS.into_iter().find(|field| *field == name).filter(|_| !value.is_empty());
            let field = field.ok_or_else(|| format!("{part:?} is not user=ID, connection=ID or room=NAME"))?;
            Ok((field, value.to_owned()))
        };
        let parts: Vec<_> = text.split(',').map(str::trim).map(parse_one).collect::<Result<_, String>>()?;
        match parts.len() {
            ..=MAX_FOLLOWED => Ok(Self(parts)),
            more => Err(format!("it has {more} entries; follow at most {MAX_FOLLOWED} at the same time")),
        }
    }

    fn may_match(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span()
            && *metadata.level() <= FOLLOWED_LEVEL
            && metadata.target().starts_with(FOLLOWED_TARGETS)
            && self.0.iter().any(|(field, _)| metadata.fields().field(field).is_some())
    }

    fn matches(&self, event: &Event<'_>) -> bool {
        if !self.may_match(event.metadata()) {
            return false;
        }
        let mut comparison = Comparison { followed: self, is_match: false };
        event.record(&mut comparison);
        comparison.is_match
    }
}

/// Compares the fields of a line with what is followed.
struct Comparison<'a> {
    followed: &'a Followed,
    is_match: bool,
}

impl Visit for Comparison<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.is_match |= self.followed.0.iter().any(|(name, wanted)| *name == field.name() && wanted == value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if FIELDS.contains(&field.name()) {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// Which lines are logged.
#[derive(Debug)]
pub(crate) struct LogRules {
    pub(crate) targets: Targets,
    pub(crate) followed: Followed,
    /// Lines per second about clients.
    pub(crate) rate: Option<NonZeroU32>,
}

impl LogRules {
    fn enable(&self, metadata: &Metadata<'_>) -> bool {
        self.targets.would_enable(metadata.target(), metadata.level())
    }
}

/// Decides on each log line. A line that is followed counts towards no rate. Cheap to clone: the clones share the rules.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter {
    // Not a `reload::Layer`, which ignores `event_enabled`.
    rules: Arc<RwLock<LogRules>>,
    lines: Arc<ClientLines>,
}

impl LogFilter {
    pub(crate) fn new(rules: LogRules) -> io::Result<Self> {
        let lines = Arc::new(ClientLines::new(rules.rate)?);
        Ok(Self { rules: Arc::new(RwLock::new(rules)), lines })
    }

    /// Replaces the rules for later lines.
    pub(crate) fn replace(&self, rules: LogRules) {
        self.lines.set_rate(rules.rate);
        *self.rules.write() = rules;
        callsite::rebuild_interest_cache();
    }

    /// Counts the lines that were dropped because of the rate.
    pub(crate) fn dropped(&self) -> &IntCounter {
        self.lines.dropped()
    }
}

impl<S> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        let rules = self.rules.read();
        rules.enable(metadata) || rules.followed.may_match(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        let rules = self.rules.read();
        match rules.enable(metadata) || rules.followed.may_match(metadata) {
            // Not `always`: tracing-subscriber resets its record of a line that `event_enabled` has dropped only when it
            // calls `enabled`, and would else drop the next line, too.
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let rules = self.rules.read();
        rules.followed.matches(event) || (rules.enable(event.metadata()) && self.lines.allows(event.metadata()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let rules = self.rules.read();
        let hint = Filter::<S>::max_level_hint(&rules.targets)?;
        let followed = if rules.followed.0.is_empty() { LevelFilter::OFF } else { FOLLOWED_LEVEL.into() };
        Some(hint.max(followed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_followed_is_a_list_of_users_connections_and_rooms() {
        let followed = Followed::parse("user=ann, room=game:7").expect("valid");
        assert_eq!(followed.0, [("user", "ann".to_owned()), ("room", "game:7".to_owned())]);
        for wrong in ["ann", "user=", "peer=1.2.3.4", "user=ann,", ""] {
            let error = Followed::parse(wrong).expect_err(wrong);
            assert!(error.ends_with("is not user=ID, connection=ID or room=NAME"), "{error}");
        }
        let error = Followed::parse(&["user=ann"; MAX_FOLLOWED + 1].join(",")).expect_err("too many");
        assert!(error.contains("it has 17 entries"), "{error}");
    }
}

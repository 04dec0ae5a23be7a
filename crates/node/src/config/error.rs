//! What is reported about a wrong configuration.

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// How similar a name must be to be suggested, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.85;

/// What is wrong with the configuration: where it was set, the key, the value and what is allowed. Never with a secret.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("{place}: cannot use {value:?}: {allowed}")]
    Value { place: Place, value: String, allowed: String },
    #[error("{place}: {problem}")]
    Wrong { place: Place, problem: String },
    #[error("{place}: found {found}, expected {expected}")]
    Type { place: Place, found: &'static str, expected: String },
    #[error("{place}: unknown key{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey { place: Place, suggestion: Option<String> },
    #[error("{name}: unknown variable{}", did_you_mean(suggestion.as_deref()))]
    UnknownVariable { name: String, suggestion: Option<String> },
    #[error("{name}: the value is not UTF-8")]
    NotUtf8 { name: String },
    #[error("cannot read the configuration file {} (--config or ROOMCAST_CONFIG): {}", path.display(), unreadable(error))]
    Unreadable { path: PathBuf, error: io::Error },
    // Without the line itself, which toml's error would print: it may contain a secret.
    #[error("{}:{line}: invalid TOML in column {column}: {message}", path.display())]
    NotToml { path: PathBuf, line: usize, column: usize, message: String },
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// By this flag or variable.
    Named(String),
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A key, and where it was set.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) origin: Origin,
    pub(super) key: String,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            // It contains the key.
            Origin::Named(name) => f.write_str(name),
            Origin::File { .. } => write!(f, "{}: {}", self.origin, self.key),
            Origin::Default => f.write_str(&self.key),
        }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => format!("; did you mean {suggestion}?"),
        None => "; `roomcast serve --help` lists all options".to_owned(),
    }
}

/// The candidate that a wrong name was probably meant to be.
pub(super) fn closest(wrong: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let rated = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(wrong, &candidate), candidate));
    let similar = rated.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY);
    similar.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, candidate)| candidate)
}

/// Why a file can't be read, with the next step if there is one.
pub(crate) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; correct the path".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; grant the user that runs the node read access".to_owned()
        }
        io::ErrorKind::IsADirectory => "it is a directory; give the path of a file".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let names = || ["max_calls", "max_payload", "drain.delay", "drain.duration", "tls_cert"].map(str::to_owned);
        for (wrong, meant) in [
            ("max_call", Some("max_calls")),
            ("max_paylod", Some("max_payload")),
            ("drian.delay", Some("drain.delay")),
            ("drain_delay", Some("drain.delay")),
            ("tls_certificate", Some("tls_cert")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(wrong, names()).as_deref(), meant, "{wrong}");
        }
    }
}

//! Logs, to standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// The Redis library warns of each lost connection, which the node reports in its own words.
const QUIET: &str = "fred=error";

/// Sets up logging for the process.
pub(crate) fn init(config: &Config) {
    let filter = EnvFilter::new(format!("{QUIET},{}", config.log));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // Colours are for people at a terminal; files and containers' logs would show their control characters.
    let logs = logs.with_ansi(io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
}

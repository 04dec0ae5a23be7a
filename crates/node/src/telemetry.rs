//! Logs, to standard error, and traces.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::log_filter::{LogFilter, LogRules};
use crate::log_writer::LogWriter;
use crate::otlp::{TraceOptions, Traces};

/// The Redis library warns of each lost connection, which the node reports in its own words.
const QUIET: (&str, LevelFilter) = ("fred", LevelFilter::ERROR);

/// Lines of the access log, which have a layer of their own.
const ACCESS_LOG: (&str, LevelFilter) = (roomcast::ACCESS, LevelFilter::OFF);

/// Spans for traces describe no log lines: there are others for these. This matches all targets that begin so, so no
/// module may have such a name, or its lines would be lost.
const TRACES: (&str, LevelFilter) = (roomcast::trace::TARGET, LevelFilter::OFF);

/// The libraries that export traces log each request at debug. The exporter logs failures in its own words.
const EXPORTERS: [(&str, LevelFilter); 2] = [("opentelemetry", LevelFilter::OFF), ("h2", LevelFilter::WARN)];

/// How long the exiting process waits for its last log lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The process' logs and traces. Dropping this exports the last spans and writes the last lines.
#[derive(Debug)]
pub(crate) struct Logs {
    writer: Arc<LogWriter>,
    filter: LogFilter,
    /// `None`: there are no traces.
    traces: Option<Traces>,
}

/// What is logged, and how.
#[derive(Debug)]
pub(crate) struct LogOptions {
    pub(crate) rules: LogRules,
    pub(crate) format: LogFormat,
    pub(crate) access_log: bool,
}

/// Sets up logs and traces for the process.
pub(crate) fn init(options: LogOptions, traces: Option<&TraceOptions>) -> io::Result<Logs> {
    let LogOptions { rules, format, access_log } = options;
    let writer = LogWriter::start(io::stderr())?;
    let lines = fmt::layer().with_writer(Arc::clone(&writer)).with_target(false).with_ansi(is_coloured());
    let filter = LogFilter::new(rules)?;
    let lines = match format {
        LogFormat::Text => lines.with_filter(filter.clone()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter.clone()).boxed(),
    };
    // Always JSON: programs read it. Without spans, which would repeat the fields of its lines.
    let access = access_log.then(|| {
        let lines = fmt::layer().with_writer(Arc::clone(&writer)).json().flatten_event(true).with_level(false);
        let lines = lines.with_current_span(false).with_span_list(false);
        lines.with_filter(Targets::new().with_target(roomcast::ACCESS, LevelFilter::DEBUG))
    });
    let (traces, layer) = traces.map(Traces::start).transpose()?.unzip();
    tracing_subscriber::registry().with(lines).with(access).with(layer).init();
    panic::set_hook(Box::new(log_panic));
    Ok(Logs { writer, filter, traces })
}

/// Whether a person reads the logs at a terminal.
pub(crate) fn is_read_by_a_person() -> bool {
    io::stderr().is_terminal()
}

/// Whether log lines have colours. Files and containers' logs would show their control characters, and people switch
/// them off with NO_COLOR (<https://no-color.org>).
fn is_coloured() -> bool {
    is_read_by_a_person() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Logs {
    /// Prints a line for the person at the terminal, whatever the log format.
    pub(crate) fn print(&self, line: &str) {
        // It never fails.
        let _ = (&*self.writer).write_all(format!("{line}\n").as_bytes());
    }

    /// Replaces the rules for later lines.
    pub(crate) fn set_rules(&self, rules: LogRules) {
        self.filter.replace(rules);
    }

    /// Registers the counters of lines that were dropped.
    pub(crate) fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.writer.dropped().clone()))?;
        registry.register(Box::new(self.filter.dropped().clone()))?;
        self.traces.as_ref().map_or(Ok(()), |traces| traces.register(registry))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        // It may log that the last spans were dropped.
        drop(self.traces.take());
        self.writer.flush_within(FLUSH_TIMEOUT);
    }
}

/// Logs a panic. The default hook writes to standard error on the panicking thread, which could block on whoever reads
/// it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => tracing::error!(location, thread, %backtrace, "panic: {message:?}"),
        _ => tracing::error!(location, thread, "panic: {message:?}"),
    }
}

/// Parses a filter: levels for targets, and one for all others, separated by commas.
///
/// # Errors
/// Which word is not a level.
pub(crate) fn parse_filter(text: &str) -> Result<Targets, String> {
    let mut filter = Targets::new().with_targets([QUIET, ACCESS_LOG, TRACES]).with_targets(EXPORTERS);
    for directive in text.split(',').map(str::trim) {
        let (target, name) =
            directive.rsplit_once('=').map_or((None, directive), |(target, name)| (Some(target), name));
        let level = name.parse::<LevelFilter>().ok().filter(|_| !name.is_empty());
        let level = level.ok_or_else(|| format!("{name:?} is not a log level (error, warn, info, debug, trace)"))?;
        filter = match target {
            Some(target) => filter.with_target(target, level),
            None => filter.with_default(level),
        };
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_panic_is_logged_in_one_line_by_the_bounded_writer() {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let writer = LogWriter::start(pipe).expect("a thread");
        let logs = tracing_subscriber::registry().with(fmt::layer().with_writer(writer).with_ansi(false));
        let usual = panic::take_hook();
        panic::set_hook(Box::new(log_panic));
        let panicking = thread::Builder::new().name("unlucky".into()).spawn(|| {
            tracing::subscriber::with_default(logs, || panic!("two\nlines"));
        });
        let ended = panicking.expect("a thread").join();
        panic::set_hook(usual);
        ended.expect_err("it panics");
        let line = BufReader::new(reader).lines().next().expect("a line").expect("text");
        for part in ["ERROR", "two\\nlines", "telemetry.rs", "unlucky"] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }
}

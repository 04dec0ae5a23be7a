//! `roomcast-loadtest`: load for a Roomcast cluster, and whether anything is lost.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks there")]

mod clients;
mod clock;
mod command_line;
mod connection;
mod control;
mod coordinator;
mod fleet;
mod handshake;
mod ledger;
mod outcome;
mod pacer;
mod placement;
mod progress;
mod record;
mod report;
mod results;
mod run;
mod scenario;
mod scrape;
mod stamp;
mod stream;
mod target;
mod thresholds;
mod timeline;
mod worker;
mod workers;

use std::error::Error;
use std::process::ExitCode;

use command_line::Command;
use results::{FORMAT, Results};
use scenario::keys;
use serde::Deserialize;

/// With what the line begins that `--json` writes.
const RESULTS_START: &str = "{\"format\":";

/// The exit status when a threshold failed.
const THRESHOLD_FAILED: u8 = 1;

/// The exit status when the command could not be carried out.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    match obey(command_line::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("roomcast-loadtest: {error}");
            ExitCode::from(ERROR)
        }
    }
}

fn obey(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        Command::Worker => worker::run()?,
        Command::Run(run) => return run.make(),
        Command::Scenarios(Some(name)) => print!("{}", keys::text(&name)?),
        Command::Scenarios(None) => {
            for (name, text) in keys::BUILTIN {
                let purpose: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
                println!("{name:<10} {}", purpose.join(" "));
            }
        }
        Command::Report { files, html } => {
            let runs = read(&files)?;
            match &runs[..] {
                [(_, only)] => print!("{}", report::summary(only)),
                _ => print!("{}", report::compare(&runs)),
            }
            if let (Some(html), [(_, first), ..]) = (html, &runs[..]) {
                write(&html, &report::html(first))?;
            }
        }
        Command::Curve { picture, files } => write(&picture, &report::curve(&read(&files)?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is read of results first: the rest may be another version's.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The results in files, each with the file's name.
fn read(files: &[String]) -> Result<Vec<(String, Results)>, Box<dyn Error>> {
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{file} can't be read: {error}"))?;
            // The log of a Kubernetes Job has other lines, too.
            let json = text.lines().find(|line| line.starts_with(RESULTS_START)).unwrap_or(&text);
            let no_results = |error| format!("{file} holds no results: {error}");
            let Format { format } = serde_json::from_str(json).map_err(no_results)?;
            if format != FORMAT {
                let version = env!("CARGO_PKG_VERSION");
                return Err(format!(
                    "{file} has results of format {format}, and roomcast-loadtest {version} reads format {FORMAT}; make the \
                     run again, or use the version that wrote the file"
                )
                .into());
            }
            Ok((file.clone(), serde_json::from_str(json).map_err(no_results)?))
        })
        .collect()
}

/// Writes a file, or for `-` to standard output.
fn write(file: &str, text: &str) -> Result<(), Box<dyn Error>> {
    if file == "-" {
        println!("{text}");
        return Ok(());
    }
    std::fs::write(file, text).map_err(|error| format!("{file} can't be written: {error}").into())
}

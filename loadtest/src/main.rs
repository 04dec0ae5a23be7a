//! `roomcast-loadtest`: a load test for a Roomcast cluster that checks every event.
//!
//! `command_line` → `run` → `coordinator` starts processes of this program as `generator`s. Each has many `client`s and a
//! `ledger` of what their rooms must deliver. Their findings become `results`, and results a `report`. `scenario` is what the
//! user asks for. Imports run in this order, never back; `clock`, `format` and `output` are for all.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks there")]

mod client;
mod clock;
mod command_line;
mod coordinator;
mod format;
mod generator;
mod ledger;
mod output;
mod report;
mod results;
mod run;
mod scenario;

use std::error::Error;
use std::process::ExitCode;

use command_line::Command;
use results::{Results, ResultsError};

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
        Command::Worker => generator::run()?,
        Command::Run(run) => {
            if !run.make()? {
                return Ok(ExitCode::from(THRESHOLD_FAILED));
            }
        }
        Command::Completions(shell) => print!("{}", command_line::completions(shell)),
        Command::Man(command) => print!("{}", command_line::man(command.as_deref())?),
        Command::Scenarios(Some(name)) => print!("{}", scenario::text(&name)?),
        Command::Scenarios(None) => {
            for (name, text) in scenario::BUILTIN {
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
                output::write(&html, &report::html(first))?;
            }
        }
        Command::Curve { picture, files } => output::write(&picture, &report::curve(&read(&files)?))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The results in files, each with the file's name.
fn read(files: &[String]) -> Result<Vec<(String, Results)>, ResultsError> {
    files.iter().map(|file| Ok((file.clone(), Results::read(file)?))).collect()
}

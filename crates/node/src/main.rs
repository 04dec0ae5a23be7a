//! `roomcast`: a ready node.
//!
//! Reading order: `config` (the options, and where they are set) → `setup` (what they refer to) → `app` (the node's
//! life) → `reload` (what SIGHUP changes) → `listener`, `http`, `places`, `public`, `internal` (its two listeners) → `api` (what backends request of the cluster) →
//! `demo` (the tutorial's methods). `health` checks a running node.

mod api;
mod app;
mod client_address;
mod config;
mod demo;
mod descriptors;
mod health;
mod http;
mod internal;
mod listener;
mod log_writer;
mod machine;
mod places;
mod process;
mod public;
mod reload;
mod setup;
mod telemetry;
mod tls;

use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Command};

use crate::config::{ConfigError, Layers, Setting};
use crate::setup::Setup;

/// What `serve --help` ends with.
const SIGNALS: &str = "Signals: SIGTERM and SIGINT drain the node, a second one ends it; SIGHUP reloads the options that are marked \
                       with [reloads], and the certificate";

/// What a bad option, variable or configuration file ends with, before anything is bound.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = command().try_get_matches().unwrap_or_else(|error| without_stray_values(error).exit());
    let Some((name, arguments)) = matches.subcommand() else { return ExitCode::from(EXIT_USAGE) };
    match run(name, arguments) {
        Ok(status) => status,
        Err(error) => {
            report(&format!("roomcast: {error}"));
            if name == "health" { ExitCode::FAILURE } else { ExitCode::from(EXIT_USAGE) }
        }
    }
}

fn run(name: &str, arguments: &ArgMatches) -> Result<ExitCode, ConfigError> {
    if name == "config" {
        print(&format!("{:#}\n", config::file_schema()));
        return Ok(ExitCode::SUCCESS);
    }
    let (layers, setup) = Setup::load(arguments)?;
    Ok(match name {
        "check" => check(&layers, &setup),
        "health" => health(&setup),
        _ => serve(arguments.clone(), &layers, setup),
    })
}

fn serve(arguments: ArgMatches, layers: &Layers, setup: Setup) -> ExitCode {
    let logs = match telemetry::init(&setup.config.log, *setup.config.log_format) {
        Ok(logs) => logs,
        Err(error) => {
            report(&format!("roomcast: the thread that writes logs cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match app::run(arguments, layers, setup, &logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logs.print(&format!("roomcast: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Checks the node that was started with this configuration. Every failure is 1: Docker reserves 2.
fn health(setup: &Setup) -> ExitCode {
    let Some(internal_listen) = *setup.config.internal_listen else {
        report("roomcast: internal_listen is off, so the node has no health endpoint; set an address");
        return ExitCode::FAILURE;
    };
    match health::ask(internal_listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("roomcast: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints the configuration with the origin of each value, and whether Redis can be used.
fn check(layers: &Layers, setup: &Setup) -> ExitCode {
    print(&layers.to_string());
    let Some(redis) = &setup.redis else { return ExitCode::SUCCESS };
    match app::check_redis(redis) {
        Ok(found) => {
            print(&format!("Redis works: {found}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&format!("roomcast: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn command() -> Command {
    let with_options = |command: Command| {
        let file = Arg::new(config::CONFIG).long(config::CONFIG).value_name("FILE").help("TOML file with options");
        command.args(config::settings().iter().map(Setting::arg)).arg(file)
    };
    Command::new("roomcast")
        .about("Real-time backend: calls with cancellation, notifications and rooms over WebSocket")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_options(Command::new("serve").about("Run a node").after_help(SIGNALS)))
        .subcommand(with_options(
            Command::new("check")
                .about("Read the configuration, print it with the origin of each value, and try Redis"),
        ))
        .subcommand(with_options(
            Command::new("health").about("Check the node with this configuration: exit status 0 if it works, 1 if not"),
        ))
        .subcommand(
            Command::new("config")
                .about("Describe the configuration file")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(Command::new("schema").about("Print the JSON Schema of the configuration file")),
        )
}

/// What people write for a switch that is on or off.
const SWITCHED: [&str; 8] = ["yes", "no", "true", "false", "on", "off", "1", "0"];

/// A value that belongs to no option may be a secret that was separated from its option.
fn without_stray_values(mut error: clap::Error) -> clap::Error {
    let unexpected = error.get(ContextKind::InvalidArg);
    if matches!(unexpected, Some(ContextValue::String(argument)) if !argument.starts_with('-')) {
        if matches!(unexpected, Some(ContextValue::String(word)) if SWITCHED.contains(&word.as_str())) {
            let switches = config::settings().iter().filter(|setting| setting.is_switch);
            let tips = switches.map(|setting| format!("a switch takes its value after '=': {}=true", setting.flag()));
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips.map(StyledStr::from).collect()));
        }
        error.insert(ContextKind::InvalidArg, ContextValue::String("(a value without an option)".to_owned()));
    }
    error
}

#[expect(clippy::print_stderr, reason = "before logging is set up, and for the person at the terminal")]
fn report(message: &str) {
    eprintln!("{message}");
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(message: &str) {
    print!("{message}");
}

//! `roomcast`: a ready node.
//!
//! Reading order: `settings` (the options, and where they are set) → `config` (what they mean) → `app` (the node's
//! life) → `listener`, `http`, `places`, `public`, `internal` (its two listeners) → `api` (what backends ask of the cluster) →
//! `demo` (the tutorial's procedures). `health` asks a running node.

mod api;
mod app;
mod client_address;
mod config;
mod demo;
mod health;
mod http;
mod internal;
mod listener;
mod log_writer;
mod machine;
mod places;
mod process;
mod public;
mod settings;
mod telemetry;
mod tls;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command};

use crate::config::Config;
use crate::settings::Settings;

/// What a bad option, variable or configuration file ends with, before anything is bound.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = command().try_get_matches().unwrap_or_else(|error| without_stray_values(error).exit());
    let Some((name, arguments)) = matches.subcommand() else { return ExitCode::from(EXIT_USAGE) };
    let config = match Settings::load(arguments).and_then(|settings| Config::new(&settings)) {
        Ok(config) => config,
        Err(error) => {
            report(&format!("roomcast: {error}"));
            return if name == "health" { ExitCode::FAILURE } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    match name {
        "check" => check(&config),
        "health" => health(&config),
        _ => serve(&config),
    }
}

fn serve(config: &Config) -> ExitCode {
    let logs = match telemetry::init(&config.log, config.log_format) {
        Ok(logs) => logs,
        Err(error) => {
            report(&format!("roomcast: the thread that writes logs can't be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match app::run(config, &logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logs.print(&format!("roomcast: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Says whether the node that was started with this configuration works. All that fails is 1: Docker has other plans with 2.
fn health(config: &Config) -> ExitCode {
    let Some(internal_listen) = config.internal_listen else {
        report("roomcast: internal_listen is off, and that is where a node is asked for its health");
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

/// Says what the configuration means, and whether Redis can be used.
fn check(config: &Config) -> ExitCode {
    print(&config.to_string());
    let Some(redis) = &config.redis else { return ExitCode::SUCCESS };
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
    let options = || settings::OPTIONS.iter().map(settings::Setting::arg);
    let file = Arg::new(settings::CONFIG).long(settings::CONFIG).value_name("FILE").help("TOML file with options");
    Command::new("roomcast")
        .about("Real-time backend: calls with cancellation, notifications and rooms over WebSocket")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("serve").about("Run a node").args(options()).arg(file.clone()))
        .subcommand(
            Command::new("check")
                .about("Read the configuration, print what it means, and try Redis")
                .args(options())
                .arg(file.clone()),
        )
        .subcommand(
            Command::new("health")
                .about("Ask the node with this configuration whether it works; exit status 0 if it does, 1 if not")
                .args(options())
                .arg(file),
        )
}

/// A value that belongs to no option may be a secret that was separated from its option.
fn without_stray_values(mut error: clap::Error) -> clap::Error {
    let unexpected = error.get(ContextKind::InvalidArg);
    if matches!(unexpected, Some(ContextValue::String(argument)) if !argument.starts_with('-')) {
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

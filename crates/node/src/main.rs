//! `roomcast`: a ready node.
//!
//! Reading order: `config` (the options, and where they are set) → `setup` (what they refer to) → `app` (the node's
//! life) → `reload` (what SIGHUP changes) → `listener`, `http`, `places`, `public`, `internal` (its two listeners) → `api` (what backends request of the cluster) →
//! `demo` (the tutorial's methods). `health` checks a running node,
//! `check` a configuration, and `check_token` a token. `token_command` signs tokens for experiments, and
//! `backend_command` tests a service.

mod access_log;
mod api;
mod app;
mod auth;
mod backend_command;
mod backends;
mod check;
mod check_token;
mod client_address;
mod client_lines;
mod config;
mod demo;
mod descriptors;
mod events;
mod health;
mod hooks;
mod http;
mod internal;
mod listener;
mod log_filter;
mod log_writer;
mod machine;
mod otlp;
mod permission;
mod places;
mod process;
mod proxy_protocol;
mod public;
mod reload;
mod setup;
mod telemetry;
mod tls;
mod token_command;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;

use crate::config::{ConfigError, Layers, Setting};
use crate::setup::Setup;

/// The name of the program.
const NAME: &str = "roomcast";

/// What `serve --help` ends with.
const SIGNALS: &str = "\
Signals:
  SIGTERM  drains the node; a second signal ends the node at once
  SIGINT   (Ctrl-C) does the same as SIGTERM, but skips --drain-delay
  SIGHUP   reloads the certificate and the options marked [reloads]";

/// Names of commands that need no configuration.
const COMPLETIONS: &str = "completions";
const MAN: &str = "man";

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
    match name {
        "config" => {
            print(&format!("{:#}\n", config::file_schema()));
            return Ok(ExitCode::SUCCESS);
        }
        backend_command::NAME => return Ok(backend_command::run(arguments)),
        token_command::NAME => return Ok(token_command::run(arguments)),
        COMPLETIONS => return Ok(completions(arguments)),
        MAN => return Ok(man(arguments)),
        _ => {}
    }
    let (layers, setup) = Setup::load(arguments)?;
    Ok(match name {
        "check" => check::run(arguments, &layers, &setup),
        "health" => health(&setup),
        _ => serve(arguments.clone(), &layers, setup),
    })
}

fn serve(arguments: ArgMatches, layers: &Layers, setup: Setup) -> ExitCode {
    let config = &setup.config;
    let logs = match telemetry::init(config.logs(), config.traces().as_ref()) {
        Ok(logs) => logs,
        Err(error) => {
            report(&format!("roomcast: cannot set up logs and traces: {error}"));
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

/// Prints what a shell needs to complete commands and options.
fn completions(arguments: &ArgMatches) -> ExitCode {
    let Some(shell) = arguments.get_one::<Shell>("shell") else { return ExitCode::from(EXIT_USAGE) };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command(), NAME, &mut script);
    print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Prints the manual page of the program, or of one of its commands.
fn man(arguments: &ArgMatches) -> ExitCode {
    let mut page = command();
    page.build();
    if let Some(name) = arguments.get_one::<String>("command") {
        let Some(found) = page.find_subcommand(name) else {
            report(&format!("roomcast: {name:?} is not a command; `roomcast --help` lists all commands"));
            return ExitCode::from(EXIT_USAGE);
        };
        page = found.clone();
    }
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).render(&mut text) {
        Ok(()) => {
            print(&String::from_utf8_lossy(&text));
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&format!("roomcast: cannot generate the manual page: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Checks the node that was started with this configuration. Every failure is 1: Docker reserves 2.
fn health(setup: &Setup) -> ExitCode {
    let Some(internal_listen) = *setup.config.internal_listen else {
        report("roomcast: the node has no health endpoint, because `internal_listen` is off; set an address");
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

fn command() -> Command {
    let with_options = |command: Command| {
        let file = Arg::new(config::CONFIG)
            .long(config::CONFIG)
            .value_name("FILE")
            .help("TOML file with options [env: ROOMCAST_CONFIG]");
        command.args(config::settings().iter().map(Setting::arg)).arg(file)
    };
    Command::new(NAME)
        .about("Real-time backend with cancellable calls, notifications and rooms over WebSocket")
        .version(env!("BUILD_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_options(Command::new("serve").about("Run a node").after_help(SIGNALS)))
        .subcommand(with_options(
            Command::new("check").about(check::ABOUT).args(check_token::arguments()),
        ))
        .subcommand(with_options(
            Command::new("health")
                .about("Check a running node, given the same options as the node; the exit status is 0 if it is healthy, and 1 otherwise"),
        ))
        .subcommand(
            Command::new("config")
                .about("Print the schema of the configuration file")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(Command::new("schema").about("Print the JSON Schema of the configuration file")),
        )
        .subcommand(token_command::command())
        .subcommand(backend_command::command())
        .subcommand(
            Command::new(COMPLETIONS)
                .about("Print the completion script for a shell")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell))),
        )
        .subcommand(
            Command::new(MAN)
                .about("Print the manual page of roomcast or of one of its commands")
                .arg(Arg::new("command").value_name("COMMAND").help("A command, such as serve")),
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
            let tips = switches.map(|setting| format!("give a switch its value after '=': {}=true", setting.flag()));
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

/// The command's output. A reader that has gone, such as `head`, wants no more of it.
fn print(message: &str) {
    let _ = io::stdout().write_all(message.as_bytes());
}

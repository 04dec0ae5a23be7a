//! `backend check`: finds out whether a service notices that a call is cancelled.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use roomcast_backends::{BackendOptions, BackendUrl, CancelCheck, CancelFinding};

use crate::backends::signing_secrets;
use crate::check::in_runtime;
use crate::config::unreadable;
use crate::{EXIT_USAGE, print, report};

/// The name of the command.
pub(crate) const NAME: &str = "backend";

const CHECK: &str = "check";

/// The longest time that the command waits for one thing.
const MAX_TIME: Duration = Duration::from_secs(3600);

const NOTES: &str = "\
The exit status is 0 if the service notices in time, 1 if it does not, and 2 if an argument is wrong.
Choose a method that takes longer than both times together. The request uses HTTP/1.1. A proxy that
closes the connection itself hides whether the service behind it notices; check both URLs.";

pub(crate) fn command() -> Command {
    Command::new(NAME)
        .about("Test a service that answers calls")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(check_command())
}

fn check_command() -> Command {
    let flag = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let time =
        |name: &'static str, default: &'static str| flag(name, "TIME").default_value(default).value_parser(parse_time);
    Command::new(CHECK)
        .about("Start a call, cancel it, and print whether and how fast the service notices")
        .after_help(NOTES)
        .arg(
            Arg::new("url")
                .value_name("URL")
                .required(true)
                .help("URL of a method, such as http://127.0.0.1:8080/rpc/chat.summarize"),
        )
        .arg(
            flag("payload", "TEXT")
                .default_value("")
                .hide_default_value(true)
                .help("Payload of the call; empty by default"),
        )
        .arg(time("after", "1s").help("Time from the start of the call to its cancellation"))
        .arg(time("within", "5s").help("Time within which the service must notice the cancellation"))
        .arg(flag("ca-file", "FILE").help("CA certificates (PEM) to trust; without it, those of the system"))
        .arg(
            flag("signing-secret-file", "FILE")
                .help("File with the secrets that sign the request, as in a table [[backend]]"),
        )
}

pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let Some((CHECK, arguments)) = arguments.subcommand() else { return ExitCode::from(EXIT_USAGE) };
    let check = match check_of(arguments) {
        Ok(check) => check,
        Err(problem) => {
            report(&format!("roomcast: {problem}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let Some(found) = in_runtime(check.run()) else { return ExitCode::FAILURE };
    match found.map(|finding| describe(finding, &check)) {
        Ok((text, is_good)) => {
            print(&text);
            if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            report(&format!("roomcast: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn check_of(arguments: &ArgMatches) -> Result<CancelCheck, String> {
    let text = |name| arguments.get_one::<String>(name).map_or("", String::as_str);
    let path = |name| arguments.get_one::<String>(name).map(Path::new);
    let time = |name| arguments.get_one::<Duration>(name).copied().unwrap_or_default();
    let url: BackendUrl = text("url").parse().map_err(|error| format!("URL: {error}"))?;
    let (backend, method) = url.split_last().ok_or("URL: it must end with the name of a method")?;
    let mut options = BackendOptions::new(CHECK, backend);
    if let Some(path) = path("ca-file") {
        let pem = std::fs::read(path);
        let pem = pem.map_err(|error| format!("--ca-file: cannot read {}: {}", path.display(), unreadable(&error)))?;
        options.ca_certificates = Some(pem);
    }
    if let Some(path) = path("signing-secret-file") {
        let secrets = signing_secrets(path).map_err(|problem| format!("--signing-secret-file: {problem}"))?;
        options.signing_secrets = Some(secrets);
    }
    Ok(CancelCheck {
        options,
        method,
        payload: text("payload").to_owned().into(),
        cancel_after: time("after"),
        patience: time("within"),
    })
}

/// Returns the finding for a person, and whether it is good.
fn describe(finding: CancelFinding, check: &CancelCheck) -> (String, bool) {
    let CancelCheck { cancel_after, patience, .. } = check;
    match finding {
        CancelFinding::Noticed { after } => {
            let text = format!(
                "The service noticed the cancellation after {after:.1?}: it closed the connection. Make sure that the handler \
                 itself has stopped, because some servers, such as that of Node.js, close the connection in any case.\n"
            );
            (text, true)
        }
        CancelFinding::EndedEarly { status } => {
            let how = match status {
                Some(status) => format!("responded with status {status}"),
                None => "closed the connection without a response".to_owned(),
            };
            let advice = match status {
                Some(200..=299) => "Choose a method that takes longer, or a shorter time --after.",
                Some(401 | 403) => "If it verifies signatures, name the file with its secret in --signing-secret-file.",
                Some(404) => "Does the URL end with the name of one of its methods?",
                _ => "The call has failed. See the log of the service.",
            };
            let text = format!("The service {how} within {cancel_after:?}, before the call was cancelled. {advice}\n");
            (text, false)
        }
        _ => {
            let text = format!(
                "The service did not notice the cancellation within {patience:?}. Its handler, its framework or a proxy does \
                 not react to the end of the connection. See the guide \"Answer calls from your service\".\n"
            );
            (text, false)
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero() && *time <= MAX_TIME);
    time.ok_or_else(|| "write a time over 0 and up to 1h, such as 500ms or 5s".to_owned())
}

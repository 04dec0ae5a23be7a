//! `token`: signs and reads tokens for experiments.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use roomcast_auth::{Algorithm, NewToken, SigningKey, inspect};
use serde_json::{Map, Value, json};

use crate::config::unreadable;
use crate::{EXIT_USAGE, print, report};

/// The name of the command.
pub(crate) const NAME: &str = "token";

const MINT: &str = "mint";
const INSPECT: &str = "inspect";

const WARNING: &str = "roomcast: this token is for experiments; in production, let your identity provider issue tokens";

/// The latest time that is printed, in seconds since 1970: the end of the year 9999.
const MAX_SECONDS: f64 = 253_402_300_799.0;

pub(crate) fn command() -> Command {
    Command::new(NAME)
        .about("Sign or read tokens for experiments")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(mint_command())
        .subcommand(
            Command::new(INSPECT)
                .about("Print the contents of a token without verifying it")
                .arg(Arg::new("file").value_name("FILE").required(true).help("File with a token")),
        )
}

fn mint_command() -> Command {
    let flag = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new(MINT)
        .about("Sign a token with a key of your own, and print it; use it only for experiments")
        .arg(
            flag("key-file", "FILE")
                .conflicts_with("secret-file")
                .required_unless_present("secret-file")
                .help("File with a private key (PEM)"),
        )
        .arg(flag("secret-file", "FILE").help("File with a secret for HMAC; the line break at its end does not count"))
        .arg(
            flag("algorithm", "ALGORITHM")
                .value_parser(parse_algorithm)
                .help("Algorithm with which to sign; by default ES256 with a private key, and HS256 with a secret"),
        )
        .arg(flag("key-id", "ID").help("Id of the key, for the field kid of the header"))
        .arg(flag("issuer", "TEXT").required(true).help("The claim iss"))
        .arg(flag("audience", "TEXT").required(true).help("The claim aud"))
        .arg(flag("user", "TEXT").required(true).help("The claim sub, which names the user"))
        .arg(
            flag("lifetime", "TIME")
                .default_value("15m")
                .value_parser(|text: &str| humantime::parse_duration(text).map_err(|error| error.to_string()))
                .help("Time after which the token expires"),
        )
        .arg(
            flag("role", "ROLE")
                .action(ArgAction::Append)
                .help("A role, for the claim roomcast.roles; may be repeated"),
        )
        .arg(
            flag("claim", "NAME=VALUE")
                .action(ArgAction::Append)
                .value_parser(value_parser!(String))
                .help("Another claim, whose value is JSON or text; may be repeated"),
        )
}

pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    let result = match arguments.subcommand() {
        Some((MINT, arguments)) => mint(arguments).inspect(|_| report(WARNING)),
        Some((INSPECT, arguments)) => print_contents(arguments),
        _ => return ExitCode::from(EXIT_USAGE),
    };
    match result {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&format!("roomcast: {error}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn mint(arguments: &ArgMatches) -> Result<String, String> {
    let text = |name| arguments.get_one::<String>(name).map(String::as_str);
    let key = signing_key(arguments)?;
    let key = match text("key-id") {
        Some(id) => key.with_id(id),
        None => key,
    };
    let required = |name| text(name).unwrap_or_default();
    let mut token = NewToken::new(required("issuer"), required("audience"), required("user"));
    if let Some(lifetime) = arguments.get_one::<Duration>("lifetime") {
        token.lifetime = *lifetime;
    }
    token.claims = claims(arguments)?;
    let token = key.sign(&token, SystemTime::now()).map_err(|error| error.to_string())?;
    Ok(format!("{token}\n"))
}

fn signing_key(arguments: &ArgMatches) -> Result<SigningKey, String> {
    let algorithm = |default| arguments.get_one::<Algorithm>("algorithm").copied().unwrap_or(default);
    let file = |flag: &'static str| {
        let path = arguments.get_one::<String>(flag)?;
        // A secret that was passed by mistake must not be printed.
        let hint = "pass the path of a file, not the key itself";
        let read = std::fs::read(path);
        Some(read.map_err(|error| format!("cannot read the file of --{flag}: {}; {hint}", unreadable(&error))))
    };
    let (key, flag) = match (file("key-file"), file("secret-file")) {
        (Some(pem), _) => (SigningKey::from_pem(&pem?, algorithm(Algorithm::ES256)), "key-file"),
        (None, Some(secret)) => {
            (SigningKey::from_secret(secret?.trim_ascii_end(), algorithm(Algorithm::HS256)), "secret-file")
        }
        (None, None) => return Err("--key-file or --secret-file is missing".to_owned()),
    };
    key.map_err(|error| format!("--{flag}: {error}"))
}

/// The further claims, with the roles among them.
fn claims(arguments: &ArgMatches) -> Result<Map<String, Value>, String> {
    let mut claims = Map::new();
    for claim in arguments.get_many::<String>("claim").into_iter().flatten() {
        let (name, value) = claim.split_once('=').ok_or("--claim: write NAME=VALUE, such as team=red")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        claims.insert(name.to_owned(), value);
    }
    let roles: Vec<Value> =
        arguments.get_many::<String>("role").into_iter().flatten().map(|role| (**role).into()).collect();
    if !roles.is_empty() {
        let Value::Object(roomcast) = claims.entry("roomcast").or_insert_with(|| json!({})) else {
            return Err("--claim: the claim roomcast is not an object".to_owned());
        };
        roomcast.insert("roles".to_owned(), roles.into());
    }
    Ok(claims)
}

fn print_contents(arguments: &ArgMatches) -> Result<String, String> {
    let path = arguments.get_one::<String>("file").map_or("", String::as_str);
    let token = std::fs::read_to_string(path).map_err(|error| {
        format!("cannot read the file: {}; pass the path of a file that contains the token", unreadable(&error))
    })?;
    let contents = inspect(token.trim()).map_err(|error| error.to_string())?;
    let mut text = format!("header {:#}\nclaims {:#}\n", contents.header, contents.claims);
    for name in ["iat", "nbf", "exp"] {
        let seconds = contents.claims.get(name).and_then(Value::as_f64);
        if let Some(seconds) = seconds.filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds)) {
            let time = UNIX_EPOCH + Duration::from_secs_f64(seconds);
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name} {}, {}", humantime::format_rfc3339_seconds(time), relative(time));
        }
    }
    text += "The signature has not been verified. To verify it, use roomcast check --token FILE.\n";
    Ok(text)
}

fn relative(time: SystemTime) -> String {
    let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
    match time.duration_since(SystemTime::now()) {
        Ok(ahead) => format!("in {}", whole(ahead)),
        Err(error) => format!("{} ago", whole(error.duration())),
    }
}

fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|_| "write an algorithm such as ES256, RS256, EdDSA or HS256".to_owned())
}

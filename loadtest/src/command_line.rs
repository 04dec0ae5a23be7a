//! The command line: commands, and for `run` a flag for each key of a scenario.

use std::error::Error;
use std::net::IpAddr;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};
use clap_complete::Shell;
use serde_json::{Map, Value};

use crate::client::Signed;
use crate::coordinator::WORKER;
use crate::run::{Run, TokenFile};
use crate::scenario::{self, Key};

/// Claims that permit everything that the scenarios do.
const CLAIMS: &str =
    r#"{"roomcast":{"allow":[{"rooms":["*"],"do":["join","publish"]},{"calls":["**"],"do":["call"]}]}}"#;

/// The name of the program.
const NAME: &str = "roomcast-loadtest";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Run(Box<Run>),
    Scenarios(Option<String>),
    Report {
        files: Vec<String>,
        html: Option<String>,
    },
    Curve {
        picture: String,
        files: Vec<String>,
    },
    /// Prints what a shell needs to complete commands and options.
    Completions(Shell),
    /// Prints the manual page of the program, or of one of its commands.
    Man(Option<String>),
    /// Hidden: this process generates load for another one.
    Worker,
}

/// Reads the command line; ends the process with a message if it is wrong.
pub(crate) fn parse() -> Command {
    let keys = scenario::keys();
    let matches = clap(&keys).get_matches();
    let all = |matches: &ArgMatches, name: &str| -> Vec<String> {
        matches.get_many(name).into_iter().flatten().cloned().collect()
    };
    let one = |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned();
    match matches.subcommand() {
        Some(("run", matches)) => {
            let said = |key: &Key| Some((key.path.clone(), one(matches, &key.path)?));
            Command::Run(Box::new(Run {
                scenario: one(matches, "scenario").unwrap_or_default(),
                flags: keys.iter().filter(|key| !is_thresholds(key)).filter_map(said).collect(),
                urls: all(matches, "url"),
                metrics: all(matches, "metrics"),
                processes: matches.get_one("processes").copied().unwrap_or_default(),
                sources: matches.get_many("sources").into_iter().flatten().copied().collect(),
                ca: one(matches, "ca"),
                tokens: tokens(matches),
                json: one(matches, "json"),
                html: one(matches, "html"),
                thresholds: all(matches, "threshold"),
                is_quiet: matches.get_flag("quiet"),
            }))
        }
        Some(("scenarios", matches)) => Command::Scenarios(one(matches, "name")),
        Some(("report", matches)) => Command::Report { files: all(matches, "file"), html: one(matches, "html") },
        Some(("curve", matches)) => {
            Command::Curve { picture: one(matches, "picture").unwrap_or_default(), files: all(matches, "file") }
        }
        Some(("completions", matches)) => Command::Completions(*matches.get_one("shell").unwrap_or(&Shell::Bash)),
        Some(("man", matches)) => Command::Man(one(matches, "command")),
        _ => Command::Worker,
    }
}

fn tokens(matches: &ArgMatches) -> Option<TokenFile> {
    let one = |name: &str| matches.get_one::<String>(name).cloned();
    if let Some(file) = one("token-file") {
        return Some(TokenFile::Tokens(file));
    }
    let signed = Signed {
        key: Vec::new(),
        algorithm: one("token-algorithm")?,
        issuer: one("token-issuer")?,
        audience: one("token-audience")?,
        user: one("token-user")?,
        lifetime: *matches.get_one("token-lifetime")?,
        claims: matches.get_one::<Map<String, Value>>("token-claims")?.clone(),
    };
    Some(TokenFile::Key { file: one("token-key")?, signed: Box::new(signed) })
}

/// The script that completes commands and options in a shell.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut clap(&scenario::keys()), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of the program, or of one of its commands.
///
/// # Errors
/// There is no such command.
pub(crate) fn man(command: Option<&str>) -> Result<String, Box<dyn Error>> {
    let mut page = clap(&scenario::keys());
    page.build();
    if let Some(name) = command {
        let found = page.find_subcommand(name);
        page =
            found.cloned().ok_or_else(|| format!("{name:?} is not a command; `{NAME} --help` lists all commands"))?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// It has a flag of its own, `--threshold`, which adds to the scenario's.
fn is_thresholds(key: &Key) -> bool {
    key.path == "thresholds"
}

fn clap(keys: &[Key]) -> Clap {
    Clap::new(NAME)
        .about(
            "Measure how many clients a Roomcast cluster serves and how fast, and check that no event or response is lost",
        )
        .version(env!("BUILD_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run(keys))
        .subcommand(scenarios())
        .subcommands(for_results())
        .subcommands(for_shells())
        .subcommand(Clap::new(WORKER).hide(true))
}

fn run(keys: &[Key]) -> Clap {
    Clap::new("run")
        .about("Run a scenario")
        .arg(
            Arg::new("scenario")
                .value_name("SCENARIO")
                .required(true)
                .help("Built-in scenario or TOML file; see `roomcast-loadtest scenarios`"),
        )
        .args([
            option(
                "url",
                "URL",
                "WebSocket URL of a node, with ws:// or wss://; repeat the option to spread the connections over several nodes",
            )
            .required(true)
            .action(ArgAction::Append),
            option("metrics", "URL", "URL of a node's metrics, which the load test scrapes every second; repeat the option for more nodes")
                .action(ArgAction::Append),
            option("processes", "N", "Generator processes; 0 starts as many as the connections need")
                .default_value("0")
                .value_parser(clap::value_parser!(u32)),
            option("sources", "ADDRS", "Comma-separated local addresses from which the connections start, in turn")
                .value_delimiter(',')
                .value_parser(clap::value_parser!(IpAddr)),
            option("ca", "FILE", "CA certificates (PEM) to trust for wss://, in addition to those of the system"),
            option("json", "FILE", "Write the results to this file as JSON; '-' prints them"),
            option("html", "FILE", "Write the report to this file as an HTML page"),
            option(
                "threshold",
                "THRESHOLD",
                "Threshold that the run must meet, such as p99<50ms or errors<10; repeat the option for more thresholds",
            )
            .action(ArgAction::Append),
            option("quiet", "", "Do not show progress").action(ArgAction::SetTrue),
        ])
        .next_help_heading("Tokens, for nodes that authenticate clients")
        .args(for_tokens())
        .next_help_heading("Keys of the scenario (override its file)")
        .args(keys.iter().filter(|key| !is_thresholds(key)).map(|key| {
            let help = format!("{} [default: {}]", key.help, key.default);
            Arg::new(key.path.clone()).long(key.flag()).value_name("VALUE").help(help)
        }))
}

/// Options for the tokens of the clients.
fn for_tokens() -> [Arg; 8] {
    let for_key = |name, value, help| option(name, value, help).requires("token-key");
    let claims = |text: &str| serde_json::from_str::<Map<String, Value>>(text);
    [
        option("token-file", "FILE", "File with a token, or with one in each line, which the clients send in turn"),
        option(
            "token-key",
            "FILE",
            "Private key (PEM), or secret for HS256, with which the load test signs a token for each connection",
        )
        .conflicts_with("token-file")
        .requires_all(["token-issuer", "token-audience"]),
        for_key("token-algorithm", "NAME", "Algorithm of the signatures").default_value("ES256"),
        for_key("token-issuer", "TEXT", "Claim iss"),
        for_key("token-audience", "TEXT", "Claim aud"),
        for_key("token-user", "TEXT", "Claim sub, where {client} is the number of the client")
            .default_value("load-{client}"),
        for_key("token-lifetime", "TIME", "Time from the claim iat to the claim exp")
            .default_value("24h")
            .value_parser(humantime::parse_duration),
        for_key("token-claims", "JSON", "Further claims; the default grants what the scenarios need")
            .default_value(CLAIMS)
            .value_parser(claims),
    ]
}

/// Commands for the results of runs.
fn for_results() -> [Clap; 2] {
    let files = Arg::new("file")
        .value_name("FILE.json")
        .help("Results of a run, from `run --json`")
        .required(true)
        .num_args(1..);
    [
        Clap::new("report")
            .about("Print the summary of a run, or compare runs with the first one")
            .arg(files.clone())
            .arg(option("html", "FILE", "Write the report of the first run to this file as an HTML page")),
        Clap::new("curve")
            .about("Draw the capacity curves of runs in one picture; each run must have several steps")
            .arg(Arg::new("picture").value_name("OUT.svg").help("Picture to write").required(true))
            .arg(files),
    ]
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn scenarios() -> Clap {
    Clap::new("scenarios")
        .about("List the built-in scenarios, or print one of them; 'defaults' documents every key")
        .arg(Arg::new("name").value_name("NAME").help("Scenario to print, or 'defaults'"))
}

/// Commands for the shell around the program.
fn for_shells() -> [Clap; 2] {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(clap::value_parser!(Shell));
    let command = Arg::new("command").value_name("COMMAND").help("A command, such as run");
    [
        Clap::new("completions").about("Print completions for a shell").arg(shell),
        Clap::new("man").about("Print the manual page of roomcast-loadtest, or of one of its commands").arg(command),
    ]
}

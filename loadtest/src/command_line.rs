//! The command line: commands, and for `run` a flag for each key of a scenario.

use std::error::Error;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Arg, ArgAction, ArgMatches, Command as Clap};

use crate::clock::{self, Nanos, SECOND};
use crate::control::{Assignment, Target};
use crate::coordinator::{self, Plan};
use crate::outcome::{self, Said};
use crate::scenario::Scenario;
use crate::scenario::keys::{self, Key};
use crate::workers::WORKER;
use crate::{BROKEN, report, rules, target, write};

/// Descriptors that a worker needs besides its connections'.
const OTHER_DESCRIPTORS: u64 = 64;

/// Connections from one own address. A system has about 28,000 ports for them, and from half of that on it takes long to
/// find a free one.
const CONNECTIONS_OF_A_SOURCE: u32 = 10_000;

/// A long run has at most about so many intervals, so that its report stays small.
const MAX_INTERVALS: u64 = 1800;

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
    /// Hidden: this process generates load for another one.
    Worker,
}

/// Options of `run`.
#[derive(Debug)]
pub(crate) struct Run {
    scenario: String,
    /// Keys and what was said for them.
    flags: Vec<(String, String)>,
    urls: Vec<String>,
    metrics: Vec<String>,
    processes: u32,
    sources: Vec<IpAddr>,
    ca: Option<String>,
    json: Option<String>,
    html: Option<String>,
    require: Vec<String>,
    allow: Vec<String>,
    is_quiet: bool,
}

/// Reads the command line; ends the process with a message if it is wrong.
pub(crate) fn parse() -> Command {
    let keys = keys::keys();
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
                flags: keys.iter().filter(|key| !is_list_of_rules(key)).filter_map(said).collect(),
                urls: all(matches, "url"),
                metrics: all(matches, "metrics"),
                processes: matches.get_one("processes").copied().unwrap_or_default(),
                sources: matches.get_many("sources").into_iter().flatten().copied().collect(),
                ca: one(matches, "ca"),
                json: one(matches, "json"),
                html: one(matches, "html"),
                require: all(matches, "require"),
                allow: all(matches, "allow"),
                is_quiet: matches.get_flag("quiet"),
            }))
        }
        Some(("scenarios", matches)) => Command::Scenarios(one(matches, "name")),
        Some(("report", matches)) => Command::Report { files: all(matches, "file"), html: one(matches, "html") },
        Some(("curve", matches)) => {
            Command::Curve { picture: one(matches, "picture").unwrap_or_default(), files: all(matches, "file") }
        }
        _ => Command::Worker,
    }
}

/// These have flags of their own, which add to what the scenario says.
fn is_list_of_rules(key: &Key) -> bool {
    matches!(key.path.as_str(), "require" | "allow")
}

fn clap(keys: &[Key]) -> Clap {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let files = || Arg::new("file").value_name("FILE.json").required(true).num_args(1..);
    let run = Clap::new("run")
        .about("Runs a scenario")
        .arg(Arg::new("scenario").value_name("SCENARIO").required(true).help("A built-in scenario, or a TOML file"))
        .args([
            option("url", "URL", "A node's socket, ws:// or wss://; several: connections go to them in turn")
                .required(true)
                .action(ArgAction::Append),
            option("metrics", "URL", "A node's /metrics, scraped every second; several").action(ArgAction::Append),
            option("processes", "N", "Generator processes; 0: as many as the connections need")
                .default_value("0")
                .value_parser(clap::value_parser!(u32)),
            option("sources", "ADDRS", "Own addresses from which connections are opened, in turn, with commas between")
                .value_delimiter(',')
                .value_parser(clap::value_parser!(IpAddr)),
            option("ca", "FILE", "Authorities (PEM) for wss://, besides the system's"),
            option("json", "FILE", "Writes the results; '-' prints them"),
            option("html", "FILE", "Writes the report"),
            option("require", "RULE", "What the run must keep, such as p99<50ms; several").action(ArgAction::Append),
            option("allow", "NAME", "What may be broken of the rules that hold anyway, such as errors; several")
                .action(ArgAction::Append),
            option("quiet", "", "No progress").action(ArgAction::SetTrue),
        ])
        .next_help_heading("Keys of the scenario")
        .args(keys.iter().filter(|key| !is_list_of_rules(key)).map(|key| {
            let help = format!("{} [default: {}]", key.help, key.default);
            Arg::new(key.path.clone()).long(key.flag()).value_name("VALUE").help(help)
        }));
    Clap::new("roomcast-loadtest")
        .about("How many clients will a cluster hold, how fast is it, and does it lose anything?")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(run)
        .subcommand(
            Clap::new("scenarios")
                .about("Lists the built-in scenarios, or prints one; 'defaults' explains every key")
                .arg(Arg::new("name").value_name("NAME")),
        )
        .subcommand(Clap::new("report").about("Prints a run's summary, or compares runs").arg(files()).arg(option(
            "html",
            "FILE",
            "Writes the first one's report",
        )))
        .subcommand(
            Clap::new("curve")
                .about("Draws the capacity curves of runs with several steps")
                .arg(Arg::new("picture").value_name("OUT.svg").required(true))
                .arg(files()),
        )
        .subcommand(Clap::new(WORKER).hide(true))
}

impl Run {
    /// Makes the run, and tells how it was.
    pub(crate) fn make(self) -> Result<ExitCode, Box<dyn Error>> {
        let mut scenario = Scenario::load(&self.scenario, &self.flags)?;
        scenario.require.extend(self.require.iter().cloned());
        scenario.allow.extend(self.allow.iter().cloned());
        rules::check(&scenario.require, &scenario.allow)?;
        let ca = self
            .ca
            .as_ref()
            .map(|file| std::fs::read_to_string(file).map_err(|error| format!("--ca {file} can't be read: {error}")));
        // A run may take hours; that its results have no place is better known before.
        for file in [&self.json, &self.html].into_iter().flatten().filter(|file| *file != "-") {
            File::options()
                .append(true)
                .create(true)
                .open(file)
                .map_err(|error| format!("{file} can't be written: {error}"))?;
        }
        let interval = interval(&scenario);
        let targets = self.urls.iter().map(|url| target::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let assignment = Assignment {
            index: 0,
            processes: self.processes(&scenario)?,
            run: fastrand::u32(..),
            sources: if self.sources.is_empty() { sources(&scenario, &targets) } else { self.sources.clone() },
            targets,
            ca: ca.transpose()?,
            origin: clock::now(),
            interval,
            scenario: scenario.clone(),
        };
        let started = SystemTime::now();
        let plan = Plan { assignment, metrics: self.metrics.clone(), shows_progress: !self.is_quiet };
        let gathered = coordinator::run(plan)?;
        let said = Said { scenario, urls: self.urls, metrics: self.metrics, started, interval };
        let results = outcome::results(said, &gathered);
        match self.json.as_deref() {
            // Standard output is the results' alone.
            Some("-") => eprint!("{}", report::summary(&results)),
            _ => print!("{}", report::summary(&results)),
        }
        if let Some(file) = &self.json {
            write(file, &serde_json::to_string(&results)?)?;
        }
        if let Some(file) = &self.html {
            write(file, &report::html(&results))?;
        }
        Ok(if results.passed { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
    }

    /// As many as were said, or as the connections need; never more than there are connections.
    fn processes(&self, scenario: &Scenario) -> Result<u32, Box<dyn Error>> {
        let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
        let each = descriptors.saturating_sub(OTHER_DESCRIPTORS).max(1);
        let needed = u64::from(scenario.connections).div_ceil(each);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        match self.processes {
            0 => Ok(needed),
            said if said < needed => Err(format!(
                "--processes {said}: {} connections need {needed}, as a process may open {descriptors} descriptors here",
                scenario.connections
            )
            .into()),
            said => Ok(said.min(scenario.connections)),
        }
    }
}

/// On one machine there are as many own addresses as one likes; elsewhere the system's choice is the only one.
fn sources(scenario: &Scenario, targets: &[Target]) -> Vec<IpAddr> {
    let is_loopback =
        |target: &Target| target.addresses.iter().all(|address| address.is_ipv4() && address.ip().is_loopback());
    let needed = scenario.connections.div_ceil(CONNECTIONS_OF_A_SOURCE);
    match needed > 1 && targets.iter().all(is_loopback) {
        true => (2..needed + 2)
            .map(|number| Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() + number).into())
            .collect(),
        false => Vec::new(),
    }
}

/// A second, or more in a long run.
fn interval(scenario: &Scenario) -> Nanos {
    let ramp = f64::from(scenario.connections) / scenario.ramp;
    let whole = scenario.duration.as_secs_f64() * scenario.steps.len() as f64 + ramp;
    SECOND * (whole as u64).div_ceil(MAX_INTERVALS).max(1)
}

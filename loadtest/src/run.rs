//! The command `run`: from what was said to a plan, and from what was found to files and an exit status.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use crate::client::{Signed, Target, Tokens};
use crate::clock::{self, Nanos, SECOND};
use crate::coordinator::{self, Plan, Said};
use crate::generator::Assignment;
use crate::results::Thresholds;
use crate::scenario::Scenario;
use crate::{output, report};

/// Descriptors that a worker needs besides its connections'.
const OTHER_DESCRIPTORS: u64 = 64;

/// Connections from one own address. A system has about 28,000 ports for them, and from half of that on it takes long to
/// find a free one.
const CONNECTIONS_OF_A_SOURCE: u32 = 10_000;

/// A long run has at most about so many intervals, so that its report stays small.
const MAX_INTERVALS: u64 = 1800;

/// Options of `run`.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) scenario: String,
    /// Keys and what was said for them.
    pub(crate) flags: Vec<(String, String)>,
    pub(crate) urls: Vec<String>,
    pub(crate) metrics: Vec<String>,
    pub(crate) processes: u32,
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) ca: Option<String>,
    /// `None`: clients send no tokens.
    pub(crate) tokens: Option<TokenFile>,
    pub(crate) json: Option<String>,
    pub(crate) html: Option<String>,
    pub(crate) thresholds: Vec<String>,
    pub(crate) is_quiet: bool,
}

/// The file of `--token-file` or `--token-key`.
#[derive(Debug)]
pub(crate) enum TokenFile {
    Tokens(String),
    Key {
        file: String,
        /// With an empty key.
        signed: Box<Signed>,
    },
}

impl TokenFile {
    /// Reads the file, and tries to make a token.
    fn read(self) -> Result<Tokens, Box<dyn Error>> {
        let cannot_read = |option: &str, file: &str, error| format!("cannot read {option} {file}: {error}");
        let tokens = match self {
            Self::Tokens(file) => {
                let text = std::fs::read_to_string(&file).map_err(|error| cannot_read("--token-file", &file, error))?;
                Tokens::listed(&text)?
            }
            Self::Key { file, mut signed } => {
                signed.key = std::fs::read(&file).map_err(|error| cannot_read("--token-key", &file, error))?;
                Tokens::Signed(signed)
            }
        };
        tokens.source()?.token(0)?;
        Ok(tokens)
    }
}

impl Run {
    /// Makes the run. Whether all thresholds passed.
    pub(crate) fn make(self) -> Result<bool, Box<dyn Error>> {
        let mut scenario = Scenario::load(&self.scenario, &self.flags)?;
        scenario.thresholds.extend(self.thresholds.iter().cloned());
        let thresholds = Thresholds::new(&scenario.thresholds)?;
        let ca = self
            .ca
            .as_ref()
            .map(|file| std::fs::read_to_string(file).map_err(|error| format!("cannot read --ca {file}: {error}")));
        for file in [&self.json, &self.html].into_iter().flatten() {
            output::check(file)?;
        }
        let interval = interval(&scenario);
        let targets = self.urls.iter().map(|url| Target::parse(url)).collect::<Result<Vec<_>, _>>()?;
        let assignment = Assignment {
            index: 0,
            processes: self.processes(&scenario)?,
            run: fastrand::u32(..),
            sources: if self.sources.is_empty() { sources(&scenario, &targets) } else { self.sources.clone() },
            targets,
            ca: ca.transpose()?,
            tokens: self.tokens.map(TokenFile::read).transpose()?,
            origin: clock::now(),
            interval,
            scenario: scenario.clone(),
        };
        let started = SystemTime::now();
        let plan = Plan { assignment, metrics: self.metrics.clone(), shows_progress: !self.is_quiet };
        let gathered = coordinator::run(plan)?;
        let said = Said { scenario, thresholds, urls: self.urls, metrics: self.metrics, started, interval };
        let results = coordinator::results(said, &gathered);
        match self.json.as_deref() {
            // Standard output is the results' alone.
            Some("-") => eprint!("{}", report::summary(&results)),
            _ => print!("{}", report::summary(&results)),
        }
        if let Some(file) = &self.json {
            output::write(file, &serde_json::to_string(&results)?)?;
        }
        if let Some(file) = &self.html {
            output::write(file, &report::html(&results))?;
        }
        Ok(results.passed)
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
                "--processes {said} is too few: {} connections need {needed}, since a process may open {descriptors} files here",
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

//! A run from its begin to its end: starts the processes, tells them when, gathers what they find.

use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command as Program};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use thiserror::Error;

use crate::clock::{self, MILLISECOND, Nanos, SECOND, since};
use crate::generator::{Assignment, Command, Findings, Report, Schedule};
use crate::ledger::Published;
use crate::results::{CountsByName, Mark};

use super::knee;
use super::outcome::Gathered;
use super::progress::Screen;
use super::scrape::{self, Scrape};
use super::timeline::Timeline;
use super::wake::{Wake, forward_signals};
use super::workers::{Workers, WorkersError};

/// From the moment that all are told to start until they do.
const START_DELAY: Nanos = 300 * MILLISECOND;

/// How long processes may take for what they should do at once.
const PATIENCE: Nanos = 30 * SECOND;

/// How long a look at the nodes may take, besides the time between two looks.
const SCRAPE: Nanos = 3 * SECOND;

/// How often is looked at the time.
const TICK: Duration = Duration::from_millis(100);

/// Why a run could not be made.
#[derive(Debug, Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Workers(#[from] WorkersError),
    #[error("cannot connect to {to}: {errors}")]
    NothingOpened { to: String, errors: String },
    #[error("a generator process cannot start: {0}")]
    Setup(String),
    #[error("a generator process did not {what} in time; check whether this machine is overloaded")]
    Late { what: &'static str },
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For the first process; the others differ in their index.
    pub(crate) assignment: Assignment,
    pub(crate) metrics: Vec<String>,
    /// Whether progress is shown.
    pub(crate) shows_progress: bool,
}

struct Coordinator {
    plan: Plan,
    workers: Workers,
    inbox: Receiver<Wake>,
    screen: Screen,
    timeline: Timeline,
    scrapes: Vec<Vec<Scrape>>,
    /// Connections that are open, by worker that is ready.
    ready: BTreeMap<usize, u32>,
    published: Vec<Vec<Published>>,
    findings: BTreeMap<usize, Findings>,
    failure: Option<RunError>,
    is_interrupted: bool,
    marks: Vec<(Nanos, String)>,
    exec: Option<Child>,
    exec_failure: Option<String>,
}

/// Makes a run.
pub(crate) fn run(plan: Plan) -> Result<Gathered, RunError> {
    let (sender, inbox) = mpsc::channel();
    forward_signals(sender.clone())?;
    for (node, url) in plan.metrics.iter().enumerate() {
        scrape::start(node, url.clone(), Duration::from_nanos(plan.assignment.interval), sender.clone());
    }
    let workers = Workers::start(&plan.assignment, &sender)?;
    let coordinator = Coordinator {
        screen: Screen::new(plan.shows_progress, &plan.assignment),
        timeline: Timeline::new(plan.assignment.origin, plan.assignment.interval),
        scrapes: plan.metrics.iter().map(|_| Vec::new()).collect(),
        plan,
        workers,
        inbox,
        ready: BTreeMap::new(),
        published: Vec::new(),
        findings: BTreeMap::new(),
        failure: None,
        is_interrupted: false,
        marks: Vec::new(),
        exec: None,
        exec_failure: None,
    };
    coordinator.run()
}

impl Coordinator {
    fn run(mut self) -> Result<Gathered, RunError> {
        // What the nodes say before there is any load.
        self.wait(clock::now() + SCRAPE, |run| run.scrapes.iter().all(|scrapes| !scrapes.is_empty()))?;
        self.workers.tell_each(|index, assignment| Command::Prepare(Box::new(Assignment { index, ..assignment })))?;
        let ramp_start = clock::now();
        let all = self.workers.len();
        self.wait(ramp_start + self.ramp_patience(), |run| run.ready.len() == all || run.is_interrupted)?;
        let ramp = (clock::now() - ramp_start, self.ready.values().copied().map(u64::from).sum());
        if self.ready.len() < all && !self.is_interrupted {
            return Err(RunError::Late { what: "open its connections" });
        }
        if ramp.1 == 0 && !self.is_interrupted {
            let targets = &self.plan.assignment.targets;
            let to = targets.iter().map(|target| target.authority.as_str()).collect::<Vec<_>>().join(", ");
            return Err(RunError::NothingOpened { to, errors: self.stop_and_ask_for_errors() });
        }
        self.see_all_nodes_once_more()?;
        let schedule = self.start()?;
        let stopped = self.measure(&schedule)?;
        self.settle()?;
        self.see_all_nodes_once_more()?;
        self.screen.end();
        let mut marks = std::mem::take(&mut self.marks);
        marks.extend(self.findings.values().take(1).flat_map(|findings| findings.marks.clone()));
        Ok(Gathered {
            findings: self.findings.into_values().collect(),
            timeline: self.timeline,
            scrapes: self.scrapes,
            marks: marks.into_iter().map(|(at, what)| Mark { at: since(at, schedule.start), what }).collect(),
            schedule,
            ramp,
            stopped,
            exec_failure: self.exec_failure,
            ended_early: self.is_interrupted,
        })
    }

    fn ramp_patience(&self) -> Nanos {
        let scenario = &self.plan.assignment.scenario;
        let ramp = f64::from(scenario.connections) / scenario.ramp * SECOND as f64;
        ramp as Nanos + clock::nanos(scenario.timeout) + PATIENCE
    }

    /// So that what follows is compared with what they were just before.
    fn see_all_nodes_once_more(&mut self) -> Result<(), RunError> {
        let now = clock::now();
        let is_new = move |scrapes: &Vec<Scrape>| scrapes.last().is_some_and(|scrape| scrape.at > now);
        let until = now + self.plan.assignment.interval + SCRAPE;
        self.wait(until, |run| run.scrapes.iter().all(is_new)).map(|_| ())
    }

    fn start(&mut self) -> Result<Schedule, RunError> {
        let at = clock::now() + START_DELAY;
        let schedule = Schedule::new(&self.plan.assignment.scenario, at);
        self.screen.start(&schedule);
        if schedule.loads.len() > 1 {
            let steps = schedule.loads.iter().enumerate();
            self.marks.extend(steps.map(|(step, load)| (schedule.step_start(step), format!("load {load}"))));
        }
        self.workers.tell(&Command::Start { at })?;
        Ok(schedule)
    }

    /// Until the schedule's end, Ctrl-C, or the knee. Tells when it was.
    fn measure(&mut self, schedule: &Schedule) -> Result<Nanos, RunError> {
        let scenario = self.plan.assignment.scenario.clone();
        let exec_at = schedule.start + clock::nanos(scenario.exec_after);
        let mut is_exec_due = !scenario.exec.is_empty();
        for (step, load) in schedule.loads.iter().enumerate() {
            let (begin, end) = (schedule.step_start(step), schedule.step_start(step + 1));
            if is_exec_due && exec_at < end {
                is_exec_due = false;
                self.wait(exec_at, |run| run.is_interrupted)?;
                self.exec(&scenario.exec)?;
            }
            self.wait(end, |run| run.is_interrupted)?;
            let is_last = end >= schedule.end();
            if !self.is_interrupted && !is_last && scenario.stop_at_knee {
                self.wait(end + 2 * self.plan.assignment.interval, |run| run.timeline.is_told_until(end))?;
            }
            let is_over = || !knee::kept_up(&scenario, *load, &self.timeline.between(begin, end));
            if self.is_interrupted || (!is_last && scenario.stop_at_knee && is_over()) {
                self.workers.tell(&Command::Stop)?;
                return Ok(clock::now().min(schedule.end()));
            }
        }
        // All end by themselves, when everything planned is done.
        Ok(schedule.end())
    }

    fn exec(&mut self, command: &str) -> Result<(), RunError> {
        if !self.is_interrupted {
            self.marks.push((clock::now(), command.to_owned()));
            // Its output must not get between the JSON on standard output.
            let child = Program::new("sh").args(["-c", command]).stdout(io::stderr()).spawn()?;
            self.exec = Some(child);
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), RunError> {
        let all = self.workers.len();
        let timeout = clock::nanos(self.plan.assignment.scenario.timeout);
        if !self.wait(clock::now() + timeout + PATIENCE, |run| run.published.len() == all)? {
            return Err(RunError::Late { what: "stop" });
        }
        let published: Vec<_> = self.published.drain(..).flatten().collect();
        self.workers.tell(&Command::Settle(published))?;
        let scenario = &self.plan.assignment.scenario;
        let patience = clock::nanos(scenario.settle + scenario.timeout + scenario.cancel.after) + PATIENCE;
        if !self.wait(clock::now() + patience, |run| run.findings.len() == all)? {
            return Err(RunError::Late { what: "end" });
        }
        if let Some(mut exec) = self.exec.take() {
            // It is of this run, and has been left alone until the last moment.
            let _ = exec.kill();
            let _ = exec.wait();
            self.exec_failure = Some("still running at the end".to_owned());
        }
        Ok(())
    }

    /// What went wrong, when nothing went right.
    fn stop_and_ask_for_errors(&mut self) -> String {
        let asked = self.workers.tell(&Command::Stop).map_err(RunError::from).and_then(|()| self.settle());
        let mut errors = CountsByName::default();
        self.findings.values().for_each(|findings| errors.merge(&findings.errors));
        match asked {
            Ok(()) => errors.0.iter().map(|(name, count)| format!("{name} ({count}×)")).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        }
    }

    /// Takes what comes until the condition is true, or the time has come. Whether it is true.
    fn wait(&mut self, until: Nanos, condition: impl Fn(&Self) -> bool) -> Result<bool, RunError> {
        loop {
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if condition(self) {
                return Ok(true);
            }
            let now = clock::now();
            self.screen.show(now, &self.timeline, &self.scrapes);
            if now >= until {
                return Ok(false);
            }
            match self.inbox.recv_timeout(Duration::from_nanos(until - now).min(TICK)) {
                Ok(wake) => self.on_wake(wake),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(RunError::Late { what: "answer" }),
            }
            self.look_at_exec()?;
        }
    }

    fn look_at_exec(&mut self) -> Result<(), RunError> {
        if let Some(status) = self.exec.as_mut().and_then(|child| child.try_wait().transpose()) {
            let status = status?;
            let ended = format!("exec ended: {status}");
            self.exec_failure = (!status.success()).then(|| ended.clone());
            self.marks.push((clock::now(), ended));
            self.exec = None;
        }
        Ok(())
    }

    fn on_wake(&mut self, wake: Wake) {
        match wake {
            Wake::Worker(index, Report::Ready { open }) => {
                self.ready.insert(index, open);
            }
            Wake::Worker(index, Report::Progress(progress)) => self.timeline.add(index, progress),
            Wake::Worker(_, Report::Stopped(published)) => self.published.push(published),
            Wake::Worker(index, Report::Done(findings)) => {
                self.findings.insert(index, *findings);
            }
            Wake::Worker(_, Report::Failed(why)) => self.failure = Some(RunError::Setup(why)),
            Wake::Gone(index) => {
                if !self.findings.contains_key(&index) {
                    self.failure.get_or_insert_with(|| self.workers.gone(index).into());
                }
            }
            Wake::Scrape(scrape) => self.scrapes[scrape.node].push(scrape),
            Wake::Signal => self.is_interrupted = true,
        }
    }
}

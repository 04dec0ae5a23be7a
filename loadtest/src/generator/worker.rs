//! A generator process: one thread, one epoll loop, many connections.

use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::ledger::Published;
use crate::scenario::Scenario;

use super::activities::{self, Activity};
use super::control::{Assignment, Command, Progress, Report};
use super::findings::{Measured, findings};
use super::fleet::Fleet;
use super::pacer::{Pacer, Schedule};
use super::setup;

/// Tokens of what is no connection.
const CONTROL: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Events that are taken from the system at once.
const EVENTS: usize = 1024;

/// How often is looked whether all has come, at the end.
const LOOK_EVERY: Nanos = 20 * MILLISECOND;

/// After the time that the ramp should take, so much more is waited for the last connections.
const RAMP_PATIENCE: Nanos = 5 * SECOND;

/// Runs what the coordinator says, until the end. Its words come as lines on standard input.
pub(crate) fn run() -> io::Result<()> {
    // Ctrl-C reaches all processes of a terminal; this one ends when the coordinator says so.
    let ignored = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, ignored)?;
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), CONTROL)?;
    let (sender, commands) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let command = line.ok().and_then(|line| serde_json::from_str::<Command>(&line).ok());
            // Both fail only when the loop has ended.
            let _ = sender.send(command);
            let _ = waker.wake();
        }
        let _ = sender.send(None);
        let _ = waker.wake();
    });
    let Ok(Some(Command::Prepare(assignment))) = commands.recv() else {
        return Err(io::Error::other("no assignment came on standard input"));
    };
    match setup::fleet(&assignment, poll.registry()) {
        Ok(fleet) => Worker::new(*assignment, fleet, poll, commands)?.run(),
        Err(error) => {
            send(&Report::Failed(error.to_string()));
            Ok(())
        }
    }
}

/// Tells the coordinator. Without one, there is nobody to tell.
fn send(report: &Report) {
    let mut out = io::stdout().lock();
    let line = serde_json::to_string(report).unwrap_or_default();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

struct Worker {
    assignment: Assignment,
    fleet: Fleet,
    phase: Phase,
    activities: Vec<Box<dyn Activity>>,
    poll: Poll,
    timer: OwnedFd,
    /// What it is set to.
    timer_at: Nanos,
    commands: Receiver<Option<Command>>,
    /// The number of the interval that is under way.
    interval: u64,
    measured: Measured,
}

#[derive(Debug)]
enum Phase {
    /// Connections are opened by this plan.
    Ramp {
        pacer: Pacer,
        opened: u32,
        until: Nanos,
    },
    /// All are open; the others are waited for.
    Ready,
    Running {
        schedule: Schedule,
    },
    /// Nothing new is sent. In rooms that span processes, all publishes have to be answered before they are told of.
    Stopping {
        look_at: Nanos,
    },
    /// What the other processes have published is waited for.
    Stopped,
    /// What is still on its way is waited for.
    Settling {
        until: Nanos,
        look_at: Nanos,
    },
}

impl Worker {
    fn new(assignment: Assignment, fleet: Fleet, poll: Poll, commands: Receiver<Option<Command>>) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let Scenario { ramp, connections, timeout, .. } = assignment.scenario;
        let whole = Duration::from_secs_f64(f64::from(connections) / ramp + 1.0);
        let schedule = Schedule { start: clock::now(), step: whole, loads: vec![1.0], tick: Duration::ZERO };
        let until = schedule.end() + clock::nanos(timeout) + RAMP_PATIENCE;
        let rate = ramp * f64::from(fleet.len()) / f64::from(connections);
        let pacer = Pacer::new(schedule, rate, fleet.share.phase());
        Ok(Self {
            fleet,
            phase: Phase::Ramp { pacer, opened: 0, until },
            activities: Vec::new(),
            poll,
            timer,
            timer_at: 0,
            commands,
            interval: (clock::now() - assignment.origin) / assignment.interval,
            measured: Measured::default(),
            assignment,
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.sleep(&mut events)?;
            for event in &events {
                let Token(at) = event.token();
                if (at as u64) < u64::from(self.fleet.len()) {
                    let is_ending = event.is_read_closed() || event.is_error();
                    self.fleet.on_ready(at as u32, is_ending, clock::now());
                }
            }
            self.obey()?;
            let now = clock::now();
            self.act(now);
            let is_over = self.go_on(now);
            self.fleet.flush(now);
            self.tell_progress(now);
            if is_over {
                return self.end();
            }
        }
    }

    fn act(&mut self, now: Nanos) {
        self.fleet.act(now);
        for activity in &mut self.activities {
            activity.act(now, &mut self.fleet);
        }
    }

    /// Waits for sockets, commands, or the next thing that is planned.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let next = self.next_at();
        let mut longest = None;
        if next <= clock::now() {
            longest = Some(Duration::ZERO);
        } else if next != self.timer_at {
            // epoll waits in whole milliseconds; this is exact.
            self.timer_at = next;
            let value = Timespec { tv_sec: (next / SECOND) as i64, tv_nsec: (next % SECOND) as i64 };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        }
        match self.poll.poll(events, longest) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn next_at(&mut self) -> Nanos {
        let phase = match &mut self.phase {
            Phase::Ramp { pacer, opened, until } => {
                let next = (*opened < self.fleet.len()).then(|| pacer.next_at()).flatten();
                next.unwrap_or(*until).min(*until)
            }
            Phase::Running { schedule } if self.measured.start.is_none() => schedule.start,
            Phase::Running { schedule } => schedule.end(),
            Phase::Stopping { look_at } | Phase::Settling { look_at, .. } => *look_at,
            Phase::Ready | Phase::Stopped => Nanos::MAX,
        };
        let activities = self.activities.iter_mut().filter_map(|activity| activity.next_at());
        let interval = self.assignment.origin + (self.interval + 1) * self.assignment.interval;
        activities.chain(self.fleet.next_at()).fold(phase.min(interval), Nanos::min)
    }

    fn obey(&mut self) -> io::Result<()> {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Some(Command::Start { at }) => self.start(at),
                Some(Command::Stop) => {
                    let now = clock::now();
                    self.act(now);
                    self.stop(now);
                }
                Some(Command::Settle(published)) => self.settle(&published, clock::now()),
                Some(Command::Prepare(_)) => {}
                None => return Err(io::Error::other("the coordinator is gone")),
            }
        }
        Ok(())
    }

    /// What the phase brings. Whether the run is over.
    fn go_on(&mut self, now: Nanos) -> bool {
        match &mut self.phase {
            Phase::Ramp { pacer, opened, until } => {
                while *opened < self.fleet.len()
                    && let Some(planned) = pacer.take_due(now)
                {
                    self.fleet.open_at(*opened, planned);
                    *opened += 1;
                }
                self.fleet.act(now);
                if self.fleet.clients.settled == self.fleet.len() || now >= *until {
                    self.phase = Phase::Ready;
                    send(&Report::Ready { open: self.fleet.clients.settled });
                }
            }
            Phase::Running { schedule } => {
                let is_over = now >= schedule.end();
                if self.measured.start.is_none() && now >= schedule.start {
                    self.measured.start =
                        Some((now, clock::cpu_seconds(), self.fleet.clients.recorder.counts.messages));
                }
                if is_over {
                    self.stop(now);
                }
            }
            Phase::Stopping { look_at } if now >= *look_at => {
                *look_at = now + LOOK_EVERY;
                if self.fleet.clients.has_published() {
                    self.phase = Phase::Stopped;
                    send(&Report::Stopped(self.fleet.clients.rooms.published()));
                }
            }
            Phase::Settling { until, look_at } if now >= *look_at => {
                *look_at = now + LOOK_EVERY;
                let is_late = now >= *until;
                self.finish_activities();
                return self.activities.is_empty() && (is_late || self.fleet.clients.is_complete());
            }
            Phase::Ready | Phase::Stopping { .. } | Phase::Stopped | Phase::Settling { .. } => {}
        }
        false
    }

    fn start(&mut self, at: Nanos) {
        let scenario = &self.assignment.scenario;
        let schedule = Schedule::new(scenario, at);
        self.fleet.clients.recorder.start(schedule.clone());
        self.activities = activities::of(scenario, &self.fleet, &schedule);
        self.phase = Phase::Running { schedule };
    }

    /// Nothing new is sent from now on.
    fn stop(&mut self, now: Nanos) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped | Phase::Settling { .. }) {
            return;
        }
        if let Some((start, cpu, messages)) = self.measured.start {
            let clients = &self.fleet.clients;
            self.measured.spent =
                Some((now - start, clock::cpu_seconds() - cpu, clients.recorder.counts.messages - messages));
        }
        self.finish_activities();
        self.phase = Phase::Stopping { look_at: now };
    }

    /// Only those stay that have something to end.
    fn finish_activities(&mut self) {
        self.activities.retain_mut(|activity| activity.finish());
    }

    fn settle(&mut self, published: &[Published], now: Nanos) {
        self.fleet.clients.rooms.learn(published);
        let until = now + clock::nanos(self.assignment.scenario.settle);
        self.phase = Phase::Settling { until, look_at: now };
    }

    fn tell_progress(&mut self, now: Nanos) {
        let number = (now - self.assignment.origin) / self.assignment.interval;
        if number > self.interval {
            self.send_progress();
            self.interval = number;
        }
    }

    fn send_progress(&mut self) {
        let clients = &mut self.fleet.clients;
        send(&Report::Progress(Progress {
            number: self.interval,
            connections: u64::from(clients.open),
            histograms: clients.recorder.take_interval().encode(),
            errors: clients.recorder.errors.total(),
            faults: clients.rooms.faults().total(),
            cpu: clock::cpu_seconds(),
        }));
    }

    fn end(mut self) -> io::Result<()> {
        self.fleet.clients.settle_all(clock::now());
        self.send_progress();
        self.fleet.end_all();
        send(&Report::Done(Box::new(findings(&self.fleet.clients, &self.measured))));
        Ok(())
    }
}

//! The generator processes, as the coordinator sees them.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::Sender;

use thiserror::Error;

use crate::generator::{Assignment, Command, Report};

use super::wake::Wake;

/// The hidden command that makes this program a worker.
pub(crate) const WORKER: &str = "worker";

/// What can go wrong with them.
#[derive(Debug, Error)]
pub(crate) enum WorkersError {
    #[error("cannot start a generator process: {0}")]
    Start(io::Error),
    #[error("generator process {index} ended unexpectedly ({status}); see its output above")]
    Gone { index: usize, status: String },
    #[error("cannot write to generator process {index}: {error}")]
    Write { index: usize, error: io::Error },
}

/// Killed when dropped, unless they have ended.
#[derive(Debug)]
pub(crate) struct Workers {
    assignment: Assignment,
    all: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    stdin: ChildStdin,
}

impl Workers {
    /// Starts as many as are assigned; what they say goes `to` the coordinator.
    pub(crate) fn start(assignment: &Assignment, to: &Sender<Wake>) -> Result<Self, WorkersError> {
        let program = std::env::current_exe().map_err(WorkersError::Start)?;
        let mut workers = Self { assignment: assignment.clone(), all: Vec::new() };
        for index in 0..assignment.processes as usize {
            let mut command = Program::new(&program);
            command.arg(WORKER).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(WorkersError::Start)?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { continue };
            workers.all.push(Worker { child, stdin });
            let to = to.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let Ok(report) = serde_json::from_str::<Report>(&line) else { break };
                    if to.send(Wake::Worker(index, report)).is_err() {
                        return;
                    }
                }
                // Nobody listens only when the run is over.
                let _ = to.send(Wake::Gone(index));
            });
        }
        Ok(workers)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells all the same.
    pub(crate) fn tell(&mut self, command: &Command) -> Result<(), WorkersError> {
        self.tell_each(|_, _| command.clone())
    }

    /// Tells each its own: it is made of the worker's index, and what is assigned to all.
    pub(crate) fn tell_each(&mut self, command: impl Fn(u32, Assignment) -> Command) -> Result<(), WorkersError> {
        for (index, worker) in self.all.iter_mut().enumerate() {
            let command = command(index as u32, self.assignment.clone());
            let mut tell = || writeln!(worker.stdin, "{}", serde_json::to_string(&command)?);
            tell().map_err(|error| WorkersError::Write { index, error })?;
        }
        Ok(())
    }

    /// One has ended before it should.
    pub(crate) fn gone(&mut self, index: usize) -> WorkersError {
        // It may also have said something that nobody understands.
        let _ = self.all[index].child.kill();
        let status = self.all[index].child.wait();
        WorkersError::Gone { index, status: status.map_or_else(|error| error.to_string(), |status| status.to_string()) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.all {
            // It has ended already, unless something went wrong.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

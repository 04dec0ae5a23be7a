//! The log of a node.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use super::DEADLINE;

/// The lines that a process writes to standard error.
#[derive(Debug)]
pub struct Log(Receiver<String>);

impl Log {
    pub fn of(command: &mut Command) -> Self {
        let (reader, pipe) = io::pipe().expect("a pipe");
        let (lines, log) = mpsc::channel();
        thread::spawn(move || {
            // The test may have ended.
            BufReader::new(reader).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
        });
        command.stderr(Stdio::from(pipe));
        Self(log)
    }

    /// The next lines, up to one with this text.
    pub fn until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains(text)) {
            let line = self.0.recv_timeout(DEADLINE);
            lines.push(line.unwrap_or_else(|_| panic!("no {text:?} in {lines:#?}")));
        }
        lines
    }

    /// The lines until the process has ended.
    pub fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.0.recv_timeout(DEADLINE) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("the process has not ended: {lines:#?}"),
            }
        }
    }
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Killed(Child);

impl Killed {
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

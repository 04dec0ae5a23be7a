//! The tool as a process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::results::Results;

pub const TOOL: &str = env!("CARGO_BIN_EXE_roomcast-loadtest");

/// No run of a test takes so long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The tool while it runs. Killed when dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
}

/// What it did.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status; none after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Tool {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(TOOL);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.process_group(0);
        Self { child: command.spawn().expect("the tool starts") }
    }

    /// Sends a signal by its name, such as `INT`.
    pub fn signal(&self, signal: &str) {
        send(signal, &self.id().to_string());
    }

    /// Sends it to its generators, too, as a terminal does at Ctrl-C.
    pub fn signal_all(&self, signal: &str) {
        send(signal, &format!("-{}", self.id()));
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_none()
    }

    /// Waits for its end.
    pub async fn end(self) -> Outcome {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait_with_output()).await;
        let output = ended.expect("the tool ends in time").expect("its output can be read");
        let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

fn send(signal: &str, to: &str) {
    let status = std::process::Command::new("kill").args(["-s", signal, "--", to]).status();
    assert!(status.expect("the kill command runs").success(), "the tool is there");
}

impl Outcome {
    /// Everything that it printed.
    pub fn printed(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn assert_code(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{}", self.printed());
    }

    /// It refused to run, and its words have all of these.
    #[track_caller]
    pub fn assert_refused(&self, words: &[&str]) {
        self.assert_code(2);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.printed());
        }
    }
}

/// Runs the tool to its end.
pub async fn run(arguments: &[&str]) -> Outcome {
    Tool::start(arguments).end().await
}

/// Runs a scenario whose results go to a file of this name.
pub async fn run_scenario(file: &str, arguments: &[&str]) -> (Outcome, Results) {
    let file = new_file(file);
    let outcome = run(&[&["run"], arguments, &["--quiet", "--json", text(&file)]].concat()).await;
    let results = Results::read(&file).unwrap_or_else(|| panic!("there are no results: {}", outcome.printed()));
    (outcome, results)
}

/// A path for a file of one test; what an earlier run left there is gone.
pub fn new_file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_file(&path).expect("the file can be removed");
    }
    path
}

/// A file for one test.
pub fn write_file(name: &str, content: &str) -> PathBuf {
    let path = new_file(name);
    std::fs::write(&path, content).expect("the file can be written");
    path
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

//! Programs that run beside the nodes. They end with the test, and so do their child processes and
//! their files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No test waits longer than this for a program.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often conditions of other processes are checked.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// How many ports are tried. A port may be taken between the check and its use.
pub(crate) const PORT_ATTEMPTS: usize = 10;

/// Waits for a condition of other processes.
///
/// # Panics
/// Panics if it does not become true in time.
pub(crate) async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Runs a program until it exits.
///
/// # Panics
/// Panics if it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A running program. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
}

impl Program {
    /// Starts the program. Its output is appended to a file.
    pub(crate) fn start(mut command: Command, output: &Path) -> Self {
        let output = File::options().create(true).append(true).open(output).expect("a file for the output");
        let copy = output.try_clone().expect("the file can be shared");
        let child = command.stdin(Stdio::null()).stdout(output).stderr(copy).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")) }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_none()
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        run(Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]));
    }

    /// Kills the program and its child processes, such as the one in which Redis writes a snapshot.
    pub(crate) fn kill(&mut self) {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        // Any of them may have exited already.
        let _ = self.child.kill();
        for child in children.split_whitespace() {
            let _ = Command::new("kill").args(["-KILL", child]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory for the files of one program. It is removed when dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Creates a directory with a short path, because the path of a Unix socket in it may have at
    /// most 107 bytes.
    pub(crate) fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the content of a file, for the message of a failure.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.file(name), content).expect("the file can be written");
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A program that is exiting may still write to the directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

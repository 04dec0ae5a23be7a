//! Records which commit a program is built from, for `--version` and the metric `roomcast_build_info`. The load test's
//! program uses this script, too.
//!
//! `ROOMCAST_COMMIT` and `ROOMCAST_COMMIT_DATE` replace what Git tells: images are built without `.git`. The date is the
//! commit's, not that of the build, so that the same source makes the same bytes.

use std::env;
use std::path::Path;
use std::process::Command;

/// As many digits of a commit as `git log --oneline` mostly shows.
const SHORT: usize = 7;

fn main() {
    println!("cargo::rerun-if-env-changed=ROOMCAST_COMMIT");
    println!("cargo::rerun-if-env-changed=ROOMCAST_COMMIT_DATE");
    let (commit, date) = match variable("ROOMCAST_COMMIT") {
        Some(commit) => (Some(commit), variable("ROOMCAST_COMMIT_DATE")),
        None => (git(&["rev-parse", "HEAD"]), git(&["show", "--no-patch", "--format=%cs", "HEAD"])),
    };
    rerun_after_a_commit();

    let commit = commit.unwrap_or_else(|| "unknown".to_owned());
    let short = commit.get(..SHORT).filter(|_| commit != "unknown").unwrap_or("unknown commit");
    let profile = variable("PROFILE").unwrap_or_default();
    let parts = [Some(short.to_owned()), date, Some(profile)];
    let build = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    // Cargo also sets these for the programs that it runs, where the node takes `ROOMCAST_…` for options.
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=BUILD_VERSION={} ({build})", variable("CARGO_PKG_VERSION").unwrap_or_default());
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The output of Git, if there is a Git and a repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Some(text).filter(|text| !text.is_empty())
}

/// Git appends to this file whenever HEAD changes. Cargo would run this script each time if it named a missing file.
fn rerun_after_a_commit() {
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
}

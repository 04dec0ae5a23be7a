//! The repository's own rules, for what no compiler and no linter looks at.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A source file that grows over this has become two.
const MAX_LINES: usize = 450;

/// What may not be left in Rust code. In pieces, so that this file may.
const LEFTOVERS: &[&str] =
    &[concat!("to", "do!("), concat!("unimplemented", "!("), concat!("db", "g!("), concat!("#[", "ignore")];

/// Names under which anything could be, and soon is.
const SAYS_NOTHING: &[&str] = &["utils.rs", "common.rs", "types.rs"];

/// Directories that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/", "work/"), concat!("/", "root/")];

#[test]
fn source_files_say_what_they_are_for() {
    check(|file, findings| {
        if file.is_source() && !file.text.starts_with("//!") {
            findings.push(file, 1, "begins without a //! comment");
        }
    });
}

#[test]
fn source_files_are_short() {
    check(|file, findings| {
        let lines = file.text.lines().count();
        if file.is_source() && lines > MAX_LINES {
            findings.push(file, lines, format!("is longer than {MAX_LINES} lines"));
        }
    });
}

#[test]
fn source_files_are_named_after_what_is_in_them() {
    check(|file, findings| {
        if file.is_source() && SAYS_NOTHING.iter().any(|name| file.path.ends_with(name)) {
            findings.push(file, 1, "has a name that says nothing");
        }
    });
}

#[test]
fn nothing_is_left_unfinished() {
    check(|file, findings| {
        for (line, text) in file.lines().filter(|_| file.has_extension("rs")) {
            for leftover in LEFTOVERS.iter().filter(|leftover| text.contains(**leftover)) {
                findings.push(file, line, format!("has {leftover}"));
            }
        }
    });
}

#[test]
fn a_lint_is_switched_off_for_a_reason() {
    check(|file, findings| {
        for start in
            [concat!("#[al", "low("), concat!("#![al", "low("), concat!("#[exp", "ect("), concat!("#![exp", "ect(")]
        {
            for (at, _) in file.text.match_indices(start).filter(|_| file.has_extension("rs")) {
                let attribute = file.text[at..].split_once(")]").map_or("", |(attribute, _)| attribute);
                if !attribute.contains("reason = ") {
                    findings.push(file, file.line_of(at), format!("{start}…)] without a reason"));
                }
            }
        }
    });
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    check(|file, findings| {
        for (line, text) in file.lines() {
            for path in MACHINE_PATHS {
                // After a letter it is a part of a longer path, relative or of a URL.
                let is_absolute =
                    |(at, _)| !text[..at].ends_with(|before: char| before.is_alphanumeric() || "._-}".contains(before));
                if text.match_indices(path).any(is_absolute) {
                    findings.push(file, line, format!("names a place under {path}"));
                }
            }
        }
    });
}

// === what they use ===

/// A tracked text file, or one that would be tracked.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|own| own == extension)
    }

    /// Whether it is Rust code of one of the crates, not of their tests.
    fn is_source(&self) -> bool {
        let parts: Vec<_> = self.path.iter().take(3).collect();
        self.has_extension("rs") && parts.len() == 3 && parts[0] == "crates" && parts[2] == "src"
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, text)| (index + 1, text))
    }

    fn line_of(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn push(&mut self, file: &File, line: usize, what: impl Display) {
        self.0.push(format!("{}:{line} {what}", file.path.display()));
    }
}

/// Looks at all files and reports everything found at once.
#[track_caller]
fn check(mut rule: impl FnMut(&File, &mut Findings)) {
    let mut findings = Findings::default();
    for file in files() {
        rule(&file, &mut findings);
    }
    assert!(findings.0.is_empty(), "\n{}\n", findings.0.join("\n"));
}

fn files() -> Vec<File> {
    let root = root();
    let mut git = Command::new("git");
    let listed = git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(&root).output();
    let listed = listed.expect("git starts");
    assert!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let paths: BTreeSet<PathBuf> = paths.split_terminator('\0').map(PathBuf::from).collect();
    // What is not UTF-8 is no text, and what is not there is being deleted.
    let files =
        paths.into_iter().filter_map(|path| Some(File { text: std::fs::read_to_string(root.join(&path)).ok()?, path }));
    let files: Vec<File> = files.collect();
    assert!(files.iter().any(|file| file.path == Path::new("crates/testkit/tests/tidy.rs")), "this file is found");
    files
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

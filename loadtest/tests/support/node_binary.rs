//! The nodes under load. Cargo tells a test only where its own package's binaries are, so the node's is
//! built here, beside the tool's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use roomcast_testkit::Node;

use super::tool::TOOL;

/// The binary `roomcast`, as new as its sources.
pub fn node_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let directory = Path::new(TOOL).parent().expect("the tool is in a directory");
        let target = directory.parent().expect("the profile's directory is in the target's");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--quiet", "--package", "roomcast-node", "--target-dir"]).arg(target);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // Build scripts that look at them would run again, now and at the next build outside of a test.
        without(&mut cargo, &["CARGO_PKG_", "CARGO_MANIFEST_"]);
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo starts");
        assert!(status.success(), "the node is not built");
        directory.join("roomcast")
    })
}

/// A demo node that is ready, without the environment's options.
pub async fn start_node(arguments: &[&str]) -> Node {
    let mut command = Command::new(node_binary());
    without(&mut command, &["ROOMCAST_"]);
    Node::start_by(command, &[&["--demo", "--log", "error"], arguments].concat()).await
}

/// Takes from a command the variables whose names begin so.
fn without(command: &mut Command, begins: &[&str]) {
    for (name, _) in std::env::vars_os() {
        if begins.iter().any(|begin| name.to_string_lossy().starts_with(begin)) {
            command.env_remove(name);
        }
    }
}

//! Which crate may depend on which: the drawing in the architecture, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every crate with the workspace crates that it may depend on. A new crate is a decision: it gets its
/// row here and its place in the architecture.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("roomcast-protocol", &[]),
    ("roomcast-core", &["roomcast-protocol"]),
    ("roomcast-redis", &["roomcast-core", "roomcast-protocol"]),
    ("roomcast", &["roomcast-core", "roomcast-protocol"]),
    ("roomcast-auth", &["roomcast"]),
    ("roomcast-backends", &["roomcast"]),
    (
        "roomcast-node",
        &["roomcast", "roomcast-auth", "roomcast-backends", "roomcast-redis", "roomcast-core", "roomcast-protocol"],
    ),
    ("roomcast-loadtest", &["roomcast-protocol"]),
    ("roomcast-testkit", &["roomcast", "roomcast-core", "roomcast-protocol"]),
];

/// Libraries with the only crates that may name them.
const ONLY_USED_BY: &[(&str, &[&str])] = &[
    ("axum", &["roomcast", "roomcast-auth", "roomcast-backends", "roomcast-node"]),
    ("hyper", &["roomcast", "roomcast-auth", "roomcast-backends", "roomcast-node"]),
    ("hyper-util", &["roomcast", "roomcast-auth", "roomcast-backends", "roomcast-node"]),
    ("fred", &["roomcast-redis"]),
    ("jsonwebtoken", &["roomcast-auth", "roomcast-loadtest"]),
    ("clap", &["roomcast-node", "roomcast-loadtest"]),
    ("figment", &["roomcast-node"]),
    ("opentelemetry", &["roomcast-node"]),
    ("opentelemetry_sdk", &["roomcast-node"]),
    ("tracing-opentelemetry", &["roomcast-node"]),
    ("toml", &["roomcast-node", "roomcast-loadtest"]),
];

/// Crates with the libraries that they may not reach, not even through others.
const NEVER_REACHES: &[(&str, &[&str])] = &[
    ("roomcast-protocol", &["tokio", "axum", "hyper", "prometheus", "fred", "clap", "toml"]),
    ("roomcast-core", &["axum", "hyper", "fred", "clap", "toml"]),
];

#[test]
fn crates_depend_only_on_the_layers_below_them() {
    let workspace = Workspace::load();
    for (name, package) in workspace.crates() {
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(row, _)| *row == name) else {
            panic!("{name} has no row in MAY_DEPEND_ON");
        };
        for dependency in package.shipped.iter().filter(|dependency| workspace.packages.contains_key(*dependency)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} may not depend on {dependency}");
        }
    }
}

#[test]
fn libraries_are_named_only_by_the_crate_whose_matter_they_are() {
    for (name, package) in Workspace::load().crates() {
        for (library, users) in ONLY_USED_BY {
            assert!(
                users.contains(&name) || !package.shipped.contains(*library),
                "{name} may not depend on {library}: that is a matter of {users:?}"
            );
        }
    }
}

#[test]
fn the_lower_layers_do_not_even_reach_the_outside_through_others() {
    let workspace = Workspace::load();
    for (name, unreachable) in NEVER_REACHES {
        let reached = workspace.reached_from(name);
        assert!(reached.contains("bytes"), "{name} is in the graph: {reached:?}");
        for library in *unreachable {
            assert!(!reached.contains(*library), "{name} reaches {library}; see `cargo tree -p {name} -i {library}`");
        }
    }
}

#[test]
fn the_testkit_is_never_shipped() {
    let workspace = Workspace::load();
    for (name, package) in &workspace.packages {
        assert!(!package.shipped.contains("roomcast-testkit"), "{name} may depend on the testkit in tests only");
    }
}

// === what they use ===

/// The workspace's packages by name, and who depends on whom among all packages.
struct Workspace {
    packages: BTreeMap<String, Package>,
    /// By package id, without dependencies of tests.
    graph: BTreeMap<String, Node>,
}

struct Package {
    /// Examples are users like any other.
    is_crate: bool,
    /// Direct dependencies, but for those of tests.
    shipped: BTreeSet<String>,
}

struct Node {
    name: String,
    dependencies: Vec<String>,
}

impl Workspace {
    fn load() -> Self {
        // For this platform only: those packages are here, as this test was built.
        let version = cargo(&["-vV"]);
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
        let metadata = cargo(&["metadata", "--format-version=1", "--filter-platform", host]);
        let metadata: Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
        let root = Path::new(text(&metadata["workspace_root"]));
        let members: Vec<&str> = list(&metadata["workspace_members"]).map(text).collect();
        let packages = list(&metadata["packages"]);
        let names: BTreeMap<&str, &str> =
            packages.map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let packages = list(&metadata["packages"]).filter(|package| members.contains(&text(&package["id"])));
        Self {
            packages: packages
                .map(|package| (text(&package["name"]).to_owned(), Package::read(package, root)))
                .collect(),
            graph: list(&metadata["resolve"]["nodes"])
                .map(|node| (text(&node["id"]).to_owned(), Node::read(node, &names)))
                .collect(),
        }
    }

    fn crates(&self) -> impl Iterator<Item = (&str, &Package)> {
        self.packages.iter().filter(|(_, package)| package.is_crate).map(|(name, package)| (name.as_str(), package))
    }

    /// The names of all packages that a package depends on, whatever is between.
    fn reached_from(&self, name: &str) -> BTreeSet<&str> {
        let start = self.graph.iter().find(|(_, node)| node.name == name).expect("a package of the workspace");
        let (mut reached, mut ahead) = (BTreeSet::new(), vec![start.0]);
        while let Some(id) = ahead.pop() {
            for dependency in &self.graph[id].dependencies {
                if reached.insert(dependency) {
                    ahead.push(dependency);
                }
            }
        }
        reached.into_iter().map(|id| self.graph[id].name.as_str()).collect()
    }
}

impl Package {
    fn read(package: &Value, root: &Path) -> Self {
        let shipped = list(&package["dependencies"]).filter(|dependency| dependency["kind"] != "dev");
        Self {
            is_crate: !Path::new(text(&package["manifest_path"])).starts_with(root.join("examples")),
            shipped: shipped.map(|dependency| text(&dependency["name"]).to_owned()).collect(),
        }
    }
}

impl Node {
    fn read(node: &Value, names: &BTreeMap<&str, &str>) -> Self {
        let shipped = |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev");
        let dependencies = list(&node["deps"]).filter(shipped).map(|dependency| text(&dependency["pkg"]).to_owned());
        Self { name: names[text(&node["id"])].to_owned(), dependencies: dependencies.collect() }
    }
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo starts");
    assert!(output.status.success(), "cargo {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().expect("cargo writes a text here")
}

#[track_caller]
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("cargo writes a list here").iter()
}

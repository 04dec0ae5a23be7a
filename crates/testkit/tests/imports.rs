//! Inside a crate, files and folders import in one direction: nobody reaches itself through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The sources of all crates, from the repository's root.
const SOURCES: &[&str] = &[
    "crates/protocol/src",
    "crates/core/src",
    "crates/redis/src",
    "crates/server/src",
    "crates/auth/src",
    "crates/backends/src",
    "crates/node/src",
    "crates/testkit/src",
    "loadtest/src",
];

/// Who imports whom, by name.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_file_imports_itself_through_others() {
    for source in SOURCES {
        let files = imports_between_files(source);
        assert!(files.len() > 5, "{source}: the files are found");
        assert_eq!(circle(&files), None, "{source}: these files import one another in a circle");
    }
}

#[test]
fn no_folder_imports_itself_through_others() {
    for source in SOURCES {
        let mut folders = Graph::new();
        for (file, imported) in imports_between_files(source) {
            let folder = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
            let imported = imported.iter().map(|module| folder(module)).filter(|other| *other != folder(&file));
            folders.entry(folder(&file)).or_default().extend(imported);
        }
        assert_eq!(circle(&folders), None, "{source}: these folders import one another in a circle");
    }
}

#[test]
fn a_circle_is_found() {
    let import = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let graph = Graph::from([import("a", "b"), import("b", "c"), import("c", "b"), import("d", "a")]);
    assert_eq!(circle(&graph), Some(vec!["b".to_owned(), "c".to_owned(), "b".to_owned()]));
    let paths = paths("use crate::rooms::{local::LocalNode, outbox::{Held, Outbox}};\nlet x = super::id::NodeId;");
    let expected = ["crate::rooms::local::LocalNode", "crate::rooms::outbox::Held", "crate::rooms::outbox::Outbox"];
    assert_eq!(paths, [&expected[..], &["super::id::NodeId"]].concat());
}

/// The modules of a crate, each with those of the same crate that it names. A crate's root is left out: it declares and
/// exports.
fn imports_between_files(source: &str) -> Graph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(source);
    let modules: BTreeMap<String, String> = source_files(&root)
        .into_iter()
        .map(|path| (module(path.strip_prefix(&root).expect("below the root")), path))
        .filter(|(module, _)| module != "lib" && module != "main")
        .map(|(module, path)| (module, std::fs::read_to_string(path).expect("the file can be read")))
        .collect();
    let imports = |(module, text): (&String, &String)| {
        let named = paths(&shipped(text)).into_iter().filter_map(|path| named_module(&path, module, &modules));
        (module.clone(), named.filter(|other| other != module).collect())
    };
    modules.iter().map(imports).collect()
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.chain(folders.iter().flat_map(|folder| source_files(folder))).collect()
}

fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().expect("UTF-8")).filter(|part| *part != "mod").collect();
    parts.join("::")
}

/// A file without its comments and unit tests.
fn shipped(text: &str) -> String {
    let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = shipped.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: Vec<_> = code.collect();
    // What only rustdoc sees names whatever it describes.
    code.join("\n").split("#[cfg(doc)]").next().unwrap_or_default().to_owned()
}

/// All paths of a text that begin with `crate::` or `super::`, each group taken apart.
fn paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in text.match_indices(start) {
            let is_whole_word =
                text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':');
            if is_whole_word {
                expand(String::new(), &text[at..], &mut paths);
            }
        }
    }
    paths
}

/// Appends the paths that a use tree has, and returns what follows it.
fn expand<'a>(prefix: String, tree: &'a str, paths: &mut Vec<String>) -> &'a str {
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(tree.len());
    let (path, mut rest) = (prefix + &tree[..end], &tree[end..]);
    if !rest.starts_with('{') {
        paths.push(path);
        return rest;
    }
    while !rest.starts_with('}') {
        rest = expand(path.clone(), rest[1..].trim_start(), paths).trim_start();
    }
    &rest[1..]
}

/// The module that a path leads to, or through.
fn named_module(path: &str, from: &str, modules: &BTreeMap<String, String>) -> Option<String> {
    let path = match path.strip_prefix("crate::") {
        Some(path) => path.to_owned(),
        None => {
            let parent = from.rsplit_once("::").map_or("", |(parent, _)| parent);
            format!("{parent}::{}", path.strip_prefix("super::")?).trim_start_matches(':').to_owned()
        }
    };
    let mut parts: Vec<_> = path.split("::").collect();
    while !parts.is_empty() && !modules.contains_key(&parts.join("::")) {
        parts.pop();
    }
    (!parts.is_empty()).then(|| parts.join("::"))
}

/// A way from somebody back to itself.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(at: &str, graph: &Graph, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|step| step == at) {
            return Some(way[begin..].iter().cloned().chain([at.to_owned()]).collect());
        }
        if done.contains(at) {
            return None;
        }
        way.push(at.to_owned());
        let found = graph.get(at).into_iter().flatten().find_map(|next| visit(next, graph, way, done));
        way.pop();
        done.insert(at.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|start| visit(start, graph, &mut Vec::new(), &mut done))
}

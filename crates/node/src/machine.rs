//! How much memory there is: what the container may use, or else what the machine has.

use std::path::{Path, PathBuf};

/// Where both versions of control groups are mounted.
const CGROUPS: &str = "sys/fs/cgroup";

/// The memory that this process may use, in bytes. `None` if that is unknown.
pub(crate) fn memory() -> Option<usize> {
    memory_below(Path::new("/"))
}

/// Like [`memory`], for a machine whose files are below `root`.
fn memory_below(root: &Path) -> Option<usize> {
    let physical = physical(root);
    // A group without a limit has "max", or a number that no machine has.
    limits(root).chain(physical).min()
}

/// The limits of the process' control group and of all groups around it; all of them apply.
fn limits(root: &Path) -> impl Iterator<Item = usize> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let files: Vec<PathBuf> = groups
        .lines()
        .filter_map(|line| {
            // Such as "0::/pod/container" in version 2, "9:memory:/pod/container" in version 1.
            let (_, controllers_and_path) = line.split_once(':')?;
            let (controllers, path) = controllers_and_path.split_once(':')?;
            let (mount, file) = match controllers {
                "" => (CGROUPS.to_owned(), "memory.max"),
                controllers if controllers.split(',').any(|controller| controller == "memory") => {
                    (format!("{CGROUPS}/memory"), "memory.limit_in_bytes")
                }
                _ => return None,
            };
            let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
            Some(ancestors.map(|group| root.join(&mount).join(group).join(file)).collect::<Vec<_>>())
        })
        .flatten()
        .collect();
    files.into_iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

fn physical(root: &Path) -> Option<usize> {
    let information = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = information.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        4096 kB\nMemFree:         1 kB\n");

    /// What is found on a machine with these files, of which the test's name makes a directory.
    fn found(test: &str, files: &[(&str, &str)]) -> Option<usize> {
        let root = std::env::temp_dir().join(format!("roomcast-machine-{test}-{}", std::process::id()));
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let found = memory_below(&root);
        let _ = std::fs::remove_dir_all(root);
        found
    }

    #[test]
    fn the_smallest_limit_of_the_group_and_those_around_it_holds() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "1048576\n"),
        ];
        assert_eq!(found("version-2", &files), Some(1024 * 1024));
    }

    #[test]
    fn version_1_of_control_groups_is_understood() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "12:cpu,cpuacct:/x\n9:memory:/docker/1\n"),
            // As in a container that sees its own group as the root.
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n"),
        ];
        assert_eq!(found("version-1", &files), Some(2 * 1024 * 1024));
    }

    #[test]
    fn without_a_limit_it_is_the_machines_memory() {
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found("unlimited", &[MACHINE, ("proc/self/cgroup", "9:memory:/\n"), unlimited]), Some(4096 * 1024));
        assert_eq!(found("nothing", &[]), None);
    }
}

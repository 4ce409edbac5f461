//! What daemons that have ended may leave: processes that name our directory, all that
//! these have started, and mounts below it.
//!
//! A daemon that was killed (SIGKILL) while its containers began and ended leaves things
//! for good, whoever used it. Seen with Docker 20.10.24, its own client and nothing else,
//! under a load of one-second containers: its data directory mounted on itself; shims of
//! containers that no daemon knows any more, some with a `runc init` that never became the
//! container's program; those containers' file systems. In a run of ours also a network
//! namespace in which nothing ran. On a host whose daemon was killed these are taken away
//! and not told. A process that ever was a container's program is told always, and so is
//! all of it elsewhere.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::system;

/// A containerd outlives its dockerd by a moment.
const END_BY_THEMSELVES: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A second and a third look, for what came up meanwhile.
const ROUNDS: u32 = 3;

/// A process that names our directory, or descends from one that does.
#[derive(Debug)]
struct Process {
    parent: i32,
    command: String,
}

/// Waits for what ends by itself, ends the rest, and names it, save what a daemon whose
/// directory is among `killed` is known to leave.
pub(super) fn clear(dir: &Path, killed: &[PathBuf]) -> Vec<String> {
    let end = Instant::now() + END_BY_THEMSELVES;
    let mut found = processes(dir);
    while !told(&found, killed).is_empty() && Instant::now() < end {
        std::thread::sleep(LOOK_EVERY);
        found = processes(dir);
    }
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        left.extend(told(&found, killed));
        for pid in found.keys().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if found.is_empty() {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        found = processes(dir);
    }
    for mount in mounts(dir) {
        let known = is_bookkeeping(Path::new(&mount), killed);
        let _ = system::run("umount", &["-l", &mount]);
        if !known {
            left.push(format!("mount {mount}"));
        }
    }
    left
}

/// Whether a mount is one that a killed daemon may leave.
fn is_bookkeeping(mount: &Path, killed: &[PathBuf]) -> bool {
    let below = |daemon: &PathBuf| mount.strip_prefix(daemon).ok().map(Path::to_owned);
    let Some(below) = killed.iter().find_map(below) else { return false };
    if below.starts_with("exec/netns") {
        return is_empty_namespace(mount);
    }
    below == Path::new("data") || (below.starts_with("data") && below.ends_with("merged"))
}

/// Whether no process is in this network namespace.
fn is_empty_namespace(mount: &Path) -> bool {
    let Ok(namespace) = std::fs::metadata(mount) else { return false };
    let mut processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    !processes.any(|process| {
        let net = std::fs::metadata(process.path().join("ns/net"));
        net.is_ok_and(|net| (net.dev(), net.ino()) == (namespace.dev(), namespace.ino()))
    })
}

/// All but what killed daemons leave. `runc init` is what a container's first process is
/// called until its program begins: nothing has run there.
fn told(found: &BTreeMap<i32, Process>, killed: &[PathBuf]) -> Vec<String> {
    let begun = |process: &Process| !process.command.trim_end().ends_with("runc init");
    let known = |pid: i32| {
        let Some(process) = found.get(&pid) else { return false };
        let (program, arguments) = process.command.split_once(' ').unwrap_or_default();
        let of_killed =
            killed.iter().any(|daemon| arguments.contains(&format!("{}/", daemon.display())));
        let shim = program.contains("containerd-shim")
            && !found.values().any(|other| other.parent == pid && begun(other));
        of_killed && (shim || program.ends_with("fuse-overlayfs"))
    };
    let told = found
        .iter()
        .filter(|(pid, process)| !known(**pid) && (begun(process) || !known(process.parent)));
    told.map(|(pid, process)| format!("process {pid} ({})", process.command)).collect()
}

/// Those whose command line names our directory, and their descendants.
fn processes(dir: &Path) -> BTreeMap<i32, Process> {
    let needle = dir.display().to_string();
    let mut commands = BTreeMap::new();
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        commands.insert(pid, String::from_utf8_lossy(&command).replace('\0', " "));
        if let Some(parent) = parent(&entry.path()) {
            parents.insert(pid, parent);
        }
    }
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let named = |pid: i32| commands.get(&pid).is_some_and(|text| text.contains(&needle));
    let descends = |pid: i32| {
        let mut at = Some(pid);
        // The tree of processes is never deeper than this.
        for _ in 0..64 {
            match at {
                Some(pid) if pid != own && named(pid) => return true,
                Some(pid) if pid > 1 && pid != own => at = parents.get(&pid).copied(),
                _ => return false,
            }
        }
        false
    };
    let ours = parents.iter().filter(|(pid, _)| descends(**pid));
    let process = |(pid, parent): (&i32, &i32)| {
        (*pid, Process { parent: *parent, command: commands.get(pid).cloned().unwrap_or_default() })
    };
    ours.map(process).collect()
}

/// The parent of a process that is not dead already.
fn parent(process: &Path) -> Option<i32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The program's name stands in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let _state = fields.next().filter(|state| *state != "Z")?;
    fields.next()?.parse().ok()
}

/// Mount points below our directory, the innermost first.
fn mounts(dir: &Path) -> Vec<String> {
    let below = format!("{}/", dir.display());
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    let mut found: Vec<String> =
        points.filter(|point| point.starts_with(&below)).map(str::to_owned).collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(processes: &[(i32, i32, &str)]) -> BTreeMap<i32, Process> {
        let process = |(pid, parent, command): &(i32, i32, &str)| {
            (*pid, Process { parent: *parent, command: (*command).to_owned() })
        };
        processes.iter().map(process).collect()
    }

    const SHIM: &str = "/usr/bin/containerd-shim-runc-v2 -address /hosts/1/exec/containerd.sock";

    #[test]
    fn an_empty_shim_of_a_killed_daemon_is_the_daemons() {
        let killed = [PathBuf::from("/hosts/1")];
        assert!(told(&found(&[(5, 1, SHIM)]), &killed).is_empty());
    }

    #[test]
    fn a_container_that_never_began_is_the_daemons_too() {
        let killed = [PathBuf::from("/hosts/1")];
        let found = found(&[(5, 1, SHIM), (6, 5, "runc init ")]);
        assert!(told(&found, &killed).is_empty());
        assert_eq!(told(&found, &[]).len(), 2);
    }

    #[test]
    fn a_process_under_a_shim_is_told_and_so_is_the_shim() {
        let killed = [PathBuf::from("/hosts/1")];
        let found = found(&[(5, 1, SHIM), (6, 5, "/runner")]);
        assert_eq!(told(&found, &killed).len(), 2);
    }

    #[test]
    fn a_namespace_in_which_something_runs_is_told() {
        assert!(!is_empty_namespace(Path::new("/proc/self/ns/net")));
        let killed = [PathBuf::from("/hosts/1")];
        assert!(is_bookkeeping(Path::new("/hosts/1/data"), &killed));
        for elsewhere in ["/hosts/2/data", "/hosts/1/data/volumes/v", "/hosts/1/exec/netns/gone"] {
            assert!(!is_bookkeeping(Path::new(elsewhere), &killed), "{elsewhere}");
        }
    }

    #[test]
    fn a_daemon_that_was_not_killed_has_no_excuse() {
        for killed in [vec![], vec![PathBuf::from("/hosts/10")]] {
            assert_eq!(told(&found(&[(5, 1, SHIM)]), &killed).len(), 1, "{killed:?}");
        }
        let killed = [PathBuf::from("/hosts/1")];
        assert_eq!(told(&found(&[(5, 1, "/bin/dockerd /hosts/1/x")]), &killed).len(), 1);
    }
}

//! What daemons that have ended may leave: processes that name our directory, all that
//! these have started, and mounts below it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::system;

/// A containerd outlives its dockerd by a moment.
const END_BY_THEMSELVES: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A second and a third look, for what came up meanwhile.
const ROUNDS: u32 = 3;

/// Waits for what ends by itself, ends the rest, and names it.
pub(super) fn clear(dir: &Path) -> Vec<String> {
    let end = Instant::now() + END_BY_THEMSELVES;
    let mut found = processes(dir);
    while !found.is_empty() && Instant::now() < end {
        std::thread::sleep(LOOK_EVERY);
        found = processes(dir);
    }
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        for (pid, command) in &found {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
            left.push(format!("process {pid} ({command})"));
        }
        if found.is_empty() {
            break;
        }
        std::thread::sleep(LOOK_EVERY);
        found = processes(dir);
    }
    for mount in mounts(dir) {
        let _ = system::run("umount", &["-l", &mount]);
        // A daemon that was killed once leaves its data mounted on itself, whatever comes
        // after; that says nothing of a container.
        if !mount.ends_with("/data") {
            left.push(format!("mount {mount}"));
        }
    }
    left
}

/// Those whose command line names our directory, and their descendants.
fn processes(dir: &Path) -> BTreeMap<i32, String> {
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
    commands.iter().filter(|(pid, _)| descends(**pid)).map(|(pid, c)| (*pid, c.clone())).collect()
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

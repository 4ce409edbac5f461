//! One Docker daemon in its namespace, with files, sockets and an identity of its own.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use super::{HostsError, system};

/// About five seconds alone, longer when several start on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// After kill -9 the first start may give up waiting for its containerd; the next works.
const STARTS_MAX: u32 = 4;
/// A daemon without containers ends in a second or two.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// One answer on its socket.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Lines of its log that an error repeats.
const LAST_WORDS: usize = 12;
/// Up to this release the daemon's id comes from a key file, by default one for all of them.
const KEY_FILE_UNTIL: u32 = 22;

/// What the machine's own daemon was told about its kernel and its disk holds for ours too.
const KEPT_SETTINGS: [&str; 6] =
    ["storage-driver", "storage-opts", "mtu", "exec-opts", "runtimes", "default-runtime"];

/// A daemon, running or not.
#[derive(Debug)]
pub(super) struct Daemon {
    number: usize,
    dir: PathBuf,
    namespace: String,
    child: Option<Child>,
    killed: bool,
}

impl Daemon {
    /// Its directory and its settings; not yet started.
    pub(super) fn new(number: usize, dir: &Path, namespace: String) -> Result<Self, HostsError> {
        system::make_dir(dir)?;
        let settings = settings(dir, &machine_settings()).to_string();
        system::write(&dir.join("daemon.json"), &settings)?;
        Ok(Self { number, dir: dir.to_owned(), namespace, child: None, killed: false })
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Starts it, and does not wait.
    pub(super) fn spawn(&mut self) -> Result<(), HostsError> {
        let path = self.dir.join("log");
        let log = File::options().create(true).append(true).open(&path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.map_err(|source| HostsError::File { path, source })?;
        let at = |name: &str| self.dir.join(name).display().to_string();
        // A daemon that was killed has left these behind.
        let _ = std::fs::remove_file(self.dir.join("docker.pid"));
        // Not `ip netns exec`: that mounts /sys anew, and the daemon finds no cgroups there.
        let mut command = system::command("nsenter");
        command
            .arg(format!("--net={}", self.namespace))
            .arg("dockerd")
            .args(["--config-file", &at("daemon.json"), "--pidfile", &at("docker.pid")])
            .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
            .args(["--host", &self.address()])
            .stdout(out)
            .stderr(err)
            // An interrupt from the keyboard must not end it before its containers are gone.
            .process_group(0);
        let run = |source| HostsError::Run { command: "dockerd".to_owned(), source };
        self.child = Some(command.spawn().map_err(run)?);
        Ok(())
    }

    /// Waits until it answers; starts it again when it gives up.
    pub(super) fn wait(&mut self) -> Result<(), HostsError> {
        let end = Instant::now() + ANSWERS_WITHIN;
        let mut starts = 1;
        while Instant::now() < end {
            if ask(&self.socket(), "GET", "/_ping").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait().ok().flatten().is_some(),
                None => true,
            };
            if ended {
                if starts == STARTS_MAX {
                    break;
                }
                starts += 1;
                self.spawn()?;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(HostsError::Daemon { number: self.number, said: self.last_words() })
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Its directory, if it was killed once: that leaves traces.
    pub(super) fn killed(&self) -> Option<PathBuf> {
        self.killed.then(|| self.dir.clone())
    }

    /// kill -9, as a fault.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        self.force();
    }

    fn force(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Removes every container: with live-restore they outlive their daemon.
    pub(super) fn remove_containers(&mut self) {
        if self.child.is_none() && (self.spawn().is_err() || self.wait().is_err()) {
            return;
        }
        let Ok((200, listed)) = ask(&self.socket(), "GET", "/containers/json?all=1") else {
            return;
        };
        let listed: Vec<Value> = serde_json::from_str(&listed).unwrap_or_default();
        for id in listed.iter().filter_map(|container| container["Id"].as_str()) {
            // What does not go now is found among the remains.
            let _ = ask(&self.socket(), "DELETE", &format!("/containers/{id}?force=1&v=1"));
        }
    }

    /// TERM.
    pub(super) fn ask_to_end(&mut self) {
        let pid = self.child.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the end, and forces it when that takes too long.
    pub(super) fn await_end(&mut self) {
        let end = Instant::now() + ENDS_WITHIN;
        while let Some(child) = &mut self.child {
            if !matches!(child.try_wait(), Ok(None)) {
                self.child = None;
            } else if Instant::now() > end {
                self.force();
            } else {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn machine_settings() -> Map<String, Value> {
    let text = std::fs::read_to_string("/etc/docker/daemon.json").unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Live-restore: its containers outlive it, as they must on a host that takes part.
fn settings(dir: &Path, machine: &Map<String, Value>) -> Value {
    let mut settings = Map::new();
    for name in KEPT_SETTINGS {
        if let Some(value) = machine.get(name) {
            settings.insert(name.to_owned(), value.clone());
        }
    }
    settings.insert("live-restore".to_owned(), json!(true));
    if release().is_some_and(|release| release <= KEY_FILE_UNTIL) {
        settings.insert("deprecated-key-path".to_owned(), json!(dir.join("key.json")));
    }
    Value::Object(settings)
}

/// The first number of dockerd's version.
fn release() -> Option<u32> {
    let said = system::run("dockerd", &["--version"]).ok()?;
    said.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// One request on a daemon's socket, in the oldest HTTP there is: the answer ends with the
/// connection, and nothing has to be unpacked.
fn ask(socket: &Path, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or(0), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_storage_is_kept_and_its_network_is_not() {
        let machine = json!({"storage-driver": "vfs", "bip": "10.0.0.1/8", "hosts": ["tcp://:1"]});
        let Value::Object(machine) = machine else { panic!("an object") };
        let settings = settings(Path::new("/x"), &machine);
        assert_eq!(settings["storage-driver"], "vfs");
        assert_eq!(settings["live-restore"], true);
        assert!(settings.get("bip").is_none() && settings.get("hosts").is_none(), "{settings}");
    }
}

//! Several Docker hosts on one machine: for each a network namespace and a Docker daemon
//! of its own, and one bridge that joins them to this machine.
//!
//! Used by the demo and by the tests on real processes. Everything in here blocks; callers
//! on a runtime run it where blocking is allowed. Whatever happens, dropping [`Hosts`]
//! takes away all that it made: containers, daemons, interfaces, namespaces, files.

mod daemon;
mod remains;
mod system;
mod wires;

use std::io;
use std::path::{Path, PathBuf};

use self::daemon::Daemon;
use self::wires::Wires;

/// So many digits tell the worlds on one machine apart; device names have room for no more.
const TAG_DIGITS: usize = 6;
/// The bridge's network has room for more, but one machine hardly has.
const HOSTS_MAX: u32 = 16;

/// What went wrong while making or changing hosts.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    #[error("could not run {command}")]
    Run {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("{command} failed: {said}")]
    Failed { command: String, said: String },
    #[error("could not write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("every network between 10.77.0.0 and 10.77.255.0 is taken on this machine")]
    NoSubnet,
    #[error("at most {HOSTS_MAX} hosts of their own are made on one machine")]
    TooMany,
    #[error("the Docker daemon of host {number} does not answer; its last words:\n{said}")]
    Daemon { number: usize, said: String },
}

/// What keeps this machine from having hosts of its own, if anything.
#[must_use]
pub fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("that needs root".to_owned());
    }
    let missing = ["dockerd", "ip", "nsenter", "umount"]
        .into_iter()
        .find(|program| system::find(program).is_none());
    missing.map(|program| format!("the program {program} is missing"))
}

/// Some hosts, numbered from 0.
#[derive(Debug)]
pub struct Hosts {
    /// Every file of every daemon is below it, so that nothing of ours is overlooked.
    dir: PathBuf,
    wires: Wires,
    daemons: Vec<Daemon>,
}

impl Hosts {
    /// Makes `count` hosts. `name` tells them apart from those of others on this machine;
    /// their files are kept below `parent`.
    ///
    /// # Errors
    /// When anything is missing; what was made until then is taken away again.
    pub fn start(parent: &Path, name: &str, count: u32) -> Result<Self, HostsError> {
        if count > HOSTS_MAX {
            return Err(HostsError::TooMany);
        }
        let tag = system::tag(name, TAG_DIGITS);
        let dir = parent.join(format!("hosts-{tag}"));
        system::make_dir(&dir)?;
        // From here on, dropping it takes everything away.
        let mut hosts = Self { dir: dir.clone(), wires: Wires::new(&tag), daemons: Vec::new() };
        hosts.wires.lay_bridge()?;
        for number in 0..count {
            let namespace = hosts.wires.add()?;
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            let mut daemon = Daemon::new(number, &dir.join(number.to_string()), namespace)?;
            // All of them boot side by side.
            daemon.spawn()?;
            hosts.daemons.push(daemon);
        }
        for daemon in &mut hosts.daemons {
            daemon.wait()?;
        }
        Ok(hosts)
    }

    /// This machine's address as the hosts and their containers reach it.
    #[must_use]
    pub fn gateway(&self) -> String {
        self.wires.gateway()
    }

    /// The device that address is on: what is bound to it as well, no other network reaches.
    #[must_use]
    pub fn device(&self) -> &str {
        self.wires.bridge()
    }

    /// `DOCKER_HOST` of each.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.daemons.iter().map(Daemon::address).collect()
    }

    /// Takes a host off the network: its containers go on and reach nobody, its daemon
    /// still answers on its socket.
    pub fn cut(&self, host: usize) -> Result<(), HostsError> {
        self.wires.set(host, "down")
    }

    /// Puts it back.
    pub fn mend(&self, host: usize) -> Result<(), HostsError> {
        self.wires.set(host, "up")
    }

    /// kill -9 of a host's daemon. Its containers go on.
    pub fn kill_daemon(&mut self, host: usize) {
        if let Some(daemon) = self.daemons.get_mut(host) {
            daemon.kill();
        }
    }

    /// Starts a killed daemon again and waits until it answers.
    pub fn revive_daemon(&mut self, host: usize) -> Result<(), HostsError> {
        match self.daemons.get_mut(host) {
            Some(daemon) => {
                daemon.spawn()?;
                daemon.wait()
            }
            None => Ok(()),
        }
    }

    /// Takes everything away. What was still there after the daemons had ended, and was
    /// removed by force, is named: a process, a mount, a device.
    #[must_use]
    pub fn end(mut self) -> Vec<String> {
        self.take_away()
    }

    fn take_away(&mut self) -> Vec<String> {
        for daemon in &mut self.daemons {
            daemon.remove_containers();
        }
        for daemon in &mut self.daemons {
            daemon.ask_to_end();
        }
        for daemon in &mut self.daemons {
            daemon.await_end();
        }
        let killed: Vec<PathBuf> = self.daemons.iter().filter_map(Daemon::killed).collect();
        self.daemons.clear();
        let mut left = remains::clear(&self.dir, &killed);
        left.extend(self.wires.remove());
        if self.dir.exists() && std::fs::remove_dir_all(&self.dir).is_err() {
            left.push(format!("files in {}", self.dir.display()));
        }
        left
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Who drops it without `end` has something worse to tell.
        let _ = self.take_away();
    }
}

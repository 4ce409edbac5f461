//! What is seen at the Docker daemons and at GitHub.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::docker::{ContainerState, DockerError, RunnerContainer};
use runner_orchestrator::fleet::id::{ContainerId, GitHubRunnerId, HostId, RunnerName};
use runner_orchestrator::github::{Deregistered, GitHubError};
use runner_orchestrator::sim::docker::ModelDocker;
use tokio::time::Instant;

use super::super::world::mark;
use super::Witness;

/// A call checked against the marker just before a take-over may still be under way.
const CALL_UNDER_WAY: Duration = Duration::from_secs(2);

/// Configurations looked for in the store.
const SECRETS_KEPT: usize = 4;
/// A removal under way when the store went away is over by then.
const REMOVAL_UNDER_WAY: Duration = Duration::from_secs(45);

/// A creation under way, counted until it is over.
pub(in super::super) struct Creating {
    witness: Arc<Witness>,
    daemon: usize,
}

impl Drop for Creating {
    fn drop(&mut self) {
        if let Some(count) = self.witness.state().creating.get_mut(&self.daemon) {
            *count -= 1;
        }
    }
}

impl Witness {
    pub(in super::super) fn daemon_is(&self, daemon: usize, host: HostId) {
        self.state().identities.insert(daemon, host);
    }

    /// A replica has become the agent of a daemon.
    pub(in super::super) fn marked(&self, replica: usize, daemon: usize) {
        self.note(format_args!("r{replica}: serves d{daemon}"));
        let before = self.state().agents.insert(daemon, (replica, Instant::now()));
        if before.is_some_and(|(before, _)| before != replica) {
            self.reached("another replica took a daemon over");
        }
    }

    /// Invariant 10: only the newest agent of a daemon changes anything there.
    pub(in super::super) fn acts(&self, replica: usize, daemon: usize, what: &str, on: &str) {
        let agent = self.state().agents.get(&daemon).copied();
        let resumed = self.state().resumed_at.get(&replica).copied();
        let short: String =
            on.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        self.note(format_args!("r{replica}: {what} {short} on d{daemon}"));
        if let Some((agent, since)) = agent
            && agent != replica
            && since.elapsed() > CALL_UNDER_WAY
        {
            if resumed.is_some_and(|at| at.elapsed() < CALL_UNDER_WAY) {
                // Stopped between its look at the marker and the call; no daemon knows
                // fencing tokens. The newest agent waits before it trusts a list.
                if what == "create" {
                    self.state().strays.insert(short);
                }
                return self.reached("a stopped agent woke up after another took over");
            }
            self.violated(
                "10",
                format_args!("r{replica}: {what} on d{daemon}, served by r{agent}"),
            );
        }
    }

    /// Whether nobody but an agent that had been replaced knows of this container.
    pub(in super::super) fn is_stray(&self, name: &RunnerName) -> bool {
        self.state().strays.iter().any(|short| name.as_str().ends_with(short))
    }

    pub(in super::super) fn creating(self: &Arc<Self>, daemon: usize) -> Creating {
        *self.state().creating.entry(daemon).or_default() += 1;
        Creating { witness: Arc::clone(self), daemon }
    }

    pub(in super::super) fn creating_on(&self, daemon: usize) -> u32 {
        self.state().creating.get(&daemon).copied().unwrap_or_default()
    }

    pub(in super::super) fn created(
        &self,
        daemon: usize,
        spec: &RunnerContainer,
        answer: &Result<ContainerId, DockerError>,
    ) {
        self.changed();
        match answer {
            Ok(_) => self.note(format_args!("d{daemon}: created {} ", spec.name)),
            Err(error) => self.note(format_args!("d{daemon}: not created {}: {error}", spec.name)),
        }
    }

    /// Invariant 9, its second half: a container is started at most once.
    pub(in super::super) fn started(&self, daemon: usize, id: &ContainerId, well: bool) {
        self.changed();
        let starts = {
            let mut state = self.state();
            let starts = state.starts.entry(id.clone()).or_default();
            *starts += 1;
            *starts
        };
        self.note(format_args!("d{daemon}: start {well}"));
        if starts > 1 {
            self.violated("9", format_args!("container {id} was started {starts} times"));
        }
    }

    /// Invariant 9, its first half: a configuration goes to one container only.
    pub(in super::super) fn fed(&self, container: &ContainerId, text: &[u8]) {
        let mut hash = DefaultHasher::new();
        hash.write(text);
        let configuration = hash.finish();
        {
            let mut state = self.state();
            if state.secrets.len() < SECRETS_KEPT {
                state.secrets.push(String::from_utf8_lossy(text).trim().to_owned());
            }
        }
        let before = self.state().configurations.insert(configuration, container.clone());
        if let Some(before) = before.filter(|before| before != container) {
            self.violated("9", format_args!("{before} and {container} had one configuration"));
        }
    }

    /// Invariants 7 and 8: what is ended here is ours and not busy.
    pub(in super::super) fn ends(
        &self,
        daemon: usize,
        docker: &ModelDocker,
        id: &ContainerId,
        what: &str,
    ) {
        self.changed();
        let inventory = docker.inventory();
        let Some((_, spec, state)) = inventory.iter().find(|(other, ..)| other == id) else {
            return;
        };
        if spec.cluster != *mark() {
            self.violated("8", format_args!("d{daemon}: {what} of a foreign container {id}"));
        }
        let outage = self.state().outage_since.map(|since| since.elapsed());
        if *state == ContainerState::Running && outage > Some(REMOVAL_UNDER_WAY) {
            self.violated("17", format_args!("d{daemon}: {what} while the store is away"));
        }
        let busy = *state == ContainerState::Running && self.github.runs_job(spec.name.as_str());
        if self.is_forced(spec.runner) {
            return self.ended_by_force(&spec.name, busy);
        }
        if busy {
            self.violated("7", format_args!("d{daemon}: {what} of busy runner {}", spec.name));
        }
    }

    pub(in super::super) fn minted(
        &self,
        replica: usize,
        name: &RunnerName,
        error: Option<&GitHubError>,
    ) {
        self.changed();
        match error {
            None => self.note(format_args!("r{replica}: registered {name}")),
            Some(error) => {
                self.note(format_args!("r{replica}: could not register {name}: {error}"));
                if error.may_have_happened() {
                    self.reached("the answer to a registration was lost");
                }
            }
        }
    }

    pub(in super::super) fn deregistered(
        &self,
        replica: usize,
        id: GitHubRunnerId,
        answer: &Result<Deregistered, GitHubError>,
    ) {
        self.changed();
        match answer {
            Ok(answer) => self.note(format_args!("r{replica}: deregister {id}: {answer:?}")),
            Err(error) => self.note(format_args!("r{replica}: deregister {id}: {error}")),
        }
        if matches!(answer, Ok(Deregistered::Busy)) {
            self.reached("github refused to delete a busy runner");
        }
    }

    fn changed(&self) {
        self.state().changed_at = Some(Instant::now());
    }
}

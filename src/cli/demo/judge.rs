//! What became of the jobs, and what is still there that should not be.

use serde::Serialize;

use super::ground::Ground;
use super::model::{ModelledGitHub, SimState};
use crate::cli::print;
use crate::docker::Docker;
use crate::fleet::id::ClusterMark;

/// What happened to the jobs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Played {
    pub succeeded: u32,
    pub run_twice: u32,
    pub killed_busy: u32,
    pub max_runners_seen: u32,
    pub queue_seconds: Vec<f64>,
    pub wall_seconds: f64,
    pub github_calls: u64,
}

impl Played {
    /// Reads the end off the modelled GitHub's state.
    pub fn judge(&mut self, state: &SimState) {
        self.succeeded = state.count(|job| job.conclusion.as_deref() == Some("success"));
        self.run_twice = state.count(|job| job.attempts > 1);
        self.killed_busy =
            state.count(|job| matches!(job.conclusion.as_deref(), Some("failure" | "cancelled")));
        self.github_calls = state.calls.values().sum();
        self.queue_seconds = state
            .jobs
            .iter()
            .filter_map(|job| Some((job.started_at? - job.queued_at?).as_seconds_f64()))
            .collect();
    }
}

/// What is left, on all hosts together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Leftover {
    pub containers: u32,
    pub volumes: u32,
    pub networks: u32,
    pub registrations: u32,
}

impl Leftover {
    /// Counts what exists beyond the demo's own networks and the hosts' identities.
    pub async fn count(
        ground: &Ground,
        mark: &ClusterMark,
        github: Option<&ModelledGitHub>,
    ) -> Self {
        let mut leftover = Self { containers: containers(ground, mark).await, ..Self::default() };
        for engine in ground.engines() {
            let keep = [engine.network.name.clone()];
            match engine.docker.sweep(mark, &keep).await {
                Ok(swept) => {
                    leftover.volumes += swept.volumes;
                    leftover.networks += swept.networks + length(swept.stuck_networks.len());
                }
                Err(error) => print::message(&format!("could not count volumes: {error}")),
            }
        }
        if let Some(github) = github {
            match github.state().await {
                Ok(state) => leftover.registrations = length(state.runners.len()),
                Err(error) => print::message(&format!("could not count registrations: {error:#}")),
            }
        }
        leftover
    }
}

/// Runner containers on all hosts.
pub async fn containers(ground: &Ground, mark: &ClusterMark) -> u32 {
    let mut count = 0_u32;
    for engine in ground.engines() {
        match engine.docker.containers(mark).await {
            Ok(containers) => count = count.saturating_add(length(containers.len())),
            Err(error) => {
                print::message(&format!("could not count containers: {error}"));
                count = u32::MAX;
            }
        }
    }
    count
}

pub(super) fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

//! The end: everything is whole again, the jobs run out, the hosts are emptied, and the
//! modelled GitHub's own books say what happened.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use runner_orchestrator::cli::print;
use runner_orchestrator::docker::Docker;

use super::world::{MAX_RUNNERS, World};

/// What waits, in nine places, and what has to be found out about before.
const DONE_WITHIN: Duration = Duration::from_secs(150);
/// Registrations that nobody claims go after two looks a minute apart.
const EMPTY_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl World {
    /// Waits until every job is done and the drained hosts are empty.
    pub(super) async fn calm(&mut self) {
        let begun = Instant::now();
        loop {
            let state = self.github.state().await.unwrap();
            self.max_seen = self.max_seen.max(state.runners.len());
            if state.jobs.iter().all(|job| job.status == "completed") {
                break;
            }
            if begun.elapsed() > DONE_WITHIN {
                let open: Vec<_> =
                    state.jobs.iter().filter(|job| job.status != "completed").collect();
                panic!("not done after {DONE_WITHIN:?}: {open:#?}\n{}", self.told().await);
            }
            sleep(LOOK_EVERY).await;
        }
        print::message(&format!("all done {:.1} s after the last fault", seconds(begun)));
        self.drain().await;
        let begun = Instant::now();
        loop {
            let (runners, containers) = self.left().await;
            if runners == 0 && containers == 0 {
                break;
            }
            assert!(
                begun.elapsed() < EMPTY_WITHIN,
                "left over: {runners} registrations, {containers} containers\n{}",
                self.told().await
            );
            sleep(LOOK_EVERY).await;
        }
        print::message(&format!("nothing left {:.1} s later", seconds(begun)));
    }

    async fn left(&self) -> (usize, usize) {
        let runners = self.github.state().await.unwrap().runners.len();
        let mut containers = 0;
        for engine in self.hosts.engines() {
            containers += engine.docker.containers(&self.mark).await.unwrap().len();
        }
        (runners, containers)
    }

    /// What a replica says of the whole, for the case that something is wrong.
    async fn told(&self) -> String {
        let mut told = Vec::new();
        for replica in self.replicas.iter().flatten() {
            let answer = self.http.get(format!("{}/api/v1/status", replica.api)).send().await;
            let Ok(answer) = answer else { continue };
            let mut status: Value = answer.json().await.unwrap_or_default();
            if let Some(status) = status.as_object_mut() {
                status.retain(|name, _| !["github", "settings", "pools"].contains(&name.as_str()));
            }
            told.push(status.to_string());
        }
        told.join("\n")
    }

    /// Asks for every host to be emptied, as an operator would.
    async fn drain(&self) {
        let leader = self.leader().await;
        let api = &self.replicas[leader].as_ref().unwrap().api;
        let hosts = self.http.get(format!("{api}/api/v1/hosts")).send().await.unwrap();
        let hosts: Value = hosts.json().await.unwrap();
        for host in hosts["hosts"].as_array().unwrap() {
            let url = format!("{api}/api/v1/hosts/{}/drain", host["id"].as_str().unwrap());
            let answer = self.http.post(url).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        }
    }

    /// Every job exactly once, nobody killed, nothing left; then everything goes away.
    pub(super) async fn judge(mut self, seed: u64, fed: usize) {
        let state = self.github.state().await.unwrap();
        let failed = state.count(|job| job.conclusion.as_deref() != Some("success"));
        let twice = state.count(|job| job.attempts != 1);
        let lost = state.count(|job| job.lost);
        for number in 0..self.replicas.len() {
            self.stop(number).await;
        }
        let mut volumes = 0;
        let mut networks = Vec::new();
        for engine in self.hosts.engines() {
            let keep = [engine.network.name.clone()];
            let swept = engine.docker.sweep(&self.mark, &keep).await.unwrap();
            volumes += swept.volumes;
            networks.extend(swept.stuck_networks);
        }
        print::message(&format!(
            "chaos, seed {seed}: {} jobs ({fed} fed), {} faults of {} kinds, {failed} failed, \
             {twice} not exactly once, {lost} killed, at most {} runners of {MAX_RUNNERS}",
            state.jobs.len(),
            self.faults.values().sum::<u32>(),
            self.faults.len(),
            self.max_seen,
        ));
        for how in ["kill -9", "pause", "cut off", "graceful"] {
            let mut took: Vec<f64> =
                self.take_overs.iter().filter(|(h, _)| *h == how).map(|(_, took)| *took).collect();
            took.sort_by(f64::total_cmp);
            let took: Vec<String> = took.iter().map(|took| format!("{took:.1}")).collect();
            print::message(&format!("  take-over after {how}: {} s", took.join(", ")));
        }
        let left = self.hosts.end().await;
        self.github.stop().await.unwrap();
        assert_eq!((failed, twice, lost), (0, 0, 0), "jobs: {:#?}", state.jobs);
        assert!(self.max_seen <= MAX_RUNNERS as usize, "{} runners", self.max_seen);
        assert_eq!((volumes, networks), (0, Vec::new()), "left on the hosts");
        assert_eq!(left, Vec::<String>::new(), "left on this machine");
    }
}

fn seconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}

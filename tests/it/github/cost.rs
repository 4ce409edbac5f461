//! What an idle organisation of 500 repositories costs, over a modelled hour.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use runner_orchestrator::clock::{Clock, SystemClock};
use runner_orchestrator::fleet::id::RepoName;
use runner_orchestrator::github::sweep::Sweep;
use runner_orchestrator::github::{GitHub, GitHubError, RestGitHub};
use runner_orchestrator::sim::github::{LimitCrossings, NewJobs, SimGitHub, SimOptions};
use tokio::time::Instant;

use super::support::{org, quiet};

const POLL: Duration = Duration::from_secs(30);

/// Observes the organisation as the leader does.
struct Observer {
    github: RestGitHub,
    clock: Arc<dyn Clock>,
    sweep: Sweep,
    jobs_seen: Vec<RepoName>,
    shed: usize,
}

impl Observer {
    fn new(github: RestGitHub) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self { github, clock, sweep: Sweep::default(), jobs_seen: Vec::new(), shed: 0 }
    }

    async fn poll(&mut self) {
        let now = self.clock.now();
        if self.sweep.list_is_due(now) {
            let list = self.github.repositories(&org()).await.unwrap();
            self.sweep.relist(&list, now);
        }
        self.github.registrations(&org()).await.unwrap();
        let due = self.sweep.due(now, POLL, &self.github.budget());
        let readings = join_all(due.iter().map(|repo| self.github.queue(repo))).await;
        for (repo, reading) in due.iter().zip(readings) {
            match reading {
                Ok(reading) => {
                    self.sweep.read(repo, reading.begun_at, reading.active);
                    if !reading.jobs.is_empty() {
                        self.jobs_seen.push(repo.clone());
                    }
                }
                // It stays the first in line.
                Err(GitHubError::Shed { .. }) => self.shed += 1,
                Err(error) => panic!("{repo}: {error}"),
            }
        }
        tokio::time::sleep(POLL).await;
    }

    async fn poll_until_all_are_read(&mut self) {
        while self.sweep.coverage(self.clock.now()).never_read > 0
            || self.sweep.list_is_due(self.clock.now())
        {
            self.poll().await;
        }
    }
}

fn five_hundred() -> (SimGitHub, Observer) {
    let (sim, github) = quiet(&SimOptions { repos: 500, ..SimOptions::default() });
    (sim, Observer::new(github))
}

#[tokio::test(start_paused = true)]
async fn an_idle_hour_costs_at_most_sixty_points_after_a_first_sweep_of_two_a_repository() {
    let (sim, mut observer) = five_hundred();
    observer.poll_until_all_are_read().await;
    let first = sim.state().points;
    assert!(first <= 2 * 500 + 20, "{first} points");
    let calls_before: u64 = sim.state().calls.values().sum();
    let begun = Instant::now();
    let mut oldest = Duration::ZERO;
    while begun.elapsed() < Duration::from_secs(3_600) {
        observer.poll().await;
        let coverage = observer.sweep.coverage(observer.clock.now());
        oldest = oldest.max(coverage.oldest.unwrap());
    }
    let state = sim.state();
    assert!(state.points - first <= 60, "{} points", state.points - first);
    assert!(state.calls.values().sum::<u64>() - calls_before > 10_000, "it really asked");
    assert!(oldest <= Duration::from_secs(300), "the oldest reading was {oldest:?}");
    assert_eq!(state.limit_crossings, LimitCrossings::default());
    assert_eq!(observer.shed, 0, "what is due has room");
}

#[tokio::test(start_paused = true)]
async fn a_job_in_a_quiet_repository_is_found_by_the_rotation_and_then_read_at_every_poll() {
    let (sim, mut observer) = five_hundred();
    observer.poll_until_all_are_read().await;
    let quiet = RepoName::from("acme/repo-250");
    sim.post_jobs(&NewJobs { repo: Some(quiet.to_string()), ..NewJobs::default() }).unwrap();
    let begun = Instant::now();
    while observer.jobs_seen.is_empty() {
        observer.poll().await;
        assert!(begun.elapsed() < Duration::from_secs(300), "not found");
    }
    observer.jobs_seen.clear();
    for _ in 0..10 {
        observer.poll().await;
    }
    assert_eq!(observer.jobs_seen, vec![quiet; 10]);
    assert_eq!(sim.state().limit_crossings, LimitCrossings::default());
}

#[tokio::test(start_paused = true)]
async fn many_single_job_runs_polled_every_second_cross_no_limit() {
    let (sim, github) = quiet(&SimOptions::default());
    let jobs = NewJobs { count: 200, jobs_per_run: Some(1), ..NewJobs::default() };
    sim.post_jobs(&jobs).unwrap();
    let repo = super::support::repo(1);
    github
        .repositories(&runner_orchestrator::fleet::pool::Scope::Repo(repo.clone()))
        .await
        .unwrap();
    let mut read = 0;
    for _ in 0..75 {
        if let Ok(reading) = github.queue(&repo).await {
            assert_eq!(reading.jobs.len(), 200);
            read += 1;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(read > 60, "{read} readings");
    assert_eq!(sim.state().limit_crossings, LimitCrossings::default());
}

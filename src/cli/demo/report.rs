//! The demo's verdict.

use serde::Serialize;

use super::DemoArgs;
use super::judge::{Leftover, Played};
use super::world::World;

/// One JSON object, the last line of standard output.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    pub engine: &'static str,
    pub replicas: u32,
    pub jobs: u32,
    pub succeeded: u32,
    pub lost: u32,
    pub run_twice: u32,
    pub killed_busy: u32,
    pub max_runners: u32,
    pub max_runners_seen: u32,
    pub queue_seconds: Percentiles,
    pub wall_seconds: f64,
    pub github_calls: u64,
    pub leftover: Leftover,
}

/// How long jobs waited for their runner.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub max: f64,
}

impl Percentiles {
    /// Nearest-rank percentiles.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |share: usize| {
            let index = (values.len() * share).div_ceil(100).saturating_sub(1);
            values.get(index).copied().unwrap_or(0.0)
        };
        Self { p50: round(rank(50)), p95: round(rank(95)), max: round(rank(100)) }
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// Judges what was played.
    #[must_use]
    pub fn new(args: &DemoArgs, world: &World, played: Played, leftover: Leftover) -> Self {
        Self {
            engine: world.ground().name(),
            replicas: args.replicas,
            jobs: args.jobs,
            succeeded: played.succeeded,
            lost: args.jobs.saturating_sub(played.succeeded),
            run_twice: played.run_twice,
            killed_busy: played.killed_busy,
            max_runners: args.max_runners,
            max_runners_seen: played.max_runners_seen,
            queue_seconds: Percentiles::of(played.queue_seconds),
            wall_seconds: round(played.wall_seconds),
            github_calls: played.github_calls,
            leftover,
        }
    }

    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0
            && self.run_twice == 0
            && self.killed_busy == 0
            && self.max_runners_seen <= self.max_runners
            && self.leftover == Leftover::default()
    }

    /// The report for a person.
    #[must_use]
    pub fn text(&self) -> String {
        let verdict = if self.is_clean() { "every promise kept" } else { "A PROMISE WAS BROKEN" };
        let Leftover { containers, volumes, networks, registrations } = self.leftover;
        format!(
            "\n{verdict}\n\
             \x20 jobs            {} queued, {} succeeded, {} lost, {} run twice, {} killed\n\
             \x20 queue time      p50 {:.1} s, p95 {:.1} s, max {:.1} s\n\
             \x20 runners         at most {} at once (limit {})\n\
             \x20 github calls    {}\n\
             \x20 left over       {containers} containers, {volumes} volumes, {networks} networks, \
             {registrations} registrations\n\
             \x20 took            {:.1} s on the {} engine, {} orchestrator(s)",
            self.jobs,
            self.succeeded,
            self.lost,
            self.run_twice,
            self.killed_busy,
            self.queue_seconds.p50,
            self.queue_seconds.p95,
            self.queue_seconds.max,
            self.max_runners_seen,
            self.max_runners,
            self.github_calls,
            self.wall_seconds,
            self.engine,
            self.replicas,
        )
    }
}

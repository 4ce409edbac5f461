//! Pools: demand, supply, what was decided and why, and the lives of runners.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{GaugeVec, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::declare::{Declare, MetricsError};
use super::label::{RunnerEnd, RunnerState, StartPhase};
use crate::fleet::id::PoolName;
use crate::fleet::pool::Pool;

/// How a pool stands after a turn of the lead loop.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PoolNow {
    /// Queued jobs routed to the pool.
    pub queued_jobs: u32,
    /// The longest any of them has waited.
    pub oldest_wait: Duration,
    /// How many runners the rule asks for.
    pub desired: u32,
    /// Runners by state; states that are left out count zero.
    pub runners: BTreeMap<RunnerState, u32>,
    /// Whether the pool's breaker holds it back.
    pub breaker_active: bool,
}

#[derive(Debug)]
pub(super) struct PoolMetrics {
    pub(super) jobs_queued: IntGaugeVec,
    jobs_unmatched: IntGauge,
    oldest_wait: GaugeVec,
    pub(super) runners: IntGaugeVec,
    desired: IntGaugeVec,
    min: IntGaugeVec,
    max: IntGaugeVec,
    pub(super) foreign_runners: IntGauge,
    pub(super) breaker: IntGaugeVec,
    decisions: IntCounterVec,
    pub(super) runners_created: IntCounterVec,
    pub(super) runners_ended: IntCounterVec,
    startup: HistogramVec,
}

/// A step of a start takes from a few milliseconds to the start deadline.
const STARTUP_SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0];

impl PoolMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        let pool = |name, help| declare.gauges(name, help, &["pool"]);
        let jobs_queued = pool("orchestrator_jobs_queued", "Queued jobs routed to the pool.")?;
        let desired = pool("orchestrator_runners_desired", "Runners the scaling rule asks for.")?;
        let min = pool("orchestrator_runners_min", "MIN_RUNNERS of the pool.")?;
        let max = pool("orchestrator_runners_max", "MAX_RUNNERS of the pool.")?;
        let breaker = pool(
            "orchestrator_breaker_active",
            "Whether failing runners hold the pool back (1) or not (0).",
        )?;
        let runners = declare.gauges(
            "orchestrator_runners",
            "Live runners of the pool by state.",
            &["pool", "state"],
        )?;
        let jobs_unmatched = declare
            .gauge("orchestrator_jobs_unmatched", "Queued jobs whose labels no pool serves.")?;
        let foreign_runners = declare.gauge(
            "orchestrator_foreign_runners",
            "Registrations in our scopes that are not ours; they are never touched.",
        )?;
        let oldest_wait = declare.float_gauges(
            "orchestrator_oldest_queued_job_age_seconds",
            "How long the oldest queued job of the pool has waited.",
            &["pool"],
        )?;
        let decisions = declare.counters(
            "orchestrator_decisions_total",
            "Decisions by their reason, those not to act among them.",
            &["pool", "reason"],
        )?;
        let runners_created = declare.counters(
            "orchestrator_runners_created_total",
            "Containers created for runners.",
            &["pool"],
        )?;
        let runners_ended = declare.counters(
            "orchestrator_runners_ended_total",
            "Runners whose life ended, by how.",
            &["pool", "outcome"],
        )?;
        let startup = declare.histograms(
            "orchestrator_runner_startup_duration_seconds",
            "Steps from a runner's assignment until it listens for jobs.",
            &["pool", "phase"],
            STARTUP_SECONDS,
        )?;
        Ok(Self {
            jobs_queued,
            jobs_unmatched,
            oldest_wait,
            runners,
            desired,
            min,
            max,
            foreign_runners,
            breaker,
            decisions,
            runners_created,
            runners_ended,
            startup,
        })
    }

    pub(super) fn start_at_zero(&self, pool: &Pool, reasons: &[&'static str]) {
        let name = pool.name.as_str();
        self.min.with_label_values(&[name]).set(pool.min_runners.into());
        self.max.with_label_values(&[name]).set(pool.max_runners.into());
        for gauge in [&self.jobs_queued, &self.desired, &self.breaker] {
            gauge.with_label_values(&[name]).set(0);
        }
        self.oldest_wait.with_label_values(&[name]).set(0.0);
        for state in RunnerState::ALL {
            self.runners.with_label_values(&[name, state.as_str()]).set(0);
        }
        self.runners_created.with_label_values(&[name]).reset();
        for end in RunnerEnd::ALL {
            self.runners_ended.with_label_values(&[name, end.as_str()]).reset();
        }
        for reason in reasons {
            self.decisions.with_label_values(&[name, *reason]).reset();
        }
        // Asking for a histogram's series makes it.
        for phase in StartPhase::ALL {
            let _ = self.startup.with_label_values(&[name, phase.as_str()]);
        }
    }
}

impl Metrics {
    /// How a pool stands; the lead loop calls it once a turn.
    pub fn pool(&self, pool: &PoolName, now: &PoolNow) {
        let (metrics, name) = (&self.pools, self.pool_label(pool));
        metrics.jobs_queued.with_label_values(&[name]).set(now.queued_jobs.into());
        metrics.oldest_wait.with_label_values(&[name]).set(now.oldest_wait.as_secs_f64());
        metrics.desired.with_label_values(&[name]).set(now.desired.into());
        metrics.breaker.with_label_values(&[name]).set(now.breaker_active.into());
        for state in RunnerState::ALL {
            let count = now.runners.get(state).copied().unwrap_or(0);
            metrics.runners.with_label_values(&[name, state.as_str()]).set(count.into());
        }
    }

    /// Queued jobs that no pool serves.
    pub fn unmatched_jobs(&self, count: u32) {
        self.pools.jobs_unmatched.set(count.into());
    }

    /// Registrations that are not ours.
    pub fn foreign_runners(&self, count: u32) {
        self.pools.foreign_runners.set(count.into());
    }

    /// Something was decided, or decided not to be done, for a reason of the closed enum.
    pub fn decision(&self, pool: &PoolName, reason: &'static str) {
        self.pools.decisions.with_label_values(&[self.pool_label(pool), reason]).inc();
    }

    /// A runner's container was created.
    pub fn runner_created(&self, pool: &PoolName) {
        self.pools.runners_created.with_label_values(&[self.pool_label(pool)]).inc();
    }

    /// A runner's life ended.
    pub fn runner_ended(&self, pool: &PoolName, end: RunnerEnd) {
        let labels = [self.pool_label(pool), end.as_str()];
        self.pools.runners_ended.with_label_values(&labels).inc();
    }

    /// A step of a runner's start took so long.
    pub fn startup_phase(&self, pool: &PoolName, phase: StartPhase, took: Duration) {
        let labels = [self.pool_label(pool), phase.as_str()];
        self.pools.startup.with_label_values(&labels).observe(took.as_secs_f64());
    }
}

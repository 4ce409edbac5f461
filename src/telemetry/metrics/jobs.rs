//! Jobs: how long they waited, how long they ran, how they ended.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec};

use super::Metrics;
use super::declare::{Declare, MetricsError};
use super::label::JobResult;
use crate::fleet::id::PoolName;

#[derive(Debug)]
pub(super) struct JobMetrics {
    wait: HistogramVec,
    duration: HistogramVec,
    started: IntCounterVec,
    completed: IntCounterVec,
}

/// How long jobs wait, up to an hour.
const WAIT_SECONDS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];
/// How long jobs run, up to GitHub's six hours.
const JOB_SECONDS: &[f64] =
    &[10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 21600.0];

impl JobMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            wait: declare.histograms(
                "orchestrator_job_queue_duration_seconds",
                "How long jobs waited from being queued until a runner took them.",
                &["pool"],
                WAIT_SECONDS,
            )?,
            duration: declare.histograms(
                "orchestrator_job_duration_seconds",
                "How long jobs ran, by result.",
                &["pool", "result"],
                JOB_SECONDS,
            )?,
            started: declare.counters(
                "orchestrator_jobs_started_total",
                "Jobs that runners took.",
                &["pool"],
            )?,
            completed: declare.counters(
                "orchestrator_jobs_completed_total",
                "Jobs that runners finished, by result.",
                &["pool", "result"],
            )?,
        })
    }

    pub(super) fn start_at_zero(&self, pool: &PoolName) {
        let name = pool.as_str();
        let _ = self.wait.with_label_values(&[name]);
        self.started.with_label_values(&[name]).reset();
        for result in JobResult::ALL {
            let _ = self.duration.with_label_values(&[name, result.as_str()]);
            self.completed.with_label_values(&[name, result.as_str()]).reset();
        }
    }
}

impl Metrics {
    /// A runner took a job. `waited`: since the job was queued, where that is known.
    pub fn job_started(&self, pool: &PoolName, waited: Option<Duration>) {
        let name = self.pool_label(pool);
        self.jobs.started.with_label_values(&[name]).inc();
        if let Some(waited) = waited {
            self.jobs.wait.with_label_values(&[name]).observe(waited.as_secs_f64());
        }
    }

    /// A runner finished its job.
    pub fn job_completed(&self, pool: &PoolName, result: JobResult, ran: Duration) {
        let labels = [self.pool_label(pool), result.as_str()];
        self.jobs.completed.with_label_values(&labels).inc();
        self.jobs.duration.with_label_values(&labels).observe(ran.as_secs_f64());
    }
}

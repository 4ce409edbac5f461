//! What is asked of GitHub and Docker, and how they answer.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use super::declare::{Declare, MetricsError};
use super::label::{DOCKER_OPERATIONS, Dependency, Outcome};
use super::{CALL_SECONDS, Metrics};
use crate::fleet::budget::Budget;
use crate::fleet::time::Timestamp;
use crate::github::CallCount;

#[derive(Debug)]
pub(super) struct GitHubMetrics {
    requests: IntCounterVec,
    remaining: IntGauge,
    limit: IntGauge,
    reset: IntGauge,
    blocked_until: IntGauge,
    points: IntGauge,
    mints: IntGauge,
}

impl GitHubMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        let metrics = Self {
            requests: declare.counters(
                "orchestrator_github_requests_total",
                "Requests to GitHub by operation and outcome; a 304 costs nothing.",
                &["operation", "outcome"],
            )?,
            remaining: declare.gauge(
                "orchestrator_github_rate_limit_remaining",
                "Requests left until the primary rate limit resets; -1 = not known.",
            )?,
            limit: declare.gauge(
                "orchestrator_github_rate_limit_limit",
                "Requests the primary rate limit allows; -1 = not known.",
            )?,
            reset: declare.gauge(
                "orchestrator_github_rate_limit_reset_timestamp_seconds",
                "When the primary rate limit resets; 0 = not known.",
            )?,
            blocked_until: declare.gauge(
                "orchestrator_github_blocked_until_timestamp_seconds",
                "Until when GitHub told us to wait; 0 = it did not.",
            )?,
            points: declare.gauge(
                "orchestrator_github_points_this_minute",
                "Points spent in this minute against the secondary rate limit.",
            )?,
            mints: declare.gauge(
                "orchestrator_github_registrations_available",
                "Runners that can be registered now without crossing a limit.",
            )?,
        };
        metrics.remaining.set(-1);
        metrics.limit.set(-1);
        Ok(metrics)
    }
}

#[derive(Debug)]
pub(super) struct DockerMetrics {
    operations: IntCounterVec,
    duration: HistogramVec,
    up: IntGaugeVec,
}

impl DockerMetrics {
    pub(super) fn declare(declare: &Declare<'_>) -> Result<Self, MetricsError> {
        let metrics = Self {
            operations: declare.counters(
                "orchestrator_docker_operations_total",
                "Operations at the Docker engine by outcome.",
                &["operation", "outcome"],
            )?,
            duration: declare.histograms(
                "orchestrator_docker_operation_duration_seconds",
                "How long operations at the Docker engine took.",
                &["operation"],
                CALL_SECONDS,
            )?,
            up: declare.gauges(
                "orchestrator_dependency_up",
                "Whether what we depend on answered last time (1) or not (0).",
                &["dependency"],
            )?,
        };
        for operation in DOCKER_OPERATIONS {
            let _ = metrics.duration.with_label_values(&[*operation]);
            for outcome in Outcome::ALL {
                metrics.operations.with_label_values(&[*operation, outcome.as_str()]).reset();
            }
        }
        for dependency in Dependency::ALL {
            metrics.up.with_label_values(&[dependency.as_str()]).set(0);
        }
        Ok(metrics)
    }
}

impl Metrics {
    /// The GitHub edge's own counts since its start, taken over as they are. Called
    /// before rendering, from one place: two callers at a time would count twice.
    pub fn github_calls(&self, calls: &[CallCount]) {
        for call in calls {
            let counter = self.github.requests.with_label_values(&[call.operation, call.outcome]);
            counter.inc_by(call.count.saturating_sub(counter.get()));
        }
    }

    /// What may still be asked of GitHub.
    pub fn github_budget(&self, budget: &Budget) {
        let number =
            |count: Option<u64>| count.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
        self.github.remaining.set(number(budget.remaining));
        self.github.limit.set(number(budget.limit));
        self.github.reset.set(budget.resets_at.map_or(0, unix_seconds));
        self.github.blocked_until.set(budget.blocked_until.map_or(0, unix_seconds));
        self.github.points.set(budget.points_this_minute.into());
        self.github.mints.set(budget.mints_now.into());
    }

    /// An operation at the Docker engine, by one of [`DOCKER_OPERATIONS`].
    pub fn docker_operation(&self, operation: &'static str, outcome: Outcome, took: Duration) {
        let docker = &self.docker;
        docker.operations.with_label_values(&[operation, outcome.as_str()]).inc();
        docker.duration.with_label_values(&[operation]).observe(took.as_secs_f64());
    }

    /// Whether a dependency answered when it was last asked.
    pub fn dependency(&self, dependency: Dependency, answers: bool) {
        self.docker.up.with_label_values(&[dependency.as_str()]).set(answers.into());
    }
}

pub(super) fn unix_seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}

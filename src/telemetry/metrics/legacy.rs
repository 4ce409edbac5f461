//! The names that dashboards of the Python original ask for: the six it had, and the four
//! its documentation promised. They repeat what the metrics above say. Names that break
//! today's rules (a gauge ending in `_total`) are given without a type.

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};

use super::Metrics;
use super::label::{RunnerEnd, RunnerState};

/// States in which a runner has a container.
const WITH_CONTAINER: [RunnerState; 7] = [
    RunnerState::Created,
    RunnerState::Started,
    RunnerState::Handed,
    RunnerState::Listening,
    RunnerState::Running,
    RunnerState::Retiring,
    RunnerState::Unknown,
];

/// How a runner that had a container ended.
const GONE: [RunnerEnd; 4] =
    [RunnerEnd::Ended, RunnerEnd::Retired, RunnerEnd::Failed, RunnerEnd::Lost];

impl Metrics {
    pub(super) fn append_legacy(&self, text: &mut String) {
        let (active, created, destroyed) = (self.active(), self.created(), self.destroyed());
        let queue = sum(&self.pools.jobs_queued, None);
        let breaker = sum(&self.pools.breaker, None).min(1.0);
        let ignored = sum(&self.pools.foreign_runners, None);
        let rows: [(&str, &str, &str, f64); 10] = [
            ("github_actions_runners_active", "", "gauge", active),
            ("github_actions_runners_total_created", "", "untyped", created),
            ("github_actions_runners_total_destroyed", "", "untyped", destroyed),
            ("github_actions_runners_ignored_existing", "", "gauge", ignored),
            ("github_actions_queue_length", "", "gauge", queue),
            ("github_actions_orchestrator_running", "", "gauge", 1.0),
            ("runners_total", "{status=\"active\"}", "untyped", active),
            ("runners_created_total", "", "counter", created),
            ("queue_length", "", "gauge", queue),
            ("circuit_breaker_active", "", "gauge", breaker),
        ];
        for (name, labels, kind, value) in rows {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} Kept for dashboards of the Python original.\n# TYPE {name} {kind}\n\
                 {name}{labels} {value}"
            );
        }
    }

    /// Runners that have a container.
    fn active(&self) -> f64 {
        let states = WITH_CONTAINER.map(RunnerState::as_str);
        sum(&self.pools.runners, Some(("state", &states)))
    }

    /// Containers created for runners since the start of this process.
    fn created(&self) -> f64 {
        sum(&self.pools.runners_created, None)
    }

    /// Runners that had a container and are gone, since the start of this process.
    fn destroyed(&self) -> f64 {
        let ends = GONE.map(RunnerEnd::as_str);
        sum(&self.pools.runners_ended, Some(("outcome", &ends)))
    }
}

/// The sum over the series whose label has one of these values. Reading makes no series.
fn sum(metric: &impl Collector, wanted: Option<(&str, &[&str])>) -> f64 {
    let counts = |labels: &[LabelPair]| match wanted {
        None => true,
        Some((name, values)) => {
            labels.iter().any(|label| label.name() == name && values.contains(&label.value()))
        }
    };
    metric
        .collect()
        .iter()
        .flat_map(MetricFamily::get_metric)
        .filter(|series| counts(series.get_label()))
        // A series has one of the two; the other is zero.
        .map(|series| series.get_counter().get_value() + series.get_gauge().get_value())
        .sum()
}

//! The names that dashboards of the Python original ask for: the six it had, and the four
//! its documentation promised. They repeat what the metrics above say. Names that break
//! today's rules (a gauge ending in `_total`) are given without a type.

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};

use super::Metrics;
use super::label::{RunnerEnd, RunnerState};

/// States in which a runner has a container.
pub(super) const WITH_CONTAINER: [RunnerState; 7] = [
    RunnerState::Created,
    RunnerState::Started,
    RunnerState::Handed,
    RunnerState::Listening,
    RunnerState::Running,
    RunnerState::Retiring,
    RunnerState::Unknown,
];

/// How a runner that had a container ended.
pub(super) const GONE: [RunnerEnd; 4] =
    [RunnerEnd::Ended, RunnerEnd::Retired, RunnerEnd::Failed, RunnerEnd::Lost];

/// One of the names.
pub(super) struct Name {
    series: &'static str,
    labels: &'static str,
    kind: &'static str,
}

/// A name with its value.
pub(super) type Row = (&'static Name, f64);

const fn name(series: &'static str, labels: &'static str, kind: &'static str) -> Name {
    Name { series, labels, kind }
}

pub(super) static RUNNERS_ACTIVE: Name = name("github_actions_runners_active", "", "gauge");
pub(super) static TOTAL_CREATED: Name = name("github_actions_runners_total_created", "", "untyped");
pub(super) static TOTAL_DESTROYED: Name =
    name("github_actions_runners_total_destroyed", "", "untyped");
pub(super) static IGNORED_EXISTING: Name =
    name("github_actions_runners_ignored_existing", "", "gauge");
pub(super) static GITHUB_QUEUE_LENGTH: Name = name("github_actions_queue_length", "", "gauge");
pub(super) static ORCHESTRATOR_RUNNING: Name =
    name("github_actions_orchestrator_running", "", "gauge");
pub(super) static RUNNERS_TOTAL: Name = name("runners_total", "{status=\"active\"}", "untyped");
pub(super) static CREATED_TOTAL: Name = name("runners_created_total", "", "counter");
pub(super) static QUEUE_LENGTH: Name = name("queue_length", "", "gauge");
pub(super) static BREAKER_ACTIVE: Name = name("circuit_breaker_active", "", "gauge");

impl Name {
    pub(super) fn row(&'static self, value: f64) -> Row {
        (self, value)
    }
}

/// Writes the rows, each with its head.
pub(super) fn write(text: &mut String, rows: &[Row]) {
    for (Name { series, labels, kind }, value) in rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "# HELP {series} Kept for dashboards of the Python original.\n# TYPE {series} {kind}\n\
             {series}{labels} {value}"
        );
    }
}

impl Metrics {
    /// The names of this process: those about the whole fleet only while it leads.
    pub(super) fn append_legacy(&self, text: &mut String, leads: bool) {
        let (created, destroyed) = (self.created(), self.destroyed());
        let mut rows = vec![
            TOTAL_CREATED.row(created),
            TOTAL_DESTROYED.row(destroyed),
            ORCHESTRATOR_RUNNING.row(1.0),
            CREATED_TOTAL.row(created),
        ];
        if leads {
            let (active, queue) = (self.active(), sum(&self.pools.jobs_queued, None));
            rows.extend([
                RUNNERS_ACTIVE.row(active),
                RUNNERS_TOTAL.row(active),
                IGNORED_EXISTING.row(sum(&self.pools.foreign_runners, None)),
                GITHUB_QUEUE_LENGTH.row(queue),
                QUEUE_LENGTH.row(queue),
                BREAKER_ACTIVE.row(sum(&self.pools.breaker, None).min(1.0)),
            ]);
        }
        write(text, &rows);
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
pub(super) fn sum(metric: &impl Collector, wanted: Option<(&str, &[&str])>) -> f64 {
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

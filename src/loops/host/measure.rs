//! What metrics and traces show of a runner's life.

use crate::fleet::listener::JobResult;
use crate::fleet::runner::{RunnerPhase, RunnerRecord};
use crate::fleet::time::Timestamp;
use crate::telemetry::metrics::{self, Metrics, RunnerEnd, StartPhase};
use crate::telemetry::trace;

/// Counts a move of `record`, which has its new phase already.
pub(super) fn moved(
    metrics: &Metrics,
    record: &RunnerRecord,
    before: &RunnerPhase,
    result: Option<JobResult>,
    now: Timestamp,
) {
    let pool = &record.pool;
    match &record.phase {
        RunnerPhase::Created { .. } => metrics.runner_created(pool),
        RunnerPhase::Listening { .. } if !record.adopted => {
            metrics.startup_phase(pool, StartPhase::Listen, now.since(before.since()));
            metrics.startup_phase(pool, StartPhase::Total, now.since(record.assigned_at));
        }
        RunnerPhase::Running { .. } => metrics.job_started(pool, None),
        phase => {
            if let Some(end) = end(phase) {
                if matches!(before, RunnerPhase::Running { .. }) {
                    metrics.job_completed(pool, label(result), now.since(before.since()));
                }
                metrics.runner_ended(pool, end);
                trace::ended(record.id, pool, record.assigned_at, phase.name());
            }
        }
    }
}

fn end(phase: &RunnerPhase) -> Option<RunnerEnd> {
    match phase {
        RunnerPhase::Ended { .. } => Some(RunnerEnd::Ended),
        RunnerPhase::Failed { .. } => Some(RunnerEnd::Failed),
        RunnerPhase::Retired { .. } => Some(RunnerEnd::Retired),
        RunnerPhase::Lost { .. } => Some(RunnerEnd::Lost),
        RunnerPhase::Assigned { .. }
        | RunnerPhase::Accepted { .. }
        | RunnerPhase::Created { .. }
        | RunnerPhase::Started { .. }
        | RunnerPhase::Handed { .. }
        | RunnerPhase::Listening { .. }
        | RunnerPhase::Running { .. }
        | RunnerPhase::Unknown { .. } => None,
    }
}

fn label(result: Option<JobResult>) -> metrics::JobResult {
    match result {
        Some(JobResult::Succeeded) => metrics::JobResult::Succeeded,
        Some(JobResult::Failed) => metrics::JobResult::Failed,
        Some(JobResult::Cancelled) => metrics::JobResult::Cancelled,
        Some(JobResult::Unknown) | None => metrics::JobResult::Unknown,
    }
}

//! What the metrics show of a leader's turn.

use std::collections::BTreeMap;

use crate::fleet::id::PoolName;
use crate::fleet::plan::Plan;
use crate::fleet::time::Timestamp;
use crate::fleet::view::View;
use crate::telemetry::metrics::{Metrics, PoolNow, RunnerState};

/// Sets every pool's gauges from the view and what was decided from it.
pub(super) fn pools(metrics: &Metrics, view: &View, plan: &Plan, now: Timestamp) {
    let mut states: BTreeMap<&PoolName, BTreeMap<RunnerState, u32>> = BTreeMap::new();
    let runners = view.runners();
    for runner in runners.values() {
        let Some(state) = RunnerState::of(&runner.phase) else { continue };
        let state = if runner.is_retiring() { RunnerState::Retiring } else { state };
        *states.entry(runner.pool).or_default().entry(state).or_default() += 1;
    }
    for (name, decision) in &plan.pools {
        let breaker = view.ledger.breakers.get(name);
        metrics.pool(
            name,
            &PoolNow {
                queued_jobs: decision.demand.waiting_count(),
                oldest_wait: decision
                    .demand
                    .oldest
                    .map(|(queued_at, _)| now.since(queued_at))
                    .unwrap_or_default(),
                desired: decision.desired,
                runners: states.remove(name).unwrap_or_default(),
                breaker_active: breaker.is_some_and(|breaker| breaker.is_open(now)),
            },
        );
    }
    let unmatched = view.ledger.demand.unmatched(&view.pools).len();
    metrics.unmatched_jobs(u32::try_from(unmatched).unwrap_or(u32::MAX));
    let foreign = view.ledger.registrations.scopes().values().map(|scope| scope.foreign).sum();
    metrics.foreign_runners(foreign);
}

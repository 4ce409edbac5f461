//! Says what was decided: one line and one count for each decision.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use super::Published;
use crate::fleet::plan::Plan;
use crate::telemetry::metrics::Metrics;

/// Somebody who is told of every turn.
type Listener = Arc<dyn Fn(&Arc<Published>) + Send + Sync>;

/// Those who must hear of *every* turn of this leader. What is published elsewhere keeps
/// only the newest one. Clones share them.
#[derive(Clone, Default)]
pub struct Listeners(Arc<Mutex<Vec<Listener>>>);

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

impl Listeners {
    /// From now on tells `listener` of every turn. It is called inside the lead loop, so it
    /// must not wait for anything.
    pub fn add(&self, listener: impl Fn(&Arc<Published>) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(listener));
    }

    pub(super) fn tell(&self, turn: &Arc<Published>) {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            listener(turn);
        }
    }
}

/// Logs and counts the decisions of one plan that was written.
pub(super) fn decisions(metrics: &Metrics, decided: &Plan) {
    for placement in &decided.place {
        let assigned = &placement.assigned;
        metrics.decision(&assigned.pool, assigned.reason.code());
        info!(
            runner.id = %assigned.id, runner.name = %assigned.name, pool = %assigned.pool,
            host.id = %placement.host, correlation = %assigned.correlation,
            reason = assigned.reason.code(), detail = %assigned.reason, "assigning runner"
        );
    }
    for order in &decided.retire {
        let reason = &order.retirement.reason;
        metrics.decision(&order.pool, reason.code());
        info!(
            runner.id = %order.runner, pool = %order.pool, host.id = %order.host,
            correlation = %order.runner.tail(), reason = reason.code(), detail = %reason,
            "retiring runner"
        );
    }
    for release in decided.release.iter().filter(|release| release.reason.is_some()) {
        if let Some(reason) = &release.reason {
            warn!(
                runner.id = %release.runner, host.id = %release.host, reason = reason.code(),
                correlation = %release.runner.tail(), detail = %reason,
                "taking an assignment back"
            );
        }
    }
}

//! Says what was decided: one line and one count for each decision, and to the replicas
//! that do not lead the turn as a whole.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{Lead, Published};
use crate::election::Leadership;
use crate::fleet::digest::Digest;
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

/// A turn without any news is shown to the other replicas only so often: it differs from the
/// one before in ages alone.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// The turn that the other replicas were last shown, and when.
#[derive(Debug, Default)]
pub(super) struct Told(Option<(Instant, Arc<Published>)>);

impl Told {
    /// Whether there is no need to show them this one.
    fn will_do_for(&self, turn: &Published) -> bool {
        let Some((at, last)) = &self.0 else { return false };
        let (before, now) = (&last.view.ledger, &turn.view.ledger);
        at.elapsed() < TELL_EVERY
            && last.term == turn.term
            && turn.plan.is_empty()
            && last.plan == turn.plan
            && before.demand == now.demand
            && before.breakers == now.breakers
            && before.rebuilding == now.rebuilding
            && before.registrations.scopes() == now.registrations.scopes()
            && Arc::ptr_eq(before.registrations.listing(), now.registrations.listing())
    }
}

impl Lead {
    /// Leaves what this turn knew and decided for the replicas that do not lead. `false`:
    /// they could not be told; then every turn tries again.
    pub(super) async fn tell_others(
        &self,
        told: &mut Told,
        leader: &Leadership,
        turn: &Arc<Published>,
    ) -> bool {
        if !self.store.health().borrow().shared || told.will_do_for(turn) {
            return true;
        }
        let (ledger, budget) = (turn.view.ledger.clone(), turn.view.budget.clone());
        let digest = Digest::new(turn.at, leader.term(), ledger, turn.plan.clone(), budget);
        match self.store.publish(leader, digest).await {
            Ok(()) => {
                told.0 = Some((Instant::now(), turn.clone()));
                true
            }
            Err(error) => {
                told.0 = None;
                warn!(error = %error, "could not show this turn to the other replicas");
                false
            }
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

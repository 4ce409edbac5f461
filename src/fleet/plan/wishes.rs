//! What operators asked for: settles each intent once, and answers it honestly.

use std::time::Duration;

use super::Plan;
use super::turn::Turn;
use crate::fleet::id::{IntentId, PoolName, ReplicaId, RunnerId};
use crate::fleet::intent::{Boost, Operator, Outcome, PendingDelete, Wish};
use crate::fleet::policy::Policy;
use crate::fleet::reason::Reason;
use crate::fleet::time::Timestamp;
use crate::fleet::view::RunnerView;

/// A drained replica that does not announce itself for so long has ended: far longer than a
/// pause of the store or of its machine.
const REPLICA_FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Scale requests of this turn, to be answered when it is known what could be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    pub up: Vec<Scale>,
    pub down: Vec<Scale>,
}

/// One scale request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scale {
    pub intent: IntentId,
    pub pool: PoolName,
    pub count: u32,
}

/// The operator state without used or expired boosts and finished deletes.
#[must_use]
pub fn carried_over(turn: &Turn<'_>) -> Operator {
    let mut operator = turn.view.operator.clone();
    for boost in &mut operator.boosts {
        let used = turn.view.ledger.boosts_used.get(&boost.intent).copied().unwrap_or(0);
        boost.left = boost.left.saturating_sub(used);
    }
    operator.boosts.retain(|boost| boost.left > 0 && boost.expires_at > turn.now);
    // While hosts have yet to report, a runner that nobody shows may well live.
    if turn.view.ledger.rebuilding.is_none() {
        operator.deletes.retain(|runner, delete| {
            let occupied = turn.roster.runners.get(runner).is_some_and(RunnerView::is_occupied);
            occupied || !is_told_gone(turn, delete)
        });
    }
    operator.draining_replicas.retain(|replica| !is_forgotten(turn, *replica));
    operator
}

/// Whether a runner that nobody shows is known to be gone: its host has reported since it
/// was to go, or has said nothing for so long that it is not waited for.
fn is_told_gone(turn: &Turn<'_>, delete: &PendingDelete) -> bool {
    let reported = delete.host.and_then(|host| turn.view.hosts.get(&host));
    delete.host.is_none()
        || reported.is_some_and(|record| record.at > delete.at)
        || turn.now.since(delete.at) > turn.policy.delete_memory
}

/// Whether a drained replica has gone for good: it has not announced itself for a while, and
/// no host was last reported by it. The record of such a host goes by itself after a day,
/// or is another replica's as soon as one cares for the host; until then nothing may be
/// placed there, and it is not missed.
fn is_forgotten(turn: &Turn<'_>, replica: ReplicaId) -> bool {
    let seen = turn.view.ledger.drained_replicas.get(&replica);
    let gone = seen.is_some_and(|at| turn.now.since(*at) >= REPLICA_FORGOTTEN_AFTER);
    gone && turn.view.ledger.rebuilding.is_none()
        && turn.view.reports().all(|(_, record)| record.replica != replica)
}

/// Settles what can be settled at once and returns the scale requests.
pub fn settle(plan: &mut Plan, operator: &mut Operator, turn: &Turn<'_>) -> Asked {
    let mut asked = Asked::default();
    if turn.view.withheld.operator {
        // What cannot be written down must not be granted: it waits.
        return asked;
    }
    let rebuilding = turn.view.ledger.rebuilding.is_some();
    for intent in &turn.view.intents {
        let waited = turn.now.since(intent.at);
        let mut answer = |reason: Option<Reason>, accepted: Vec<RunnerId>| {
            plan.outcomes.push(Outcome { intent: intent.id, at: turn.now, accepted, reason });
        };
        match &intent.wish {
            Wish::ScaleUp { .. } | Wish::ScaleDown { .. } if waited > turn.policy.intent_ttl => {
                answer(Some(Reason::NotAccepted { seconds: waited.as_secs() }), Vec::new());
            }
            // What needs to know every runner waits until that is so.
            Wish::ScaleUp { .. } | Wish::ScaleDown { .. } | Wish::Delete { .. } if rebuilding => {}
            Wish::ScaleUp { pool, count } => {
                asked.up.push(Scale { intent: intent.id, pool: pool.clone(), count: *count });
            }
            Wish::ScaleDown { pool, count } => {
                asked.down.push(Scale { intent: intent.id, pool: pool.clone(), count: *count });
            }
            Wish::Delete { runner, force } => {
                let (reason, accepted) = settle_delete(operator, turn, intent.id, *runner, *force);
                answer(reason, accepted);
            }
            Wish::Pause { pool } => {
                operator.paused.insert(pool.clone());
                answer(None, Vec::new());
            }
            Wish::Resume { pool } => {
                operator.paused.remove(pool);
                answer(None, Vec::new());
            }
            Wish::Freeze => {
                operator.frozen_since.get_or_insert(turn.now);
                answer(None, Vec::new());
            }
            Wish::Unfreeze => {
                operator.frozen_since = None;
                answer(None, Vec::new());
            }
            Wish::Drain { host } => {
                operator.draining.insert(*host);
                answer(None, Vec::new());
            }
            Wish::Undrain { host } => {
                operator.draining.remove(host);
                answer(None, Vec::new());
            }
            Wish::DrainReplica { replica } => {
                operator.draining_replicas.insert(*replica);
                answer(None, Vec::new());
            }
            Wish::UndrainReplica { replica } => {
                operator.draining_replicas.remove(replica);
                answer(None, Vec::new());
            }
        }
    }
    asked
}

fn settle_delete(
    operator: &mut Operator,
    turn: &Turn<'_>,
    intent: IntentId,
    id: RunnerId,
    force: bool,
) -> (Option<Reason>, Vec<RunnerId>) {
    match turn.roster.runners.get(&id).filter(|runner| runner.is_occupied()) {
        None => (Some(Reason::NoSuchRunner), Vec::new()),
        Some(runner) if runner.is_running() && !force => (Some(Reason::Busy), Vec::new()),
        Some(runner) => {
            let host = Some(runner.host);
            operator.deletes.insert(id, PendingDelete { intent, at: turn.now, force, host });
            (None, vec![id])
        }
    }
}

/// Answers every scale request with the same refusal.
pub fn refuse(plan: &mut Plan, asked: &Asked, reason: &Reason, now: Timestamp) {
    for scale in asked.up.iter().chain(&asked.down) {
        plan.outcomes.push(Outcome {
            intent: scale.intent,
            at: now,
            accepted: Vec::new(),
            reason: Some(reason.clone()),
        });
    }
}

/// Answers scale-up requests by what was placed for them, and keeps that many as a boost
/// until they are used or the boost expires.
pub fn answer_scale_up(
    plan: &mut Plan,
    operator: &mut Operator,
    asked: &Asked,
    policy: &Policy,
    now: Timestamp,
) {
    for scale in &asked.up {
        let accepted: Vec<RunnerId> = plan
            .place
            .iter()
            .filter(|placement| {
                placement.assigned.reason == Reason::ManualScaleUp { intent: scale.intent }
            })
            .map(|placement| placement.assigned.id)
            .collect();
        let placed = u32::try_from(accepted.len()).unwrap_or(u32::MAX);
        let reason = (placed < scale.count).then(|| {
            plan.pools.get(&scale.pool).map_or(Reason::PoolRemoved, |decision| {
                decision.not_added.last().cloned().unwrap_or(Reason::NoHost)
            })
        });
        if placed > 0 {
            operator.boosts.push(Boost {
                intent: scale.intent,
                pool: scale.pool.clone(),
                left: placed,
                expires_at: now + policy.boost_ttl,
            });
        }
        plan.outcomes.push(Outcome { intent: scale.intent, at: now, accepted, reason });
    }
}

/// Takes back up to `count` runners that were asked for by hand and are not used yet.
pub fn give_back(operator: &mut Operator, pool: &PoolName, mut count: u32) {
    for boost in operator.boosts.iter_mut().filter(|boost| boost.pool == *pool) {
        let taken = boost.left.min(count);
        boost.left -= taken;
        count -= taken;
    }
    operator.boosts.retain(|boost| boost.left > 0);
}

/// How many runners operators want beyond what the rule wants.
#[must_use]
pub fn boost_of(operator: &Operator, pool: &PoolName) -> u32 {
    operator.boosts.iter().filter(|boost| boost.pool == *pool).map(|boost| boost.left).sum()
}

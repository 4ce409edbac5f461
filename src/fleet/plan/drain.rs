//! Draining a host. What is there counts as gone at once, so that what replaces it is
//! placed in the same turn; its idle runners go when that listens, or after a while.

use std::collections::BTreeMap;

use super::Plan;
use super::retire::order;
use super::target::keep;
use super::turn::Turn;
use crate::fleet::host::Liveness;
use crate::fleet::id::PoolName;
use crate::fleet::intent::Operator;
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::view::RunnerView;

/// Writes off what is on draining hosts, and orders its idle runners to go.
pub fn drain(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator) {
    let mut idle: BTreeMap<&PoolName, Vec<&RunnerView<'_>>> = BTreeMap::new();
    for runner in turn.roster.runners.values() {
        if !operator.draining.contains(&runner.host) || runner.is_retiring() {
            continue;
        }
        plan.write_off(runner.id, runner.pool, turn);
        if turn.is_kept(runner) {
            continue;
        }
        match runner.phase {
            RunnerPhase::Listening { .. } => idle.entry(runner.pool).or_default().push(runner),
            // No supply, so there is nothing to replace.
            RunnerPhase::Unknown { .. } => {
                plan.order(order(runner, Reason::HostDraining, false, turn.now), turn);
            }
            _ => {}
        }
    }
    for (pool, mut runners) in idle {
        runners.sort_by_key(|runner| (runner.phase.since(), runner.id));
        let (tried, waiting): (Vec<_>, Vec<_>) =
            runners.into_iter().partition(|runner| is_patience_over(turn, runner));
        let needed = needed(plan, turn, operator, pool);
        let free = waiting.len().saturating_sub(needed);
        for runner in tried.into_iter().chain(waiting.into_iter().take(free)) {
            plan.order(order(runner, Reason::HostDraining, false, turn.now), turn);
        }
    }
}

fn is_patience_over(turn: &Turn<'_>, runner: &RunnerView<'_>) -> bool {
    let since = turn.view.ledger.draining_since.get(&runner.host);
    since.is_some_and(|since| turn.now.since(*since) >= turn.policy.drain_patience)
}

/// How many idle runners a pool still needs from draining hosts: what floor, queue and
/// operators ask for and nobody elsewhere listens for yet.
fn needed(plan: &Plan, turn: &Turn<'_>, operator: &Operator, pool: &PoolName) -> usize {
    let (Some(pool), Some(decision)) = (turn.view.pools.get(pool), plan.pools.get(pool)) else {
        return 0;
    };
    let elsewhere = turn.listening(&pool.name).iter().filter(|runner| {
        !operator.draining.contains(&runner.host)
            && turn.is_supply(runner.id)
            && turn.liveness(&runner.host) == Liveness::Live
    });
    let keep = usize::try_from(keep(pool, decision, operator)).unwrap_or(usize::MAX);
    keep.saturating_sub(elsewhere.count())
}

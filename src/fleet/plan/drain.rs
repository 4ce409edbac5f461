//! Draining a host. What is there counts as gone at once, so that what replaces it is
//! placed in the same turn; its idle runners go when that listens, or after a while.

use std::collections::{BTreeMap, BTreeSet};

use super::Plan;
use super::retire::order;
use super::target::keep;
use super::turn::Turn;
use crate::fleet::host::Liveness;
use crate::fleet::id::{HostId, PoolName};
use crate::fleet::intent::{DrainBegan, Operator};
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::view::RunnerView;

/// Notes of every drain that begins how many runners there are, and forgets the others.
pub fn note(operator: &mut Operator, turn: &Turn<'_>) {
    let draining = drained(turn, operator);
    operator.drains.retain(|host, _| draining.contains(host));
    // While hosts have yet to report, what they hold is not known.
    if turn.view.ledger.rebuilding.is_some() {
        return;
    }
    let occupied = turn.roster.occupied_by_host();
    for host in draining {
        let runners = occupied.get(&host).copied().unwrap_or(0);
        operator.drains.entry(host).or_insert(DrainBegan { at: turn.now, runners });
    }
}

/// Writes off what is on draining hosts, and orders its idle runners to go.
pub fn drain(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator) {
    let drained = drained(turn, operator);
    let mut idle: BTreeMap<&PoolName, Vec<&RunnerView<'_>>> = BTreeMap::new();
    for runner in turn.roster.runners.values() {
        if !drained.contains(&runner.host) || runner.is_retiring() {
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
        let needed = needed(plan, turn, operator, &drained, pool);
        let free = waiting.len().saturating_sub(needed);
        for runner in tried.into_iter().chain(waiting.into_iter().take(free)) {
            plan.order(order(runner, Reason::HostDraining, false, turn.now), turn);
        }
    }
}

fn drained(turn: &Turn<'_>, operator: &Operator) -> BTreeSet<HostId> {
    operator.drained_hosts(turn.view.reports().map(|(_, record)| record))
}

fn is_patience_over(turn: &Turn<'_>, runner: &RunnerView<'_>) -> bool {
    let since = turn.view.ledger.draining_since.get(&runner.host);
    since.is_some_and(|since| turn.now.since(*since) >= turn.policy.drain_patience)
}

/// How many idle runners a pool still needs from draining hosts: what floor, queue and
/// operators ask for and nobody elsewhere listens for yet.
fn needed(
    plan: &Plan,
    turn: &Turn<'_>,
    operator: &Operator,
    drained: &BTreeSet<HostId>,
    pool: &PoolName,
) -> usize {
    let (Some(pool), Some(decision)) = (turn.view.pools.get(pool), plan.pools.get(pool)) else {
        return 0;
    };
    let elsewhere = turn.listening(&pool.name).iter().filter(|runner| {
        !drained.contains(&runner.host)
            && turn.is_supply(runner.id)
            && turn.liveness(&runner.host) == Liveness::Live
    });
    let keep = usize::try_from(keep(pool, decision, operator)).unwrap_or(usize::MAX);
    keep.saturating_sub(elsewhere.count())
}

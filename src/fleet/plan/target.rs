//! How many: floor, up and down of one pool.

use std::collections::VecDeque;

use super::turn::Turn;
use super::wishes::{Asked, boost_of};
use super::{Plan, PoolDecision};
use crate::fleet::id::PoolName;
use crate::fleet::intent::Operator;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::time::Timestamp;

/// What one pool asks for. Reasons are taken from the front, one a runner: what operators
/// asked for stands before what the queue asks for, the floor before both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    pub pool: PoolName,
    /// Served before any other pool's queue.
    pub floor: VecDeque<Reason>,
    pub rest: VecDeque<Reason>,
    /// The oldest job that waits: breaks ties for short room.
    pub oldest: Option<Timestamp>,
}

/// The needs of all pools, already under `MAX_RUNNERS` and the breaker.
pub fn needs(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator, asked: &Asked) -> Vec<Need> {
    let mut needs = Vec::new();
    for (name, pool) in turn.view.pools.iter() {
        let supply = plan.supply_left(name);
        let Some(decision) = plan.pools.get_mut(name) else { continue };
        let mut need = wanted(pool, decision, supply, turn, operator, asked);
        limit(&mut need, pool, decision, turn, operator);
        if !need.floor.is_empty() || !need.rest.is_empty() {
            needs.push(need);
        }
    }
    needs
}

/// What floor, operators and queue ask for, before any bound. `supply` is what stays after
/// the retirements already decided.
fn wanted(
    pool: &Pool,
    decision: &mut PoolDecision,
    supply: u32,
    turn: &Turn<'_>,
    operator: &Operator,
    asked: &Asked,
) -> Need {
    let running = decision.count.running;
    let have = supply + running;
    let below_min = pool.min_runners.saturating_sub(have);
    let below_idle = pool.min_idle_runners.saturating_sub(supply);
    let floor_reason = if below_min >= below_idle {
        Reason::BelowMinimum { have, min: pool.min_runners }
    } else {
        Reason::BelowMinIdle { have: supply, min_idle: pool.min_idle_runners }
    };
    let floor = below_min.max(below_idle);

    // What operators ask for comes on top of whatever there is.
    let manual = asked.up.iter().filter(|scale| scale.pool == pool.name).flat_map(|scale| {
        std::iter::repeat_n(Reason::ManualScaleUp { intent: scale.intent }, scale.count as usize)
    });
    let mut rest: VecDeque<Reason> = manual.collect();

    let up = up_reason(pool, decision, supply, turn);
    let queue = if up.is_ok() { decision.demand.waiting_count() } else { 0 };
    let base = floor_supply(pool, running).max(queue);
    let boosted = base + boost_of(operator, &pool.name);
    let missing = boosted.saturating_sub(supply + floor);
    let for_queue = missing.min(queue.saturating_sub(supply + floor));
    match up {
        Ok(reason) => rest.extend(std::iter::repeat_n(reason, for_queue as usize)),
        Err(hold) => decision.not_added.push(hold),
    }
    // A runner asked for by hand that went without having been used is made anew.
    if let Some(boost) = operator.boosts.iter().find(|boost| boost.pool == pool.name) {
        let reason = Reason::ManualScaleUp { intent: boost.intent };
        rest.extend(std::iter::repeat_n(reason, (missing - for_queue) as usize));
    }
    decision.desired = boosted + running;
    Need {
        pool: pool.name.clone(),
        floor: std::iter::repeat_n(floor_reason, floor as usize).collect(),
        rest,
        oldest: decision.demand.oldest.map(|(at, _)| at),
    }
}

/// The supply that the floor demands.
fn floor_supply(pool: &Pool, running: u32) -> u32 {
    pool.min_runners.saturating_sub(running).max(pool.min_idle_runners)
}

/// Whether the queue calls for runners: enough jobs, or one that has waited too long.
fn up_reason(
    pool: &Pool,
    decision: &PoolDecision,
    supply: u32,
    turn: &Turn<'_>,
) -> Result<Reason, Reason> {
    let waiting = decision.demand.waiting_count();
    if waiting == 0 {
        return Err(match decision.demand.not_assigned.first() {
            Some(job) => Reason::GitHubDoesNotAssign { job: *job },
            None => Reason::Satisfied,
        });
    }
    if decision.demand.queued_count() >= pool.scale_up_threshold {
        return Ok(Reason::QueuedJobs { waiting, supply });
    }
    if let Some((queued_at, job)) = decision.demand.oldest {
        let waited = turn.now.since(queued_at);
        if waited > pool.scale_up_max_wait {
            return Ok(Reason::WaitedTooLong { job, seconds: waited.as_secs() });
        }
    }
    Err(Reason::BelowUpThreshold { waiting, threshold: pool.scale_up_threshold })
}

/// How much supply a pool keeps whatever its idle time: floor, queue and boost.
#[must_use]
pub fn keep(pool: &Pool, decision: &PoolDecision, operator: &Operator) -> u32 {
    let floor = floor_supply(pool, decision.count.running);
    floor.max(decision.demand.queued_count()) + boost_of(operator, &pool.name)
}

/// Bounds the need: pause, `MAX_RUNNERS`, the breaker. Only strictly below the maximum
/// may a runner be added, and *occupied* is what counts: before the first runner list of
/// this leader nobody knows it, for a registration may be all that is left of a runner.
fn limit(
    need: &mut Need,
    pool: &Pool,
    decision: &mut PoolDecision,
    turn: &Turn<'_>,
    operator: &Operator,
) {
    let asked = need.floor.len() + need.rest.len();
    if asked == 0 {
        return;
    }
    let occupied = decision.count.occupied;
    let mut allowed = pool.max_runners.saturating_sub(occupied) as usize;
    let mut hold = Reason::AtMaximum { max: pool.max_runners, occupied };
    let breaker = turn.view.ledger.breakers.get(&pool.name).cloned().unwrap_or_default();
    if operator.paused.contains(&pool.name) {
        (allowed, hold) = (0, Reason::Paused);
    } else if turn.never_listed(&pool.scope) {
        (allowed, hold) = (0, Reason::GitHubUnreadable);
    } else if allowed > 0 {
        let until = breaker.open_until.unwrap_or(turn.now);
        let open = Reason::BreakerOpen { until, failures: breaker.failures };
        if breaker.is_open(turn.now) {
            (allowed, hold) = (0, open);
        } else if breaker.is_half_open(turn.now) {
            (allowed, hold) = (usize::from(decision.count.starting == 0), open);
        }
    }
    if asked > allowed {
        decision.unplaced = u32::try_from(asked - allowed).unwrap_or(u32::MAX);
        decision.not_added.push(hold);
        need.floor.truncate(allowed);
        need.rest.truncate(allowed - need.floor.len());
    }
}

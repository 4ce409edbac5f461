//! Which runner goes, and when none may. Only listening runners are ever chosen: never a
//! running one, never one that is still starting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::drain::drain;
use super::target::keep;
use super::turn::Turn;
use super::wishes::{Asked, Scale, give_back};
use super::{Plan, RetireOrder};
use crate::fleet::host::{Liveness, Retirement};
use crate::fleet::id::{HostId, PoolName, RunnerId};
use crate::fleet::intent::{Operator, Outcome};
use crate::fleet::ledger::brake_per_minute;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::time::Timestamp;
use crate::fleet::view::RunnerView;

/// Listening runners of a pool that may be chosen, longest listening first.
fn candidates<'a>(
    plan: &Plan,
    turn: &Turn<'a>,
    pool: &PoolName,
) -> impl Iterator<Item = &'a RunnerView<'a>> {
    turn.listening(pool)
        .iter()
        .copied()
        .filter(|runner| !runner.is_retiring() && !plan.is_leaving(runner.id))
}

/// The order to remove a runner. Those the rule gives by itself count against the brake.
pub(super) fn order(
    runner: &RunnerView<'_>,
    reason: Reason,
    force: bool,
    now: Timestamp,
) -> RetireOrder {
    RetireOrder {
        host: runner.host,
        runner: runner.id,
        pool: runner.pool.clone(),
        automatic: matches!(reason, Reason::IdleTooLong { .. } | Reason::RoomForOthers),
        retirement: Retirement { reason, at: now, force },
    }
}

/// Operators' deletes and scale-downs, drains, and pools that are no longer configured.
/// These are exempt from the brake: somebody asked for them.
pub fn by_operator(plan: &mut Plan, turn: &Turn<'_>, operator: &mut Operator, asked: &Asked) {
    for (id, delete) in &operator.deletes {
        let Some(runner) = turn.roster.runners.get(id).filter(|r| r.is_occupied()) else {
            continue;
        };
        let allowed = delete.force || (!runner.is_running() && !turn.is_kept(runner));
        let ordered = runner.retirement.is_some_and(|r| r.force || !delete.force);
        if allowed && !ordered {
            let reason = Reason::OperatorDelete { intent: delete.intent, force: delete.force };
            plan.order(order(runner, reason, delete.force, turn.now), turn);
        }
    }
    drain(plan, turn, operator);
    for runner in turn.roster.runners.values() {
        let handed_and_free =
            matches!(runner.phase, RunnerPhase::Listening { .. } | RunnerPhase::Unknown { .. });
        if !handed_and_free || runner.is_retiring() || turn.is_kept(runner) {
            continue;
        }
        if !turn.view.pools.contains_key(runner.pool) {
            plan.order(order(runner, Reason::PoolRemoved, false, turn.now), turn);
        }
    }
    for scale in &asked.down {
        scale_down(plan, turn, operator, scale);
    }
}

/// Retires up to the number asked for, idle ones only, and never under the floor. What was
/// asked for by hand before is given back first, or it would be made anew at once.
fn scale_down(plan: &mut Plan, turn: &Turn<'_>, operator: &mut Operator, scale: &Scale) {
    let (chosen, reason) = match turn.view.pools.get(&scale.pool) {
        None => (Vec::new(), Some(Reason::PoolRemoved)),
        Some(pool) => choose_idle(plan, turn, pool, scale.count),
    };
    let accepted: Vec<RunnerId> = chosen.iter().map(|runner| runner.id).collect();
    give_back(operator, &scale.pool, u32::try_from(chosen.len()).unwrap_or(u32::MAX));
    for runner in chosen {
        let reason = Reason::ManualScaleDown { intent: scale.intent };
        plan.order(order(runner, reason, false, turn.now), turn);
    }
    plan.outcomes.push(Outcome { intent: scale.intent, at: turn.now, accepted, reason });
}

/// The idle runners an operator's scale-down takes, and why they are fewer than asked for.
fn choose_idle<'a>(
    plan: &Plan,
    turn: &Turn<'a>,
    pool: &Pool,
    count: u32,
) -> (Vec<&'a RunnerView<'a>>, Option<Reason>) {
    let idle: Vec<_> =
        candidates(plan, turn, &pool.name).filter(|runner| !turn.is_kept(runner)).collect();
    let room = plan.supply_left(&pool.name).saturating_sub(floor_of(plan, pool));
    let take = count.min(room).min(u32::try_from(idle.len()).unwrap_or(u32::MAX));
    let reason = (take < count).then(|| match turn.forbids(&pool.name) {
        Some(forbidden) => forbidden.clone(),
        None if idle.is_empty() => Reason::NotListening,
        None if room < count => Reason::AtFloor,
        None => Reason::Busy,
    });
    (idle.into_iter().take(take as usize).collect(), reason)
}

/// The supply the configured floor demands, whatever the queue.
fn floor_of(plan: &Plan, pool: &Pool) -> u32 {
    let running = plan.pools.get(&pool.name).map_or(0, |decision| decision.count.running);
    pool.min_runners.saturating_sub(running).max(pool.min_idle_runners)
}

/// The rule's own retirements: idle too long, or in the way of another pool's jobs.
pub fn idle_surplus(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator) {
    let mut wanted = WantedRoom::of(plan, turn);
    for pool in turn.view.pools.values() {
        if turn.listening(&pool.name).is_empty() {
            continue;
        }
        let (orders, kept) = match choose(plan, turn, operator, pool, &mut wanted) {
            Ok(chosen) => chosen,
            Err(hold) => (Vec::new(), vec![hold]),
        };
        for order in orders {
            plan.order(order, turn);
        }
        if let Some(decision) = plan.pools.get_mut(&pool.name) {
            decision.kept.extend(kept);
        }
    }
}

/// Places that unplaced jobs of other pools wait for.
struct WantedRoom {
    places: u32,
    /// Hosts where a place would help them.
    hosts: BTreeSet<HostId>,
}

impl WantedRoom {
    fn of(plan: &Plan, turn: &Turn<'_>) -> Self {
        let short: Vec<&Pool> = plan
            .pools
            .iter()
            .filter(|(_, decision)| decision.short_of_room > 0)
            .filter_map(|(name, _)| turn.view.pools.get(name))
            .collect();
        let unplaced: u32 = plan.pools.values().map(|decision| decision.short_of_room).sum();
        let hosts: BTreeSet<HostId> = turn
            .view
            .hosts
            .iter()
            .filter(|(_, record)| short.iter().any(|pool| record.images.contains(&pool.image)))
            .map(|(host, _)| *host)
            .collect();
        // What is going already makes room before anything else has to go.
        let going = turn
            .roster
            .runners
            .values()
            .filter(|r| r.is_occupied() && hosts.contains(&r.host))
            .filter(|r| r.is_retiring() || plan.is_retiring(r.id))
            .count();
        let going = u32::try_from(going).unwrap_or(u32::MAX);
        Self { places: unplaced.saturating_sub(going), hosts }
    }
}

/// The orders for one pool and why the rest stays, or why none may go at all.
fn choose(
    plan: &Plan,
    turn: &Turn<'_>,
    operator: &Operator,
    pool: &Pool,
    wanted: &mut WantedRoom,
) -> Result<(Vec<RetireOrder>, Vec<Reason>), Reason> {
    let Some(decision) = plan.pools.get(&pool.name) else { return Err(Reason::AtFloor) };
    let surplus = plan.supply_left(&pool.name).saturating_sub(keep(pool, decision, operator));
    if surplus == 0 {
        return Err(Reason::AtFloor);
    }
    if let Some(unknown) = turn.forbids(&pool.name).or_else(|| turn.queue_unread(pool)) {
        return Err(unknown.clone());
    }
    let queued = decision.demand.queued_count();
    let below = queued <= pool.scale_down_threshold;
    if !below && wanted.places == 0 {
        let threshold = pool.scale_down_threshold;
        return Err(Reason::QueueAboveDownThreshold { waiting: queued, threshold });
    }
    let brake = turn.view.ledger.brake_left(pool, decision.count.occupied, turn.policy);
    let mut orders = Vec::new();
    let mut kept: BTreeMap<&'static str, Reason> = BTreeMap::new();
    let mut keep_because = |reason: Reason| {
        kept.entry(reason.code()).or_insert(reason);
    };
    for runner in candidates(plan, turn, &pool.name) {
        let chosen = u32::try_from(orders.len()).unwrap_or(u32::MAX);
        let idle = turn.now.since(runner.phase.since());
        if chosen >= surplus {
            keep_because(Reason::AtFloor);
        } else if turn.liveness(&runner.host) != Liveness::Live {
            keep_because(Reason::HostUnread { host: runner.host });
        } else if turn.is_kept(runner) {
            keep_because(Reason::Busy);
        } else if let Some(reason) = why_go(pool, runner, idle, below, wanted) {
            if chosen >= brake {
                let per_minute = brake_per_minute(decision.count.occupied, turn.policy);
                keep_because(Reason::Brake { per_minute });
                continue;
            }
            wanted.places = wanted.places.saturating_sub(1);
            orders.push(order(runner, reason, false, turn.now));
        } else {
            keep_because(Reason::WithinIdleTimeout);
        }
    }
    Ok((orders, kept.into_values().collect()))
}

/// Why an idle runner above its pool's floor shall go, if it shall.
fn why_go(
    pool: &Pool,
    runner: &RunnerView<'_>,
    idle: Duration,
    below: bool,
    wanted: &WantedRoom,
) -> Option<Reason> {
    if below && idle > pool.idle_timeout {
        return Some(Reason::IdleTooLong { seconds: idle.as_secs() });
    }
    (wanted.places > 0 && wanted.hosts.contains(&runner.host)).then_some(Reason::RoomForOthers)
}

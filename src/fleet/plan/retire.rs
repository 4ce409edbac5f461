//! Which runner goes, and when none may. Only listening runners are ever chosen: never a
//! running one, never one that is still starting.

use std::collections::BTreeMap;

use super::target::keep;
use super::wishes::{Asked, boost_of};
use super::{Plan, RetireOrder, Turn};
use crate::fleet::host::{Liveness, Retirement};
use crate::fleet::id::{PoolName, RunnerId};
use crate::fleet::intent::{Operator, Outcome};
use crate::fleet::ledger::brake_per_minute;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::time::Timestamp;
use crate::fleet::view::RunnerView;

/// Listening runners of a pool that may be chosen, longest listening first.
fn candidates<'a>(plan: &Plan, turn: &Turn<'a>, pool: &PoolName) -> Vec<&'a RunnerView<'a>> {
    let mut list: Vec<&RunnerView<'_>> = turn
        .roster
        .runners
        .values()
        .filter(|runner| runner.pool == pool && !runner.is_retiring())
        .filter(|runner| matches!(runner.phase, RunnerPhase::Listening { .. }))
        .filter(|runner| !plan.is_retiring(runner.id))
        .filter(|runner| !is_blocked(runner, turn.now))
        .collect();
    list.sort_by_key(|runner| (runner.phase.since(), runner.id));
    list
}

/// GitHub called it busy a short while ago.
fn is_blocked(runner: &RunnerView<'_>, now: Timestamp) -> bool {
    runner.record.and_then(|r| r.retire_blocked_until).is_some_and(|until| now < until)
}

fn order(runner: &RunnerView<'_>, reason: Reason, force: bool, now: Timestamp) -> RetireOrder {
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
pub fn by_operator(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator, asked: &Asked) {
    for (id, delete) in &operator.deletes {
        if let Some(runner) = turn.roster.runners.get(id).filter(|r| {
            r.is_occupied() && (delete.force || !r.is_running()) && !is_blocked(r, turn.now)
        }) {
            let ordered = runner.retirement.is_some_and(|r| r.force || !delete.force);
            if !ordered && !plan.is_retiring(*id) {
                let reason = Reason::OperatorDelete { intent: delete.intent, force: delete.force };
                plan.retire.push(order(runner, reason, delete.force, turn.now));
            }
        }
    }
    for runner in turn.roster.runners.values() {
        let listening = matches!(runner.phase, RunnerPhase::Listening { .. });
        if !listening || runner.is_retiring() || plan.is_retiring(runner.id) {
            continue;
        }
        if is_blocked(runner, turn.now) {
            continue;
        }
        if operator.draining.contains(&runner.host) {
            plan.retire.push(order(runner, Reason::HostDraining, false, turn.now));
        } else if !turn.view.pools.contains_key(runner.pool) {
            plan.retire.push(order(runner, Reason::PoolRemoved, false, turn.now));
        }
    }
    scale_down(plan, turn, asked);
}

/// Retires up to the number asked for, idle ones only, and never under the floor.
fn scale_down(plan: &mut Plan, turn: &Turn<'_>, asked: &Asked) {
    for scale in &asked.down {
        let Some(pool) = turn.view.pools.get(&scale.pool) else { continue };
        let idle = candidates(plan, turn, &scale.pool);
        let floor = floor_of(plan, pool);
        let supply = supply_left(plan, pool);
        let room = supply.saturating_sub(floor);
        let take = scale.count.min(room).min(u32::try_from(idle.len()).unwrap_or(u32::MAX));
        let reason = (take < scale.count).then(|| {
            if idle.is_empty() {
                Reason::NotListening
            } else if room < scale.count {
                Reason::AtFloor
            } else {
                Reason::Busy
            }
        });
        let chosen: Vec<_> = idle.into_iter().take(take as usize).collect();
        let accepted: Vec<RunnerId> = chosen.iter().map(|runner| runner.id).collect();
        for runner in chosen {
            let reason = Reason::ManualScaleDown { intent: scale.intent };
            plan.retire.push(order(runner, reason, false, turn.now));
        }
        plan.outcomes.push(Outcome { intent: scale.intent, at: turn.now, accepted, reason });
    }
}

/// The supply the configured floor demands, whatever the queue.
fn floor_of(plan: &Plan, pool: &Pool) -> u32 {
    let running = plan.pools.get(&pool.name).map_or(0, |decision| decision.count.running);
    pool.min_runners.saturating_sub(running).max(pool.min_idle_runners)
}

/// The supply left after what this plan already retires.
fn supply_left(plan: &Plan, pool: &Pool) -> u32 {
    let supply = plan.pools.get(&pool.name).map_or(0, |decision| decision.count.supply);
    let leaving = plan.retire.iter().filter(|order| order.pool == pool.name).count();
    supply.saturating_sub(u32::try_from(leaving).unwrap_or(u32::MAX))
}

/// The rule's own retirements: idle too long, or in the way of another pool's jobs.
pub fn idle_surplus(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator) {
    let mut room_needed: u32 = plan
        .pools
        .values()
        .filter(|decision| decision.not_added.contains(&Reason::HostsFull))
        .map(|decision| decision.unplaced)
        .sum();
    for pool in turn.view.pools.values() {
        let Some(decision) = plan.pools.get(&pool.name) else { continue };
        if decision.count.listening == 0 {
            continue;
        }
        let surplus = supply_left(plan, pool).saturating_sub(keep(pool, decision, operator));
        match choose(plan, turn, operator, pool, surplus, &mut room_needed) {
            Ok((orders, kept)) => {
                plan.retire.extend(orders);
                note_kept(plan, &pool.name, kept);
            }
            Err(hold) => note_kept(plan, &pool.name, vec![hold]),
        }
    }
}

fn note_kept(plan: &mut Plan, pool: &PoolName, reasons: Vec<Reason>) {
    if let Some(decision) = plan.pools.get_mut(pool) {
        decision.kept.extend(reasons);
    }
}

/// The orders for one pool and why the rest stays, or why none may go at all.
fn choose(
    plan: &Plan,
    turn: &Turn<'_>,
    operator: &Operator,
    pool: &Pool,
    surplus: u32,
    room_needed: &mut u32,
) -> Result<(Vec<RetireOrder>, Vec<Reason>), Reason> {
    let Some(decision) = plan.pools.get(&pool.name) else { return Err(Reason::AtFloor) };
    if surplus == 0 {
        return Err(Reason::AtFloor);
    }
    if let Some(unknown) = unknown(turn, pool) {
        return Err(unknown);
    }
    let waiting = decision.demand.waiting_count();
    let room_for_others = *room_needed > 0 && boost_of(operator, &pool.name) == 0;
    if waiting > pool.scale_down_threshold && !room_for_others {
        let threshold = pool.scale_down_threshold;
        return Err(Reason::QueueAboveDownThreshold { waiting, threshold });
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
        } else if turn.view.liveness(&runner.host, turn.policy, turn.now) != Liveness::Live {
            keep_because(Reason::HostUnread { host: runner.host });
        } else if chosen >= brake {
            let per_minute = brake_per_minute(decision.count.occupied, turn.policy);
            keep_because(Reason::Brake { per_minute });
        } else if idle > pool.idle_timeout {
            let seconds = idle.as_secs();
            orders.push(order(runner, Reason::IdleTooLong { seconds }, false, turn.now));
        } else if *room_needed > 0 && room_for_others {
            *room_needed -= 1;
            orders.push(order(runner, Reason::RoomForOthers, false, turn.now));
        } else {
            keep_because(Reason::WithinIdleTimeout);
        }
    }
    Ok((orders, kept.into_values().collect()))
}

/// What is not known, and therefore not zero.
fn unknown(turn: &Turn<'_>, pool: &Pool) -> Option<Reason> {
    let ledger = &turn.view.ledger;
    if !ledger.registrations.is_fresh(&pool.scope, turn.policy, turn.now)
        || ledger.demand.never_read()
    {
        return Some(Reason::GitHubUnreadable);
    }
    let hosts = turn.view.hosts.len();
    let lost = turn
        .view
        .hosts
        .keys()
        .filter(|host| turn.view.liveness(host, turn.policy, turn.now) == Liveness::Lost)
        .count();
    if ledger.registrations.mass_vanished() || lost * 2 > hosts {
        return Some(Reason::MassVanish);
    }
    ledger
        .demand
        .blocking_repo(turn.policy, turn.now)
        .map(|repo| Reason::QueueUnread { repo: repo.clone() })
}

//! What must hold in every world, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use runner_orchestrator::fleet::host::Liveness;
use runner_orchestrator::fleet::id::{HostId, Term};
use runner_orchestrator::fleet::plan::Plan;
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::fleet::view::View;

use super::world::World;

/// What no plan may do, whatever it was made from.
pub(crate) fn check_plan(
    view: &View,
    policy: &Policy,
    plan: &Plan,
    now: Timestamp,
) -> Result<(), String> {
    placements(view, policy, plan, now)?;
    retirements(view, policy, plan, now)?;
    floors(view, plan)?;
    if let Some(host) = plan.assignments(view, Term(1)).keys().find(|h| is_withheld(view, h)) {
        return Err(format!("the assignment of {host} is written and could not be read"));
    }
    let touched = plan.place.iter().map(|placement| placement.host);
    if touched.chain(plan.retire.iter().map(|order| order.host)).any(|h| is_withheld(view, &h)) {
        return Err("something was decided of a host that could not be read".to_owned());
    }
    if view.withheld.operator && (plan.operator.is_some() || !plan.outcomes.is_empty()) {
        return Err("the operator state is written and could not be read".to_owned());
    }
    if view.operator.frozen_since.is_some()
        && plan.operator.is_none()
        && !(plan.place.is_empty() && plan.retire.is_empty() && plan.deregister.is_empty())
    {
        return Err("a frozen fleet was changed".to_owned());
    }
    Ok(())
}

fn is_withheld(view: &View, host: &HostId) -> bool {
    view.withheld.hosts.contains(host)
}

fn placements(view: &View, policy: &Policy, plan: &Plan, now: Timestamp) -> Result<(), String> {
    let mut roster = view.roster();
    // What is taken back in the same plan takes up no room any more.
    for release in &plan.release {
        roster.release(view, release.runner);
    }
    let counts = roster.count(view, policy, now);
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    let mut by_pool: BTreeMap<_, u32> = BTreeMap::new();
    let mut by_host: BTreeMap<_, u32> = BTreeMap::new();
    for placement in &plan.place {
        let assigned = &placement.assigned;
        if !ids.insert(assigned.id) || roster.runners.contains_key(&assigned.id) {
            return Err(format!("{} was assigned twice", assigned.id));
        }
        if !names.insert(assigned.name.clone()) {
            return Err(format!("{} was assigned twice", assigned.name));
        }
        if view.liveness(&placement.host, policy, now) != Liveness::Live {
            return Err(format!("placed on {} which is not live", placement.host));
        }
        *by_pool.entry(&assigned.pool).or_default() += 1;
        *by_host.entry(placement.host).or_default() += 1;
    }
    for (pool, added) in by_pool {
        let occupied = counts.get(pool).map_or(0, |count| count.occupied);
        let max = view.pools.get(pool).map_or(0, |pool| pool.max_runners);
        if occupied + added > max {
            return Err(format!("{pool}: {occupied} occupied + {added} is over its maximum {max}"));
        }
    }
    for (host, added) in by_host {
        let occupied = roster.occupied_by_host().get(&host).copied().unwrap_or(0);
        let max = view.hosts.get(&host).map_or(0, |record| record.max_runners);
        if occupied + added > max {
            return Err(format!("{host}: {occupied} occupied + {added} is over its room {max}"));
        }
    }
    Ok(())
}

fn retirements(view: &View, policy: &Policy, plan: &Plan, now: Timestamp) -> Result<(), String> {
    let roster = view.roster();
    for order in &plan.retire {
        let id = order.runner;
        let Some(runner) = roster.runners.get(&id) else {
            return Err(format!("retires {id}, which nobody knows"));
        };
        let reason = &order.retirement.reason;
        let allowed = match runner.phase {
            RunnerPhase::Listening { .. } => true,
            RunnerPhase::Running { .. } => order.retirement.force,
            RunnerPhase::Handed { .. } => {
                matches!(reason, Reason::StartDeadlineMissed { .. } | Reason::OperatorDelete { .. })
            }
            RunnerPhase::Unknown { .. } => matches!(
                reason,
                Reason::DeniedByGitHub
                    | Reason::OperatorDelete { .. }
                    | Reason::HostDraining
                    | Reason::PoolRemoved
            ),
            _ => matches!(reason, Reason::OperatorDelete { .. }),
        };
        if !allowed {
            return Err(format!("retires {id} in phase {} for {reason:?}", runner.phase.name()));
        }
        let asked_for = matches!(reason, Reason::OperatorDelete { .. });
        if !asked_for && view.liveness(&order.host, policy, now) != Liveness::Live {
            return Err(format!("retires {id} on a host that is not live"));
        }
    }
    Ok(())
}

/// Never below the minimum without a reason that says why, and never growing before a
/// runner list has shown what is there already.
fn floors(view: &View, plan: &Plan) -> Result<(), String> {
    for (name, decision) in &plan.pools {
        let min = view.pools.get(name).map_or(0, |pool| pool.min_runners) as usize;
        let have = (decision.count.supply + decision.count.running) as usize;
        let unlisted = view
            .pools
            .get(name)
            .is_some_and(|pool| !view.ledger.registrations.knows_missing(&pool.scope));
        if unlisted && !decision.add.is_empty() {
            return Err(format!("{name} grows before it is known who is registered"));
        }
        let explained = decision.not_added.iter().any(|reason| {
            matches!(reason, Reason::GitHubUnreadable if unlisted)
                || matches!(
                    reason,
                    Reason::AtMaximum { .. }
                        | Reason::NoHost
                        | Reason::HostsFull
                        | Reason::HostShort { .. }
                        | Reason::ImageMissing { .. }
                        | Reason::BudgetShort
                        | Reason::BreakerOpen { .. }
                        | Reason::Paused
                        | Reason::Frozen
                        | Reason::Rebuilding { .. }
                        | Reason::HandedBack { .. }
                )
        });
        if have + decision.add.len() < min && !explained {
            return Err(format!("{name} is below its minimum and does not say why: {decision:?}"));
        }
    }
    Ok(())
}

/// What holds between turns.
pub(crate) fn check(world: &World) -> Result<(), String> {
    for (name, daemon) in &world.daemons {
        let room = daemon.agent.max_runners as usize;
        if daemon.containers.len() > room && daemon.ever_hidden.is_empty() {
            return Err(format!(
                "{name} holds {} containers, room {room}",
                daemon.containers.len()
            ));
        }
    }
    Ok(())
}

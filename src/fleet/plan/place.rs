//! Where: which host takes a runner, and who gets room when there is too little.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::target::Need;
use super::{FreshIds, Placement, Plan, Turn};
use crate::fleet::host::{Assigned, HostRecord, Liveness};
use crate::fleet::id::{HostId, PoolName, RunnerName};
use crate::fleet::intent::Operator;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;

/// Places what is needed as far as hosts and the GitHub budget go: floors of all pools
/// first, then max-min by weight, the oldest job breaking ties.
pub fn place(
    plan: &mut Plan,
    turn: &Turn<'_>,
    operator: &Operator,
    mut needs: Vec<Need>,
    fresh: FreshIds<'_>,
) {
    let mut room = Room::of(turn, operator);
    let mut mints = mints_left(turn);
    let mut held: BTreeMap<PoolName, u32> = needs
        .iter()
        .filter_map(|need| {
            plan.pools.get(&need.pool).map(|d| (need.pool.clone(), d.count.occupied))
        })
        .collect();
    while let Some(index) = next(&needs, &held, turn) {
        let need = &mut needs[index];
        let Some(pool) = turn.view.pools.get(&need.pool) else { break };
        let Some(reason) = need.floor.pop_front().or_else(|| need.rest.pop_front()) else { break };
        let host = if mints == 0 { Err(Reason::BudgetShort) } else { room.take(pool) };
        match host {
            Ok((host, record)) => {
                mints -= 1;
                *held.entry(need.pool.clone()).or_default() += 1;
                plan.place.push(Placement {
                    host,
                    assigned: assign(turn, pool, host, record, reason.clone(), fresh),
                });
                if let Some(decision) = plan.pools.get_mut(&need.pool) {
                    decision.add.push(reason);
                }
            }
            Err(hold) => {
                let missing = 1 + need.floor.len() + need.rest.len();
                need.floor.clear();
                need.rest.clear();
                if let Some(decision) = plan.pools.get_mut(&pool.name) {
                    decision.unplaced += u32::try_from(missing).unwrap_or(u32::MAX);
                    decision.not_added.push(hold);
                }
            }
        }
    }
}

/// Whose turn it is: any floor before any queue; then who holds least for its weight,
/// then whose job is oldest, then the name.
fn next(needs: &[Need], held: &BTreeMap<PoolName, u32>, turn: &Turn<'_>) -> Option<usize> {
    let share = |need: &Need| {
        let weight = turn.view.pools.get(&need.pool).map_or(1, |pool| pool.weight.max(1));
        let have = held.get(&need.pool).copied().unwrap_or(0);
        // Thousandths keep the comparison exact enough and total.
        u64::from(have) * 1000 / u64::from(weight)
    };
    needs
        .iter()
        .enumerate()
        .filter(|(_, need)| !need.floor.is_empty() || !need.rest.is_empty())
        .min_by_key(|(_, need)| {
            let oldest = need.oldest.map_or(u64::MAX, |at| at.0);
            (need.floor.is_empty(), share(need), oldest, need.pool.clone())
        })
        .map(|(index, _)| index)
}

fn assign(
    turn: &Turn<'_>,
    pool: &Pool,
    host: HostId,
    record: &HostRecord,
    reason: Reason,
    fresh: FreshIds<'_>,
) -> Assigned {
    let id = fresh();
    Assigned {
        id,
        name: RunnerName::compose(&turn.view.cluster, &host, &id),
        pool: pool.name.clone(),
        boot: record.boot,
        revision: pool.revision.clone(),
        at: turn.now,
        reason,
        correlation: id.tail(),
    }
}

/// What GitHub lets us register now, less what is already assigned and not yet minted.
fn mints_left(turn: &Turn<'_>) -> u32 {
    let budget = &turn.view.budget;
    if budget.blocked_until.is_some_and(|until| turn.now < until) {
        return 0;
    }
    let pending = turn
        .roster
        .runners
        .values()
        .filter(|runner| runner.phase.awaits_mint() && !runner.is_retiring())
        .count();
    budget.mints_now.saturating_sub(u32::try_from(pending).unwrap_or(u32::MAX))
}

/// Free places of the hosts that can take a runner at all.
struct Room<'a> {
    free: BTreeMap<HostId, u32>,
    records: BTreeMap<HostId, &'a HostRecord>,
}

impl<'a> Room<'a> {
    fn of(turn: &Turn<'a>, operator: &Operator) -> Self {
        let mut room = Self { free: BTreeMap::new(), records: BTreeMap::new() };
        for (host, record) in &turn.view.hosts {
            let usable = turn.view.liveness(host, turn.policy, turn.now) == Liveness::Live
                && record.docker_up
                && !record.stopping
                && !operator.draining.contains(host);
            if usable {
                let occupied = turn.roster.occupied_on(host);
                room.free.insert(*host, record.max_runners.saturating_sub(occupied));
                room.records.insert(*host, record);
            }
        }
        room
    }

    /// Takes one place on the emptiest host that has the pool's image.
    fn take(&mut self, pool: &Pool) -> Result<(HostId, &'a HostRecord), Reason> {
        if self.records.is_empty() {
            return Err(Reason::NoHost);
        }
        let with_image: Vec<HostId> = self
            .records
            .values()
            .filter(|record| record.images.contains(&pool.image))
            .map(|record| record.host)
            .collect();
        if with_image.is_empty() {
            return Err(Reason::ImageMissing { image: pool.image.clone() });
        }
        let best = with_image
            .into_iter()
            .filter_map(|host| self.free.get(&host).map(|free| (*free, Reverse(host))))
            .max()
            .filter(|(free, _)| *free > 0);
        let Some((_, Reverse(host))) = best else { return Err(Reason::HostsFull) };
        if let Some(free) = self.free.get_mut(&host) {
            *free -= 1;
        }
        self.records.get(&host).map(|record| (host, *record)).ok_or(Reason::NoHost)
    }
}

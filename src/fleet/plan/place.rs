//! Where: which host takes a runner, and who gets room when there is too little.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::target::Need;
use super::turn::Turn;
use super::{FreshIds, Placement, Plan};
use crate::fleet::host::{Assigned, HostRecord, Liveness};
use crate::fleet::id::{HostId, RunnerName};
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
    let mut queue: BinaryHeap<Reverse<Claim>> = needs
        .iter()
        .enumerate()
        .filter_map(|(index, need)| Claim::of(index, need, plan, turn))
        .map(Reverse)
        .collect();
    while let Some(Reverse(mut claim)) = queue.pop() {
        let need = &mut needs[claim.need];
        let Some(pool) = turn.view.pools.get(&need.pool) else { continue };
        let Some(decision) = plan.pools.get_mut(&need.pool) else { continue };
        let Some(reason) = need.floor.pop_front().or_else(|| need.rest.pop_front()) else {
            continue;
        };
        let host = if mints == 0 { Err(Reason::BudgetShort) } else { room.take(pool) };
        match host {
            Ok((host, record)) => {
                mints -= 1;
                decision.add.push(reason.clone());
                plan.place.push(Placement {
                    host,
                    assigned: assign(turn, pool, host, record, reason, fresh),
                });
                claim.has_floor = Reverse(!need.floor.is_empty());
                claim.held += 1;
                claim.share = claim.held * 1000 / claim.weight;
                queue.push(Reverse(claim));
            }
            Err(hold) => {
                let missing = 1 + need.floor.len() + need.rest.len();
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                decision.unplaced += missing;
                if hold == Reason::HostsFull {
                    decision.short_of_room += missing;
                }
                decision.not_added.push(hold);
            }
        }
    }
}

/// Whose turn it is: any floor before any queue; then who holds least for its weight, then
/// whose job is oldest, then the first name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    has_floor: Reverse<bool>,
    /// Held for each unit of weight, in thousandths, so that the comparison is total.
    share: u64,
    oldest: u64,
    /// Needs stand in the order of their pools' names.
    need: usize,
    held: u64,
    weight: u64,
}

impl Claim {
    fn of(index: usize, need: &Need, plan: &Plan, turn: &Turn<'_>) -> Option<Self> {
        let pool = turn.view.pools.get(&need.pool)?;
        let held = u64::from(plan.pools.get(&need.pool)?.count.occupied);
        let weight = u64::from(pool.weight.max(1));
        Some(Self {
            has_floor: Reverse(!need.floor.is_empty()),
            share: held * 1000 / weight,
            oldest: need.oldest.map_or(u64::MAX, |at| at.0),
            need: index,
            held,
            weight,
        })
    }
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
        .filter(|runner| runner.record.is_none_or(|record| record.github_id.is_none()))
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
        let occupied = turn.roster.occupied_by_host();
        for (host, record) in &turn.view.hosts {
            let usable = turn.liveness(host) == Liveness::Live
                && record.docker_up
                && !record.stopping
                && !operator.draining.contains(host);
            if usable {
                let occupied = occupied.get(host).copied().unwrap_or(0);
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

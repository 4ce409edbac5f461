//! Where: which host takes a runner, and who gets room when there is too little.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use super::target::Need;
use super::turn::Turn;
use super::{FreshIds, Placement, Plan};
use crate::fleet::host::{Assigned, HostRecord, Liveness};
use crate::fleet::id::{HostId, RunnerName};
use crate::fleet::intent::Operator;
use crate::fleet::policy::Placement as Layout;
use crate::fleet::pool::Pool;
use crate::fleet::reason::{Reason, Resource};

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
        let host = if mints == 0 { Err(Reason::BudgetShort) } else { room.take(turn, pool) };
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

/// The hosts that can take a runner at all, and how much of each is used.
struct Room<'a> {
    places: Vec<Place<'a>>,
    layout: Layout,
}

struct Place<'a> {
    record: &'a HostRecord,
    used: u32,
    /// The sum of what its runners' pools let each of them use.
    memory: u64,
}

impl Place<'_> {
    /// What the machine is known to have too little of for another runner of this pool. A
    /// limit on memory is kept free for the runner, since what it may use it may need at
    /// any time; CPUs are shared, and only one runner alone must not be given more than
    /// there are: Docker refuses that.
    fn short_of(&self, pool: &Pool) -> Option<Resource> {
        let capacity = &self.record.capacity;
        let needs = &pool.resources;
        let beyond = |needed: Option<u64>, there: Option<u64>| {
            needed.zip(there).is_some_and(|(needed, there)| needed > there)
        };
        let memory = needs.memory_bytes.map(|bytes| bytes.saturating_add(self.memory));
        let cpus = needs.cpus.zip(capacity.cpus);
        if cpus.is_some_and(|(needed, there)| needed > f64::from(there)) {
            Some(Resource::Cpus)
        } else if beyond(memory, capacity.memory_bytes) {
            Some(Resource::Memory)
        } else {
            capacity.is_disk_full().then_some(Resource::Disk)
        }
    }

    fn is_full(&self) -> bool {
        self.used >= self.record.max_runners
    }

    /// Compares what would be used of two hosts if each took one more.
    fn compare_use(&self, other: &Self) -> Ordering {
        let used = |place: &Self| u64::from(place.used) + 1;
        let max = |place: &Self| u64::from(place.record.max_runners);
        (used(self) * max(other)).cmp(&(used(other) * max(self)))
    }
}

impl<'a> Room<'a> {
    fn of(turn: &Turn<'a>, operator: &Operator) -> Self {
        let occupied = turn.roster.occupied_by_host();
        let usable = turn.view.hosts.iter().filter(|(host, record)| {
            turn.liveness(host) == Liveness::Live
                && record.docker_up
                && !record.stopping
                && !operator.drains(record)
        });
        let memory = memory_by_host(turn);
        let places = usable.map(|(host, record)| Place {
            record,
            used: occupied.get(host).copied().unwrap_or(0),
            memory: memory.get(host).copied().unwrap_or(0),
        });
        Self { places: places.collect(), layout: turn.policy.placement }
    }

    /// Takes one place on the best host that has the pool's image and does not hand the
    /// pool's runners back.
    fn take(&mut self, turn: &Turn<'_>, pool: &Pool) -> Result<(HostId, &'a HostRecord), Reason> {
        let refusals = &turn.view.ledger.refusals;
        let mut hold = Reason::NoHost;
        let mut best: Option<usize> = None;
        for (index, place) in self.places.iter().enumerate() {
            let record = place.record;
            let refused = refusals.forbid(&record.host, &pool.name, turn.now);
            // Of several holds the one of the host that comes nearest is told.
            let against = if !record.images.contains(&pool.image) {
                Some((1, Reason::ImageMissing { image: pool.image.clone() }))
            } else if let Some(refusal) = refused {
                Some((2, Reason::HandedBack { refusal }))
            } else if let Some(of) = place.short_of(pool) {
                Some((3, Reason::HostShort { of }))
            } else {
                place.is_full().then_some((4, Reason::HostsFull))
            };
            if let Some((rank, reason)) = against {
                if rank >= rank_of(&hold) {
                    hold = reason;
                }
            } else if best.is_none_or(|best| self.is_better(index, best, pool)) {
                best = Some(index);
            }
        }
        let place = best.and_then(|index| self.places.get_mut(index)).ok_or(hold)?;
        place.used += 1;
        place.memory = place.memory.saturating_add(pool.resources.memory_bytes.unwrap_or(0));
        Ok((place.record.host, place.record))
    }

    fn is_better(&self, one: usize, other: usize, pool: &Pool) -> bool {
        let (one, other) = (&self.places[one], &self.places[other]);
        let by_use = match self.layout {
            Layout::Spread => one.compare_use(other),
            Layout::Binpack => other.compare_use(one),
        };
        let tie = |place: &Place<'_>| tie_break(pool.name.as_str(), &place.record.host);
        by_use.then_with(|| tie(one).cmp(&tie(other))) == Ordering::Less
    }
}

/// The memory that the runners of each host may use together.
fn memory_by_host(turn: &Turn<'_>) -> BTreeMap<HostId, u64> {
    let mut memory: BTreeMap<HostId, u64> = BTreeMap::new();
    for runner in turn.roster.runners.values().filter(|runner| runner.is_occupied()) {
        let pool = turn.view.pools.get(runner.pool);
        let bytes = pool.and_then(|pool| pool.resources.memory_bytes).unwrap_or(0);
        let sum = memory.entry(runner.host).or_default();
        *sum = sum.saturating_add(bytes);
    }
    memory
}

/// How near a host came that was held back for this reason.
fn rank_of(hold: &Reason) -> u8 {
    match hold {
        Reason::ImageMissing { .. } => 1,
        Reason::HandedBack { .. } => 2,
        Reason::HostShort { .. } => 3,
        Reason::HostsFull => 4,
        _ => 0,
    }
}

/// A number that is the same everywhere and at any time: equal hosts are taken in another
/// order by every pool, and in the same one by every leader (FNV-1a).
fn tie_break(pool: &str, host: &HostId) -> u64 {
    let bytes = pool.bytes().chain(host.0.into_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

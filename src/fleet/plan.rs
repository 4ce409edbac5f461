//! The scaling rule. [`plan`] looks at one [`View`] and says which runners shall be
//! added, where, and which shall be retired, each with its reason, and for everything
//! it does not do, why not.
//!
//! | clause | file |
//! |---|---|
//! | floor, up, down: how many | [`target`] |
//! | which host; who gets short room | [`place`] |
//! | which runner goes, and when none may | [`retire`] |
//! | hosts being drained | [`drain`] |
//! | ends, missed deadlines, orphans | [`heal`] |
//! | what operators asked for | [`wishes`] |
//! | what is known of this turn, and what forbids a removal | [`turn`] |
//!
//! Whatever goes is settled first, then what must come instead: so a plan that is carried
//! out asks for nothing more.
//!
//! Precedence: freeze, then drain and pause, host room, `MAX_RUNNERS`, breaker, brake,
//! boost, floor, demand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::demand::PoolDemand;
use super::host::{Assigned, Assignment, RECORD_VERSION, Retirement};
use super::id::{BootId, GitHubRunnerId, HostId, PoolName, RepoName, RunnerId, RunnerName, Term};
use super::intent::{Operator, Outcome};
use super::ledger::Ledger;
use super::policy::Policy;
use super::pool::Scope;
use super::reason::Reason;
use super::time::Timestamp;
use super::view::{Count, View};

pub mod drain;
pub mod heal;
pub mod place;
pub mod retire;
pub mod target;
pub mod turn;
pub mod wishes;

use turn::Turn;
use wishes::Asked;

/// What shall change, and why. Empty lists mean: nothing needs to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub place: Vec<Placement>,
    pub retire: Vec<RetireOrder>,
    /// Ids that leave their host's assignment: ended and reported, or never accepted.
    pub release: Vec<Release>,
    /// Reports whose ends have been taken in, by host.
    pub seen: BTreeMap<HostId, (BootId, u64)>,
    pub deregister: Vec<Orphan>,
    pub pools: BTreeMap<PoolName, PoolDecision>,
    /// The operator state, when it changes.
    pub operator: Option<Operator>,
    pub outcomes: Vec<Outcome>,
    /// Hosts that must be told that the fleet is frozen, or no longer is.
    pub freeze: BTreeMap<HostId, bool>,
    /// The runners of `retire`, for look-up.
    retiring: BTreeSet<RunnerId>,
    /// How much of each pool's supply goes, by `retire` or with a draining host.
    leaving: BTreeMap<PoolName, u32>,
    /// The runners counted in `leaving`.
    #[serde(default)]
    written_off: BTreeSet<RunnerId>,
}

/// A runner to add.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placement {
    pub host: HostId,
    pub assigned: Assigned,
}

/// A runner to remove by the only way there is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RetireOrder {
    pub host: HostId,
    pub runner: RunnerId,
    pub pool: PoolName,
    pub retirement: Retirement,
    /// Counts against the brake.
    pub automatic: bool,
}

/// An id that leaves the assignment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Release {
    pub host: HostId,
    pub runner: RunnerId,
    /// Why it left without having lived; `None` after a reported end.
    pub reason: Option<Reason>,
}

/// A registration of ours that nobody claims.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Orphan {
    pub scope: Scope,
    pub id: GitHubRunnerId,
    pub name: RunnerName,
}

/// Why a pool has as many runners as it has.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PoolDecision {
    pub count: Count,
    pub demand: PoolDemand,
    /// How many the floor, the queue and operators ask for, supply and running together.
    pub desired: u32,
    pub add: Vec<Reason>,
    /// What was asked for and not done, and why.
    pub not_added: Vec<Reason>,
    pub unplaced: u32,
    /// Of those, how many found every host full.
    pub short_of_room: u32,
    /// Why idle surplus stays.
    pub kept: Vec<Reason>,
}

/// Fresh runner ids; the shell's, since the core has no randomness.
pub type FreshIds<'a> = &'a mut dyn FnMut() -> RunnerId;

/// The rule. Total and deterministic: the same view gives the same plan, whatever the
/// order its parts were learnt in.
#[must_use]
pub fn plan(view: &View, policy: &Policy, fresh: FreshIds<'_>, now: Timestamp) -> Plan {
    let mut roster = view.roster();
    // Nothing is taken back or acknowledged by what may be a record of the past.
    let rebuilding = view.ledger.rebuilding.as_ref();
    let (release, seen) = match rebuilding {
        Some(_) => (Vec::new(), BTreeMap::new()),
        None => (heal::released(view, &roster, policy, now), heal::seen(view)),
    };
    // What never lived counts no longer: its place is free in this very turn.
    for release in &release {
        roster.release(view, release.runner);
    }
    let turn = Turn::new(view, &roster, policy, now);
    let mut plan = Plan { pools: decisions(&turn), release, seen, ..Plan::default() };
    let mut operator = wishes::carried_over(&turn);
    let asked = wishes::settle(&mut plan, &mut operator, &turn);
    drain::note(&mut operator, &turn);

    if operator.frozen_since.is_some() {
        hold_everything(&mut plan, &turn, &operator, &Reason::Frozen);
        wishes::refuse(&mut plan, &asked, &Reason::Frozen, now);
    } else if let Some(rebuilding) = rebuilding {
        let hosts = u32::try_from(rebuilding.hosts.len()).unwrap_or(u32::MAX);
        hold_everything(&mut plan, &turn, &operator, &Reason::Rebuilding { hosts });
    } else {
        heal::dead_and_denied(&mut plan, &turn);
        retire::by_operator(&mut plan, &turn, &mut operator, &asked);
        let needs = target::needs(&mut plan, &turn, &operator, &asked);
        place::place(&mut plan, &turn, &operator, needs, fresh);
        wishes::answer_scale_up(&mut plan, &mut operator, &asked, policy, now);
        retire::idle_surplus(&mut plan, &turn, &operator);
        heal::orphans(&mut plan, &turn);
    }
    plan.tell_frozen(view, operator.frozen_since.is_some());
    if operator != view.operator && !view.withheld.operator {
        plan.operator = Some(operator);
    }
    plan
}

/// Neither adds nor removes. What would be wanted is still worked out, to be shown.
fn hold_everything(plan: &mut Plan, turn: &Turn<'_>, operator: &Operator, reason: &Reason) {
    for decision in plan.pools.values_mut() {
        decision.not_added.push(reason.clone());
        decision.kept.push(reason.clone());
    }
    drop(target::needs(plan, turn, operator, &Asked::default()));
}

fn decisions(turn: &Turn<'_>) -> BTreeMap<PoolName, PoolDecision> {
    let view = turn.view;
    let counts = turn.roster.count(view, turn.policy, turn.now);
    let mut demand = view.ledger.demand.by_pool(&view.pools, turn.policy, turn.now);
    let left_out: Vec<&RepoName> = view.ledger.demand.left_out(turn.policy, turn.now).collect();
    view.pools
        .iter()
        .map(|(name, pool)| {
            // A queue that is no longer reckoned with is named at every decision.
            let unread = left_out.iter().filter(|repo| pool.scope.covers(repo));
            let decision = PoolDecision {
                count: counts.get(name).copied().unwrap_or_default(),
                demand: demand.remove(name).unwrap_or_default(),
                kept: unread.map(|repo| Reason::QueueUnread { repo: (*repo).clone() }).collect(),
                ..PoolDecision::default()
            };
            (name.clone(), decision)
        })
        .collect()
}

impl Plan {
    /// Whether nothing shall change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.place.is_empty()
            && self.retire.is_empty()
            && self.release.is_empty()
            && self.seen.is_empty()
            && self.deregister.is_empty()
            && self.operator.is_none()
            && self.outcomes.is_empty()
            && self.freeze.is_empty()
    }

    /// The assignments that change, as they shall be. The store's fence adds nothing to
    /// them but the check of the term.
    #[must_use]
    pub fn assignments(&self, view: &View, term: Term) -> BTreeMap<HostId, Assignment> {
        let mut changed: BTreeMap<HostId, Assignment> = BTreeMap::new();
        let touched: BTreeSet<HostId> = self
            .place
            .iter()
            .map(|placement| placement.host)
            .chain(self.retire.iter().map(|order| order.host))
            .chain(self.release.iter().map(|release| release.host))
            .chain(self.seen.keys().copied())
            .chain(self.freeze.keys().copied())
            // Every clause leaves these alone; written over, nobody could read them again.
            .filter(|host| !view.withheld.hosts.contains(host))
            .collect();
        for host in touched {
            let mut assignment = view
                .assignments
                .get(&host)
                .map(|assignment| Assignment::clone(assignment))
                .unwrap_or_default();
            assignment.version = RECORD_VERSION;
            assignment.term = term;
            assignment.revision += 1;
            changed.insert(host, assignment);
        }
        for release in &self.release {
            if let Some(assignment) = changed.get_mut(&release.host) {
                assignment.runners.remove(&release.runner);
                assignment.retire.remove(&release.runner);
            }
        }
        for (host, seen) in &self.seen {
            if let Some(assignment) = changed.get_mut(host) {
                assignment.seen = Some(*seen);
            }
        }
        for (host, frozen) in &self.freeze {
            if let Some(assignment) = changed.get_mut(host) {
                assignment.frozen = *frozen;
            }
        }
        for placement in &self.place {
            if let Some(assignment) = changed.get_mut(&placement.host) {
                assignment.runners.insert(placement.assigned.id, placement.assigned.clone());
            }
        }
        for order in &self.retire {
            if let Some(assignment) = changed.get_mut(&order.host) {
                assignment.retire.insert(order.runner, order.retirement.clone());
            }
        }
        changed
    }

    /// What the leader remembers of this plan once it is committed.
    pub fn remember(&self, ledger: &mut Ledger, now: Timestamp) {
        ledger.totals.assigned += self.place.len() as u64;
        // What never lived has no other end than this.
        let expired = self.release.iter().filter(|release| release.reason.is_some());
        ledger.totals.expired += expired.count() as u64;
        for order in self.retire.iter().filter(|order| order.automatic) {
            ledger.retired.push((order.pool.clone(), now));
        }
        if self.operator.is_some() {
            ledger.boosts_used.clear();
        }
    }

    fn is_retiring(&self, runner: RunnerId) -> bool {
        self.retiring.contains(&runner)
    }

    fn order(&mut self, order: RetireOrder, turn: &Turn<'_>) {
        if !self.retiring.insert(order.runner) {
            return;
        }
        self.write_off(order.runner, &order.pool, turn);
        self.retire.push(order);
    }

    /// Counts a runner as gone, so that what it leaves open is filled in this very turn.
    fn write_off(&mut self, runner: RunnerId, pool: &PoolName, turn: &Turn<'_>) {
        if turn.is_supply(runner) && self.written_off.insert(runner) {
            *self.leaving.entry(pool.clone()).or_default() += 1;
        }
    }

    /// Whether a runner goes anyway.
    fn is_leaving(&self, runner: RunnerId) -> bool {
        self.retiring.contains(&runner) || self.written_off.contains(&runner)
    }

    /// The supply of a pool after what this plan already retires.
    fn supply_left(&self, pool: &PoolName) -> u32 {
        let supply = self.pools.get(pool).map_or(0, |decision| decision.count.supply);
        supply.saturating_sub(self.leaving.get(pool).copied().unwrap_or(0))
    }

    fn tell_frozen(&mut self, view: &View, frozen: bool) {
        let hosts = view.hosts.keys().chain(view.assignments.keys());
        for host in hosts.filter(|host| !view.withheld.hosts.contains(host)) {
            let told = view.assignments.get(host).is_some_and(|assignment| assignment.frozen);
            if told != frozen {
                self.freeze.insert(*host, frozen);
            }
        }
    }
}

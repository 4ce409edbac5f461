//! What an agent does on its own daemon so that it becomes what the leader assigned.
//!
//! [`converge`] compares three things: the assignment, the agent's own records and the
//! daemon's containers. Every mismatch has one named action. Doing the actions and
//! calling it again gives none: it is safe to run at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::host::{Assigned, Assignment, Capacity};
use super::id::{BootId, ContainerId, HostId, PoolName, RunnerId, RunnerName};
use super::policy::ACCEPT_DEADLINE;
use super::pool::Scope;
use super::reason::{Reason, Refusal};
use super::runner::{Failure, RunnerPhase, RunnerRecord};
use super::time::Timestamp;

/// An assignment read longer ago than this starts nothing: the leader may have given the
/// id up since.
pub const ASSIGNMENT_FRESH: Duration = Duration::from_secs(10);
/// A container must be missing in so many lists before its runner is reported lost.
pub const LISTS_UNTIL_LOST: u8 = 2;

/// One agent's own state.
#[derive(Clone, Debug)]
pub struct Agent {
    pub host: HostId,
    pub boot: BootId,
    pub max_runners: u32,
    /// Images by pool, and which are present.
    pub pools: BTreeMap<PoolName, String>,
    pub images: BTreeSet<String>,
    pub docker_up: bool,
    /// What the machine offers, as far as it is known.
    pub capacity: Capacity,
    pub stopping: Stopping,
    pub local: BTreeMap<RunnerId, Local>,
    pub refused: BTreeMap<RunnerId, Refusal>,
    /// Ids this boot has started or ended: none of them lives twice.
    pub spent: BTreeSet<RunnerId>,
    /// Containers being removed that have no life left in them, as they were found.
    pub discarding: BTreeMap<ContainerId, FoundState>,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopping {
    No,
    /// Leave everything as it is, for the next start to adopt.
    Detach,
    /// Remove what is idle, leave what is busy.
    Drain,
}

/// One runner of this agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    pub record: RunnerRecord,
    pub work: Option<Work>,
    /// The report that first carried its end.
    pub end_reported: Option<u64>,
    /// Lists in a row that lacked its container, the one being compared included.
    pub missing: u8,
    /// After a failed attempt to remove it: not before then.
    pub not_before: Timestamp,
}

/// What is being done for a runner right now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Starting,
    Retiring,
    Reaping,
}

/// The daemon's runner containers as of the list call's start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    pub begun_at: Timestamp,
    pub containers: Vec<Found>,
}

/// One container of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    pub id: ContainerId,
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub scope: Option<Scope>,
    pub state: FoundState,
}

/// How it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FoundState {
    NeverStarted,
    Alive,
    Exited,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Take an assigned id on.
    Accept(Box<Assigned>),
    /// Hand it back.
    Refuse { runner: RunnerId, refusal: Refusal },
    /// Create, start, mint, hand over.
    Start(RunnerId),
    /// Stop a start under way at its next safe point.
    CancelStart { runner: RunnerId, reason: Reason },
    /// Remove a runner by the only way there is.
    Retire { runner: RunnerId, reason: Reason, force: bool },
    /// Report an exit and remove the container.
    Reap(RunnerId),
    /// Take on a container found alive.
    Adopt(Found),
    /// Remove a container that has no life left in it, and its registration by name.
    Discard(Found),
    /// Its container is gone and nobody here removed it.
    ReportLost(RunnerId),
    /// Its end was reported and taken in.
    Forget(RunnerId),
}

/// What shall be done now.
#[must_use]
pub fn converge(
    agent: &Agent,
    assignment: &Assignment,
    read_at: Timestamp,
    listing: Option<&Listing>,
    now: Timestamp,
) -> Vec<Action> {
    let mut actions = Vec::new();
    // A frozen fleet is watched and reported, and otherwise left as it is.
    let may_start = !assignment.frozen && now.since(read_at) <= ASSIGNMENT_FRESH;
    if may_start {
        take_on(&mut actions, agent, assignment, remains(agent, listing), now);
    }
    // What its container shows goes before what was ordered: one that has exited or is gone
    // needs no removal any more.
    let mut settled = BTreeSet::new();
    if let Some(listing) = listing {
        settled = compare(&mut actions, agent, listing, assignment.frozen, now);
    }
    for (id, local) in &agent.local {
        if local.record.phase.is_terminal() {
            if local.work.is_none() && is_acknowledged(local, assignment, agent.boot) {
                actions.push(Action::Forget(*id));
            }
        } else if settled.contains(id) {
            // Its end is being reported.
        } else if let Some((reason, force)) = wanted_gone(agent, assignment, local) {
            retire(&mut actions, agent, local, (reason, force), now);
        } else if local.work.is_none()
            && matches!(local.record.phase, RunnerPhase::Accepted { .. })
            && may_start
            && agent.stopping == Stopping::No
            && agent.docker_up
        {
            actions.push(Action::Start(*id));
        }
    }
    actions
}

/// How many containers that are no runner of ours are still there and have not exited.
fn remains(agent: &Agent, listing: Option<&Listing>) -> usize {
    let listed = listing.into_iter().flat_map(|listing| &listing.containers);
    let listed = listed
        .filter(|found| {
            found.state != FoundState::Exited && !agent.local.contains_key(&found.runner)
        })
        .map(|found| &found.id);
    let going = agent.discarding.iter().filter(|(_, state)| **state != FoundState::Exited);
    listed.chain(going.map(|(id, _)| id)).collect::<BTreeSet<_>>().len()
}

/// New ids of the assignment: accepted in order, as far as there is room. One whose place
/// is about to become free waits for it.
fn take_on(
    actions: &mut Vec<Action>,
    agent: &Agent,
    assignment: &Assignment,
    remains: usize,
    now: Timestamp,
) {
    let mut occupied =
        agent.local.values().filter(|local| !local.record.phase.is_terminal()).count();
    for assigned in assignment.runners.values() {
        let known = agent.local.contains_key(&assigned.id)
            || agent.refused.contains_key(&assigned.id)
            || agent.spent.contains(&assigned.id);
        let ordered_gone = assignment.retire.contains_key(&assigned.id);
        if known || ordered_gone || assigned.boot != agent.boot {
            continue;
        }
        if let Some(refusal) = refusal(agent, assigned, occupied, now) {
            actions.push(Action::Refuse { runner: assigned.id, refusal });
        } else if occupied + remains < agent.max_runners as usize {
            occupied += 1;
            actions.push(Action::Accept(Box::new(assigned.clone())));
        }
    }
}

fn refusal(agent: &Agent, assigned: &Assigned, occupied: usize, now: Timestamp) -> Option<Refusal> {
    if now.since(assigned.at) > ACCEPT_DEADLINE {
        return Some(Refusal::Late);
    }
    if agent.stopping != Stopping::No {
        return Some(Refusal::Stopping);
    }
    let Some(image) = agent.pools.get(&assigned.pool) else { return Some(Refusal::UnknownPool) };
    if !agent.docker_up {
        return Some(Refusal::DockerDown);
    }
    if !agent.images.contains(image) {
        return Some(Refusal::ImageMissing);
    }
    if agent.capacity.is_disk_full() {
        return Some(Refusal::DiskFull);
    }
    (occupied >= agent.max_runners as usize).then_some(Refusal::NoRoom)
}

fn is_acknowledged(local: &Local, assignment: &Assignment, boot: BootId) -> bool {
    let named = assignment.runners.contains_key(&local.record.id)
        || assignment.retire.contains_key(&local.record.id);
    let taken_in = match (assignment.seen, local.end_reported) {
        (Some((seen_boot, seen)), Some(reported)) => seen_boot == boot && seen >= reported,
        _ => false,
    };
    taken_in && !named
}

/// Whether a living runner shall go, and whether its job counts for nothing. A running
/// one goes only by force.
fn wanted_gone(agent: &Agent, assignment: &Assignment, local: &Local) -> Option<(Reason, bool)> {
    if assignment.frozen {
        return None;
    }
    let running = matches!(local.record.phase, RunnerPhase::Running { .. });
    if let Some(order) = assignment.retire.get(&local.record.id)
        && (!running || order.force)
    {
        return Some((order.reason.clone(), order.force));
    }
    (agent.stopping == Stopping::Drain && !running).then_some((Reason::ShuttingDown, false))
}

fn retire(
    actions: &mut Vec<Action>,
    agent: &Agent,
    local: &Local,
    (reason, force): (Reason, bool),
    now: Timestamp,
) {
    let runner = local.record.id;
    let blocked = local.record.retire_blocked_until.is_some_and(|until| now < until);
    match local.work {
        Some(Work::Starting) if local.record.retiring.is_none() => {
            actions.push(Action::CancelStart { runner, reason });
        }
        // While the daemon is away its registration would go and its container stay.
        // A shutdown does not wait: it has little time, and one slow answer is not an absence.
        None if (agent.docker_up
            || agent.stopping != Stopping::No
            || local.record.container.is_none())
            && (!blocked || force)
            && now >= local.not_before =>
        {
            actions.push(Action::Retire { runner, reason, force });
        }
        _ => {}
    }
}

/// Containers against records. Returns the runners whose end it has found.
fn compare(
    actions: &mut Vec<Action>,
    agent: &Agent,
    listing: &Listing,
    frozen: bool,
    now: Timestamp,
) -> BTreeSet<RunnerId> {
    let mut present = BTreeSet::new();
    let mut settled = BTreeSet::new();
    for found in &listing.containers {
        present.insert(found.runner);
        match agent.local.get(&found.runner) {
            None => match found.state {
                FoundState::Alive => actions.push(Action::Adopt(found.clone())),
                FoundState::NeverStarted | FoundState::Exited if !frozen => {
                    actions.push(Action::Discard(found.clone()));
                }
                FoundState::NeverStarted | FoundState::Exited => {}
            },
            Some(local) if local.work.is_some() => {}
            Some(local) if local.record.phase.is_terminal() => {
                if now >= local.not_before && !frozen && may_discard(local, found.state) {
                    actions.push(Action::Discard(found.clone()));
                }
            }
            Some(local) => {
                if found.state == FoundState::Exited {
                    settled.insert(local.record.id);
                    actions.push(Action::Reap(local.record.id));
                }
            }
        }
    }
    for (id, local) in &agent.local {
        let should_be_there = local.work.is_none()
            && local.record.container.is_some()
            && !local.record.phase.is_terminal()
            && local.record.phase.since() < listing.begun_at;
        if should_be_there && !present.contains(id) && local.missing >= LISTS_UNTIL_LOST {
            settled.insert(*id);
            actions.push(Action::ReportLost(*id));
        }
    }
    settled
}

/// Whether the container of a runner whose life is over may simply go. One that is alive
/// may only if its start failed before it was handed its configuration: one reported lost
/// that shows up again may be busy, and is adopted once its report is taken in.
fn may_discard(local: &Local, state: FoundState) -> bool {
    state != FoundState::Alive
        || matches!(
            local.record.phase,
            RunnerPhase::Failed {
                failure: Failure::Create { .. }
                    | Failure::Start { .. }
                    | Failure::Attach { .. }
                    | Failure::Mint { .. },
                ..
            }
        )
}

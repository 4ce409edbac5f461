//! Where container, record and registration disagree, and what missed its deadline.
//!
//! Each mismatch has one named action after one grace. What the agent sees on its own
//! daemon it heals itself ([`crate::fleet::converge`]); here stands what only the leader
//! can see.

use super::{Orphan, Plan, Release, RetireOrder, Turn};
use crate::fleet::host::{HostRecord, Liveness, Retirement};
use crate::fleet::id::HostId;
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::view::RunnerView;

/// Ids that leave their assignment: reported ended, handed back, never accepted, or
/// assigned to an earlier boot that is gone.
pub fn release(plan: &mut Plan, turn: &Turn<'_>) {
    for (host, assignment) in &turn.view.assignments {
        let record = turn.view.hosts.get(host);
        for assigned in assignment.runners.values() {
            let ended = record.is_some_and(|record| {
                record.runners.get(&assigned.id).is_some_and(|r| r.phase.is_terminal())
            });
            let reason = match turn.roster.runners.get(&assigned.id) {
                _ if ended => None,
                Some(runner) => match never_lived(runner, record, turn) {
                    Some(reason) => Some(reason),
                    None => continue,
                },
                None => continue,
            };
            plan.release.push(Release { host: *host, runner: assigned.id, reason });
        }
        // A retirement order outlives neither its runner nor its host's report of it.
        for id in assignment.retire.keys() {
            let alive = turn.roster.runners.get(id).is_some_and(RunnerView::is_occupied);
            if !alive && !assignment.runners.contains_key(id) {
                plan.release.push(Release { host: *host, runner: *id, reason: None });
            }
        }
    }
    for (host, record) in &turn.view.hosts {
        let reported =
            record.runners.values().any(|r| r.phase.is_terminal()) || !record.refused.is_empty();
        let seen = turn.view.assignments.get(host).and_then(|a| a.seen);
        if reported && seen != Some((record.boot, record.seq)) && ends_changed(turn, *host, record)
        {
            plan.seen.insert(*host, (record.boot, record.seq));
        }
    }
}

/// Whether the report holds an end that the assignment does not acknowledge yet.
fn ends_changed(turn: &Turn<'_>, host: HostId, record: &HostRecord) -> bool {
    let seen_at = turn.view.assignments.get(&host).and_then(|assignment| assignment.seen);
    match seen_at {
        Some((boot, seq)) => boot != record.boot || seq < record.seq,
        None => true,
    }
}

/// Why an assigned id that no agent reports will never live.
fn never_lived(
    runner: &RunnerView<'_>,
    record: Option<&HostRecord>,
    turn: &Turn<'_>,
) -> Option<Reason> {
    if runner.record.is_some() {
        return None;
    }
    if let Some(record) = record {
        if let Some(refusal) = record.refused.get(&runner.id) {
            return Some(Reason::HandedBack { refusal: *refusal });
        }
        if record.boot != runner.boot {
            return Some(Reason::EarlierBoot);
        }
    }
    if turn.view.liveness(&runner.host, turn.policy, turn.now) == Liveness::Lost {
        return Some(Reason::HostLost { host: runner.host });
    }
    let waited = turn.now.since(runner.phase.since());
    (waited > turn.policy.accept_deadline)
        .then_some(Reason::NotAccepted { seconds: waited.as_secs() })
}

/// Failed starts and runners that GitHub denies. Exempt from the brake: they are no
/// supply, and a job cannot be running where GitHub has no runner.
pub fn dead_and_denied(plan: &mut Plan, turn: &Turn<'_>) {
    for runner in turn.roster.runners.values() {
        if runner.is_retiring() || plan.is_retiring(runner.id) {
            continue;
        }
        let blocked = runner.record.and_then(|r| r.retire_blocked_until);
        if blocked.is_some_and(|until| turn.now < until) {
            continue;
        }
        let denied = turn.view.ledger.registrations.denies(runner.name);
        let waited = turn.now.since(runner.phase.since());
        let reason = match runner.phase {
            RunnerPhase::Handed { .. } => turn
                .view
                .pools
                .get(runner.pool)
                .filter(|pool| waited > pool.start_deadline)
                .map(|_| Reason::StartDeadlineMissed { seconds: waited.as_secs() }),
            RunnerPhase::Listening { .. } | RunnerPhase::Unknown { .. } if denied => {
                Some(Reason::DeniedByGitHub)
            }
            _ => None,
        };
        if let Some(reason) = reason {
            plan.retire.push(RetireOrder {
                host: runner.host,
                runner: runner.id,
                pool: runner.pool.clone(),
                retirement: Retirement { reason, at: turn.now, force: false },
                automatic: false,
            });
        }
    }
}

/// Registrations with our mark that nobody claims: offline, not busy, in two readings at
/// least a staleness apart, and no silent host could own them.
pub fn orphans(plan: &mut Plan, turn: &Turn<'_>) {
    let registrations = &turn.view.ledger.registrations;
    if registrations.mass_vanished() {
        return;
    }
    let claimed: std::collections::BTreeSet<_> =
        turn.roster.runners.values().filter(|r| r.is_occupied()).map(|r| r.name).collect();
    for (name, listed) in registrations.listed() {
        if plan.deregister.len() >= turn.policy.orphan_deletes_per_turn {
            break;
        }
        let (Some(since), Some(read_at)) =
            (listed.unclaimed_since, registrations.read_at(&listed.scope))
        else {
            continue;
        };
        let twice = read_at.since(since) >= turn.policy.list_staleness;
        if !twice || listed.online || listed.busy || claimed.contains(name) {
            continue;
        }
        let could_be_owned = turn.view.hosts.keys().any(|host| {
            name.host_short() == Some(&host.short())
                && turn.view.liveness(host, turn.policy, turn.now) != Liveness::Live
        });
        if !could_be_owned {
            plan.deregister.push(Orphan {
                scope: listed.scope.clone(),
                id: listed.id,
                name: name.clone(),
            });
        }
    }
}

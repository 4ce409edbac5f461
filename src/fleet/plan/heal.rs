//! Where container, record and registration disagree, and what missed its deadline.
//!
//! Each mismatch has one named action after one grace. What the agent sees on its own
//! daemon it heals itself ([`crate::fleet::converge`]); here stands what only the leader
//! can see.

use std::collections::{BTreeMap, BTreeSet};

use super::turn::Turn;
use super::{Orphan, Plan, Release, RetireOrder};
use crate::fleet::host::{HostRecord, Liveness, Retirement};
use crate::fleet::id::{BootId, HostId};
use crate::fleet::policy::Policy;
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::time::Timestamp;
use crate::fleet::view::{Roster, RunnerView, View};

/// Ids that leave their assignment: reported ended, handed back, never accepted, or
/// assigned to an earlier boot that is gone.
#[must_use]
pub fn released(view: &View, roster: &Roster<'_>, policy: &Policy, now: Timestamp) -> Vec<Release> {
    let reports: BTreeMap<&HostId, &HostRecord> = view.reports().collect();
    let mut released = Vec::new();
    let readable = |host: &HostId| !view.withheld.hosts.contains(host);
    for (host, assignment) in view.assignments.iter().filter(|(host, _)| readable(host)) {
        let record = reports.get(host).copied();
        let liveness = view.liveness(host, policy, now);
        for id in assignment.runners.keys() {
            let Some(runner) = roster.runners.get(id) else { continue };
            let reason = match runner.record {
                Some(report) if report.phase.is_terminal() => None,
                Some(_) => continue,
                None => match never_lived(runner, record, liveness, policy, now) {
                    Some(reason) => Some(reason),
                    None => continue,
                },
            };
            released.push(Release { host: *host, runner: *id, reason });
        }
        // A retirement order outlives neither its runner nor its host's report of it.
        for id in assignment.retire.keys() {
            let alive = roster.runners.get(id).is_some_and(RunnerView::is_occupied);
            if !alive && !assignment.runners.contains_key(id) {
                released.push(Release { host: *host, runner: *id, reason: None });
            }
        }
    }
    released
}

/// Reports whose ends are taken in with this plan.
#[must_use]
pub fn seen(view: &View) -> BTreeMap<HostId, (BootId, u64)> {
    let mut seen = BTreeMap::new();
    let readable = |host: &HostId| !view.withheld.hosts.contains(host);
    for (host, record) in view.hosts.iter().filter(|(host, _)| readable(host)) {
        let reported =
            record.runners.values().any(|r| r.phase.is_terminal()) || !record.refused.is_empty();
        let before = view.assignments.get(host).and_then(|assignment| assignment.seen);
        let is_news = before.is_none_or(|(boot, seq)| boot != record.boot || seq < record.seq);
        if reported && is_news {
            seen.insert(*host, (record.boot, record.seq));
        }
    }
    seen
}

/// Why an assigned id that no agent reports will never live.
fn never_lived(
    runner: &RunnerView<'_>,
    record: Option<&HostRecord>,
    liveness: Liveness,
    policy: &Policy,
    now: Timestamp,
) -> Option<Reason> {
    if let Some(record) = record {
        if let Some(refusal) = record.refused.get(&runner.id) {
            return Some(Reason::HandedBack { refusal: *refusal });
        }
        if record.boot != runner.boot {
            return Some(Reason::EarlierBoot);
        }
    }
    if liveness == Liveness::Lost {
        return Some(Reason::HostLost { host: runner.host });
    }
    // Only a report made after the deadline shows that it was not accepted before.
    let waited = record?.at.min(now).since(runner.phase.since());
    (waited > policy.accept_deadline).then_some(Reason::NotAccepted { seconds: waited.as_secs() })
}

/// Failed starts and runners that GitHub denies. Exempt from the brake: they are no
/// supply, and a job cannot be running where GitHub has no runner.
pub fn dead_and_denied(plan: &mut Plan, turn: &Turn<'_>) {
    let registrations = &turn.view.ledger.registrations;
    for runner in turn.roster.runners.values() {
        if runner.is_retiring() || turn.is_kept(runner) {
            continue;
        }
        let since = runner.phase.since();
        // A report made before the deadline does not show that it was missed.
        let reported = turn.view.hosts.get(&runner.host).map_or(Timestamp(0), |host| host.at);
        let waited = reported.min(turn.now).since(since);
        let reason = match runner.phase {
            RunnerPhase::Handed { .. } => turn
                .view
                .pools
                .get(runner.pool)
                .filter(|pool| waited > pool.start_deadline)
                .map(|_| Reason::StartDeadlineMissed { seconds: waited.as_secs() }),
            RunnerPhase::Listening { .. } | RunnerPhase::Unknown { .. } => registrations
                .denies(runner.name, since, turn.policy)
                .then_some(Reason::DeniedByGitHub),
            _ => None,
        };
        if let Some(reason) = reason {
            let order = RetireOrder {
                host: runner.host,
                runner: runner.id,
                pool: runner.pool.clone(),
                retirement: Retirement { reason, at: turn.now, force: false },
                automatic: false,
            };
            plan.order(order, turn);
        }
    }
}

/// Registrations with our mark that nobody claims: offline, not busy, in two readings at
/// least a staleness apart, and no silent host could own them.
pub fn orphans(plan: &mut Plan, turn: &Turn<'_>) {
    if turn.alarm().is_some() {
        return;
    }
    let registrations = &turn.view.ledger.registrations;
    // Mostly there is none, and then nothing more needs to be worked out.
    if registrations.listed().values().all(|listed| listed.unclaimed_since.is_none()) {
        return;
    }
    let claimed: BTreeSet<_> =
        turn.roster.runners.values().filter(|r| r.is_occupied()).map(|r| r.name).collect();
    let silent: BTreeSet<String> = turn
        .hosts()
        .filter(|(_, liveness)| *liveness != Liveness::Live)
        .map(|(host, _)| host.short())
        .collect();
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
        let unreadable = !registrations.is_fresh(&listed.scope, turn.policy, turn.now);
        if !twice || unreadable || listed.online || listed.busy || claimed.contains(name) {
            continue;
        }
        if name.host_short().is_some_and(|host| silent.contains(host)) {
            continue;
        }
        plan.deregister.push(Orphan {
            scope: listed.scope.clone(),
            id: listed.id,
            name: name.clone(),
        });
    }
}

//! How far the drain of a host has come.

use std::collections::BTreeSet;

use super::host::Liveness;
use super::id::HostId;
use super::intent::DrainBegan;
use super::policy::Policy;
use super::pool::Pool;
use super::runner::RunnerPhase;
use super::time::Timestamp;
use super::view::View;

/// What is left on a host that is being drained, and how much there was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// `None` in the first moment.
    pub since: Option<Timestamp>,
    /// Runners there when it began; `None` when nobody noted it.
    pub at_first: Option<u32>,
    pub left: Left,
    /// What is left is known and not only unseen: since the drain began the host has
    /// reported, or is lost, and GitHub's lists have been read.
    pub is_known: bool,
}

/// What still has to go from a host, by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Left {
    pub idle: u32,
    pub busy: u32,
    /// Not listening yet.
    pub starting: u32,
    /// Found running, of unknown use.
    pub unknown: u32,
    /// Registrations of that host at GitHub that no runner there claims.
    pub unclaimed: u32,
}

impl Left {
    /// Runners that take up room.
    #[must_use]
    pub fn runners(&self) -> u32 {
        self.idle + self.busy + self.starting + self.unknown
    }

    /// Everything that is known of one host.
    #[must_use]
    pub fn of(view: &View, host: &HostId) -> Self {
        let mut left = Self::default();
        let roster = view.roster();
        let there = roster.runners.values().filter(|it| it.host == *host && it.is_occupied());
        for runner in there {
            match runner.phase {
                RunnerPhase::Listening { .. } => left.idle += 1,
                RunnerPhase::Running { .. } => left.busy += 1,
                RunnerPhase::Unknown { .. } => left.unknown += 1,
                _ => left.starting += 1,
            }
        }
        let short = host.short();
        let unclaimed = roster.unclaimed.iter();
        let its_own = unclaimed.filter(|(name, _)| name.host_short() == Some(short.as_str()));
        left.unclaimed = u32::try_from(its_own.count()).unwrap_or(u32::MAX);
        left
    }
}

impl Progress {
    /// Whether nothing is left, neither there nor at GitHub: the host can be taken away.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_known && self.left == Left::default()
    }

    /// As it stands in the moment it is asked for: what is left then nobody knows yet.
    #[must_use]
    pub fn begun(view: &View, host: &HostId) -> Self {
        let left = Left::of(view, host);
        let began: Option<&DrainBegan> = view.operator.drains.get(host);
        Self {
            since: began.map(|began| began.at),
            at_first: Some(began.map_or(left.runners(), |began| began.runners)),
            left,
            is_known: false,
        }
    }
}

/// Whether both witnesses have spoken since `since`: a runner placed in the last moment
/// before it shows in no report and in no list that is older.
fn is_known(view: &View, host: &HostId, since: Timestamp, policy: &Policy, now: Timestamp) -> bool {
    let lost = view.liveness(host, policy, now) == Liveness::Lost;
    let reported = view.hosts.get(host).is_some_and(|record| record.at > since);
    let registrations = &view.ledger.registrations;
    let listed = |pool: &Pool| {
        let read_at = registrations.read_at(&pool.scope);
        registrations.knows_missing(&pool.scope) && read_at.is_some_and(|at| at > since)
    };
    let readable = !view.withheld.hosts.contains(host) && view.ledger.rebuilding.is_none();
    readable && (lost || reported) && view.pools.values().all(listed)
}

/// Hosts that are drained and hold nothing any more: whoever takes them away takes nothing
/// from the fleet.
#[must_use]
pub fn dispensable(view: &View) -> BTreeSet<HostId> {
    let mut drained = view.operator.drained_hosts(view.reports().map(|(_, record)| record));
    if !drained.is_empty() {
        let occupied = view.roster().occupied_by_host();
        drained.retain(|host| !occupied.contains_key(host));
    }
    drained
}

/// The progress of one host's drain; `None` while nobody drains it.
#[must_use]
pub fn progress(view: &View, host: &HostId, policy: &Policy, now: Timestamp) -> Option<Progress> {
    let drained = view.operator.drained_hosts(view.hosts.values().map(|host| &**host));
    if !drained.contains(host) {
        return None;
    }
    let began = view.operator.drains.get(host);
    let seen = view.ledger.draining_since.get(host).copied();
    let since = began.map(|began| began.at).or(seen);
    Some(Progress {
        since,
        at_first: began.map(|began| began.runners),
        left: Left::of(view, host),
        is_known: since.is_some_and(|since| is_known(view, host, since, policy, now)),
    })
}

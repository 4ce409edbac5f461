//! What every clause of one turn looks at, worked out once, and what forbids a removal.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::demand::Unread;
use crate::fleet::drain::dispensable;
use crate::fleet::host::Liveness;
use crate::fleet::id::{HostId, PoolName, RunnerId};
use crate::fleet::policy::Policy;
use crate::fleet::pool::{Pool, Scope};
use crate::fleet::reason::Reason;
use crate::fleet::runner::RunnerPhase;
use crate::fleet::time::Timestamp;
use crate::fleet::view::{Roster, RunnerView, View};

/// One turn's facts.
#[derive(Debug)]
pub struct Turn<'a> {
    pub view: &'a View,
    pub roster: &'a Roster<'a>,
    pub policy: &'a Policy,
    pub now: Timestamp,
    liveness: BTreeMap<HostId, Liveness>,
    supply: BTreeSet<RunnerId>,
    /// Listening runners by pool, longest listening first.
    listening: BTreeMap<&'a PoolName, Vec<&'a RunnerView<'a>>>,
    unread: BTreeMap<&'a Scope, Unknown>,
    alarm: Option<Reason>,
}

/// What is not known of a scope, and therefore not zero.
#[derive(Debug)]
struct Unknown {
    list: Option<Reason>,
    queue: Option<Reason>,
}

impl<'a> Turn<'a> {
    /// Works out what the clauses ask for again and again.
    #[must_use]
    pub fn new(view: &'a View, roster: &'a Roster<'a>, policy: &'a Policy, now: Timestamp) -> Self {
        let liveness: BTreeMap<HostId, Liveness> = roster
            .known_hosts(view)
            .into_iter()
            .map(|host| {
                // Of what cannot be read nothing is added and nothing taken away.
                let liveness = match view.liveness(&host, policy, now) {
                    Liveness::Live if view.withheld.hosts.contains(&host) => Liveness::Suspect,
                    liveness => liveness,
                };
                (host, liveness)
            })
            .collect();
        let supply = roster
            .runners
            .values()
            .filter(|runner| roster.is_supply(runner, view, policy, now))
            .map(|runner| runner.id)
            .collect();
        let mut listening: BTreeMap<&PoolName, Vec<&RunnerView<'_>>> = BTreeMap::new();
        for runner in roster.runners.values() {
            if matches!(runner.phase, RunnerPhase::Listening { .. }) {
                listening.entry(runner.pool).or_default().push(runner);
            }
        }
        for runners in listening.values_mut() {
            runners.sort_by_key(|runner| (runner.phase.since(), runner.id));
        }
        let mut unread = BTreeMap::new();
        for pool in view.pools.values() {
            unread.entry(&pool.scope).or_insert_with(|| Unknown::of(view, pool, policy, now));
        }
        let alarm = alarm(view, &liveness);
        Self { view, roster, policy, now, liveness, supply, listening, unread, alarm }
    }

    /// How a host stands.
    #[must_use]
    pub fn liveness(&self, host: &HostId) -> Liveness {
        self.liveness.get(host).copied().unwrap_or(Liveness::Lost)
    }

    /// Hosts that anything speaks of.
    pub fn hosts(&self) -> impl Iterator<Item = (&HostId, Liveness)> {
        self.liveness.iter().map(|(host, liveness)| (host, *liveness))
    }

    /// Whether a runner can take a job now or within its start deadline.
    #[must_use]
    pub fn is_supply(&self, runner: RunnerId) -> bool {
        self.supply.contains(&runner)
    }

    /// Listening runners of a pool, longest listening first.
    #[must_use]
    pub fn listening(&self, pool: &PoolName) -> &[&'a RunnerView<'a>] {
        self.listening.get(pool).map_or(&[], Vec::as_slice)
    }

    /// Why no registration or runner at all may be removed now: more than half of the hosts
    /// or of our registrations have vanished at once.
    #[must_use]
    pub fn alarm(&self) -> Option<&Reason> {
        self.alarm.as_ref()
    }

    /// Why nothing of this scope may be removed: GitHub does not tell what runs there.
    #[must_use]
    pub fn list_unread(&self, scope: &Scope) -> Option<&Reason> {
        self.unread.get(scope).and_then(|unknown| unknown.list.as_ref())
    }

    /// Whether this leader has yet to learn who is registered in a scope, and who is not.
    #[must_use]
    pub fn never_listed(&self, scope: &Scope) -> bool {
        !self.view.ledger.registrations.knows_missing(scope)
    }

    /// Why a pool's idle runners may not be called surplus: its queue is not known.
    #[must_use]
    pub fn queue_unread(&self, pool: &Pool) -> Option<&Reason> {
        self.unread.get(&pool.scope).and_then(|unknown| unknown.queue.as_ref())
    }

    /// Why none of a pool's runners that may hold a registration may be removed now.
    #[must_use]
    pub fn forbids(&self, pool: &PoolName) -> Option<&Reason> {
        let scope = self.view.pools.get(pool).map(|pool| &pool.scope);
        self.alarm().or_else(|| scope.and_then(|scope| self.list_unread(scope)))
    }

    /// Whether a runner may not be removed now, by whatever rule: see [`Self::forbids`],
    /// its host is silent, or GitHub called it busy a short while ago.
    #[must_use]
    pub fn is_kept(&self, runner: &RunnerView<'_>) -> bool {
        let blocked = runner.record.and_then(|record| record.retire_blocked_until);
        blocked.is_some_and(|until| self.now < until)
            || self.liveness(&runner.host) != Liveness::Live
            || (runner.phase.may_hold_registration() && self.forbids(runner.pool).is_some())
    }
}

impl Unknown {
    fn of(view: &View, pool: &Pool, policy: &Policy, now: Timestamp) -> Self {
        let fresh = view.ledger.registrations.is_fresh(&pool.scope, policy, now);
        let queue = view.ledger.demand.unknown(&pool.scope, policy, now);
        Self {
            list: (!fresh).then_some(Reason::GitHubUnreadable),
            queue: queue.map(|unread| match unread {
                Unread::Never => Reason::GitHubUnreadable,
                Unread::Repo(repo) => Reason::QueueUnread { repo },
            }),
        }
    }
}

fn alarm(view: &View, liveness: &BTreeMap<HostId, Liveness>) -> Option<Reason> {
    // What was emptied to be taken away is not missed.
    let dispensable = dispensable(view);
    let missed = || liveness.iter().filter(|(host, _)| !dispensable.contains(*host));
    let lost = missed().filter(|(_, liveness)| **liveness == Liveness::Lost).count();
    (view.ledger.registrations.mass_vanished() || lost * 2 > missed().count())
        .then_some(Reason::MassVanish)
}

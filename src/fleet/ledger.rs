//! What the leader remembers between turns: evidence that no single snapshot holds.
//!
//! All of it can be rebuilt: every term starts with an empty ledger, also that of a replica
//! which has led before; it reads GitHub and the hosts, and only then removes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::demand::DemandBook;
use super::host::{HostRecords, Liveness};
use super::id::{
    BootId, ClusterMark, HostId, IntentId, PoolName, ReplicaId, RunnerId, RunnerName, Term,
};
use super::intent::Operator;
use super::policy::Policy;
use super::pool::Pool;
use super::reason::Reason;
use super::rebuild::Rebuilding;
use super::refusals::Refusals;
use super::registration::{Expected, HostsWord, RegistrationBook, ScopeReading};
use super::runner::{Failure, RunnerPhase, RunnerRecord};
use super::time::Timestamp;

/// The leader's memory.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The term it belongs to; what was learnt in another one is not taken in.
    #[serde(default)]
    pub term: Option<Term>,
    pub demand: DemandBook,
    pub registrations: RegistrationBook,
    /// Names that ended, and when: a stale list must not revive them.
    pub ended: BTreeMap<RunnerName, Timestamp>,
    pub breakers: BTreeMap<PoolName, Breaker>,
    /// Automatic retirements from `listening` inside the brake's window.
    pub retired: Vec<(PoolName, Timestamp)>,
    /// The newest report of each host and when the leader first saw it.
    pub heard: BTreeMap<HostId, Heard>,
    /// The last report of each host heard of. What counts when its record vanishes from
    /// the store: a lost record is no proof that the containers are gone.
    #[serde(skip)]
    pub remembered: HostRecords,
    /// Hosts that must report before anything is decided, after the store lost its state.
    #[serde(default)]
    pub rebuilding: Option<Rebuilding>,
    /// What hosts have handed back lately.
    #[serde(default)]
    pub refusals: Refusals,
    /// Since when this leader sees hosts being drained.
    #[serde(default)]
    pub draining_since: BTreeMap<HostId, Timestamp>,
    /// When this leader last saw each drained replica announced, or began to look.
    #[serde(default)]
    pub drained_replicas: BTreeMap<ReplicaId, Timestamp>,
    /// When this leader took its first look: a host it never heard of is given the time
    /// to report before it is called lost.
    began_at: Option<Timestamp>,
    /// Runners of every pool last seen in `running`, so that an edge is counted once. Of
    /// use to nobody but this leader: it is told as if it were empty.
    #[serde(serialize_with = "told_empty")]
    running: BTreeSet<RunnerId>,
    /// Runner ids whose end was counted, by host. Told in the same way.
    #[serde(serialize_with = "told_empty")]
    counted: BTreeSet<RunnerId>,
    /// Boosts used since the last commit of the operator state.
    pub boosts_used: BTreeMap<IntentId, u32>,
    /// Ends since the start of this leader, for the metrics.
    pub totals: Totals,
}

/// Counts since this leader began.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Totals {
    pub assigned: u64,
    pub ended: u64,
    pub failed: u64,
    pub retired: u64,
    pub lost: u64,
    pub expired: u64,
}

/// When a host's newest report reached the leader, by the leader's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heard {
    pub boot: BootId,
    pub seq: u64,
    pub at: Timestamp,
    /// It was old already when this leader first saw it: nothing is assigned to its host
    /// before the next one, and the host still has its full time to send it.
    #[serde(default)]
    pub stale: bool,
}

/// Stops a pool whose runners fail one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// Failures without a success between them.
    pub failures: u32,
    pub open_until: Option<Timestamp>,
    pub failed_at: Option<Timestamp>,
    /// The last failure in words.
    pub last: Option<String>,
}

impl Breaker {
    fn failed(&mut self, what: String, policy: &Policy, now: Timestamp) {
        self.failures += 1;
        self.failed_at = Some(now);
        self.last = Some(what);
        if self.failures >= policy.breaker_failures {
            let doublings = (self.failures - policy.breaker_failures).min(16);
            let wait = policy
                .breaker_backoff
                .saturating_mul(2_u32.saturating_pow(doublings))
                .min(policy.breaker_backoff_max);
            self.open_until = Some(now + wait);
        }
    }

    /// Open: nothing is started. Half-open (its time has passed, the failures stand):
    /// one runner at a time.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    /// Whether the next runner is a trial.
    #[must_use]
    pub fn is_half_open(&self, now: Timestamp) -> bool {
        self.open_until.is_some_and(|until| now >= until)
    }
}

impl Ledger {
    /// Begins a term, if it is another one: with nothing but the counts. Whether it is.
    pub fn begin_term(&mut self, term: Term) -> bool {
        if self.term == Some(term) {
            return false;
        }
        let totals = std::mem::take(&mut self.totals);
        *self = Self { term: Some(term), totals, ..Self::default() };
        true
    }

    /// Takes off every host's silence a time in which this leader itself could not work
    /// with the store: no host is to blame for it.
    pub fn excuse(&mut self, away: Duration, now: Timestamp) {
        for heard in self.heard.values_mut() {
            heard.at = (heard.at + away).min(now);
        }
        self.began_at = self.began_at.map(|at| (at + away).min(now));
    }

    /// Gives every host a full period anew, because the store has lost its state.
    pub fn hear_anew(&mut self, now: Timestamp) {
        self.excuse(Duration::from_millis(u64::MAX), now);
    }

    /// Takes in the hosts' newest reports: who took a job, who ended, who is alive.
    pub fn absorb_hosts(
        &mut self,
        records: &HostRecords,
        operator: &Operator,
        policy: &Policy,
        now: Timestamp,
    ) {
        self.hear(records, policy, now);
        for record in records.values() {
            for runner in record.runners.values() {
                self.absorb_runner(runner, operator, policy, now);
            }
        }
        let known: BTreeSet<RunnerId> = records
            .values()
            .chain(self.remembered.values())
            .flat_map(|record| record.runners.keys().copied())
            .collect();
        self.running.retain(|id| known.contains(id));
        self.counted.retain(|id| known.contains(id));
        let drained = operator
            .drained_hosts(records.values().chain(self.remembered.values()).map(|host| &**host));
        self.draining_since.retain(|host, _| drained.contains(host));
        for host in drained {
            self.draining_since.entry(host).or_insert(now);
        }
        self.ended.retain(|_, at| now.since(*at) <= policy.ended_memory);
        self.retired.retain(|(_, at)| now.since(*at) < policy.brake_window);
    }

    /// Notes which of the drained replicas are still there.
    pub fn absorb_replicas(
        &mut self,
        announced: &BTreeSet<ReplicaId>,
        operator: &Operator,
        now: Timestamp,
    ) {
        self.drained_replicas.retain(|id, _| operator.draining_replicas.contains(id));
        for replica in &operator.draining_replicas {
            let seen = self.drained_replicas.entry(*replica).or_insert(now);
            if announced.contains(replica) {
                *seen = now;
            }
        }
    }

    /// Notes which hosts have reported anew, and keeps each one's last report.
    fn hear(&mut self, records: &HostRecords, policy: &Policy, now: Timestamp) {
        self.began_at.get_or_insert(now);
        for (host, record) in records {
            let heard = self.heard.get(host);
            if heard.is_none_or(|heard| (heard.boot, heard.seq) != (record.boot, record.seq)) {
                let stale = heard.is_none() && now.since(record.at) >= policy.suspect_after;
                let heard = Heard { boot: record.boot, seq: record.seq, at: now, stale };
                self.heard.insert(*host, heard);
                self.remembered.insert(*host, Arc::clone(record));
            }
        }
        self.heard.retain(|host, heard| {
            records.contains_key(host) || now.since(heard.at) < policy.host_memory
        });
        self.remembered.retain(|host, _| self.heard.contains_key(host));
    }

    fn absorb_runner(
        &mut self,
        runner: &RunnerRecord,
        operator: &Operator,
        policy: &Policy,
        now: Timestamp,
    ) {
        let ran = matches!(
            runner.phase,
            RunnerPhase::Running { .. } | RunnerPhase::Ended { ran_job: Some(true), .. }
        );
        if ran && !runner.adopted && self.running.insert(runner.id) {
            let at = runner.phase.since().min(now);
            self.demand.runner_took_job(runner.id, runner.pool.clone(), at);
            self.use_boost(operator, &runner.pool, at, policy);
            self.breakers.remove(&runner.pool);
        }
        if let RunnerPhase::Listening { since } = runner.phase {
            self.prove_start(&runner.pool, since, policy, now);
        }
        if runner.phase.is_terminal() && self.counted.insert(runner.id) {
            self.ended.insert(runner.name.clone(), now);
            self.count_end(&runner.pool, &runner.phase, policy, now);
        }
    }

    /// A runner that came to listen after the last failure, and still does, shows that
    /// starting works again. One that listened all along shows nothing.
    fn prove_start(&mut self, pool: &PoolName, since: Timestamp, policy: &Policy, now: Timestamp) {
        let proven = self.breakers.get(pool).is_some_and(|breaker| {
            breaker.failed_at.is_none_or(|failed_at| since > failed_at)
                && now.since(since) >= policy.breaker_proof
        });
        if proven {
            self.breakers.remove(pool);
        }
    }

    /// A job that began before the boost was given, as a new leader may learn it late,
    /// does not use it.
    fn use_boost(&mut self, operator: &Operator, pool: &PoolName, at: Timestamp, policy: &Policy) {
        for boost in operator.boosts.iter().filter(|boost| boost.pool == *pool) {
            if at < boost.expires_at - policy.boost_ttl {
                continue;
            }
            let used = self.boosts_used.entry(boost.intent).or_default();
            if *used < boost.left {
                *used += 1;
                return;
            }
        }
    }

    fn count_end(&mut self, pool: &PoolName, phase: &RunnerPhase, policy: &Policy, now: Timestamp) {
        let failed = match phase {
            // GitHub's limits say nothing about the pool; the budget holds it back itself.
            RunnerPhase::Failed { failure: Failure::Budget { .. }, .. } => None,
            RunnerPhase::Failed { failure, .. } => Some(failure.code()),
            RunnerPhase::Retired {
                reason: reason @ (Reason::StartDeadlineMissed { .. } | Reason::DeniedByGitHub),
                ..
            } => Some(reason.code()),
            _ => None,
        };
        if let Some(what) = failed {
            let breaker = self.breakers.entry(pool.clone()).or_default();
            breaker.failed(what.to_owned(), policy, now);
        }
        match phase {
            RunnerPhase::Ended { .. } => self.totals.ended += 1,
            RunnerPhase::Failed { .. } => self.totals.failed += 1,
            RunnerPhase::Retired { .. } => self.totals.retired += 1,
            RunnerPhase::Lost { .. } => self.totals.lost += 1,
            _ => {}
        }
    }

    /// Takes in the runner list of one scope. A runner is expected in its own pool's.
    pub fn absorb_registrations(
        &mut self,
        reading: ScopeReading,
        mark: &ClusterMark,
        pools: &BTreeMap<PoolName, Pool>,
        records: &HostRecords,
        policy: &Policy,
    ) {
        let registered = records
            .values()
            .flat_map(|record| record.runners.values())
            .filter(|runner| runner.phase.may_hold_registration());
        let expected = registered
            .map(|runner| {
                let scope = pools.get(&runner.pool).map(|pool| &pool.scope);
                (runner.name.clone(), Expected { since: runner.phase.since(), scope })
            })
            .collect();
        let word = HostsWord { expected, ended: &self.ended };
        self.registrations.read(reading, mark, &word, policy);
    }

    /// Marks jobs that GitHub does not give to runners that could take them: those that
    /// listen, are not leaving, are not denied by GitHub, and whose host is heard of.
    pub fn mark_unassigned(
        &mut self,
        pools: &BTreeMap<PoolName, Pool>,
        records: &HostRecords,
        policy: &Policy,
        now: Timestamp,
    ) {
        let mut longest: BTreeMap<PoolName, Timestamp> = BTreeMap::new();
        for (host, record) in records {
            if self.liveness(host, policy, now) != Liveness::Live {
                continue;
            }
            for runner in record.runners.values() {
                let RunnerPhase::Listening { since } = runner.phase else { continue };
                let leaving = runner.retiring.is_some();
                if leaving || self.registrations.denies(&runner.name, since, policy) {
                    continue;
                }
                let entry = longest.entry(runner.pool.clone()).or_insert(since);
                *entry = (*entry).min(since);
            }
        }
        self.demand.mark_unassigned(pools, &longest, policy, now);
    }

    /// How a host stands, by how long ago its last new report arrived here.
    #[must_use]
    pub fn liveness(&self, host: &HostId, policy: &Policy, now: Timestamp) -> Liveness {
        let Some(heard) = self.heard.get(host) else {
            let waited = self.began_at.map_or(Duration::ZERO, |began_at| now.since(began_at));
            return if waited < policy.lost_after { Liveness::Suspect } else { Liveness::Lost };
        };
        match now.since(heard.at) {
            silence if silence < policy.suspect_after && !heard.stale => Liveness::Live,
            silence if silence < policy.lost_after => Liveness::Suspect,
            _ => Liveness::Lost,
        }
    }

    /// How many of a pool may still be retired by the rule inside the brake's window.
    #[must_use]
    pub fn brake_left(&self, pool: &Pool, size: u32, policy: &Policy) -> u32 {
        let per_minute = brake_per_minute(size, policy);
        let used = self.retired.iter().filter(|(name, _)| *name == pool.name).count();
        per_minute.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }
}

/// Replicas of the version before this one expect the field.
fn told_empty<S: Serializer>(_: &BTreeSet<RunnerId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(std::iter::empty::<RunnerId>())
}

/// `max(2, 20 %)` of the pool's present size.
#[must_use]
pub fn brake_per_minute(size: u32, policy: &Policy) -> u32 {
    // A hair more than the product, so that 20 % of 35 is 7 whatever binary fractions say.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let share = (f64::from(size) * policy.brake_share + 1e-6).floor() as u32;
    share.max(policy.brake_floor)
}

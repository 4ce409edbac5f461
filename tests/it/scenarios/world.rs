//! A small fleet: one leader over some daemons, GitHub beside them, all in virtual time.
//!
//! Everything that decides is the product's own: ledger, demand, view, `plan`,
//! `Plan::assignments`, `converge`. Each turn also checks what must hold in every world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_orchestrator::fleet::budget::Budget;
use runner_orchestrator::fleet::demand::WaitingJob;
use runner_orchestrator::fleet::host::{Assignments, HostRecords};
use runner_orchestrator::fleet::id::{
    HostId, IntentId, PoolName, RepoName, RunnerId, RunnerName, Term,
};
use runner_orchestrator::fleet::intent::{Intent, Operator, Wish};
use runner_orchestrator::fleet::ledger::Ledger;
use runner_orchestrator::fleet::plan::{Plan, plan};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{Pool, Scope};
use runner_orchestrator::fleet::rebuild::{Look, StoreMemory};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::fleet::view::{View, Withheld};
use uuid::Uuid;

use super::daemon::{Daemon, Outside};
use super::hub::{Answer, Hub, mark};
use super::rules;

/// Turns after which a world must have come to rest at one instant.
const TURNS_TO_REST: usize = 12;

/// A copy of what the store holds.
pub(crate) type Saved = (HostRecords, Assignments, Operator);

/// The store as such, and what the leader remembers of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) incarnation: u128,
    pub(crate) term: u64,
    /// The leader's next turn is its first.
    pub(crate) begins: bool,
    /// A leader has left its traces in it.
    pub(crate) led: bool,
    pub(crate) memory: StoreMemory,
    /// Nobody can reach it.
    pub(crate) away_since: Option<Timestamp>,
    pub(crate) saved: Option<Saved>,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) began: Timestamp,
    pub(crate) now: Timestamp,
    pub(crate) pools: BTreeMap<PoolName, Pool>,
    pub(crate) policy: Policy,
    pub(crate) ledger: Ledger,
    pub(crate) records: HostRecords,
    pub(crate) assignments: Assignments,
    pub(crate) operator: Operator,
    pub(crate) intents: Vec<Intent>,
    pub(crate) budget: Budget,
    /// What the store holds and nobody of this version can read.
    pub(crate) withheld: Withheld,
    pub(crate) hub: Hub,
    pub(crate) daemons: BTreeMap<String, Daemon>,
    pub(crate) names: BTreeMap<RunnerName, String>,
    /// Nobody leads.
    pub(crate) leaderless: bool,
    pub(crate) shared: Shared,
    /// Time passes in steps of this size, with a turn at each.
    pub(crate) step: Duration,
    /// GitHub is read this often without being told to.
    pub(crate) poll: Option<Duration>,
    pub(crate) polled_at: Timestamp,
    /// What was decided and done since the last look, in order.
    pub(crate) told: Vec<(Timestamp, String)>,
    pub(crate) last: Plan,
    pub(crate) last_view: Option<View>,
    next_runner: u128,
    next_intent: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        let began = Timestamp(1_800_000_000_000);
        Self {
            began,
            now: began,
            pools: BTreeMap::new(),
            policy: Policy::default(),
            ledger: {
                let mut ledger = Ledger::default();
                ledger.begin_term(Term(1));
                ledger
            },
            records: BTreeMap::new(),
            assignments: BTreeMap::new(),
            operator: Operator::default(),
            intents: Vec::new(),
            budget: Budget::open(180),
            withheld: Withheld::default(),
            hub: Hub::default(),
            daemons: BTreeMap::new(),
            names: BTreeMap::new(),
            leaderless: false,
            shared: Shared { incarnation: 1, term: 1, led: true, ..Shared::default() },
            step: Duration::from_secs(1),
            poll: None,
            polled_at: began,
            told: Vec::new(),
            last: Plan::default(),
            last_view: None,
            next_runner: 0,
            next_intent: 0,
        }
    }

    pub(crate) fn wish(&mut self, wish: Wish) {
        self.next_intent += 1;
        let id = IntentId(Uuid::from_u128(self.next_intent));
        self.intents.push(Intent { id, at: self.now, wish });
    }

    /// Lets time pass, a step at a time, with a turn at each.
    pub(crate) fn advance(&mut self, to: Timestamp) -> Result<(), String> {
        self.rest()?;
        while self.now < to {
            self.now = to.min(self.now + self.step);
            let due = self.poll.is_some_and(|every| self.now.since(self.polled_at) >= every);
            if due {
                self.polled_at = self.now;
                self.read_all();
            }
            self.rest()?;
        }
        Ok(())
    }

    /// Turns until nothing changes any more.
    pub(crate) fn rest(&mut self) -> Result<(), String> {
        for _ in 0..TURNS_TO_REST {
            self.hosts()?;
            if !self.lead()? {
                self.hosts()?;
                return rules::check(self);
            }
        }
        Err(format!("the fleet does not come to rest; last plan: {:#?}", self.last))
    }

    /// Reads every queue and every runner list, as the observe loop does.
    pub(crate) fn read_all(&mut self) {
        let repos: Vec<RepoName> = self.hub.queues.keys().cloned().collect();
        for repo in repos {
            self.read_queue(&repo, self.now);
        }
        self.read_lists();
    }

    pub(crate) fn read_queue(&mut self, repo: &RepoName, begun_at: Timestamp) {
        if self.hub.queue_fails.contains(repo) {
            self.ledger.demand.unread(repo, self.now, "502 Bad Gateway".to_owned());
            return;
        }
        let jobs = self.hub.queues.get(repo).cloned().unwrap_or_default();
        let jobs = jobs.into_iter().map(|job| WaitingJob { evidence: begun_at, ..job }).collect();
        self.ledger.demand.read(repo, begun_at, jobs);
    }

    pub(crate) fn read_lists(&mut self) {
        let scopes: std::collections::BTreeSet<Scope> =
            self.pools.values().map(|pool| pool.scope.clone()).collect();
        for scope in &scopes {
            self.read_list(scope);
        }
    }

    pub(crate) fn read_list(&mut self, scope: &Scope) {
        if self.hub.list_fails {
            self.ledger.registrations.unread(scope, self.now, "502".to_owned());
            return;
        }
        let reading = self.hub.list(scope, self.now);
        let Self { ledger, pools, records, policy, .. } = self;
        ledger.absorb_registrations(reading, &mark(), pools, records, policy);
    }

    /// Every agent's turn.
    pub(crate) fn hosts(&mut self) -> Result<(), String> {
        for (name, daemon) in &mut self.daemons {
            if daemon.silent || self.shared.away_since.is_some() {
                continue;
            }
            let mut assignment =
                self.assignments.get(&daemon.agent.host).cloned().unwrap_or_default();
            if self.withheld.hosts.contains(&daemon.agent.host) {
                // As after a reading that failed: what was accepted goes on.
                assignment = Arc::default();
            }
            let mut outside = Outside { hub: &mut self.hub, pools: &self.pools, now: self.now };
            let told = daemon.turn(&assignment, &mut outside)?;
            for (what, id, more) in told {
                let runner = short(id);
                let line = format!("{name} {what} {runner} {more}").trim_end().to_owned();
                self.told.push((self.now, line));
            }
            if let Some(record) = daemon.report(self.now) {
                self.records.insert(record.host, Arc::new(record));
            }
        }
        Ok(())
    }

    pub(crate) fn view(&mut self) -> View {
        let Self {
            ledger,
            records,
            operator,
            policy,
            now,
            pools,
            assignments,
            withheld,
            shared,
            daemons,
            ..
        } = self;
        let look = Look {
            incarnation: shared.incarnation,
            hosts: records,
            assignments,
            withheld: &withheld.hosts,
            operator,
            untouched: std::mem::take(&mut shared.begins) && !shared.led,
            now: *now,
        };
        shared.led = true;
        let owed = shared.memory.owed(operator).cloned();
        if shared.memory.look(look, policy) {
            ledger.hear_anew(*now);
        }
        *operator = owed.unwrap_or_else(|| operator.clone());
        ledger.absorb_hosts(records, operator, policy, *now);
        // A replica without a word to the store does not announce itself either.
        let there = daemons.values().filter(|daemon| !daemon.silent);
        ledger.absorb_replicas(&there.map(Daemon::replica).collect(), operator, *now);
        ledger.refusals.note(records, assignments, policy, *now);
        ledger.rebuilding = shared.memory.rebuilding(records, &ledger.registrations);
        ledger.demand.settle(pools, *now);
        ledger.mark_unassigned(pools, records, policy, *now);
        self.snapshot()
    }

    fn snapshot(&self) -> View {
        let mut assignments = self.assignments.clone();
        assignments.retain(|host, _| !self.withheld.hosts.contains(host));
        View {
            cluster: mark(),
            pools: Arc::new(self.pools.clone()),
            hosts: self.records.clone(),
            assignments,
            operator: self.operator.clone(),
            intents: self.intents.clone(),
            ledger: Arc::new(self.ledger.clone()),
            budget: self.budget.clone(),
            withheld: self.withheld.clone(),
        }
    }

    /// The leader's turn. Whether anything was decided.
    pub(crate) fn lead(&mut self) -> Result<bool, String> {
        if self.leaderless || self.shared.away_since.is_some() {
            return Ok(false);
        }
        let view = self.view();
        let decided = self.decide(&view);
        if decided.is_empty() {
            self.last = decided;
            self.last_view = Some(view);
            return Ok(false);
        }
        if decided != self.decide(&view) {
            return Err("the same view gave two plans".to_owned());
        }
        rules::check_plan(&view, &self.policy, &decided, self.now)?;
        self.next_runner += decided.place.len() as u128;
        self.tell(&decided);
        self.commit(&view, &decided);
        let again = self.decide(&self.snapshot());
        let acts = !again.place.is_empty()
            || !again.retire.is_empty()
            || !again.release.is_empty()
            || !again.outcomes.is_empty()
            || !again.seen.is_empty()
            || !again.freeze.is_empty()
            || again.operator.is_some()
            || again.deregister != decided.deregister;
        if acts {
            return Err(format!(
                "planned again after the plan was carried out, it wants more: {again:#?}\n\
                 the first plan was: {decided:#?}"
            ));
        }
        self.deregister(&decided);
        self.last = decided;
        self.last_view = Some(view);
        Ok(true)
    }

    fn decide(&self, view: &View) -> Plan {
        let mut next = self.next_runner;
        let mut fresh = || {
            next += 1;
            RunnerId(Uuid::from_u128(next))
        };
        plan(view, &self.policy, &mut fresh, self.now)
    }

    fn commit(&mut self, view: &View, decided: &Plan) {
        let written = decided.assignments(view, Term(1));
        let revisions = written.iter().map(|(host, it)| (*host, it.revision)).collect();
        for (host, assignment) in written {
            self.assignments.insert(host, Arc::new(assignment));
        }
        if let Some(operator) = &decided.operator {
            let revision = self.operator.revision + 1;
            self.operator = Operator { revision, ..operator.clone() };
        }
        self.shared.memory.wrote(&revisions, Some(&self.operator));
        self.intents.retain(|intent| decided.outcomes.iter().all(|o| o.intent != intent.id));
        decided.remember(&mut self.ledger, self.now);
    }

    fn deregister(&mut self, decided: &Plan) {
        for orphan in &decided.deregister {
            match self.hub.delete(&orphan.name) {
                Answer::Deleted | Answer::Absent => {
                    self.ledger.registrations.forget(&orphan.name);
                }
                Answer::Busy | Answer::Error => self.ledger.registrations.put_off(&orphan.name),
            }
        }
    }

    fn tell(&mut self, decided: &Plan) {
        for placement in &decided.place {
            let assigned = &placement.assigned;
            let host = self.host_name(&placement.host);
            let reason = assigned.reason.code();
            self.say(format!("assign 1 {} {reason} on {host}", assigned.pool));
        }
        for order in &decided.retire {
            let runner = short(order.runner);
            self.say(format!("retire {runner} {}", order.retirement.reason.code()));
        }
        for release in &decided.release {
            if let Some(reason) = &release.reason {
                let runner = short(release.runner);
                self.say(format!("release {runner} {}", reason.code()));
            }
        }
        for orphan in &decided.deregister {
            let name = self.names.get(&orphan.name).cloned();
            let name = name.or_else(|| runner_of(&orphan.name).map(short)).unwrap_or_default();
            self.say(format!("deregister {name}"));
        }
        for outcome in &decided.outcomes {
            let reason = outcome.reason.as_ref().map_or("", |reason| reason.code());
            let line = format!("answer {} {reason}", outcome.accepted.len());
            self.say(line.trim_end().to_owned());
        }
    }

    fn say(&mut self, line: String) {
        self.told.push((self.now, line));
    }

    pub(crate) fn host_name(&self, host: &HostId) -> String {
        self.daemons
            .iter()
            .find(|(_, daemon)| daemon.agent.host == *host)
            .map_or_else(|| host.short(), |(name, _)| name.clone())
    }
}

/// `r7`.
pub(crate) fn short(id: RunnerId) -> String {
    format!("r{}", id.0.as_u128())
}

/// The runner a name of ours belongs to: scenario ids are small numbers.
pub(crate) fn runner_of(name: &RunnerName) -> Option<RunnerId> {
    let tail = name.as_str().rsplit('-').next()?;
    u128::from_str_radix(tail, 16).ok().map(|number| RunnerId(Uuid::from_u128(number)))
}

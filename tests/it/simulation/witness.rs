//! Who sees everything: every effect in order, as a trace with a hash, the rules that
//! can be judged at the moment of an effect, and which situations were reached.

mod hosts;
mod operator;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use runner_orchestrator::election::{Agency, Leadership};
use runner_orchestrator::fleet::host::{HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::id::{ContainerId, HostId, ReplicaId, RunnerId, Term};
use runner_orchestrator::fleet::intent::Operator;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::sim::github::SimGitHub;
use runner_orchestrator::store::{Commit, LeaseKey, Snapshot, StoreError};
use tokio::time::Instant;

use self::operator::Asked;
use super::gate::lock;

/// Lines of the trace shown when a seed fails.
const TAIL: usize = 80;

/// The witness of one run.
pub(super) struct Witness {
    began: Instant,
    pub(super) github: SimGitHub,
    state: Mutex<State>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// What it has seen.
#[derive(Default)]
pub(super) struct State {
    hash: DefaultHasher,
    events: u64,
    tail: VecDeque<String>,
    tail_max: usize,
    violations: Vec<String>,
    reached: BTreeSet<&'static str>,
    /// The newest leadership each running process has shown.
    leaders: BTreeMap<usize, Leadership>,
    /// When one showed that last.
    led_at: Option<Instant>,
    /// The last term each has taken, and whether it has given it up: a plan that was on its
    /// way then may still arrive.
    terms: BTreeMap<usize, (Term, bool)>,
    /// The highest term in which something was written, and by whom.
    top: Option<(Term, ReplicaId)>,
    operator: Operator,
    asked: Asked,
    assigned: BTreeMap<HostId, BTreeSet<RunnerId>>,
    /// When each host's last report was taken in.
    reported_at: BTreeMap<HostId, Instant>,
    identities: BTreeMap<usize, HostId>,
    agents: BTreeMap<usize, (usize, Instant)>,
    /// What a stopped agent created after another had taken its daemon over.
    strays: BTreeSet<String>,
    /// When each process that was stopped went on.
    resumed_at: BTreeMap<usize, Instant>,
    creating: BTreeMap<usize, u32>,
    starts: BTreeMap<ContainerId, u32>,
    configurations: BTreeMap<u64, ContainerId>,
    /// Since when no replica reaches the store.
    outage_since: Option<Instant>,
    /// A few configurations as handed over: they must turn up nowhere else.
    secrets: Vec<String>,
    /// The last commit, or change at Docker or GitHub.
    changed_at: Option<Instant>,
}

impl Witness {
    pub(super) fn new(github: SimGitHub, verbose: bool) -> Arc<Self> {
        let state = State {
            hash: DefaultHasher::new(),
            tail_max: if verbose { 100_000 } else { TAIL },
            ..State::default()
        };
        Arc::new(Self { began: Instant::now(), github, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One event of the trace.
    pub(super) fn note(&self, event: impl fmt::Display) {
        let at = self.began.elapsed().as_millis();
        self.state().note(format!("{at:>7} {event}"));
    }

    /// An invariant does not hold.
    pub(super) fn violated(&self, invariant: &str, what: impl fmt::Display) {
        let at = self.began.elapsed().as_millis();
        let mut state = self.state();
        let line = format!("{at:>7} INVARIANT {invariant}: {what}");
        state.note(line.clone());
        if state.violations.len() < 5 {
            state.violations.push(line);
        }
    }

    /// A situation that the whole run must have met somewhere.
    pub(super) fn reached(&self, situation: &'static str) {
        self.state().reached.insert(situation);
    }

    pub(super) fn situations(&self) -> BTreeSet<&'static str> {
        self.state().reached.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The trace's hash, and how many events it has.
    pub(super) fn trace(&self) -> (u64, u64) {
        let state = self.state();
        (state.hash.finish(), state.events)
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.state().tail.iter().cloned().collect()
    }

    /// How long nothing was written, changed at Docker or asked of GitHub that changes it.
    pub(super) fn quiet_for(&self) -> Duration {
        self.state().changed_at.map_or(self.began.elapsed(), |at| at.elapsed())
    }

    pub(super) fn answer_lost(&self, action: &'static str) {
        self.note(format_args!("store: done, answer lost: {action}"));
        self.reached(match action {
            "writing a plan" => "the answer to a plan's write was lost after its effect",
            "taking a lease" => "the answer to taking a lease was lost after its effect",
            "reporting a host" => "the answer to a report was lost after its effect",
            _ => "some answer of the store was lost after its effect",
        });
    }

    pub(super) fn lease_taken(&self, who: usize, lease: LeaseKey, replica: ReplicaId, term: Term) {
        let another =
            lease == LeaseKey::Leader && self.state().top.is_some_and(|(top, _)| top < term);
        if another && self.github.running_jobs() > 0 {
            self.reached("another replica began to lead while jobs ran");
        }
        if lease == LeaseKey::Leader {
            self.state().terms.insert(who, (term, false));
        }
        self.note(format_args!("r{who}: holds {lease:?} in term {term} as {replica}"));
    }

    pub(super) fn lease_given_up(&self, who: usize, lease: LeaseKey) {
        if lease == LeaseKey::Leader {
            let mut state = self.state();
            state.leaders.remove(&who);
            if let Some((_, given_up)) = state.terms.get_mut(&who) {
                *given_up = true;
            }
        }
        self.note(format_args!("r{who}: gives {lease:?} up"));
    }

    /// A process showed its right to lead.
    pub(super) fn leads(&self, who: usize, leader: &Leadership) {
        let mut state = self.state();
        if state.terms.get(&who) != Some(&(leader.term(), true)) {
            state.leaders.insert(who, leader.clone());
            if leader.holds() {
                state.led_at = Some(Instant::now());
            }
        }
    }

    /// When somebody last showed the right to lead: one may have died of it since.
    pub(super) fn led_at(&self) -> Option<Instant> {
        self.state().led_at
    }

    /// The process is gone, and all it believed.
    pub(super) fn gone(&self, who: usize) {
        self.state().leaders.remove(&who);
    }

    /// A stopped process goes on.
    pub(super) fn resumed(&self, who: usize) {
        self.state().resumed_at.insert(who, Instant::now());
    }

    /// The store is away for everybody, or back.
    pub(super) fn outage(&self, away: bool) {
        self.state().outage_since = away.then(Instant::now);
    }

    /// Texts that must be in no record.
    pub(super) fn secrets(&self) -> Vec<String> {
        self.state().secrets.clone()
    }

    /// The store was emptied: what is compared with its content begins anew.
    pub(super) fn emptied(&self) {
        let mut state = self.state();
        state.operator = Operator::default();
        state.assigned.clear();
    }

    /// The store is again as it was: what is compared with its content goes back too.
    pub(super) fn went_back(&self, to: &Snapshot) {
        let mut state = self.state();
        state.operator = to.operator.clone();
        let assigned = to.assignments.iter();
        let assigned: BTreeMap<HostId, BTreeSet<RunnerId>> =
            assigned.map(|(host, a)| (*host, a.runners.keys().copied().collect())).collect();
        if state.assigned != assigned {
            state.reached.insert("the store went back over a leader's plan");
        }
        state.assigned = assigned;
    }

    /// A replica gave the store the operator state that it had lost.
    pub(super) fn wrote_back(&self, operator: &Operator) {
        self.reached("the operator's state was written back");
        let mut state = self.state();
        if state.operator.revision < operator.revision {
            state.operator = operator.clone();
        }
    }

    /// The processes whose right to lead holds by their own clocks.
    pub(super) fn leading(&self) -> Vec<usize> {
        let state = self.state();
        let holding = state.leaders.iter().filter(|(_, leadership)| leadership.holds());
        holding.map(|(who, _)| *who).collect()
    }

    /// Invariants 1 and 2: terms of what is written only grow, and no two replicas write
    /// in the same one.
    pub(super) fn leader_wrote(&self, leader: &Leadership) {
        let ours = (leader.term(), leader.replica());
        let top = self.state().top.replace(ours);
        if let Some((term, replica)) = top
            && (ours.0 < term || (ours.0 == term && ours.1 != replica))
        {
            self.violated(
                "1/2",
                format_args!(
                    "a write in term {} by {} after one in term {term} by {replica}",
                    ours.0, ours.1
                ),
            );
        }
    }

    pub(super) fn committed(
        &self,
        who: usize,
        leader: &Leadership,
        commit: &Commit,
        answer: &Result<(), StoreError>,
    ) {
        let term = leader.term();
        match answer {
            Ok(()) => (),
            Err(StoreError::Superseded { .. }) => {
                self.note(format_args!("r{who}: its plan of term {term} is refused"));
                return self.reached("a plan of a leader that had lost its term was refused");
            }
            Err(_) => return,
        }
        self.leader_wrote(leader);
        self.carries_out(commit);
        if commit.assignments.values().any(|assignment| assignment.version < RECORD_VERSION) {
            self.reached("a replica of the release before led");
        }
        let mut placed = Vec::new();
        let mut retiring = 0;
        {
            let mut state = self.state();
            state.changed_at = Some(Instant::now());
            if let Some(operator) = &commit.operator {
                state.operator = operator.clone();
            }
            for (host, assignment) in &commit.assignments {
                let ids: BTreeSet<RunnerId> = assignment.runners.keys().copied().collect();
                retiring += assignment.retire.len();
                let before = state.assigned.insert(*host, ids.clone()).unwrap_or_default();
                placed.extend(ids.difference(&before).map(|id| (*host, *id)));
            }
        }
        self.note(format_args!(
            "r{who}: writes a plan in term {term}: {} placed, {retiring} retiring, {} hosts",
            placed.len(),
            commit.assignments.len(),
        ));
        for (host, runner) in placed {
            if self.state().operator.draining.contains(&host) {
                self.violated("23", format_args!("{runner} is placed on draining host {host}"));
            }
        }
    }

    /// Invariant 19 is the store's own fence; here it is noted that a report arrived.
    pub(super) fn reported(&self, who: usize, agent: &Agency, record: &HostRecord) {
        if record.host != agent.host() || record.replica != agent.replica() {
            self.violated("19", format_args!("r{who} reports for another: {record:?}"));
        }
        let lost = record.runners.values().any(|r| matches!(r.phase, RunnerPhase::Lost { .. }));
        if lost {
            self.reached("a runner was reported lost");
        }
        if record.runners.values().any(|runner| runner.adopted) {
            self.reached("a new process adopted what ran");
        }
        let mut state = self.state();
        state.reported_at.insert(record.host, Instant::now());
        if record.version < RECORD_VERSION {
            state.reached.insert("reports of two record versions were in the store");
        }
    }

    /// How long the store has had no report of the host behind a daemon.
    pub(super) fn silent_for(&self, daemon: usize) -> Duration {
        let state = self.state();
        let reported = state.identities.get(&daemon).and_then(|host| state.reported_at.get(host));
        reported.map_or(self.began.elapsed(), Instant::elapsed)
    }

    /// The host behind a daemon, once its agent has asked.
    pub(super) fn host_of(&self, daemon: usize) -> Option<HostId> {
        self.state().identities.get(&daemon).copied()
    }
}

impl State {
    fn note(&mut self, line: String) {
        self.hash.write(line.as_bytes());
        self.events += 1;
        if self.tail.len() >= self.tail_max {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

//! One replica's way to the shared store, with everything that can go wrong on it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use runner_orchestrator::election::{Agency, Leadership};
use runner_orchestrator::fleet::budget::BudgetShare;
use runner_orchestrator::fleet::digest::Digest;
use runner_orchestrator::fleet::host::{Assignment, HostRecord};
use runner_orchestrator::fleet::id::{HostId, IntentId, ReplicaId, Term};
use runner_orchestrator::fleet::intent::{Intent, Operator, Outcome};
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::random::Random;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::{
    Commit, Lease, LeaseKey, Snapshot, Store, StoreError, StoreHealth, Topic,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::gate::{Gate, Moment, Point, lock};
use super::witness::Witness;

/// The client's own limit: every call ends within it.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What is wrong with the way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Trouble {
    /// Connections are refused.
    Unreachable,
    /// Requests go nowhere.
    BlackHole,
    /// Requests arrive and are carried out; no answer comes back.
    OneWay,
    /// Some requests are lost, some answers, some requests arrive after we gave up.
    Flaky,
    /// Answers come, but late.
    Slow,
    /// The store answers and takes no writes.
    ReadOnly,
}

/// The way itself; it outlives the processes that use it.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<LinkState>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct LinkState {
    /// One sequence for each kind of call: tasks of a process that wake at one instant do
    /// so in no fixed order, and must not take each other's numbers.
    random: BTreeMap<&'static str, Random>,
    seeds: Random,
    trouble: Option<Trouble>,
}

/// What becomes of one call.
enum Lot {
    Carried,
    Unreachable,
    RequestLost,
    AnswerLost,
    /// Carried out this long after it was given up.
    Late(Duration),
    Refused,
}

impl Link {
    pub(super) fn new(seeds: Random, tasks: TaskTracker) -> Self {
        let state = LinkState { random: BTreeMap::new(), seeds, trouble: None };
        Self { state: Mutex::new(state), tasks }
    }

    pub(super) fn set(&self, trouble: Option<Trouble>) {
        lock(&self.state).trouble = trouble;
    }

    /// Whether calls get through and are answered in time.
    pub(super) fn is_well(&self) -> bool {
        lock(&self.state).trouble.is_none()
    }

    fn draw(&self, action: &'static str, writes: bool) -> (Duration, Lot, Duration) {
        let LinkState { random, seeds, trouble } = &mut *lock(&self.state);
        let random = random.entry(action).or_insert_with(|| {
            let mut hash = DefaultHasher::new();
            hash.write(action.as_bytes());
            Random::seeded(seeds.clone().bits() ^ hash.finish())
        });
        let mut ms = |most: usize| Duration::from_millis(random.below(most) as u64);
        let (before, after) = (ms(3), ms(2));
        let lot = match trouble {
            Some(Trouble::Unreachable) => Lot::Unreachable,
            Some(Trouble::BlackHole) => Lot::RequestLost,
            Some(Trouble::OneWay) => Lot::AnswerLost,
            Some(Trouble::Slow) => return (ms(450), Lot::Carried, ms(450)),
            Some(Trouble::ReadOnly) if writes => Lot::Refused,
            None | Some(Trouble::ReadOnly) => Lot::Carried,
            Some(Trouble::Flaky) => match random.below(10) {
                0 => Lot::RequestLost,
                1 | 2 => Lot::AnswerLost,
                3 => Lot::Late(Duration::from_millis(100 + random.below(4_000) as u64)),
                _ => Lot::Carried,
            },
        };
        (before, lot, after)
    }
}

/// The store as one process reaches it.
#[derive(Debug)]
pub(super) struct FaultyStore {
    inner: Arc<MemoryStore>,
    link: Arc<Link>,
    gate: Arc<Gate>,
    witness: Arc<Witness>,
    replica: usize,
    /// One channel for each listener: a shared one would wake them in random order.
    listeners: Mutex<Vec<(Topic, watch::Sender<u64>)>>,
}

impl FaultyStore {
    pub(super) fn new(
        inner: Arc<MemoryStore>,
        link: Arc<Link>,
        gate: Arc<Gate>,
        witness: Arc<Witness>,
        replica: usize,
    ) -> Self {
        Self { inner, link, gate, witness, replica, listeners: Mutex::default() }
    }

    /// Passes the store's hints on while the way is well; a hint that is lost is lost. Each
    /// replica hears them at a millisecond of its own, in an order that a seed repeats.
    pub(super) fn hints(self: &Arc<Self>) -> JoinSet<()> {
        let mut hints = JoinSet::new();
        for topic in Topic::ALL {
            let store = Arc::clone(self);
            let mut changes = self.inner.changes(topic);
            hints.spawn(async move {
                let way = Duration::from_millis(1 + store.replica as u64);
                while changes.changed().await.is_ok() {
                    tokio::time::sleep(way).await;
                    if store.link.is_well() {
                        store.gate.pass().await;
                        store.hint(topic);
                    }
                }
            });
        }
        hints
    }

    fn hint(&self, topic: Topic) {
        for (_, listener) in lock(&self.listeners).iter().filter(|(of, _)| *of == topic) {
            listener.send_modify(|count| *count += 1);
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        writes: bool,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.gate.pass().await;
        let (before, lot, after) = self.link.draw(action, writes);
        pause(before).await;
        let answer = match lot {
            Lot::Carried => effect.await,
            Lot::Unreachable => {
                Err(StoreError::Unavailable { action, problem: "connection refused".to_owned() })
            }
            Lot::Refused => {
                Err(StoreError::Refused { action, problem: "READONLY, in the model".to_owned() })
            }
            Lot::RequestLost => given_up(action).await,
            Lot::AnswerLost => {
                if effect.await.is_ok() {
                    self.witness.answer_lost(action);
                }
                given_up(action).await
            }
            Lot::Late(late) => {
                let effect = Box::pin(effect);
                self.link.tasks.spawn(async move {
                    tokio::time::sleep(ANSWER_LIMIT + late).await;
                    let _ = effect.await;
                });
                given_up(action).await
            }
        };
        pause(after).await;
        self.gate.pass().await;
        answer
    }

    /// A call that is one of the steps at which a process may die.
    async fn step<T: Send + 'static>(
        &self,
        point: Point,
        action: &'static str,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.gate.at(point, Moment::Before).await;
        let answer = self.call(action, true, effect).await;
        self.gate.at(point, Moment::After).await;
        answer
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        tokio::time::sleep(span).await;
    }
}

async fn given_up<T>(action: &'static str) -> Result<T, StoreError> {
    tokio::time::sleep(ANSWER_LIMIT).await;
    Err(StoreError::Timeout { action, timeout_ms: 1_000 })
}

#[async_trait]
impl Store for FaultyStore {
    async fn acquire(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        seen: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let (inner, witness, who) = (self.inner.clone(), self.witness.clone(), self.replica);
        let effect = async move {
            let answer = inner.acquire(lease, replica, seen, ttl).await;
            if let Ok(Lease::Ours { term }) = answer {
                witness.lease_taken(who, lease, replica, term);
            }
            answer
        };
        self.step(Point::Acquire, "taking a lease", effect).await
    }

    async fn renew(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
        ttl: Duration,
    ) -> Result<Lease, StoreError> {
        let inner = self.inner.clone();
        let effect = async move { inner.renew(lease, replica, term, ttl).await };
        self.call("renewing a lease", true, effect).await
    }

    async fn release(
        &self,
        lease: LeaseKey,
        replica: ReplicaId,
        term: Term,
    ) -> Result<(), StoreError> {
        self.witness.lease_given_up(self.replica, lease);
        let inner = self.inner.clone();
        let effect = async move { inner.release(lease, replica, term).await };
        self.call("releasing a lease", true, effect).await
    }

    async fn commit(&self, leader: &Leadership, commit: Commit) -> Result<(), StoreError> {
        self.witness.leads(self.replica, leader);
        let (inner, witness, who) = (self.inner.clone(), self.witness.clone(), self.replica);
        let leader = leader.clone();
        let effect = async move {
            let answer = inner.commit(&leader, commit.clone()).await;
            witness.committed(who, &leader, &commit, &answer);
            answer
        };
        self.step(Point::Commit, "writing a plan", effect).await
    }

    async fn publish(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        self.witness.leads(self.replica, leader);
        let (inner, leader) = (self.inner.clone(), leader.clone());
        let witness = self.witness.clone();
        let effect = async move {
            let answer = inner.publish(&leader, digest).await;
            if answer.is_ok() {
                witness.leader_wrote(&leader);
            }
            answer
        };
        self.call("publishing a turn", true, effect).await
    }

    async fn report(&self, agent: &Agency, record: HostRecord) -> Result<(), StoreError> {
        let (inner, witness, who) = (self.inner.clone(), self.witness.clone(), self.replica);
        let agent = agent.clone();
        let effect = async move {
            let answer = inner.report(&agent, record.clone()).await;
            if answer.is_ok() {
                witness.reported(who, &agent, &record);
            }
            answer
        };
        self.step(Point::Report, "reporting a host", effect).await
    }

    async fn assignment(&self, host: HostId) -> Result<Assignment, StoreError> {
        let inner = self.inner.clone();
        self.call("reading an assignment", false, async move { inner.assignment(host).await }).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let inner = self.inner.clone();
        self.call("reading everything", false, async move { inner.snapshot().await }).await
    }

    async fn record(&self, intent: Intent) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.call("recording an intent", true, async move { inner.record(intent).await }).await
    }

    async fn outcome(&self, intent: IntentId) -> Result<Option<Outcome>, StoreError> {
        let inner = self.inner.clone();
        self.call("reading an outcome", false, async move { inner.outcome(intent).await }).await
    }

    async fn announce(&self, replica: ReplicaRecord, ttl: Duration) -> Result<(), StoreError> {
        let inner = self.inner.clone();
        self.call("announcing", true, async move { inner.announce(replica, ttl).await }).await
    }

    async fn restore(&self, operator: &Operator) -> Result<(), StoreError> {
        let (inner, operator) = (self.inner.clone(), operator.clone());
        self.call("restoring", true, async move { inner.restore(&operator).await }).await
    }

    async fn share(&self, share: BudgetShare) -> Result<Vec<BudgetShare>, StoreError> {
        let inner = self.inner.clone();
        self.call("sharing the budget", true, async move { inner.share(share).await }).await
    }

    async fn recall(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let (inner, name) = (self.inner.clone(), name.to_owned());
        self.call("recalling", false, async move { inner.recall(&name).await }).await
    }

    async fn put_by(
        &self,
        leader: &Leadership,
        name: &str,
        entries: BTreeMap<String, Option<String>>,
    ) -> Result<(), StoreError> {
        let (inner, leader, name) = (self.inner.clone(), leader.clone(), name.to_owned());
        let effect = async move { inner.put_by(&leader, &name, entries).await };
        self.call("putting by", true, effect).await
    }

    fn changes(&self, topic: Topic) -> watch::Receiver<u64> {
        let (listener, changes) = watch::channel(0);
        lock(&self.listeners).push((topic, listener));
        changes
    }

    fn health(&self) -> watch::Receiver<StoreHealth> {
        self.inner.health()
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let inner = self.inner.clone();
        self.call("asking the time", false, async move { inner.now().await }).await
    }
}

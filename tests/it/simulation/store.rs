//! One replica's way to the shared store, with everything that can go wrong on it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runner_orchestrator::sim::random::Random;
use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::{Lease, Store, StoreError, StoreHealth, Topic};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::gate::{Gate, Moment, Point, lock};
use super::older;
use super::witness::Witness;
use crate::it::support::reached_store::{Call, Done, ReachedStore, Read, Sent, Way};

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
    health: watch::Sender<StoreHealth>,
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
        let reachable = Some(Ok(()));
        let health = StoreHealth { kind: "model", shared: true, reachable, warnings: Vec::new() };
        Self { state: Mutex::new(state), tasks, health: watch::Sender::new(health) }
    }

    /// How the last call went.
    fn went<T>(&self, answer: &Result<T, StoreError>) {
        let reachable = match answer {
            Err(error @ (StoreError::Timeout { .. } | StoreError::Unavailable { .. })) => {
                Err(error.to_string())
            }
            _ => Ok(()),
        };
        self.health.send_modify(|health| health.reachable = Some(reachable));
    }

    pub(super) fn set(&self, trouble: Option<Trouble>) {
        lock(&self.state).trouble = trouble;
    }

    /// Whether calls get through and are answered in time.
    pub(super) fn is_well(&self) -> bool {
        lock(&self.state).trouble.is_none()
    }

    /// Whether some of what is asked is carried out without an answer.
    pub(super) fn is_flaky(&self) -> bool {
        lock(&self.state).trouble == Some(Trouble::Flaky)
    }

    fn draw(&self, action: &'static str, writes: bool) -> (Duration, Lot, Duration) {
        let LinkState { random, seeds, trouble } = &mut *lock(&self.state);
        let random = random.entry(action).or_insert_with(|| {
            let mut hash = DefaultHasher::new();
            hash.write(action.as_bytes());
            Random::seeded(seeds.clone().bits() ^ hash.finish())
        });
        let mut ms = |most: usize| Duration::from_millis(random.below(most) as u64);
        // One wait a call, where its length means nothing: waits are much of a run's work.
        let (before, after) = (ms(4), Duration::ZERO);
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

/// One process's way to the store: the network's troubles, its own stops and death, and the
/// witness who sees what takes effect.
#[derive(Debug)]
pub(super) struct Faulty {
    pub(super) link: Arc<Link>,
    pub(super) gate: Arc<Gate>,
    pub(super) witness: Arc<Witness>,
    pub(super) replica: usize,
    /// Its process is of the release before.
    pub(super) older: bool,
    /// One channel for each listener: a shared one would wake them in random order.
    pub(super) listeners: Mutex<Vec<(Topic, watch::Sender<u64>)>>,
    pub(super) order: Arc<Order>,
}

/// The writes of one process that replace a whole record take effect in the order in which
/// they were sent: the store numbers them. One that comes after a later one changes nothing.
#[derive(Debug, Default)]
pub(super) struct Order {
    sent: AtomicU64,
    newest: Mutex<BTreeMap<&'static str, u64>>,
}

impl Order {
    fn number(&self) -> u64 {
        self.sent.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether this write still counts.
    fn counts(&self, call: Call, number: u64) -> bool {
        if !matches!(call.action, "writing a plan" | "publishing a turn" | "reporting a host") {
            return true;
        }
        let mut newest = lock(&self.newest);
        let newest = newest.entry(call.action).or_default();
        let counts = *newest < number;
        *newest = number.max(*newest);
        counts
    }
}

/// The store as one process reaches it.
pub(super) type FaultyStore = ReachedStore<Faulty>;

/// The steps at which a process may be told to die.
fn point(call: Call) -> Option<Point> {
    match call.action {
        "writing a plan" => Some(Point::Commit),
        "reporting a host" => Some(Point::Report),
        "taking a lease" => Some(Point::Acquire),
        _ => None,
    }
}

impl Faulty {
    /// Passes the store's hints on while the way is well; a hint that is lost is lost. Each
    /// replica hears them at a millisecond of its own, in an order that a seed repeats.
    pub(super) fn hints(self: &Arc<Self>, store: &MemoryStore) -> JoinSet<()> {
        let mut hints = JoinSet::new();
        for topic in Topic::ALL {
            let way = Arc::clone(self);
            let mut changes = store.changes(topic);
            hints.spawn(async move {
                let takes = Duration::from_millis(1 + way.replica as u64);
                while changes.changed().await.is_ok() {
                    tokio::time::sleep(takes).await;
                    if way.link.is_well() {
                        way.gate.pass().await;
                        way.hint(topic);
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

    async fn cross<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.gate.pass().await;
        let Call { action, writes } = call;
        let (before, lot, after) = self.link.draw(action, writes);
        let (order, number) = (self.order.clone(), self.order.number());
        pause(before).await;
        if matches!(lot, Lot::Carried | Lot::AnswerLost) {
            self.order.counts(call, number);
        }
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
                let (effect, witness) = (Box::pin(effect), self.witness.clone());
                self.link.tasks.spawn(async move {
                    tokio::time::sleep(ANSWER_LIMIT + late).await;
                    if order.counts(call, number) {
                        let _ = effect.await;
                    } else {
                        witness.reached("a write came after a later one");
                    }
                });
                given_up(action).await
            }
        };
        pause(after).await;
        self.gate.pass().await;
        self.link.went(&answer);
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

impl Way for Faulty {
    async fn carry<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Some(point) = point(call) else { return self.cross(call, effect).await };
        self.gate.at(point, Moment::Before).await;
        let answer = self.cross(call, effect).await;
        self.gate.at(point, Moment::After).await;
        answer
    }

    fn changes(&self, _store: &MemoryStore, topic: Topic) -> watch::Receiver<u64> {
        let (listener, changes) = watch::channel(0);
        lock(&self.listeners).push((topic, listener));
        changes
    }

    fn health(&self, _store: &MemoryStore) -> watch::Receiver<StoreHealth> {
        self.link.health.subscribe()
    }

    fn sends(&self, sent: Sent<'_>) {
        match sent {
            Sent::Release(lease) => self.witness.lease_given_up(self.replica, lease),
            Sent::Commit(leader, commit) => {
                self.witness.leads(self.replica, leader);
                if self.older {
                    older::commit(commit);
                }
            }
            Sent::Digest(leader, digest) => {
                self.witness.leads(self.replica, leader);
                if self.older {
                    *digest = older::digest(digest);
                }
            }
            Sent::Report(record) if self.older => *record = older::report(record),
            Sent::Announcement(replica) if self.older => older::announcement(replica),
            Sent::Report(_) | Sent::Announcement(_) => (),
        }
    }

    fn did(&self, done: Done<'_>) {
        let (witness, who) = (&self.witness, self.replica);
        match done {
            Done::Acquired(lease, replica, Ok(Lease::Ours { term })) => {
                witness.lease_taken(who, lease, replica, *term);
            }
            Done::Committed(leader, commit, answer) => {
                witness.committed(who, leader, commit, answer);
            }
            Done::Published(leader, Ok(())) => witness.leader_wrote(leader),
            Done::Reported(agent, record, Ok(())) => witness.reported(who, agent, record),
            Done::Restored(operator) => witness.wrote_back(operator),
            Done::Acquired(..) | Done::Published(..) | Done::Reported(..) => (),
        }
    }

    fn reads(&self, read: Read<'_>) {
        if !self.older {
            return;
        }
        match read {
            Read::Assignment(assignment) => *assignment = older::read(assignment),
            Read::Snapshot(snapshot) => older::read_all(snapshot),
        }
    }
}

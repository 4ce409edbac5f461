//! A way to the store that works or does not.

use std::sync::Mutex;
use std::time::Duration;

use runner_orchestrator::store::memory::MemoryStore;
use runner_orchestrator::store::{Store, StoreError, StoreHealth, Topic, Unreadable};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::reached_store::{Call, Read, Way};

/// What a call is told while the way is cut.
const CUT: &str = "connection refused";

/// While it is cut nothing is carried, hints included, and its health says so.
#[derive(Debug)]
pub(crate) struct Cable {
    health: watch::Sender<StoreHealth>,
    /// Records that this replica cannot read.
    pub(crate) unreadable: Mutex<Vec<Unreadable>>,
    /// How long the answers to readings are on their way.
    pub(crate) lag: watch::Sender<Duration>,
    /// Carry hints; they end with the cable.
    carriers: Mutex<JoinSet<()>>,
}

impl Cable {
    pub(crate) fn new(shared: bool) -> Self {
        let health =
            StoreHealth { kind: "memory", shared, reachable: Some(Ok(())), warnings: Vec::new() };
        Self {
            health: watch::Sender::new(health),
            unreadable: Mutex::default(),
            lag: watch::Sender::default(),
            carriers: Mutex::default(),
        }
    }

    /// Cuts it or mends it.
    pub(crate) fn cut(&self, cut: bool) {
        self.reachable(Some(if cut { Err(CUT.to_owned()) } else { Ok(()) }));
    }

    pub(crate) fn reachable(&self, how: Option<Result<(), String>>) {
        self.health.send_modify(|health| health.reachable = how);
    }

    pub(crate) fn warn(&self, warning: &str) {
        self.health.send_modify(|health| health.warnings.push(warning.to_owned()));
    }
}

fn problem(health: &StoreHealth) -> Option<String> {
    health.reachable.as_ref().and_then(|reachable| reachable.as_ref().err().cloned())
}

impl Way for Cable {
    async fn carry<T: Send + 'static>(
        &self,
        call: Call,
        effect: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let problem = problem(&self.health.borrow());
        if let Some(problem) = problem {
            return Err(StoreError::Unavailable { action: call.action, problem });
        }
        let answer = effect.await;
        if !call.writes {
            let lag = *self.lag.borrow();
            tokio::time::sleep(lag).await;
        }
        answer
    }

    fn changes(&self, store: &MemoryStore, topic: Topic) -> watch::Receiver<u64> {
        let (mut inner, health) = (store.changes(topic), self.health.subscribe());
        let (hints, heard) = watch::channel(0);
        self.carriers.lock().unwrap().spawn(async move {
            loop {
                tokio::select! { biased;
                    () = hints.closed() => return,
                    Ok(()) = inner.changed() => (),
                    else => return,
                }
                // A hint that comes while the way is cut is lost.
                if problem(&health.borrow()).is_none() {
                    hints.send_modify(|count| *count += 1);
                }
            }
        });
        heard
    }

    fn health(&self, _store: &MemoryStore) -> watch::Receiver<StoreHealth> {
        self.health.subscribe()
    }

    fn reads(&self, read: Read<'_>) {
        if let Read::Snapshot(snapshot) = read {
            snapshot.unreadable.clone_from(&self.unreadable.lock().unwrap());
        }
    }
}

//! The other replicas, as the store shows them. It is read when somebody asks, by one
//! reader at a time and a few times a second at most; while the store is away the last
//! reading stays, with its age.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ApiState;
use crate::election::LEASE_TTL;
use crate::fleet::id::{HostId, ReplicaId, Term};
use crate::fleet::replica::ReplicaRecord;
use crate::fleet::time::Timestamp;
use crate::store::{Snapshot, Unreadable};

/// Requests within this time share one reading.
const FRESH: Duration = Duration::from_millis(250);
/// An answer about the fleet never waits longer than this for the store.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Who is there, by one reading of the store.
#[derive(Clone, Debug, Default)]
pub struct Company {
    pub leader: Option<(ReplicaId, Term)>,
    pub replicas: BTreeMap<ReplicaId, ReplicaRecord>,
    pub unreadable: Vec<Unreadable>,
    /// The store's time of the reading, to compare with what it stamped.
    pub at: Timestamp,
}

impl From<&Snapshot> for Company {
    fn from(snapshot: &Snapshot) -> Self {
        Self {
            leader: snapshot.leader,
            replicas: snapshot.replicas.clone(),
            unreadable: snapshot.unreadable.clone(),
            at: snapshot.at,
        }
    }
}

/// A reading, and how old it is.
#[derive(Clone, Debug)]
pub struct Known {
    pub company: Arc<Company>,
    /// `None`: the store has never been read.
    pub age: Option<Duration>,
    /// Why it could not be read anew.
    pub error: Option<String>,
}

impl Known {
    /// Who leads, unless the lease must have run out since it was last seen.
    #[must_use]
    pub fn leader(&self) -> Option<(ReplicaId, Term)> {
        self.company.leader.filter(|_| self.age.is_some_and(|age| age < LEASE_TTL))
    }

    /// The replica's name for people: its machine, and enough of its id to tell two apart.
    #[must_use]
    pub fn name(&self, replica: ReplicaId) -> String {
        name(self.company.replicas.get(&replica), replica)
    }

    /// Who cares for a host: its agent by its own word, else who last reported the host.
    #[must_use]
    pub fn agent_of(&self, host: HostId, reported_by: Option<ReplicaId>) -> Option<ReplicaId> {
        let mut announced = self.company.replicas.values();
        let by_word = announced.find(|replica| replica.agent && replica.host == Some(host));
        by_word.map(|replica| replica.replica).or(reported_by)
    }
}

/// A replica's name for people, with or without its record.
#[must_use]
pub fn name(record: Option<&ReplicaRecord>, replica: ReplicaId) -> String {
    // The head of the id is the hour it was made in; the tail is random.
    let id = replica.0.simple().to_string();
    let tail = &id[id.len() - 8..];
    record.map_or_else(|| format!("replica {tail}"), |it| format!("{} ({tail})", it.hostname))
}

/// The last reading; shared by all requests.
#[derive(Debug, Default)]
pub struct LastReading(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    company: Arc<Company>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
    error: Option<String>,
}

impl State {
    fn known(&self) -> Known {
        Known {
            company: self.company.clone(),
            age: self.read_at.map(|read_at| read_at.elapsed()),
            error: self.error.clone(),
        }
    }
}

impl ApiState {
    /// The other replicas, as last seen or read anew.
    pub async fn company(&self) -> Known {
        let mut state = self.company.0.lock().await;
        let away = self.store_away();
        if away.is_some() && state.read_at.is_some() {
            // Others ask it all the time; the moment it is back is seen by them.
            state.error = away;
            return state.known();
        }
        if state.tried_at.is_some_and(|tried_at| tried_at.elapsed() < FRESH) {
            return state.known();
        }
        // What could not be read is in the state as an error.
        let _ = self.read_store(&mut state).await;
        state.known()
    }

    /// The whole of what is shared, read now. Remembers who is there on the way.
    ///
    /// # Errors
    /// Why the store could not be read.
    pub async fn snapshot(&self) -> Result<Snapshot, String> {
        let mut state = self.company.0.lock().await;
        self.read_store(&mut state).await
    }

    async fn read_store(&self, state: &mut State) -> Result<Snapshot, String> {
        let read = tokio::time::timeout(READ_TIMEOUT, self.handle.edges.store.snapshot()).await;
        state.tried_at = Some(Instant::now());
        let read = match read {
            Ok(Ok(snapshot)) => Ok(snapshot),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", READ_TIMEOUT.as_secs())),
        };
        match &read {
            Ok(snapshot) => {
                state.company = Arc::new(Company::from(snapshot));
                state.read_at = state.tried_at;
                state.error = None;
            }
            Err(error) => state.error = Some(error.clone()),
        }
        read
    }

    /// Why the store cannot be used, as far as its last call has shown.
    #[must_use]
    pub fn store_away(&self) -> Option<String> {
        match &self.handle.edges.store.health().borrow().reachable {
            Some(Err(why)) => Some(why.clone()),
            Some(Ok(())) | None => None,
        }
    }
}

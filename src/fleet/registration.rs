//! What GitHub's runner list says, over time: the second witness of every runner.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{ClusterMark, GitHubRunnerId, RunnerName};
use super::policy::Policy;
use super::pool::Scope;
use super::time::Timestamp;

/// One registration of our cluster, as last listed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub id: GitHubRunnerId,
    pub scope: Scope,
    pub online: bool,
    pub busy: bool,
    /// The start of the reading that first, without a gap since, showed it offline and
    /// not busy while nobody claimed it.
    pub unclaimed_since: Option<Timestamp>,
}

/// All registrations of our cluster, by name. Shared: the ledger is copied every turn, a
/// list is read once a poll.
pub type Listing = BTreeMap<RunnerName, Listed>;

/// A complete reading of one scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeReading {
    pub scope: Scope,
    pub begun_at: Timestamp,
    pub rows: Vec<Row>,
}

/// One row of a reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub id: GitHubRunnerId,
    pub name: RunnerName,
    pub online: bool,
    pub busy: bool,
}

/// How a scope's readings went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScopeState {
    pub read_at: Option<Timestamp>,
    pub unread_since: Option<Timestamp>,
    pub error: Option<String>,
    /// Registrations in the scope that are not of this cluster.
    pub foreign: u32,
}

/// Everything known of registrations.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RegistrationBook {
    /// The largest part by far, so it is stored apart; see [`Self::listing`].
    #[serde(with = "stored_apart")]
    listed: Arc<Listing>,
    #[serde(with = "scope_states")]
    scopes: BTreeMap<Scope, ScopeState>,
    /// Starts of the readings that showed a runner missing or offline, per runner name,
    /// first and last of an unbroken series.
    denials: BTreeMap<RunnerName, (Timestamp, Timestamp)>,
    /// More than half of a scope's registrations vanished at once: those that have neither
    /// come back nor ended since.
    vanished: BTreeMap<RunnerName, Timestamp>,
}

impl RegistrationBook {
    /// Takes in a complete list of one scope. `expected` names the runners that should
    /// stand in it (handed or later) with the instant since when.
    pub fn read(
        &mut self,
        reading: ScopeReading,
        mark: &ClusterMark,
        expected: &BTreeMap<RunnerName, Timestamp>,
        policy: &Policy,
    ) {
        let ScopeReading { scope, begun_at, rows } = reading;
        let state = self.scopes.entry(scope.clone()).or_default();
        if state.read_at.is_some_and(|read| read > begun_at) {
            return;
        }
        let ours_before = self.listed.values().filter(|row| row.scope == scope).count();
        let (ours, foreign): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.name.is_of(mark));
        state.read_at = Some(begun_at);
        state.unread_since = None;
        state.error = None;
        state.foreign = u32::try_from(foreign.len()).unwrap_or(u32::MAX);
        let ours: BTreeMap<RunnerName, Row> =
            ours.into_iter().map(|row| (row.name.clone(), row)).collect();
        self.note_vanishing(&scope, &ours, ours_before, expected, begun_at);
        self.note_denials(&ours, expected, begun_at, policy);
        let listed = Arc::make_mut(&mut self.listed);
        listed.retain(|name, row| row.scope != scope || ours.contains_key(name));
        for (name, row) in ours {
            let before = listed.remove(&name);
            let idle_ghost = !row.online && !row.busy && !expected.contains_key(&name);
            let unclaimed_since = if idle_ghost {
                before.and_then(|before| before.unclaimed_since).or(Some(begun_at))
            } else {
                None
            };
            listed.insert(
                name,
                Listed {
                    id: row.id,
                    scope: scope.clone(),
                    online: row.online,
                    busy: row.busy,
                    unclaimed_since,
                },
            );
        }
    }

    /// Registrations that vanish one by one ended; when more than half of those of
    /// *living* runners go in one reading, GitHub is not telling the truth. That stands
    /// until each of them has come back or has ended by its host's word.
    fn note_vanishing(
        &mut self,
        scope: &Scope,
        ours: &BTreeMap<RunnerName, Row>,
        ours_before: usize,
        expected: &BTreeMap<RunnerName, Timestamp>,
        begun_at: Timestamp,
    ) {
        self.vanished.retain(|name, _| expected.contains_key(name) && !ours.contains_key(name));
        let gone: Vec<RunnerName> = self
            .listed
            .iter()
            .filter(|(name, row)| {
                row.scope == *scope && !ours.contains_key(*name) && expected.contains_key(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        // Two are half of a small fleet and prove nothing.
        if gone.len() > 2 && gone.len() * 2 > ours_before {
            self.vanished.extend(gone.into_iter().map(|name| (name, begun_at)));
        }
    }

    fn note_denials(
        &mut self,
        ours: &BTreeMap<RunnerName, Row>,
        expected: &BTreeMap<RunnerName, Timestamp>,
        begun_at: Timestamp,
        policy: &Policy,
    ) {
        for (name, since) in expected {
            let online = ours.get(name).is_some_and(|row| row.online);
            if online || begun_at < *since + policy.list_staleness {
                self.denials.remove(name);
            } else {
                self.denials.entry(name.clone()).or_insert((begun_at, begun_at)).1 = begun_at;
            }
        }
        self.denials.retain(|name, _| expected.contains_key(name));
    }

    /// Notes that a scope's list could not be read. What was known stays.
    pub fn unread(&mut self, scope: &Scope, at: Timestamp, error: String) {
        let state = self.scopes.entry(scope.clone()).or_default();
        state.unread_since.get_or_insert(at);
        state.error = Some(error);
    }

    /// Whether two complete readings have shown the runner missing or offline, both begun
    /// well after `since`, the instant it began to listen.
    #[must_use]
    pub fn denies(&self, name: &RunnerName, since: Timestamp, policy: &Policy) -> bool {
        self.denials
            .get(name)
            .is_some_and(|(first, last)| last > first && *first >= since + policy.list_staleness)
    }

    /// Whether the list shows the runner alive: GitHub's word where its host is silent.
    #[must_use]
    pub fn shows_alive(&self, name: &RunnerName) -> bool {
        self.listed.get(name).is_some_and(|row| row.online || row.busy)
    }

    /// Whether the scope's list is recent enough to judge by.
    #[must_use]
    pub fn is_fresh(&self, scope: &Scope, policy: &Policy, now: Timestamp) -> bool {
        self.scopes
            .get(scope)
            .and_then(|state| state.read_at)
            .is_some_and(|read| now.since(read) <= policy.registrations_fresh)
    }

    /// Whether a mass of registrations vanished at once and is still missing.
    #[must_use]
    pub fn mass_vanished(&self) -> bool {
        !self.vanished.is_empty()
    }

    /// Registrations of our cluster, by name.
    #[must_use]
    pub fn listed(&self) -> &Listing {
        &self.listed
    }

    /// The same to be kept: as long as it is the very same, nothing in it has changed.
    #[must_use]
    pub fn listing(&self) -> &Arc<Listing> {
        &self.listed
    }

    /// Puts a listing that was stored apart back to where it belongs.
    pub fn set_listing(&mut self, listing: Arc<Listing>) {
        self.listed = listing;
    }

    /// Every scope and how its readings went.
    #[must_use]
    pub fn scopes(&self) -> &BTreeMap<Scope, ScopeState> {
        &self.scopes
    }

    /// The start of the last reading of a scope.
    #[must_use]
    pub fn read_at(&self, scope: &Scope) -> Option<Timestamp> {
        self.scopes.get(scope).and_then(|state| state.read_at)
    }

    /// Forgets a registration that was deleted, so that it is not deleted again.
    pub fn forget(&mut self, name: &RunnerName) {
        if self.listed.contains_key(name) {
            Arc::make_mut(&mut self.listed).remove(name);
        }
    }

    /// GitHub would not delete it now. Its grace begins anew, so that one that cannot be
    /// deleted costs a call a minute and not a call a turn.
    pub fn put_off(&mut self, name: &RunnerName) {
        if self.listed.contains_key(name)
            && let Some(row) = Arc::make_mut(&mut self.listed).get_mut(name)
        {
            row.unclaimed_since = None;
        }
    }
}

/// Written as if it were empty: replicas of the version before this one expect the field,
/// and wrote it in full.
mod stored_apart {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Listing;

    pub(super) fn serialize<S: Serializer>(
        _: &Arc<Listing>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Listing::new().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Listing>, D::Error> {
        Listing::deserialize(deserializer).map(Arc::new)
    }
}

/// JSON objects have text keys only; scopes are stored as pairs.
mod scope_states {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Scope, ScopeState};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Scope, ScopeState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Scope, ScopeState>, D::Error> {
        Ok(Vec::<(Scope, ScopeState)>::deserialize(deserializer)?.into_iter().collect())
    }
}

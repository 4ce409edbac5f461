//! What GitHub's runner list says, over time: the second witness of every runner.
//!
//! A long list in which runners come and go never holds still while its pages are read, and
//! a row may slip past the reader. What such a reading shows counts as ever; what it lacks
//! is unknown, and counts as missing only when the next reading lacks it too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::id::{ClusterMark, GitHubRunnerId, RunnerName};
use super::policy::Policy;
use super::pool::Scope;
use super::time::Timestamp;

use reading::Shown;
pub use reading::{Expected, HostsWord, Row, ScopeReading, Stillness};

mod reading;

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
    /// The last reading, of a list that moved, did not show it: it may be there or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missed: bool,
}

/// All registrations of our cluster, by name. Shared: the ledger is copied every turn, a
/// list is read once a poll.
pub type Listing = BTreeMap<RunnerName, Listed>;

/// How a scope's readings went.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScopeState {
    pub read_at: Option<Timestamp>,
    pub unread_since: Option<Timestamp>,
    pub error: Option<String>,
    /// Registrations in the scope that are not of this cluster.
    pub foreign: u32,
    /// Read only once so far, while the list moved: what it lacks may be registered.
    #[serde(default)]
    pub half_read: bool,
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
    /// Expected runners that the last reading of their scope lacked: when the next one lacks
    /// them too, that counts even if the list moves. Of use to nobody but this leader.
    #[serde(skip)]
    lacked: BTreeSet<RunnerName>,
    /// More than half of a scope's registrations vanished at once: those that have neither
    /// come back nor ended since.
    vanished: BTreeMap<RunnerName, Timestamp>,
}

impl RegistrationBook {
    /// Takes in a list of one scope, read to its end.
    pub fn read(
        &mut self,
        reading: ScopeReading,
        mark: &ClusterMark,
        word: &HostsWord<'_>,
        policy: &Policy,
    ) {
        let state = self.scopes.entry(reading.scope.clone()).or_default();
        if state.read_at.is_some_and(|read| read > reading.begun_at) {
            return;
        }
        let foreign = reading.rows.iter().filter(|row| !row.name.is_of(mark)).count();
        let shown = Shown::of(reading, mark);
        state.half_read = state.read_at.is_none() && !shown.stillness.is_still();
        state.read_at = Some(shown.begun_at);
        state.unread_since = None;
        state.error = None;
        state.foreign = u32::try_from(foreign).unwrap_or(u32::MAX);
        self.note_vanishing(&shown, word);
        self.note_denials(&shown, word, policy);
        self.list(shown, word);
    }

    /// Brings what is listed up to date.
    fn list(&mut self, shown: Shown, word: &HostsWord<'_>) {
        let listed = Arc::make_mut(&mut self.listed);
        listed.retain(|name, row| {
            let stays = !shown.shows_gone(name, row, word);
            if shown.lacks(name, row) {
                // Unclaimed ones must be seen twice without a gap, and this is one.
                (row.missed, row.unclaimed_since) = (true, None);
            }
            stays
        });
        let Shown { scope, begun_at, stillness, rows } = shown;
        // A grace begins with the youngest row there may be.
        let shown_at = match stillness {
            Stillness::Still => begun_at,
            Stillness::Moving { last_pass_at } => last_pass_at,
        };
        for (name, row) in rows {
            let before = listed.remove(&name);
            let idle_ghost = !row.online && !row.busy && !word.expected.contains_key(&name);
            let unclaimed_since = if idle_ghost {
                before.and_then(|before| before.unclaimed_since).or(Some(shown_at))
            } else {
                None
            };
            let (id, scope) = (row.id, scope.clone());
            let (online, busy, missed) = (row.online, row.busy, false);
            listed.insert(name, Listed { id, scope, online, busy, unclaimed_since, missed });
        }
    }

    /// Registrations that vanish one by one ended; when more than half of those of
    /// *living* runners go in one reading, GitHub is not telling the truth. That stands
    /// until each of them has come back or has ended by its host's word.
    fn note_vanishing(&mut self, shown: &Shown, word: &HostsWord<'_>) {
        let expected = |name: &RunnerName| word.expected.contains_key(name);
        self.vanished.retain(|name, _| expected(name) && !shown.rows.contains_key(name));
        // Those that ended and are only not known to be gone yet are not missed by anybody.
        let before = self
            .listed
            .iter()
            .filter(|(name, row)| row.scope == shown.scope && (!row.missed || expected(name)));
        let ours_before = before.count();
        let gone: Vec<RunnerName> = self
            .listed
            .iter()
            .filter(|(name, row)| expected(name) && shown.shows_gone(name, row, word))
            .map(|(name, _)| name.clone())
            .collect();
        // Two are half of a small fleet and prove nothing.
        if gone.len() > 2 && gone.len() * 2 > ours_before {
            self.vanished.extend(gone.into_iter().map(|name| (name, shown.begun_at)));
        }
    }

    fn note_denials(&mut self, shown: &Shown, word: &HostsWord<'_>, policy: &Policy) {
        let here = word.expected.iter().filter(|(_, one)| one.scope == Some(&shown.scope));
        for (name, Expected { since, .. }) in here {
            let row = shown.rows.get(name);
            let online = row.is_some_and(|row| row.online);
            if online || shown.begun_at < *since + policy.list_staleness {
                self.denials.remove(name);
                self.lacked.remove(name);
                continue;
            }
            let denied = match row {
                Some(_) => {
                    self.lacked.remove(name);
                    true
                }
                None => !self.lacked.insert(name.clone()) || shown.stillness.is_still(),
            };
            if denied {
                let at = shown.begun_at;
                self.denials.entry(name.clone()).or_insert((at, at)).1 = at;
            }
        }
        self.denials.retain(|name, _| word.expected.contains_key(name));
        self.lacked.retain(|name| word.expected.contains_key(name));
    }

    /// Notes that a scope's list could not be read. What was known stays.
    pub fn unread(&mut self, scope: &Scope, at: Timestamp, error: String) {
        let state = self.scopes.entry(scope.clone()).or_default();
        state.unread_since.get_or_insert(at);
        state.error = Some(error);
    }

    /// Whether the runner was shown missing or offline twice, both times well after `since`,
    /// the instant it began to listen.
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

    /// Whether what is not listed in a scope is known to be missing: not before its list
    /// held still, or was read twice.
    #[must_use]
    pub fn knows_missing(&self, scope: &Scope) -> bool {
        self.scopes.get(scope).is_some_and(|state| state.read_at.is_some() && !state.half_read)
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

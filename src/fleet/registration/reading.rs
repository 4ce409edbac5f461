//! One reading of a runner list, and how much it says.

use std::collections::BTreeMap;

use super::Listed;
use crate::fleet::id::{ClusterMark, GitHubRunnerId, RunnerName};
use crate::fleet::pool::Scope;
use crate::fleet::time::Timestamp;

/// A reading of one scope to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeReading {
    pub scope: Scope,
    /// The start of the pass that held still, or else of the first one: no row is older,
    /// and what is missing is so as of then.
    pub begun_at: Timestamp,
    pub stillness: Stillness,
    pub rows: Vec<Row>,
}

/// Whether a list held still while it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stillness {
    /// All rows are of one state of the list: what is missing is not registered.
    Still,
    /// It changed during every pass. The rows are those that all passes showed together;
    /// what is missing may be registered all the same.
    Moving {
        /// The start of the last pass, which the youngest rows are of.
        last_pass_at: Timestamp,
    },
}

impl Stillness {
    /// Whether what is missing is known to be missing.
    #[must_use]
    pub fn is_still(self) -> bool {
        matches!(self, Self::Still)
    }
}

/// One row of a reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub id: GitHubRunnerId,
    pub name: RunnerName,
    pub online: bool,
    pub busy: bool,
}

/// What the hosts say of the runners that a list should show.
#[derive(Clone, Debug)]
pub struct HostsWord<'a> {
    /// Runners of every scope that should be registered: handed or later.
    pub expected: BTreeMap<RunnerName, Expected<'a>>,
    /// Names that ended lately, and when.
    pub ended: &'a BTreeMap<RunnerName, Timestamp>,
}

/// A runner that should stand in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected<'a> {
    /// Since when.
    pub since: Timestamp,
    /// In whose; unknown where its pool is not configured any more.
    pub scope: Option<&'a Scope>,
}

/// A reading's rows of our cluster, by name.
pub(super) struct Shown {
    pub(super) scope: Scope,
    pub(super) begun_at: Timestamp,
    pub(super) stillness: Stillness,
    pub(super) rows: BTreeMap<RunnerName, Row>,
}

impl Shown {
    pub(super) fn of(reading: ScopeReading, mark: &ClusterMark) -> Self {
        let ours = reading.rows.into_iter().filter(|row| row.name.is_of(mark));
        Self {
            scope: reading.scope,
            begun_at: reading.begun_at,
            stillness: reading.stillness,
            rows: ours.map(|row| (row.name.clone(), row)).collect(),
        }
    }

    /// Whether it does not show what was listed in its scope before.
    pub(super) fn lacks(&self, name: &RunnerName, before: &Listed) -> bool {
        before.scope == self.scope && !self.rows.contains_key(name)
    }

    /// Whether one that was listed is gone by this reading. What a moving list lacks for
    /// the first time is not, unless its host has said that it ended.
    pub(super) fn shows_gone(
        &self,
        name: &RunnerName,
        before: &Listed,
        word: &HostsWord<'_>,
    ) -> bool {
        let counts = self.stillness.is_still() || before.missed || word.ended.contains_key(name);
        counts && self.lacks(name, before)
    }
}

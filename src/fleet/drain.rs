//! How far the drain of a host has come.

use std::collections::BTreeMap;

use super::id::HostId;
use super::time::Timestamp;
use super::view::View;

/// What is left on a host that is being drained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Since when the present leader sees it drained; `None` in the first moment.
    pub since: Option<Timestamp>,
    /// Runners that still take up room there, by the name of their phase.
    pub left: BTreeMap<&'static str, u32>,
}

impl Progress {
    /// Whether nothing is left: the host can be taken away.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }
}

/// The progress of one host's drain; `None` while nobody drains it.
#[must_use]
pub fn progress(view: &View, host: &HostId) -> Option<Progress> {
    if !view.operator.draining.contains(host) {
        return None;
    }
    let mut left: BTreeMap<&'static str, u32> = BTreeMap::new();
    for runner in view.roster().runners.values() {
        if runner.host == *host && runner.is_occupied() {
            *left.entry(runner.phase.name()).or_default() += 1;
        }
    }
    Some(Progress { since: view.ledger.draining_since.get(host).copied(), left })
}

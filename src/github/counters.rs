//! How many calls were made and how they ended: a few dozen rows, whatever the fleet.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::CallCount;

/// The counters of all calls since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counters {
    pub(crate) fn count(&self, operation: &'static str, outcome: &'static str) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rows.entry((operation, outcome)).or_default() += 1;
    }

    pub(crate) fn rows(&self) -> Vec<CallCount> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter()
            .map(|(&(operation, outcome), &count)| CallCount { operation, outcome, count })
            .collect()
    }
}

/// The class of a status as the counters name it.
pub(crate) const fn outcome(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        304 => "304",
        429 => "429",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "error",
    }
}

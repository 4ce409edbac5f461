//! Registrations that nobody claims, deleted beside the loop: a turn never waits for GitHub.

use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use super::Lead;
use crate::election::Leadership;
use crate::fleet::ledger::Ledger;
use crate::fleet::plan::Orphan;
use crate::github::{Deregistered, GitHub};
use crate::telemetry::chain;

impl Lead {
    /// Begins to delete them. One clean-up at a time; what it does not get to is found again
    /// next turn.
    pub(super) fn clean_up(&self, leadership: Leadership, orphans: Vec<Orphan>) {
        if orphans.is_empty() {
            return;
        }
        let Ok(only_one) = self.cleaning.clone().try_acquire_owned() else { return };
        let (github, ledger) = (self.github.clone(), self.ledger.clone());
        self.tracker.spawn(async move {
            deregister(github.as_ref(), &ledger, &leadership, &orphans).await;
            drop(only_one);
        });
    }
}

/// Goes on only as long as this replica leads: who leads next decides anew.
async fn deregister(
    github: &dyn GitHub,
    ledger: &Mutex<Ledger>,
    leadership: &Leadership,
    orphans: &[Orphan],
) {
    for orphan in orphans {
        if !leadership.holds() {
            return;
        }
        let answer = github.deregister(&orphan.scope, orphan.id).await;
        let gone = match &answer {
            Ok(Deregistered::Deleted | Deregistered::Absent) => {
                info!(runner.name = %orphan.name, "deleted a registration nobody claimed");
                true
            }
            Ok(Deregistered::Busy) => {
                info!(runner.name = %orphan.name, "an unclaimed registration is busy; left");
                false
            }
            Err(error) => {
                warn!(runner.name = %orphan.name, error = %chain(error),
                    "could not delete an unclaimed registration");
                false
            }
        };
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        // Another term has learnt, or will learn, by itself what GitHub lists.
        if ledger.term != Some(leadership.term()) {
            return;
        }
        if gone {
            ledger.registrations.forget(&orphan.name);
        } else {
            // It must be seen unclaimed anew before it is tried again.
            ledger.registrations.put_off(&orphan.name);
        }
    }
}

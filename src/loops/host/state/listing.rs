//! Lists of containers: when to ask for one, what it says, and when the loop may stop.

use std::collections::HashMap;

use tokio::sync::watch;
use tracing::{info, warn};

use super::super::{LIST_EVERY, Shutdown};
use super::{LIST_SOON, State};
use crate::fleet::converge::{Found, FoundState, Listing, Stopping};
use crate::fleet::id::{ContainerId, RunnerId};
use crate::fleet::time::Timestamp;

impl State {
    /// Begins to stop: by draining or by leaving everything as it is.
    pub fn stop(&mut self, shutdown: Shutdown, now: Timestamp) {
        self.agent.stopping = if shutdown.drain { Stopping::Drain } else { Stopping::Detach };
        self.give_up_at = Some(now + shutdown.timeout);
        // Only a list from now on proves that nothing is left.
        self.work_ended_at = now;
        self.listed_at = Timestamp(0);
        self.dirty = true;
    }

    /// Whether something is under way that changes a container.
    #[must_use]
    pub fn is_working(&self) -> bool {
        self.agent.local.values().any(|local| local.work.is_some())
            || !self.agent.discarding.is_empty()
    }

    /// Whether the loop may end: nothing is under way and, when draining, Docker itself has
    /// said since that no container is left, or the time for it is over.
    #[must_use]
    pub fn may_stop(&self, now: Timestamp) -> bool {
        let Some(give_up_at) = self.give_up_at else { return false };
        let working = self.is_working();
        let living = self.agent.local.values().any(|local| !local.record.phase.is_terminal());
        match self.agent.stopping {
            Stopping::No => false,
            Stopping::Detach => !working || now >= give_up_at,
            Stopping::Drain => {
                let empty = self.empty_list_at.is_some_and(|at| at >= self.work_ended_at);
                (!working && !living && empty) || now >= give_up_at
            }
        }
    }

    /// Whether a list is due.
    #[must_use]
    pub fn list_due(&self, now: Timestamp) -> bool {
        let look_again = self.agent.stopping == Stopping::Drain
            && self.empty_list_at.is_none_or(|at| at < self.work_ended_at)
            && now >= self.listed_at + LIST_SOON;
        !self.listing_now && (now >= self.list_at || look_again)
    }

    pub fn listing_begun(&mut self, now: Timestamp) {
        self.listing_now = true;
        self.listed_at = now;
        self.list_at = now + LIST_EVERY;
    }

    /// Asks for a list before the timer's.
    pub fn list_soon(&mut self, now: Timestamp) {
        self.list_at = self.list_at.min(now + LIST_SOON);
    }

    /// Takes a list in. Returns living runners whose output must be followed anew.
    pub fn listed(
        &mut self,
        result: Result<Listing, String>,
        now: Timestamp,
    ) -> Vec<(RunnerId, ContainerId, watch::Sender<bool>)> {
        self.listing_now = false;
        let listing = match result {
            Ok(listing) => listing,
            Err(error) => {
                if std::mem::replace(&mut self.agent.docker_up, false) {
                    warn!(error, "docker does not answer; nothing new is started here");
                    self.dirty = true;
                }
                self.list_soon(now);
                return Vec::new();
            }
        };
        if !std::mem::replace(&mut self.agent.docker_up, true) {
            info!("docker answers again");
            self.dirty = true;
        }
        let present: HashMap<RunnerId, &Found> =
            listing.containers.iter().map(|found| (found.runner, found)).collect();
        let mut refollow = Vec::new();
        for (id, local) in &mut self.agent.local {
            let alive = present.get(id).is_some_and(|f| f.state == FoundState::Alive);
            if present.contains_key(id) {
                local.missing = 0;
            } else if local.record.phase.since() < listing.begun_at {
                local.missing = local.missing.saturating_add(1);
            }
            if let (Some(handle), Some(container)) =
                (self.handles.get_mut(id), local.record.container.clone())
                && alive
                && handle.output_ended
                && !self.settling.contains(id)
                && !local.record.phase.is_terminal()
            {
                handle.output_ended = false;
                refollow.push((*id, container, handle.running.clone()));
            }
        }
        self.empty_list_at =
            listing.containers.is_empty().then_some(listing.begun_at).or(self.empty_list_at);
        self.listing = Some(listing);
        if !std::mem::replace(&mut self.adopted, true) {
            self.dirty = true;
        }
        refollow
    }
}

//! Registrations: their life from mint to removal, sessions and what lists show.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::ids::{JobId, RunnerId, Scope};
use super::state::{GRAVE_MS, REMOVED_MAX, RUNNERS_MAX, World};
use super::unverified::Assumption;

/// The runner version the model's world runs.
pub(crate) const RUNNER_VERSION: &str = "2.336.0";
/// States of one runner kept for stale lists. A runner changes a handful of times.
const SEEN_MAX: usize = 16;

/// What a list shows of a runner at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) online: bool,
    pub(crate) busy: bool,
}

/// A label as stored.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) read_only: bool,
}

/// An open session of a runner's listener.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    /// Polls open right now.
    pub(crate) polls: u32,
    /// Woken when there is something for the next poll.
    pub(crate) wake: Arc<Notify>,
}

/// A job given to a runner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assignment {
    pub(crate) job: JobId,
    pub(crate) assigned_ms: u64,
    pub(crate) started: bool,
}

/// One registration.
pub(crate) struct Runner {
    pub(crate) id: RunnerId,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) labels: Vec<Label>,
    pub(crate) group_id: u64,
    pub(crate) secret: String,
    pub(crate) created_ms: u64,
    pub(crate) connected_ms: Option<u64>,
    pub(crate) session: Option<Session>,
    pub(crate) last_contact_ms: u64,
    pub(crate) online: bool,
    pub(crate) assignment: Option<Assignment>,
    /// Planted by `/_sim/runners`: nothing connects to it.
    pub(crate) planted_busy: Option<bool>,
    /// Deleted at GitHub although its listener goes on (hostile variants only).
    pub(crate) hidden: bool,
    seen: VecDeque<(u64, Seen)>,
    /// Set when removed: when, and until when the list shows it all the same.
    gone: Option<(u64, u64)>,
}

/// A removal, for `/_sim/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Number of the registration.
    pub id: RunnerId,
    /// Its name.
    pub name: String,
    /// `job_done`, `deleted`, or `lost`.
    pub reason: String,
}

/// What a mint asks for, already checked for its shape.
pub(crate) struct Registration {
    pub(crate) name: String,
    pub(crate) group_id: u64,
    pub(crate) labels: Vec<Label>,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MintRefusal {
    NameTaken,
    Full,
}

impl Runner {
    pub(crate) fn busy(&self, from_start: bool) -> bool {
        match (self.planted_busy, self.assignment) {
            (Some(busy), _) => busy,
            (None, Some(assignment)) => assignment.started || !from_start,
            (None, None) => false,
        }
    }

    pub(crate) fn has_all(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|label| self.labels.iter().any(|l| l.name.eq_ignore_ascii_case(label)))
    }

    /// When it was removed; the far future while it was not.
    pub(crate) fn buried_ms(&self) -> u64 {
        self.gone.map_or(u64::MAX, |(at, _)| at)
    }

    /// Writes down the present state, when it differs from the last one written.
    fn note(&mut self, now: u64, from_start: bool) {
        let seen = Seen { online: self.online, busy: self.busy(from_start) };
        if self.seen.back().is_none_or(|(_, last)| *last != seen) {
            self.seen.push_back((now, seen));
            if self.seen.len() > SEEN_MAX {
                self.seen.pop_front();
            }
        }
    }

    /// What a list as of `at` shows; `None` when it does not show the runner.
    fn seen_at(&self, at: u64) -> Option<Seen> {
        if self.hidden || self.created_ms > at {
            return None;
        }
        match self.gone {
            Some((_, listed_until)) if listed_until <= at => return None,
            Some((gone_at, _)) if gone_at <= at => {
                return Some(Seen { online: false, busy: false });
            }
            _ => (),
        }
        self.seen.iter().rev().find(|(since, _)| *since <= at).map(|(_, seen)| *seen)
    }
}

impl World {
    /// Registers a runner, offline and idle.
    pub(crate) fn register(
        &mut self,
        now: u64,
        scope: Scope,
        wanted: Registration,
    ) -> Result<RunnerId, MintRefusal> {
        let name_key = (scope.clone(), wanted.name.to_ascii_lowercase());
        if self.names.contains_key(&name_key) {
            return Err(MintRefusal::NameTaken);
        }
        if self.runners.len() >= RUNNERS_MAX {
            return Err(MintRefusal::Full);
        }
        let id = RunnerId(self.next_id());
        let mut runner = Runner {
            id,
            name: wanted.name,
            scope,
            labels: wanted.labels,
            group_id: wanted.group_id,
            secret: self.id_random.uuid(),
            created_ms: now,
            connected_ms: None,
            session: None,
            last_contact_ms: now,
            online: false,
            assignment: None,
            planted_busy: None,
            hidden: false,
            seen: VecDeque::new(),
            gone: None,
        };
        runner.note(now, false);
        self.names.insert(name_key, id);
        self.runners.insert(id, runner);
        Ok(id)
    }

    /// Writes down a runner's present state and keeps the idle set true to it.
    pub(crate) fn settle(&mut self, id: RunnerId, now: u64) {
        let from_start = self.settings.hostile.hostile(Assumption::BusyFrom);
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.note(now, from_start);
        let free = runner.online && runner.assignment.is_none() && runner.session.is_some();
        if free && !runner.hidden {
            self.idle.insert(id);
        } else {
            self.idle.remove(&id);
        }
    }

    /// Takes a registration away. Its job, if any, is not touched here.
    pub(crate) fn remove_runner(&mut self, id: RunnerId, now: u64, reason: &str) {
        let listed_ms = match reason {
            "deleted" if self.settings.hostile.hostile(Assumption::DeletedStillListed) => 60_000,
            "job_done" if self.settings.hostile.hostile(Assumption::RemovedAfterJob) => 30_000,
            _ => 0,
        };
        let Some(mut runner) = self.runners.remove(&id) else { return };
        self.idle.remove(&id);
        self.names.remove(&(runner.scope.clone(), runner.name.to_ascii_lowercase()));
        if let Some(session) = runner.session.take() {
            self.sessions.remove(&session.id);
            session.wake.notify_one();
        }
        if !runner.hidden {
            self.note_removal(&runner, reason);
        }
        runner.gone = Some((now, now + listed_ms));
        self.due(now + GRAVE_MS);
        self.graves.push_back(runner);
    }

    /// Deletes a registration for the API, while its listener may go on unknowing.
    pub(crate) fn hide_runner(&mut self, id: RunnerId, now: u64) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        runner.hidden = true;
        let name_key = (runner.scope.clone(), runner.name.to_ascii_lowercase());
        let removed = (runner.id, runner.name.clone());
        self.names.remove(&name_key);
        self.push_removed(Removed { id: removed.0, name: removed.1, reason: "deleted".into() });
        self.settle(id, now);
    }

    fn note_removal(&mut self, runner: &Runner, reason: &str) {
        let removed =
            Removed { id: runner.id, name: runner.name.clone(), reason: reason.to_owned() };
        self.push_removed(removed);
    }

    fn push_removed(&mut self, removed: Removed) {
        self.removed.push_back(removed);
        if self.removed.len() > REMOVED_MAX {
            self.removed.pop_front();
        }
    }

    /// The runner of this scope, unless it is deleted.
    pub(crate) fn runner_in(&self, scope: &Scope, id: RunnerId) -> Option<&Runner> {
        self.runners.get(&id).filter(|runner| runner.scope == *scope && !runner.hidden)
    }

    /// The list of a scope as it was `stale_ms` ago, by id.
    pub(crate) fn list_runners(
        &self,
        now: u64,
        scope: &Scope,
        stale_ms: u64,
    ) -> Vec<(&Runner, Seen)> {
        let at = now.saturating_sub(stale_ms);
        let mut listed: Vec<_> = self
            .runners
            .values()
            .chain(self.graves.iter())
            .filter(|runner| runner.scope == *scope)
            .filter_map(|runner| runner.seen_at(at).map(|seen| (runner, seen)))
            .collect();
        listed.sort_by_key(|(runner, _)| runner.id);
        listed
    }

    /// What the API says of one runner now.
    pub(crate) fn seen_now(&self, runner: &Runner) -> Seen {
        let from_start = self.settings.hostile.hostile(Assumption::BusyFrom);
        Seen { online: runner.online, busy: runner.busy(from_start) }
    }

    /// Offline, lost and not-picked-up deadlines of one runner.
    pub(crate) fn advance_runner(&mut self, id: RunnerId, now: u64) {
        let Some(runner) = self.runners.get_mut(&id) else { return };
        if runner.planted_busy.is_some() {
            return;
        }
        let polling = runner.session.as_ref().is_some_and(|session| session.polls > 0);
        let silent_since = runner.last_contact_ms;
        let assignment = runner.assignment;
        let mut next = Vec::new();
        if runner.online && !polling {
            let grace = self.settings.offline_after_ms.max(3 * self.settings.renew_ms());
            let grace = if assignment.is_some() { grace } else { self.settings.offline_after_ms };
            let offline_at = silent_since.saturating_add(grace);
            if offline_at <= now {
                runner.online = false;
                let hidden = runner.hidden;
                self.settle(id, offline_at);
                if hidden && assignment.is_none() {
                    self.remove_runner(id, now, "deleted");
                    return;
                }
            } else {
                next.push(offline_at);
            }
        }
        if let Some(assignment) = assignment {
            let (deadline, lost) = if assignment.started {
                (silent_since.saturating_add(self.settings.lost_after_ms), true)
            } else {
                (assignment.assigned_ms.saturating_add(self.settings.pickup_deadline_ms), false)
            };
            match (deadline <= now, lost) {
                (true, true) => self.lose_job(id, assignment.job, now),
                (true, false) => self.requeue(id, assignment.job, now),
                (false, _) => next.push(deadline),
            }
        }
        for at in next {
            self.due(at);
        }
    }
}

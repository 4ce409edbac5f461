//! Which repositories to read at a poll. Active ones every time; the others in rotation,
//! the oldest reading first, paced so that a large organisation stays under GitHub's
//! secondary limit. Pure: the caller passes `now` and reports what it read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Repository;
use super::budget::{MINUTE, SWEEP_FLOOR_CEILING, SWEEP_FLOOR_POINTS, SWEEP_POINTS_PER_MINUTE};
use crate::fleet::budget::Budget;
use crate::fleet::id::RepoName;
use crate::fleet::time::Timestamp;

/// Points that reading a quiet repository costs: its queued and its running runs.
pub const POINTS_PER_READING: u32 = 2;
/// A repository with runs, or one pushed to since it was last read, is active this long.
pub const ACTIVE_FOR: Duration = super::queue::ACTIVE_FOR;
/// The share of a minute's points that polling active repositories may take when they are
/// many; they then take turns. What is left of the sweeps' half is for the others.
pub const ACTIVE_POINTS_PER_MINUTE: u32 = SWEEP_POINTS_PER_MINUTE * 2 / 3;
/// How often the list of repositories itself is worth reading again.
pub const LIST_EVERY: Duration = Duration::from_secs(600);

/// What is known of every repository of a scope.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    repos: BTreeMap<RepoName, State>,
    listed_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    pushed_at: Option<Timestamp>,
    last_read: Option<Timestamp>,
    /// Also readings that failed: such a repository waits its turn like any other.
    last_tried: Option<Timestamp>,
    last_active: Option<Timestamp>,
}

/// How old the readings are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    pub repositories: usize,
    pub never_read: usize,
    pub active: usize,
    /// Age of the oldest reading among those read at all.
    pub oldest: Option<Duration>,
}

impl Sweep {
    /// Whether the list of repositories should be read (again).
    #[must_use]
    pub fn list_is_due(&self, now: Timestamp) -> bool {
        self.listed_at.is_none_or(|at| now.since(at) >= LIST_EVERY)
    }

    /// Takes over a fresh list: new repositories come in, vanished ones are forgotten, what
    /// is known of the others stays.
    pub fn relist(&mut self, repositories: &[Repository], now: Timestamp) {
        let mut known = std::mem::take(&mut self.repos);
        self.repos = repositories
            .iter()
            .map(|repo| {
                let state = known.remove(&repo.name).unwrap_or_default();
                (repo.name.clone(), State { pushed_at: repo.pushed_at, ..state })
            })
            .collect();
        self.listed_at = Some(now);
    }

    /// The repositories to read at this poll, most urgent first: active ones whatever
    /// the budget (the client sheds what there is no room for), then as many of the others
    /// as the budget leaves room for and the pace allows.
    #[must_use]
    pub fn due(&self, now: Timestamp, poll_interval: Duration, budget: &Budget) -> Vec<RepoName> {
        if budget.blocked_until.is_some_and(|until| until > now) {
            return Vec::new();
        }
        let (active, quiet): (Vec<_>, Vec<_>) =
            self.repos.iter().partition(|(_, state)| state.is_active(now));
        let active = turn(active, readings(ACTIVE_POINTS_PER_MINUTE, poll_interval));
        let swept = quiet.iter().filter(|(_, state)| state.was_tried_this_minute(now)).count();
        let room = room(budget.points_this_minute, points(active.len()), points(swept));
        let unread = quiet.iter().filter(|(_, state)| state.last_tried.is_none()).count();
        // The first sweep may use all the room at once; later ones spread over the minute.
        let pace = readings(SWEEP_POINTS_PER_MINUTE, poll_interval).max(unread);
        let quiet = turn(quiet, pace.min(room));
        active.into_iter().chain(quiet).collect()
    }

    /// Notes a reading that succeeded.
    pub fn read(&mut self, repo: &RepoName, begun_at: Timestamp, active: bool) {
        if let Some(state) = self.repos.get_mut(repo) {
            state.last_read = state.last_read.max(Some(begun_at));
            state.last_tried = state.last_tried.max(Some(begun_at));
            if active {
                state.last_active = state.last_active.max(Some(begun_at));
            }
        }
    }

    /// Notes a reading that failed. Not for one that was shed: it keeps its place in line.
    pub fn failed(&mut self, repo: &RepoName, now: Timestamp) {
        if let Some(state) = self.repos.get_mut(repo) {
            state.last_tried = state.last_tried.max(Some(now));
        }
    }

    /// Notes that something happens in the repository, e.g. by a webhook: it is read at
    /// every poll from now on.
    pub fn stir(&mut self, repo: &RepoName, now: Timestamp) {
        if let Some(state) = self.repos.get_mut(repo) {
            state.last_active = state.last_active.max(Some(now));
        }
    }

    /// How old each repository's reading is; `None` before the first.
    pub fn ages(&self, now: Timestamp) -> impl Iterator<Item = (&RepoName, Option<Duration>)> {
        self.repos.iter().map(move |(name, state)| (name, state.last_read.map(|at| now.since(at))))
    }

    /// The ages in short.
    #[must_use]
    pub fn coverage(&self, now: Timestamp) -> Coverage {
        let states = self.repos.values();
        Coverage {
            repositories: self.repos.len(),
            never_read: states.clone().filter(|state| state.last_read.is_none()).count(),
            active: states.clone().filter(|state| state.is_active(now)).count(),
            oldest: states.filter_map(|state| state.last_read).min().map(|at| now.since(at)),
        }
    }
}

impl State {
    fn was_tried_this_minute(&self, now: Timestamp) -> bool {
        self.last_tried.is_some_and(|at| now.since(at) < MINUTE)
    }

    fn is_active(&self, now: Timestamp) -> bool {
        let ran = self.last_active.is_some_and(|at| now.since(at) < ACTIVE_FOR);
        // A push starts runs: until it is read, that repository is the likeliest to have any.
        let pushed = matches!(
            (self.pushed_at, self.last_tried),
            (Some(pushed), Some(tried)) if pushed > tried
        );
        ran || pushed
    }
}

/// Quiet repositories that may be read now, when so many points of this minute are used,
/// will be used by the active ones, and went to quiet ones already.
fn room(used: u32, active: u32, swept: u32) -> usize {
    let used = used + active;
    let share = SWEEP_POINTS_PER_MINUTE.saturating_sub(used);
    let floor =
        SWEEP_FLOOR_POINTS.saturating_sub(swept).min(SWEEP_FLOOR_CEILING.saturating_sub(used));
    usize::try_from(share.max(floor) / POINTS_PER_READING).unwrap_or(usize::MAX)
}

fn points(readings: usize) -> u32 {
    u32::try_from(readings).unwrap_or(u32::MAX).saturating_mul(POINTS_PER_READING)
}

/// The first of the repositories whose turn it is: never tried before the longest untried,
/// and among equals the most recently pushed.
fn turn(mut repos: Vec<(&RepoName, &State)>, most: usize) -> Vec<RepoName> {
    repos.sort_by_key(|(_, state)| (state.last_tried, std::cmp::Reverse(state.pushed_at)));
    repos.into_iter().take(most).map(|(name, _)| name.clone()).collect()
}

/// Readings that one poll may make so that a minute of polls stays within the points.
fn readings(points_per_minute: u32, poll_interval: Duration) -> usize {
    let interval_ms = poll_interval.as_millis().clamp(1, 60_000);
    let points = u128::from(points_per_minute) * interval_ms;
    let readings = points.div_ceil(60_000 * u128::from(POINTS_PER_READING));
    usize::try_from(readings).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests;

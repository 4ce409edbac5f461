//! Figures of the rule that no pool sets for itself, each with the reason for its size.

use std::time::Duration;

/// An agent answers an assignment in milliseconds; 20 s cover a busy daemon. What it reads
/// later than that it hands back.
pub const ACCEPT_DEADLINE: Duration = Duration::from_secs(20);

/// A host with less free disk than this takes no new runner: 1 GiB, so that those it has
/// can finish.
pub const DISK_FLOOR: u64 = 1 << 30;

/// GitHub's runner list may be so old, whatever it answers.
pub const LIST_STALENESS: Duration = Duration::from_secs(60);

/// The rule's constants as one value, so that a simulation can shrink them.
#[derive(Clone, PartialEq, Debug)]
pub struct Policy {
    /// See [`ACCEPT_DEADLINE`].
    pub accept_deadline: Duration,
    /// GitHub serves a runner list up to 60 s old: only a reading begun this long after
    /// an event can deny the event.
    pub list_staleness: Duration,
    /// How long ended names are remembered, so that a stale list does not revive them.
    pub ended_memory: Duration,
    /// A listening runner that GitHub gives no job for so long is not being assigned.
    pub does_not_assign_after: Duration,
    pub does_not_assign_backoff_max: Duration,
    /// An unread repository blocks its pool's retirement at most this long.
    pub unread_repo_blocks: Duration,
    /// A runner list older than this is no list: nothing is retired by it.
    pub registrations_fresh: Duration,
    /// The brake: at most `max(brake_floor, brake_share of the pool)` a minute.
    pub brake_floor: u32,
    pub brake_share: f64,
    pub brake_window: Duration,
    /// The breaker opens after so many failures in a row.
    pub breaker_failures: u32,
    pub breaker_backoff: Duration,
    pub breaker_backoff_max: Duration,
    /// A runner that has listened so long proves that starting works: one that would exit
    /// without a job has done so by then.
    pub breaker_proof: Duration,
    pub boost_ttl: Duration,
    /// Intents older than this, unserved by any leader, are refused.
    pub intent_ttl: Duration,
    pub suspect_after: Duration,
    pub lost_after: Duration,
    /// How long a host whose record has vanished is remembered: until GitHub's list has
    /// shown several times what became of its runners.
    pub host_memory: Duration,
    /// How long a delete waits for the host that had the runner to report again.
    pub delete_memory: Duration,
    /// A host that has handed back so many runners of a pool inside the window gets none of
    /// that pool for as long again.
    pub refusals_most: usize,
    pub refusals_window: Duration,
    /// Idle runners of a draining host wait at most this long for those that replace them.
    pub drain_patience: Duration,
    /// Which of the hosts that have room takes a runner.
    pub placement: Placement,
    /// Orphan registrations deleted in one turn, so that a clean-up never starves mints.
    pub orphan_deletes_per_turn: usize,
}

/// How runners are laid out over hosts. Running ones never move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// On the host of which the smallest part is used.
    #[default]
    Spread,
    /// On the host of which the largest part is used, so that others stay empty.
    Binpack,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            accept_deadline: ACCEPT_DEADLINE,
            list_staleness: LIST_STALENESS,
            ended_memory: Duration::from_secs(120),
            does_not_assign_after: Duration::from_secs(180),
            does_not_assign_backoff_max: Duration::from_secs(7200),
            unread_repo_blocks: Duration::from_secs(600),
            registrations_fresh: Duration::from_secs(180),
            brake_floor: 2,
            brake_share: 0.2,
            brake_window: Duration::from_secs(60),
            breaker_failures: 3,
            breaker_backoff: Duration::from_secs(30),
            breaker_backoff_max: Duration::from_secs(900),
            breaker_proof: Duration::from_secs(60),
            boost_ttl: Duration::from_secs(900),
            intent_ttl: Duration::from_secs(60),
            suspect_after: Duration::from_secs(15),
            lost_after: Duration::from_secs(45),
            host_memory: Duration::from_secs(600),
            delete_memory: Duration::from_secs(24 * 3600),
            refusals_most: 3,
            refusals_window: Duration::from_secs(300),
            drain_patience: Duration::from_secs(60),
            placement: Placement::Spread,
            orphan_deletes_per_turn: 10,
        }
    }
}

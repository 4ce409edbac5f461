//! Why something was done, or not done. The same value stands in the API, the logs,
//! the events and the metric labels.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{HostId, IntentId, JobId, RepoName};
use super::time::Timestamp;

/// A decision's or a refusal's reason. Closed: a new behaviour needs a new variant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Reason {
    // Why a runner is added.
    BelowMinimum { have: u32, min: u32 },
    BelowMinIdle { have: u32, min_idle: u32 },
    QueuedJobs { waiting: u32, supply: u32 },
    WaitedTooLong { job: JobId, seconds: u64 },
    ManualScaleUp { intent: IntentId },

    // Why none is added although something asks for it.
    Satisfied,
    BelowUpThreshold { waiting: u32, threshold: u32 },
    AtMaximum { max: u32, occupied: u32 },
    NoHost,
    HostsFull,
    HostShort { of: Resource },
    ImageMissing { image: String },
    BudgetShort,
    BreakerOpen { until: Timestamp, failures: u32 },
    Paused,
    Frozen,
    GitHubDoesNotAssign { job: JobId },
    Rebuilding { hosts: u32 },

    // Why a runner is removed.
    IdleTooLong { seconds: u64 },
    ManualScaleDown { intent: IntentId },
    OperatorDelete { intent: IntentId, force: bool },
    StartDeadlineMissed { seconds: u64 },
    DeniedByGitHub,
    RoomForOthers,
    HostDraining,
    PoolRemoved,
    ShuttingDown,

    // Why none is removed although it could be.
    WithinIdleTimeout,
    AtFloor,
    QueueAboveDownThreshold { waiting: u32, threshold: u32 },
    GitHubUnreadable,
    QueueUnread { repo: RepoName },
    HostUnread { host: HostId },
    Brake { per_minute: u32 },
    MassVanish,
    Busy,
    NotListening,
    NoSuchRunner,

    // Why an assignment or a registration came to its end.
    NotAccepted { seconds: u64 },
    HandedBack { refusal: Refusal },
    HostLost { host: HostId },
    EarlierBoot,
    ContainerVanished,
    OrphanRegistration,
    NeverStarted,
    Superseded,
}

/// What a host can have too little of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    Cpus,
    Memory,
    Disk,
}

impl Resource {
    fn words(self) -> &'static str {
        match self {
            Self::Cpus => "the CPUs",
            Self::Memory => "the memory",
            Self::Disk => "the disk space",
        }
    }
}

/// Why an agent hands an id back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    NoRoom,
    ImageMissing,
    UnknownPool,
    Stopping,
    DockerDown,
    /// Too little free disk for another runner.
    DiskFull,
    /// Read so late that the leader has given it up, or is about to.
    Late,
}

impl Refusal {
    /// The stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::ImageMissing => "image_missing",
            Self::UnknownPool => "unknown_pool",
            Self::Stopping => "stopping",
            Self::DockerDown => "docker_down",
            Self::DiskFull => "disk_full",
            Self::Late => "late",
        }
    }
}

impl Reason {
    /// The stable name: a metric label and the API's `code`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BelowMinimum { .. } => "below_minimum",
            Self::BelowMinIdle { .. } => "below_min_idle",
            Self::QueuedJobs { .. } => "queued_jobs",
            Self::WaitedTooLong { .. } => "waited_too_long",
            Self::ManualScaleUp { .. } => "manual_scale_up",
            Self::Satisfied => "satisfied",
            Self::BelowUpThreshold { .. } => "below_up_threshold",
            Self::AtMaximum { .. } => "at_maximum",
            Self::NoHost => "no_host",
            Self::HostsFull => "hosts_full",
            Self::HostShort { .. } => "host_short",
            Self::ImageMissing { .. } => "image_missing",
            Self::BudgetShort => "budget_short",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::Paused => "paused",
            Self::Frozen => "frozen",
            Self::GitHubDoesNotAssign { .. } => "github_does_not_assign",
            Self::Rebuilding { .. } => "rebuilding",
            Self::IdleTooLong { .. } => "idle_too_long",
            Self::ManualScaleDown { .. } => "manual_scale_down",
            Self::OperatorDelete { .. } => "operator_delete",
            Self::StartDeadlineMissed { .. } => "start_deadline_missed",
            Self::DeniedByGitHub => "denied_by_github",
            Self::RoomForOthers => "room_for_others",
            Self::HostDraining => "host_draining",
            Self::PoolRemoved => "pool_removed",
            Self::ShuttingDown => "shutting_down",
            Self::WithinIdleTimeout => "within_idle_timeout",
            Self::AtFloor => "at_floor",
            Self::QueueAboveDownThreshold { .. } => "queue_above_down_threshold",
            Self::GitHubUnreadable => "github_unreadable",
            Self::QueueUnread { .. } => "queue_unread",
            Self::HostUnread { .. } => "host_unread",
            Self::Brake { .. } => "brake",
            Self::MassVanish => "mass_vanish",
            Self::Busy => "busy",
            Self::NotListening => "not_listening",
            Self::NoSuchRunner => "no_such_runner",
            Self::NotAccepted { .. } => "not_accepted",
            Self::HandedBack { .. } => "handed_back",
            Self::HostLost { .. } => "host_lost",
            Self::EarlierBoot => "earlier_boot",
            Self::ContainerVanished => "container_vanished",
            Self::OrphanRegistration => "orphan_registration",
            Self::NeverStarted => "never_started",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Reason {
    /// One sentence for an operator, without a final stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowMinimum { have, min } => {
                write!(f, "{have} runners serve or work, MIN_RUNNERS is {min}")
            }
            Self::BelowMinIdle { have, min_idle } => {
                write!(f, "{have} runners are free, MIN_IDLE_RUNNERS is {min_idle}")
            }
            Self::QueuedJobs { waiting, supply } => {
                write!(f, "{waiting} jobs wait and {supply} runners are free or coming")
            }
            Self::WaitedTooLong { job, seconds } => {
                write!(f, "job {job} has waited {seconds} s, longer than SCALE_UP_MAX_WAIT")
            }
            Self::BelowUpThreshold { waiting, threshold } => {
                write!(f, "{waiting} jobs wait, SCALE_UP_THRESHOLD is {threshold}")
            }
            Self::AtMaximum { max, occupied } => {
                write!(f, "{occupied} runners take up room, MAX_RUNNERS is {max}")
            }
            Self::ImageMissing { image } => write!(f, "no host has the image {image} yet"),
            Self::HostShort { of } => write!(f, "no host has {} for it", of.words()),
            Self::BreakerOpen { until, failures } => {
                write!(f, "{failures} runners in a row failed to start; next try at {until}")
            }
            Self::GitHubDoesNotAssign { job } => write!(
                f,
                "a matching runner has been listening for minutes and GitHub does not give it \
                 job {job}; check the runner group's repository access"
            ),
            Self::Rebuilding { hosts } => {
                write!(f, "the store lost what it held; {hosts} hosts have yet to report again")
            }
            Self::IdleTooLong { seconds } => write!(f, "idle for {seconds} s"),
            Self::StartDeadlineMissed { seconds } => {
                write!(f, "not listening {seconds} s after its hand-over")
            }
            Self::QueueAboveDownThreshold { waiting, threshold } => {
                write!(f, "{waiting} jobs wait, SCALE_DOWN_THRESHOLD is {threshold}")
            }
            Self::QueueUnread { repo } => write!(f, "the queue of {repo} could not be read"),
            Self::HostUnread { host } => write!(f, "host {host} has not reported"),
            Self::Brake { per_minute } => {
                write!(f, "at most {per_minute} idle runners are retired a minute")
            }
            Self::NotAccepted { seconds } => {
                write!(f, "the host did not accept it within {seconds} s")
            }
            Self::HandedBack { refusal } => {
                write!(f, "the host handed it back: {}", refusal.code())
            }
            Self::HostLost { host } => write!(f, "host {host} is lost"),
            other => f.write_str(other.plain()),
        }
    }
}

impl Reason {
    /// The sentences that need no figures.
    fn plain(&self) -> &'static str {
        match self {
            Self::ManualScaleUp { .. } => "an operator asked for more runners",
            Self::Satisfied => "enough runners are free or coming",
            Self::NoHost => "no host can take a runner now",
            Self::HostsFull => "every host is full",
            Self::BudgetShort => "GitHub's rate limit leaves no room to register a runner now",
            Self::Paused => "the pool is paused",
            Self::Frozen => "the fleet is frozen by an operator",
            Self::ManualScaleDown { .. } => "an operator asked for fewer runners",
            Self::OperatorDelete { force: true, .. } => "an operator removed it by force",
            Self::OperatorDelete { .. } => "an operator removed it",
            Self::DeniedByGitHub => "GitHub has twice not shown it online",
            Self::RoomForOthers => "idle, and another pool's jobs need its room",
            Self::HostDraining => "its host is being drained",
            Self::PoolRemoved => "its pool is no longer configured",
            Self::ShuttingDown => "the orchestrator shuts down",
            Self::WithinIdleTimeout => "not idle for IDLE_TIMEOUT yet",
            Self::AtFloor => "no more runners than the floor and the queue need",
            Self::GitHubUnreadable => "GitHub's runner list could not be read",
            Self::MassVanish => "more than half of our registrations or hosts vanished at once",
            Self::Busy => "it runs a job",
            Self::NotListening => "it is not listening yet",
            Self::NoSuchRunner => "no such runner",
            Self::ContainerVanished => "its container is gone and nobody here removed it",
            Self::EarlierBoot => "assigned to an earlier start of its host's agent and not found",
            Self::OrphanRegistration => "a registration of ours that no host claims",
            Self::NeverStarted => "created and never started",
            Self::Superseded => "another leader has taken over",
            _ => self.code(),
        }
    }
}

/// Every reason's stable name, so that their metric series exist from the start.
pub const REASON_CODES: &[&str] = &[
    "below_minimum",
    "below_min_idle",
    "queued_jobs",
    "waited_too_long",
    "manual_scale_up",
    "satisfied",
    "below_up_threshold",
    "at_maximum",
    "no_host",
    "hosts_full",
    "host_short",
    "image_missing",
    "budget_short",
    "breaker_open",
    "paused",
    "frozen",
    "github_does_not_assign",
    "rebuilding",
    "idle_too_long",
    "manual_scale_down",
    "operator_delete",
    "start_deadline_missed",
    "denied_by_github",
    "room_for_others",
    "host_draining",
    "pool_removed",
    "shutting_down",
    "within_idle_timeout",
    "at_floor",
    "queue_above_down_threshold",
    "github_unreadable",
    "queue_unread",
    "host_unread",
    "brake",
    "mass_vanish",
    "busy",
    "not_listening",
    "no_such_runner",
    "not_accepted",
    "handed_back",
    "host_lost",
    "earlier_boot",
    "container_vanished",
    "orphan_registration",
    "never_started",
    "superseded",
];

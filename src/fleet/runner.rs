//! The life of one runner: its phases, and the one function that moves between them.

use serde::{Deserialize, Serialize};

use super::id::{ContainerId, GitHubRunnerId, PoolName, RunnerId, RunnerName};
use super::pool::Scope;
use super::reason::Reason;
use super::time::Timestamp;

/// Where a runner is in its life. Moves forward only, see [`RunnerPhase::observe`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum RunnerPhase {
    /// The leader named it; no agent has answered yet.
    Assigned {
        since: Timestamp,
    },
    /// Its agent took it and will start it in turn.
    Accepted {
        since: Timestamp,
    },
    Created {
        since: Timestamp,
    },
    Started {
        since: Timestamp,
    },
    /// The JIT configuration was written to its standard input.
    Handed {
        since: Timestamp,
    },
    /// `Listening for Jobs` was seen.
    Listening {
        since: Timestamp,
    },
    /// `Running job` was seen. Only the container's exit ends this.
    Running {
        since: Timestamp,
    },
    /// Adopted, and its log cannot be read from the start.
    Unknown {
        since: Timestamp,
    },
    /// Exited after a job, or (`ran_job: None`) of unknown use.
    Ended {
        at: Timestamp,
        ran_job: Option<bool>,
        exit_code: i64,
        oom: bool,
    },
    Failed {
        at: Timestamp,
        failure: Failure,
    },
    Retired {
        at: Timestamp,
        reason: Reason,
    },
    Lost {
        at: Timestamp,
        reason: Reason,
    },
}

/// How a runner failed before it could serve a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    Create {
        message: String,
    },
    Start {
        message: String,
    },
    Attach {
        message: String,
    },
    Mint {
        message: String,
    },
    /// GitHub's limits left no room for the call; it was not made, or refused unheard.
    Budget {
        message: String,
    },
    /// The container ended before it listened.
    ExitedBeforeListening {
        exit_code: i64,
        oom: bool,
    },
    /// It listened and ended without a job.
    ExitedWithoutJob {
        exit_code: i64,
        oom: bool,
    },
}

impl Failure {
    /// The stable name: a metric label.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Start { .. } => "start",
            Self::Attach { .. } => "attach",
            Self::Mint { .. } => "mint",
            Self::Budget { .. } => "budget",
            Self::ExitedBeforeListening { .. } => "exited_before_listening",
            Self::ExitedWithoutJob { .. } => "exited_without_job",
        }
    }
}

/// What was seen of a runner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Accepted,
    Created,
    Started,
    Handed,
    /// The line `Listening for Jobs`.
    ListeningLine,
    /// The line `Running job`.
    JobLine,
    Exited {
        code: i64,
        oom: bool,
    },
    Failed(Failure),
    /// Its container is gone because we removed it.
    Removed(Reason),
    Lost(Reason),
}

/// A move that the life of a runner does not have: a bug of ours, or a forged line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a runner in phase {from} cannot be {seen}")]
pub struct IllegalTransition {
    pub from: &'static str,
    pub seen: &'static str,
}

impl RunnerPhase {
    /// The phase after `seen`. Lines of output only move a handed runner forward, and
    /// repeated or late ones change nothing: a job can print what it likes.
    pub fn observe(self, seen: Seen, now: Timestamp) -> Result<Self, IllegalTransition> {
        use RunnerPhase as P;
        let illegal = |seen: &'static str| Err(IllegalTransition { from: self.name(), seen });
        if self.is_terminal() {
            return illegal("moved on after its end");
        }
        match seen {
            Seen::Accepted => match self {
                P::Assigned { .. } => Ok(P::Accepted { since: now }),
                _ => illegal("accepted"),
            },
            Seen::Created => match self {
                P::Accepted { .. } => Ok(P::Created { since: now }),
                _ => illegal("created"),
            },
            Seen::Started => match self {
                P::Created { .. } => Ok(P::Started { since: now }),
                _ => illegal("started"),
            },
            Seen::Handed => match self {
                P::Started { .. } => Ok(P::Handed { since: now }),
                _ => illegal("handed its configuration"),
            },
            Seen::ListeningLine => match self {
                P::Handed { .. } | P::Unknown { .. } => Ok(P::Listening { since: now }),
                P::Listening { .. } | P::Running { .. } => Ok(self),
                _ => illegal("listening"),
            },
            Seen::JobLine => match self {
                P::Handed { .. } | P::Listening { .. } | P::Unknown { .. } => {
                    Ok(P::Running { since: now })
                }
                P::Running { .. } => Ok(self),
                _ => illegal("running a job"),
            },
            Seen::Exited { code, oom } => Ok(self.exited(code, oom, now)),
            Seen::Failed(failure) if self.awaits_mint() => Ok(P::Failed { at: now, failure }),
            // What was handed its configuration ends by exiting or by being removed.
            Seen::Failed(_) => illegal("failed to start"),
            Seen::Removed(reason) => Ok(P::Retired { at: now, reason }),
            Seen::Lost(reason) => Ok(P::Lost { at: now, reason }),
        }
    }

    fn exited(&self, exit_code: i64, oom: bool, at: Timestamp) -> Self {
        match self {
            Self::Running { .. } => Self::Ended { at, ran_job: Some(true), exit_code, oom },
            Self::Unknown { .. } => Self::Ended { at, ran_job: None, exit_code, oom },
            Self::Listening { .. } => {
                Self::Failed { at, failure: Failure::ExitedWithoutJob { exit_code, oom } }
            }
            _ => Self::Failed { at, failure: Failure::ExitedBeforeListening { exit_code, oom } },
        }
    }

    /// The stable name: API field and metric label.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Assigned { .. } => "assigned",
            Self::Accepted { .. } => "accepted",
            Self::Created { .. } => "created",
            Self::Started { .. } => "started",
            Self::Handed { .. } => "handed",
            Self::Listening { .. } => "listening",
            Self::Running { .. } => "running",
            Self::Unknown { .. } => "unknown",
            Self::Ended { .. } => "ended",
            Self::Failed { .. } => "failed",
            Self::Retired { .. } => "retired",
            Self::Lost { .. } => "lost",
        }
    }

    /// When this phase began.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Assigned { since }
            | Self::Accepted { since }
            | Self::Created { since }
            | Self::Started { since }
            | Self::Handed { since }
            | Self::Listening { since }
            | Self::Running { since }
            | Self::Unknown { since } => *since,
            Self::Ended { at, .. }
            | Self::Failed { at, .. }
            | Self::Retired { at, .. }
            | Self::Lost { at, .. } => *at,
        }
    }

    /// Whether the id's life is over.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Ended { .. } | Self::Failed { .. } | Self::Retired { .. } | Self::Lost { .. }
        )
    }

    /// Whether the JIT configuration may be in the container's hands: from here on only
    /// GitHub's answer to a deletion decides whether it may be removed.
    #[must_use]
    pub fn may_hold_registration(&self) -> bool {
        matches!(
            self,
            Self::Handed { .. }
                | Self::Listening { .. }
                | Self::Running { .. }
                | Self::Unknown { .. }
        )
    }

    /// Whether a registration is still to be minted for it.
    #[must_use]
    pub fn awaits_mint(&self) -> bool {
        matches!(
            self,
            Self::Assigned { .. }
                | Self::Accepted { .. }
                | Self::Created { .. }
                | Self::Started { .. }
        )
    }
}

/// What an agent knows and reports of one runner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RunnerRecord {
    pub id: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub phase: RunnerPhase,
    pub container: Option<ContainerId>,
    pub github_id: Option<GitHubRunnerId>,
    pub assigned_at: Timestamp,
    /// When it first listened, for the idle time and for start-up figures.
    pub listened_at: Option<Timestamp>,
    pub revision: String,
    pub correlation: String,
    /// A retirement is being carried out.
    pub retiring: Option<Reason>,
    /// GitHub called it busy when we asked to delete it; no new attempt before then.
    pub retire_blocked_until: Option<Timestamp>,
    /// Found running when its agent started.
    pub adopted: bool,
    /// Where it is registered: still known when its pool is no longer configured.
    #[serde(default)]
    pub scope: Option<Scope>,
}

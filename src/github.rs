//! The GitHub edge: one trait in our words, kept by `octocrab` over REST.
//! Readings carry the instant their request began: what it says was true *as of then*.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::fleet::budget::{Budget, BudgetShare};
use crate::fleet::id::{GitHubRunnerId, JobId, ReplicaId, RepoName, RunnerName};
use crate::fleet::pool::{Labels, Scope};
use crate::fleet::registration::Stillness;
use crate::fleet::time::Timestamp;

pub use auth::Credentials;
pub use rest::{GitHubSettings, RestGitHub};

mod answers;
mod auth;
pub mod budget;
mod cache;
mod counters;
mod line;
mod pages;
mod preflight;
mod queue;
mod rest;
mod route;
pub mod sweep;
mod wire;

/// What we ask of GitHub. Every call has a timeout and spends from the budget; a call
/// the budget has no room for fails with [`GitHubError::Shed`] before it is sent.
#[async_trait]
pub trait GitHub: Send + Sync + fmt::Debug {
    /// Checks the token, each scope and each permission by harmless GETs.
    async fn preflight(&self, scopes: &[Scope]) -> Preflight;

    /// The repositories whose queues make up the scope's demand, most recently pushed
    /// first, without archived and disabled ones. One element for a repository scope.
    async fn repositories(&self, scope: &Scope) -> Result<Vec<Repository>, GitHubError>;

    /// Queued jobs of one repository: runs `queued` and `in_progress`, then their jobs,
    /// all pages. Conditional: an unchanged repository costs no primary-limit point.
    async fn queue(&self, repo: &RepoName) -> Result<QueueReading, GitHubError>;

    /// Every registration of the scope, all pages; a partial list is an error. One that
    /// would not hold still is what its passes showed together, and says that it moved.
    async fn registrations(&self, scope: &Scope) -> Result<RegistrationReading, GitHubError>;

    /// The registration of exactly this name, if any. Where it is not found in a list that
    /// would not hold still, that is an error.
    async fn find(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<Registration>, GitHubError>;

    /// Registers a just-in-time runner. Never retried here: after a lost answer the
    /// caller looks the name up, deletes the registration and gives the name up.
    async fn mint(&self, request: &MintRequest) -> Result<Minted, GitHubError>;

    /// Deletes a registration.
    async fn deregister(
        &self,
        scope: &Scope,
        id: GitHubRunnerId,
    ) -> Result<Deregistered, GitHubError>;

    /// What may be spent now.
    fn budget(&self) -> Budget;

    /// What this client has spent of the budget that all replicas share.
    fn share(&self, _replica: ReplicaId) -> Option<BudgetShare> {
        None
    }

    /// Takes in what the other replicas have spent of it: it counts as if this one had.
    /// Returns what they told before and the store has lost, to be written back.
    fn heed(&self, _others: Vec<BudgetShare>) -> Vec<BudgetShare> {
        Vec::new()
    }

    /// Moves when the other replicas should hear of this one's share at once.
    fn spending(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    /// What was learnt since the last call for conditional requests, as small texts for the
    /// next leader; `None` for what was forgotten.
    fn learnt(&self) -> BTreeMap<String, Option<String>> {
        BTreeMap::new()
    }

    /// Takes in what an earlier leader has learnt.
    fn recall(&self, _learnt: &BTreeMap<String, String>) {}

    /// Calls made so far, for metrics: `(operation, status class, count)`.
    fn calls(&self) -> Vec<CallCount>;
}

/// One row of the call counters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallCount {
    pub operation: &'static str,
    /// `2xx`, `304`, `4xx`, `5xx`, `429` (refused for a limit, whatever the status),
    /// `timeout`, `error` (no or no whole answer), `shed` (never sent).
    pub outcome: &'static str,
    pub count: u64,
}

/// A repository of a scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repository {
    pub name: RepoName,
    pub pushed_at: Option<Timestamp>,
}

/// The queued jobs of one repository, as of the request's start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueReading {
    pub repo: RepoName,
    pub begun_at: Timestamp,
    pub jobs: Vec<QueuedJob>,
    /// Whether runs are queued or in progress: such a repository is read every poll.
    pub active: bool,
}

/// A job that waits for a runner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuedJob {
    pub id: JobId,
    pub labels: Labels,
    pub queued_at: Timestamp,
    pub name: String,
    pub run_id: u64,
}

/// The registrations of one scope, as of the request's start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationReading {
    pub scope: Scope,
    /// The start of the pass that held still, or else of the first one.
    pub begun_at: Timestamp,
    /// Whether what is missing is known to be.
    pub stillness: Stillness,
    pub registrations: Vec<Registration>,
}

/// One runner as GitHub knows it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Registration {
    pub id: GitHubRunnerId,
    pub name: RunnerName,
    pub online: bool,
    pub busy: bool,
    pub os: Option<String>,
    pub labels: Vec<String>,
}

/// What a just-in-time registration is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MintRequest {
    pub scope: Scope,
    pub name: RunnerName,
    pub labels: Labels,
    pub runner_group_id: u64,
}

/// A fresh registration and its secret.
#[derive(Debug)]
pub struct Minted {
    pub id: GitHubRunnerId,
    pub jit_config: SecretString,
}

/// What GitHub said to a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deregistered {
    /// 204: it existed, was not busy, and is gone.
    Deleted,
    /// 404: nobody of that id is (or may be) visible to us.
    Absent,
    /// 422: it runs a job.
    Busy,
}

/// What the start-up check found, row by row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Preflight {
    pub checks: Vec<PreflightCheck>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreflightCheck {
    /// What was checked, e.g. `actions read on repo acme/demo`.
    pub what: String,
    pub verdict: Verdict,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Proven,
    /// Refused, with the fix in the operator's words.
    Refused {
        fix: String,
    },
    /// Cannot be seen by reading; the first use tells.
    UnknownUntilUse {
        why: String,
    },
    /// GitHub did not answer.
    Unreachable {
        why: String,
    },
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GitHubSetupError {
    #[error("{url:?} is not the http(s) address of a REST API")]
    ApiUrl { url: String },
    #[error("the github app's private key is not an RSA key in PEM")]
    PrivateKey,
    #[error("the client for github could not be set up")]
    Client {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What went wrong at GitHub.
#[derive(Debug, thiserror::Error)]
pub enum GitHubError {
    #[error("github did not answer {route} within {timeout_ms} ms")]
    Timeout { route: &'static str, timeout_ms: u64 },
    #[error("github is not reachable for {route}")]
    Unreachable {
        route: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("github answered {route} with status {status}: {message}")]
    Refused { route: &'static str, status: u16, message: String },
    #[error("github limits us on {route}; retry after {retry_after:?}")]
    Limited { route: &'static str, retry_after: Duration },
    #[error("{route} was not sent: the budget is kept for more urgent calls ({reason})")]
    Shed { route: &'static str, reason: &'static str },
    #[error("github's answer to {route} could not be read")]
    Answer {
        route: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("a runner named {name} exists already")]
    NameTaken { name: RunnerName },
}

impl GitHubError {
    /// Whether the effect of a mutating call is unknown: it may have happened.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Answer { .. }
            | Self::NameTaken { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Limited { .. } | Self::Shed { .. } => false,
        }
    }
}

impl Preflight {
    /// Why GitHub could not be asked at all, if it could not.
    #[must_use]
    pub fn unreachable(&self) -> Option<String> {
        self.checks.iter().find_map(|check| match &check.verdict {
            Verdict::Unreachable { why } => Some(format!("{}: {why}", check.what)),
            Verdict::Proven | Verdict::Refused { .. } | Verdict::UnknownUntilUse { .. } => None,
        })
    }

    /// One line for each refusal, with its fix.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.checks
            .iter()
            .filter_map(|check| match &check.verdict {
                Verdict::Refused { fix } => Some(format!("{}: {fix}", check.what)),
                Verdict::Unreachable { why } => Some(format!("{}: {why}", check.what)),
                Verdict::Proven | Verdict::UnknownUntilUse { .. } => None,
            })
            .collect()
    }
}

//! Pools: named sets of interchangeable runners, and which of them a job belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::id::{PoolName, RepoName};

/// Where runners of a pool are registered at GitHub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// `owner/name`
    Repo(RepoName),
    /// An organisation's login.
    Org(String),
    /// Runners at enterprise level; demand from the organisations named.
    Enterprise { slug: String, orgs: Vec<String> },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repo(repo) => write!(f, "repo {repo}"),
            Self::Org(org) => write!(f, "org {org}"),
            Self::Enterprise { slug, .. } => write!(f, "enterprise {slug}"),
        }
    }
}

/// Labels, lower-cased: GitHub matches them without regard to case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeSet<String>);

impl Labels {
    /// Whether every label of `self` is among `others`.
    #[must_use]
    pub fn is_subset(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }

    /// The labels in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Labels {
    fn from_iter<I: IntoIterator<Item = S>>(labels: I) -> Self {
        Self(
            labels
                .into_iter()
                .map(|label| label.as_ref().trim().to_lowercase())
                .filter(|label| !label.is_empty())
                .collect(),
        )
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, label) in self.iter().enumerate() {
            write!(f, "{}{label}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What one runner of a pool may use of its host. `None` = no limit.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    pub cpus: Option<f64>,
    pub memory_bytes: Option<u64>,
    pub pids: Option<u32>,
}

/// One pool as configured. Everything in it is known before the first turn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Pool {
    pub name: PoolName,
    pub scope: Scope,
    pub labels: Labels,
    pub image: String,
    /// Overrides the image's command, for an image of the user's own with `run.sh`.
    pub command: Option<Vec<String>>,
    /// GitHub's runner group; 1 is the default group.
    pub runner_group_id: u64,
    pub resources: Resources,
    pub min_runners: u32,
    pub max_runners: u32,
    pub min_idle_runners: u32,
    pub scale_up_threshold: u32,
    pub scale_down_threshold: u32,
    /// A job waiting longer than this is served even below the threshold.
    pub scale_up_max_wait: Duration,
    pub idle_timeout: Duration,
    /// From the hand-over of the JIT configuration to `Listening for Jobs`.
    pub start_deadline: Duration,
    /// Share of short room, relative to other pools.
    pub weight: u32,
    /// Breaks ties between pools that serve the same labels; higher wins.
    pub priority: i32,
    /// Changes whenever a setting that runners are made from changes.
    pub revision: String,
}

/// The pool a job with these labels belongs to: the smallest label set that holds them
/// all, then the higher priority, then the first name. `None`: no pool of ours serves it.
#[must_use]
pub fn route<'a>(labels: &Labels, pools: &'a BTreeMap<PoolName, Pool>) -> Option<&'a Pool> {
    // A job without labels names a runner group instead: it is not for us to guess.
    if labels.is_empty() {
        return None;
    }
    pools.values().filter(|pool| labels.is_subset(&pool.labels)).min_by(|a, b| {
        (a.labels.len(), -i64::from(a.priority), &a.name).cmp(&(
            b.labels.len(),
            -i64::from(b.priority),
            &b.name,
        ))
    })
}

impl Scope {
    /// The scope as it stands in a URL: `acme/demo`, `acme`, `enterprises/acme`.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Repo(repo) => repo.0.clone(),
            Self::Org(org) => org.clone(),
            Self::Enterprise { slug, .. } => format!("enterprises/{slug}"),
        }
    }
}

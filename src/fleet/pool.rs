//! Pools: named sets of interchangeable runners, and which of them a job belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
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

/// What Docker a job finds in its runner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InnerDocker {
    /// None, and nothing that one would need.
    #[default]
    None,
    /// One of its own that runs without root, nor is the job root beside it.
    Rootless,
    /// One of its own with root's rights, which amount to root on the host.
    Dind,
}

impl InnerDocker {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::None, Self::Rootless, Self::Dind];

    /// Its name: in the configuration, and in the variable that the runner's image reads.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Rootless => "rootless",
            Self::Dind => "dind",
        }
    }

    /// Whether a job gets as good as root on the host: for its operator to allow.
    #[must_use]
    pub fn is_privileged(self) -> bool {
        self == Self::Dind
    }
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
    /// A version before said nothing of it, and gave none.
    #[serde(default)]
    pub docker: InnerDocker,
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

/// Finds the pool a job belongs to. Built once for many jobs: most of them ask for the same
/// labels in the same few repositories.
#[derive(Debug)]
pub struct Router<'a> {
    by_label: HashMap<&'a str, Vec<&'a Pool>>,
    known: HashMap<(RepoName, Labels), Option<&'a Pool>>,
}

impl<'a> Router<'a> {
    /// A router for these pools.
    #[must_use]
    pub fn new(pools: &'a BTreeMap<PoolName, Pool>) -> Self {
        let mut by_label: HashMap<&str, Vec<&Pool>> = HashMap::new();
        for pool in pools.values() {
            for label in pool.labels.iter() {
                by_label.entry(label).or_default().push(pool);
            }
        }
        Self { by_label, known: HashMap::new() }
    }

    /// The pool whose scope holds the repository and whose labels hold all of the job's:
    /// the smallest such label set, then the higher priority, then the first name. `None`:
    /// no pool of ours serves it.
    pub fn route(&mut self, repo: &RepoName, labels: &Labels) -> Option<&'a Pool> {
        let key = (repo.clone(), labels.clone());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let found = self.find(repo, labels);
        self.known.insert(key, found);
        found
    }

    fn find(&self, repo: &RepoName, labels: &Labels) -> Option<&'a Pool> {
        // A job without labels names a runner group instead: it is not for us to guess.
        let with_rarest = labels
            .iter()
            .map(|label| self.by_label.get(label).map_or(&[][..], Vec::as_slice))
            .min_by_key(|pools| pools.len())?;
        with_rarest
            .iter()
            .copied()
            .filter(|pool| labels.is_subset(&pool.labels) && pool.scope.covers(repo))
            .min_by_key(|pool| (pool.labels.len(), -i64::from(pool.priority), &pool.name))
    }
}

impl Scope {
    /// Whether runners of this scope can take jobs of the repository. GitHub's names have no
    /// regard to case.
    #[must_use]
    pub fn covers(&self, repo: &RepoName) -> bool {
        let owner = || repo.split().map_or("", |(owner, _)| owner);
        match self {
            Self::Repo(own) => own.as_str().eq_ignore_ascii_case(repo.as_str()),
            Self::Org(org) => org.eq_ignore_ascii_case(owner()),
            Self::Enterprise { orgs, .. } => {
                orgs.iter().any(|org| org.eq_ignore_ascii_case(owner()))
            }
        }
    }
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

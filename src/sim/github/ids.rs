//! The model's identifiers and scopes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A runner registration's number, as GitHub's `id` of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunnerId(pub u64);

/// A job's number, as GitHub's `id` of a workflow job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// A workflow run's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunnerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// `owner/name` of a repository in lower case, which is how GitHub compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RepoKey(String);

impl RepoKey {
    pub(crate) fn new(owner: &str, name: &str) -> Self {
        Self(format!("{owner}/{name}").to_ascii_lowercase())
    }

    /// From `owner/name`, or from a bare name under `default_owner`.
    pub(crate) fn parse(text: &str, default_owner: &str) -> Self {
        match text.split_once('/') {
            Some((owner, name)) => Self::new(owner, name),
            None => Self::new(default_owner, text),
        }
    }

    pub(crate) fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }
}

/// Where a runner is registered. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    Enterprise(String),
    Org(String),
    Repo(RepoKey),
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enterprise(slug) => write!(out, "enterprises/{slug}"),
            Self::Org(login) => write!(out, "orgs/{login}"),
            Self::Repo(key) => write!(out, "repos/{}", key.0),
        }
    }
}

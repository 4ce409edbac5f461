//! The routes we use, by the names that errors and counters give them, and the paths
//! made from them.

use std::fmt::Write;

use crate::fleet::id::RepoName;
use crate::fleet::pool::Scope;

/// One kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// Method and template, as errors name it.
    pub(crate) name: &'static str,
    /// The row of the counters.
    pub(crate) operation: &'static str,
}

macro_rules! routes {
    ($($constant:ident = $operation:literal, $name:literal;)*) => {
        $(pub(crate) const $constant: Route = Route { name: $name, operation: $operation };)*
    };
}

routes! {
    RUNS = "list_runs", "GET /repos/{owner}/{repo}/actions/runs";
    JOBS = "list_jobs", "GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs";
    ORG_REPOS = "list_repositories", "GET /orgs/{org}/repos";
    REPO = "get_repository", "GET /repos/{owner}/{repo}";
    ORG = "get_organization", "GET /orgs/{org}";
    USER = "get_user", "GET /user";
    APP = "get_app", "GET /app";
    INSTALLATION = "find_installation", "GET /{scope}/installation";
    INSTALLATION_TOKEN = "mint_token", "POST /app/installations/{installation_id}/access_tokens";
    RUNNERS = "list_runners", "GET /{scope}/actions/runners";
    FIND_RUNNER = "find_runner", "GET /{scope}/actions/runners?name={name}";
    JIT = "mint", "POST /{scope}/actions/runners/generate-jitconfig";
    DELETE_RUNNER = "deregister", "DELETE /{scope}/actions/runners/{runner_id}";
}

/// The account whose credentials a call needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Account {
    Repo(RepoName),
    Org(String),
    Enterprise(String),
    /// No particular one: `GET /user`.
    Anyone,
}

impl Account {
    pub(crate) fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Repo(repo) => Self::Repo(repo.clone()),
            Scope::Org(org) => Self::Org(org.clone()),
            Scope::Enterprise { slug, .. } => Self::Enterprise(slug.clone()),
        }
    }

    /// The login that an App is installed at: one installation serves all of it.
    pub(crate) fn login(&self) -> Option<String> {
        match self {
            Self::Repo(repo) => repo.split().map(|(owner, _)| owner.to_lowercase()),
            Self::Org(org) => Some(org.to_lowercase()),
            Self::Enterprise(_) | Self::Anyone => None,
        }
    }

    /// The first part of the account's paths, e.g. `/orgs/acme`.
    pub(crate) fn prefix(&self) -> String {
        match self {
            Self::Repo(repo) => repo_prefix(repo),
            Self::Org(org) => format!("/orgs/{}", segment(org)),
            Self::Enterprise(slug) => format!("/enterprises/{}", segment(slug)),
            Self::Anyone => String::new(),
        }
    }
}

/// `/repos/<owner>/<name>`.
pub(crate) fn repo_prefix(repo: &RepoName) -> String {
    let (owner, name) = repo.split().unwrap_or(("", repo.as_str()));
    format!("/repos/{}/{}", segment(owner), segment(name))
}

/// Encodes what must not change the shape of a path or query.
pub(crate) fn segment(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(repo_prefix(&RepoName::from("acme/demo.rs")), "/repos/acme/demo.rs");
        assert_eq!(repo_prefix(&RepoName::from("acme/a?b#c")), "/repos/acme/a%3Fb%23c");
        assert_eq!(Account::Org("a/../b".into()).prefix(), "/orgs/a%2F..%2Fb");
        let enterprise = Scope::Enterprise { slug: "big co".into(), orgs: Vec::new() };
        assert_eq!(Account::of(&enterprise).prefix(), "/enterprises/big%20co");
    }

    #[test]
    fn an_app_is_installed_at_the_owner() {
        assert_eq!(Account::Repo("Acme/x".into()).login().as_deref(), Some("acme"));
        assert_eq!(Account::Org("ACME".into()).login().as_deref(), Some("acme"));
        assert_eq!(Account::Enterprise("acme".into()).login(), None);
    }
}

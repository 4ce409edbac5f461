//! [`GitHub`] over the REST API.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use http::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::auth::{Auth, Credentials};
use super::budget::CallClass;
use super::line::{Call, Line, refused, unreadable};
use super::pages::{Caller, Completeness, List, Memory, Reading};
use super::queue::Queues;
use super::route::{Account, DELETE_RUNNER, FIND_RUNNER, JIT, ORG_REPOS, RUNNERS, Route, segment};
use super::wire::Wire;
use super::{
    CallCount, Deregistered, GitHub, GitHubError, GitHubSetupError, MintRequest, Minted, Preflight,
    QueueReading, Registration, RegistrationReading, Repository, preflight,
};
use crate::clock::Clock;
use crate::fleet::budget::{Budget, BudgetShare};
use crate::fleet::id::{GitHubRunnerId, ReplicaId, RepoName, RunnerName};
use crate::fleet::pool::Scope;

/// Pages of registrations of one scope: 10,000 runners, GitHub's own limit for a group.
const RUNNER_PAGES_MAX: usize = 100;
/// Pages of repositories of one organisation: 10,000 of them.
const REPO_PAGES_MAX: usize = 100;
/// Where the runner works, below its own directory; GitHub's default.
const WORK_FOLDER: &str = "_work";

/// How to reach GitHub, and as whom.
#[derive(Clone, Debug)]
pub struct GitHubSettings {
    /// `https://api.github.com`, or `https://HOST/api/v3`.
    pub api_url: String,
    pub credentials: Credentials,
}

/// The client. One for the whole process: its budget and its cache are shared by all
/// that ask. Cheap calls go first where a limit is near; see [`CallClass`].
pub struct RestGitHub {
    caller: Caller,
    queues: Queues,
}

impl fmt::Debug for RestGitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestGitHub").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl RestGitHub {
    /// A client over the network. Sends nothing yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The address is no web address, the App's key no RSA key, or TLS cannot be set up.
    pub fn new(settings: GitHubSettings, clock: Arc<dyn Clock>) -> Result<Self, GitHubSetupError> {
        let wire = Wire::over_network(&settings.api_url)?;
        Self::over(wire, settings.credentials, clock)
    }

    /// A client that talks to a router in this process instead of a socket, so that
    /// tokio's clock may be paused.
    ///
    /// # Errors
    /// As [`RestGitHub::new`].
    pub fn in_process(
        settings: GitHubSettings,
        router: Router,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GitHubSetupError> {
        let wire = Wire::over_router(&settings.api_url, router)?;
        Self::over(wire, settings.credentials, clock)
    }

    fn over(
        wire: Wire,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GitHubSetupError> {
        let auth = Auth::new(credentials)?;
        Ok(Self { caller: Caller::new(Line::new(wire, clock), auth), queues: Queues::default() })
    }

    async fn repositories_of(&self, org: &str) -> Result<Vec<Repository>, GitHubError> {
        let account = Account::Org(org.to_owned());
        // In an order that pushes do not change while pages are read; ours is made after.
        let path = format!("{}/repos?type=all&sort=full_name&direction=asc", account.prefix());
        let list = List {
            account: &account,
            route: ORG_REPOS,
            // A few calls, without which no sweep knows where to look.
            class: CallClass::Queue,
            path: &path,
            pages_max: REPO_PAGES_MAX,
            completeness: Completeness::Whole,
            memory: Memory::Kept,
        };
        self.caller.list(list).await
    }

    async fn runners(
        &self,
        scope: &Scope,
        route: Route,
        query: &str,
        memory: Memory,
    ) -> Result<Reading<Registration>, GitHubError> {
        let account = Account::of(scope);
        let path = format!("{}/actions/runners{query}", account.prefix());
        let list = List {
            account: &account,
            route,
            class: CallClass::Registrations,
            path: &path,
            pages_max: RUNNER_PAGES_MAX,
            completeness: Completeness::Whole,
            memory,
        };
        let mut runners: Reading<Registration> = self.caller.read(list).await?;
        // The younger of two rows comes first, stays first, and is kept.
        runners.items.sort_by_key(|runner| runner.id);
        runners.items.dedup_by_key(|runner| runner.id);
        Ok(runners)
    }
}

#[async_trait]
impl GitHub for RestGitHub {
    async fn preflight(&self, scopes: &[Scope]) -> Preflight {
        preflight::check(&self.caller, scopes).await
    }

    async fn repositories(&self, scope: &Scope) -> Result<Vec<Repository>, GitHubError> {
        let mut repositories = match scope {
            Scope::Repo(repo) => {
                self.queues.poll_always(repo);
                vec![Repository { name: repo.clone(), pushed_at: None }]
            }
            Scope::Org(org) => self.repositories_of(org).await?,
            Scope::Enterprise { orgs, .. } => {
                let mut all = Vec::new();
                for org in orgs {
                    all.extend(self.repositories_of(org).await?);
                }
                all
            }
        };
        repositories.sort_by(|a, b| (b.pushed_at, &a.name).cmp(&(a.pushed_at, &b.name)));
        repositories.dedup_by(|a, b| a.name == b.name);
        Ok(repositories)
    }

    async fn queue(&self, repo: &RepoName) -> Result<QueueReading, GitHubError> {
        self.queues.read(&self.caller, repo).await
    }

    async fn registrations(&self, scope: &Scope) -> Result<RegistrationReading, GitHubError> {
        let Reading { items, begun_at, stillness } =
            self.runners(scope, RUNNERS, "", Memory::Kept).await?;
        let scope = scope.clone();
        Ok(RegistrationReading { scope, begun_at, stillness, registrations: items })
    }

    async fn find(
        &self,
        scope: &Scope,
        name: &RunnerName,
    ) -> Result<Option<Registration>, GitHubError> {
        // The filter is GitHub's and may be loose; equality is ours to check.
        let query = format!("?name={}", segment(name.as_str()));
        let runners = self.runners(scope, FIND_RUNNER, &query, Memory::None).await?;
        let found = runners.items.into_iter().find(|runner| runner.name == *name);
        if found.is_none() && !runners.stillness.is_still() {
            return Err(unreadable(FIND_RUNNER, "the list kept changing while it was read"));
        }
        Ok(found)
    }

    async fn mint(&self, request: &MintRequest) -> Result<Minted, GitHubError> {
        let account = Account::of(&request.scope);
        let call = Call {
            route: JIT,
            class: CallClass::Mint,
            method: Method::POST,
            path: format!("{}/actions/runners/generate-jitconfig", account.prefix()),
            body: Some(jit_body(request)?),
        };
        let answer = self.caller.call(&account, &call).await?;
        match answer.status {
            200..300 => minted(&answer.body),
            409 => Err(GitHubError::NameTaken { name: request.name.clone() }),
            _ => Err(refused(JIT, &answer)),
        }
    }

    async fn deregister(
        &self,
        scope: &Scope,
        id: GitHubRunnerId,
    ) -> Result<Deregistered, GitHubError> {
        let account = Account::of(scope);
        let call = Call {
            route: DELETE_RUNNER,
            class: CallClass::Deregister,
            method: Method::DELETE,
            path: format!("{}/actions/runners/{id}", account.prefix()),
            body: None,
        };
        let answer = self.caller.call(&account, &call).await?;
        match answer.status {
            200..300 => Ok(Deregistered::Deleted),
            404 => Ok(Deregistered::Absent),
            422 => Ok(Deregistered::Busy),
            _ => Err(refused(DELETE_RUNNER, &answer)),
        }
    }

    fn budget(&self) -> Budget {
        let now = self.caller.line.now();
        self.caller.line.budget().snapshot(now)
    }

    fn share(&self, replica: ReplicaId) -> Option<BudgetShare> {
        let now = self.caller.line.now();
        Some(self.caller.line.budget().share(replica, now))
    }

    fn heed(&self, others: Vec<BudgetShare>) -> Vec<BudgetShare> {
        let now = self.caller.line.now();
        self.caller.line.budget().heed(others, now)
    }

    fn spending(&self) -> watch::Receiver<u64> {
        self.caller.line.spending()
    }

    fn learnt(&self) -> BTreeMap<String, Option<String>> {
        self.caller.learnt()
    }

    fn recall(&self, learnt: &BTreeMap<String, String>) {
        self.caller.recall_learnt(learnt);
    }

    fn calls(&self) -> Vec<CallCount> {
        self.caller.line.counters().rows()
    }
}

fn jit_body(request: &MintRequest) -> Result<Vec<u8>, GitHubError> {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a str,
        runner_group_id: u64,
        labels: Vec<&'a str>,
        work_folder: &'a str,
    }
    let body = Body {
        name: request.name.as_str(),
        runner_group_id: request.runner_group_id,
        labels: request.labels.iter().collect(),
        work_folder: WORK_FOLDER,
    };
    serde_json::to_vec(&body).map_err(|source| unreadable(JIT, source))
}

fn minted(body: &[u8]) -> Result<Minted, GitHubError> {
    #[derive(Deserialize)]
    struct Answer {
        runner: Runner,
        encoded_jit_config: String,
    }
    #[derive(Deserialize)]
    struct Runner {
        id: u64,
    }
    // The parser's words could quote the body, and the body holds the secret.
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| unreadable(JIT, "not a just-in-time configuration"))?;
    Ok(Minted {
        id: GitHubRunnerId(answer.runner.id),
        jit_config: answer.encoded_jit_config.into(),
    })
}

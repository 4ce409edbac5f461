//! Control of the model: typed for tests in the same process, and as JSON under `/_sim`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::SimGitHub;
use super::faults::{FAULTS_MAX, Fault};
use super::ids::{JobId, RepoKey, RunnerId, Scope};
use super::jobs::{JobStatus, JobsRefused, NewJobs};
use super::options::{Permissions, TokenKind, TokenSpec};
use super::report::StateReport;
use super::runners::{Label, Registration};
use super::settings::{SettingsPatch, seconds_to_ms};
use super::state::{REPOS_MAX, World};
use super::unverified;
use super::webhooks::{HOOKS_MAX, NewWebhook};

/// Runners that are nobody's listener, as `POST /_sim/runners` takes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlantedRunners {
    /// How many.
    pub count: usize,
    /// Their names are this and a number; a single one has just this name.
    pub name_prefix: String,
    /// Their labels.
    pub labels: Vec<String>,
    /// `online` or `offline`.
    pub status: String,
    /// Whether they show as busy.
    pub busy: bool,
    /// `owner/name` to register them at a repository; absent: the first organisation.
    pub repo: Option<String>,
}

impl Default for PlantedRunners {
    fn default() -> Self {
        Self {
            count: 1,
            name_prefix: "foreign".to_owned(),
            labels: vec!["self-hosted".to_owned()],
            status: "offline".to_owned(),
            busy: false,
            repo: None,
        }
    }
}

/// Repositories to add or change, as `POST /_sim/repos` takes them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReposPatch {
    /// Add this many, under the first free numbers.
    pub count: usize,
    /// `owner/name` of one repository to add or change.
    pub repo: Option<String>,
    /// Applies to all repositories named by this request.
    pub private: Option<bool>,
    /// See `private`.
    pub archived: Option<bool>,
    /// See `private`.
    pub disabled: Option<bool>,
    /// The last push was this long ago.
    pub pushed_seconds_ago: Option<f64>,
}

/// A token to accept, as `POST /_sim/tokens` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    #[serde(deserialize_with = "super::options::secret")]
    token: secrecy::SecretString,
    kind: TokenKind,
    #[serde(default)]
    permissions: Option<Permissions>,
    #[serde(default)]
    repos: Option<Vec<String>>,
    #[serde(default)]
    expires_in_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpireTokens {
    token: Option<String>,
}

/// A control request that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Jobs were not taken.
    #[error("jobs were not posted")]
    Jobs(#[from] JobsRefused),
    /// A limit of the model is reached.
    #[error("the model holds at most {limit} {what}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// A runner of that name exists.
    #[error("a runner named {name} exists")]
    NameTaken {
        /// The name.
        name: String,
    },
}

impl SimGitHub {
    /// Queues jobs; answers their ids.
    pub fn post_jobs(&self, new: &NewJobs) -> Result<Vec<JobId>, ControlError> {
        Ok(self.with(|world, now| world.post_jobs(now, new))?)
    }

    /// Cancels a job; false when there is none or it has ended.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn cancel_job(&self, id: JobId) -> bool {
        self.with(|world, now| world.cancel_job(id, now))
    }

    /// The whole state.
    #[must_use]
    pub fn state(&self) -> StateReport {
        self.with(|world, now| world.report(now))
    }

    /// How many jobs have not ended.
    #[must_use]
    pub fn open_jobs(&self) -> usize {
        self.with(|world, _| {
            world.jobs.values().filter(|job| job.status != JobStatus::Completed).count()
        })
    }

    /// How many jobs run.
    #[must_use]
    pub fn running_jobs(&self) -> usize {
        self.with(|world, _| {
            world.jobs.values().filter(|job| job.status == JobStatus::InProgress).count()
        })
    }

    /// The names of the registrations that exist now.
    #[must_use]
    pub fn runner_names(&self) -> Vec<String> {
        self.with(|world, _| {
            let shown = world.runners.values().filter(|runner| !runner.hidden);
            shown.map(|runner| runner.name.clone()).collect()
        })
    }

    /// Whether the runner of this name has started a job that has not ended.
    #[must_use]
    pub fn runs_job(&self, runner_name: &str) -> bool {
        self.with(|world, _| {
            let named = world.runners.values().filter(|runner| runner.name == runner_name);
            named.filter_map(|runner| runner.assignment).any(|assignment| assignment.started)
        })
    }

    /// Switches a fault on.
    pub fn add_fault(&self, fault: Fault) -> Result<(), ControlError> {
        let added = self.with(|world, _| world.faults.add(fault));
        added.then_some(()).ok_or(ControlError::Full { what: "faults", limit: FAULTS_MAX })
    }

    /// Switches all faults off.
    pub fn clear_faults(&self) {
        self.with(|world, _| world.faults.clear());
    }

    /// Changes settings; what the patch does not name stays.
    pub fn change_settings(&self, patch: &SettingsPatch) {
        self.with(|world, now| {
            world.settings.apply(patch);
            // Deadlines may have come nearer.
            world.due(now);
        });
    }

    /// Delivers webhooks to this address from now on.
    pub fn add_webhook(&self, webhook: NewWebhook) -> Result<u64, ControlError> {
        let added = self.with(|world, _| world.add_webhook(webhook));
        added.ok_or(ControlError::Full { what: "webhooks", limit: HOOKS_MAX })
    }

    /// Delivers no webhooks any more.
    pub fn clear_webhooks(&self) {
        self.with(|world, _| world.clear_webhooks());
    }

    /// Registers runners that nothing connects to; answers their ids.
    pub fn plant_runners(&self, planted: &PlantedRunners) -> Result<Vec<RunnerId>, ControlError> {
        self.with(|world, now| world.plant_runners(planted, now))
    }

    /// Adds or changes repositories; answers how many the model has.
    pub fn change_repos(&self, patch: &ReposPatch) -> Result<usize, ControlError> {
        self.with(|world, now| world.change_repos(patch, now))
    }

    /// Accepts another token.
    pub fn add_token(&self, spec: &TokenSpec) {
        self.with(|world, _| {
            let owner = world.default_owner();
            world.accounts.add(spec, None, &owner);
        });
    }

    /// Refuses a token from now on; without one, all installation tokens.
    /// Answers how many.
    #[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
    pub fn expire_tokens(&self, token: Option<&str>) -> usize {
        self.with(|world, _| world.accounts.expire(token))
    }
}

impl World {
    fn plant_runners(
        &mut self,
        planted: &PlantedRunners,
        now: u64,
    ) -> Result<Vec<RunnerId>, ControlError> {
        let owner = self.default_owner();
        let scope = match &planted.repo {
            Some(repo) => Scope::Repo(RepoKey::parse(repo, &owner)),
            None => Scope::Org(owner.to_ascii_lowercase()),
        };
        let label = |name: &String| Label { name: name.to_lowercase(), read_only: false };
        let mut ids = Vec::new();
        for number in 1..=planted.count.min(super::state::RUNNERS_MAX) {
            let prefix = &planted.name_prefix;
            let name =
                if planted.count == 1 { prefix.clone() } else { format!("{prefix}-{number}") };
            let wanted = Registration {
                name: name.clone(),
                group_id: 1,
                labels: planted.labels.iter().map(label).collect(),
            };
            let id = self
                .register(now, scope.clone(), wanted)
                .map_err(|_| ControlError::NameTaken { name })?;
            if let Some(runner) = self.runners.get_mut(&id) {
                runner.planted_busy = Some(planted.busy);
                runner.online = planted.status == "online";
                runner.connected_ms = runner.online.then_some(now);
            }
            self.settle(id, now);
            ids.push(id);
        }
        Ok(ids)
    }

    fn change_repos(&mut self, patch: &ReposPatch, now: u64) -> Result<usize, ControlError> {
        let owner = self.default_owner();
        let mut named = Vec::new();
        let free = (1..).map(|number| format!("repo-{number}"));
        let free = free.filter(|name| !self.repos.contains_key(&RepoKey::new(&owner, name)));
        named.extend(free.take(patch.count.min(REPOS_MAX)).map(|name| (owner.clone(), name)));
        if let Some(text) = &patch.repo {
            let (owner, name) = text.split_once('/').unwrap_or((&owner, text));
            named.push((owner.to_owned(), name.to_owned()));
        }
        for (owner, name) in named {
            let key = self
                .add_repo(&owner, &name, now)
                .ok_or(ControlError::Full { what: "repositories", limit: REPOS_MAX })?;
            let Some(repo) = self.repos.get_mut(&key) else { continue };
            repo.private = patch.private.unwrap_or(repo.private);
            repo.archived = patch.archived.unwrap_or(repo.archived);
            repo.disabled = patch.disabled.unwrap_or(repo.disabled);
            if let Some(ago) = patch.pushed_seconds_ago {
                repo.pushed_ms = now.saturating_sub(seconds_to_ms(ago));
            }
        }
        Ok(self.repos.len())
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let mut detail = self.to_string();
        if let Self::Jobs(cause) = &self {
            detail = cause.to_string();
        }
        (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"detail": detail}))).into_response()
    }
}

/// The routes under `/_sim`.
pub(crate) fn routes() -> Router<SimGitHub> {
    Router::new()
        .route("/_sim/jobs", post(jobs))
        .route("/_sim/jobs/{id}/cancel", post(cancel))
        .route("/_sim/state", get(state))
        .route("/_sim/faults", post(add_fault).delete(clear_faults))
        .route("/_sim/webhooks", post(add_webhook).delete(clear_webhooks))
        .route("/_sim/runners", post(runners))
        .route("/_sim/settings", post(settings))
        .route("/_sim/repos", post(repos))
        .route("/_sim/tokens", post(add_token).delete(expire))
        .route("/_sim/unverified", get(table))
}

async fn jobs(State(sim): State<SimGitHub>, Json(new): Json<NewJobs>) -> Response {
    match sim.post_jobs(&new) {
        Ok(ids) => Json(json!({"ids": ids})).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn cancel(State(sim): State<SimGitHub>, Path(id): Path<u64>) -> StatusCode {
    if sim.cancel_job(JobId(id)) { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND }
}

async fn state(State(sim): State<SimGitHub>) -> Json<StateReport> {
    Json(sim.state())
}

async fn add_fault(State(sim): State<SimGitHub>, Json(fault): Json<Fault>) -> Response {
    match sim.add_fault(fault) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn clear_faults(State(sim): State<SimGitHub>) -> StatusCode {
    sim.clear_faults();
    StatusCode::NO_CONTENT
}

async fn add_webhook(State(sim): State<SimGitHub>, Json(webhook): Json<NewWebhook>) -> Response {
    match sim.add_webhook(webhook) {
        Ok(id) => Json(json!({"id": id})).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn clear_webhooks(State(sim): State<SimGitHub>) -> StatusCode {
    sim.clear_webhooks();
    StatusCode::NO_CONTENT
}

async fn runners(State(sim): State<SimGitHub>, Json(planted): Json<PlantedRunners>) -> Response {
    match sim.plant_runners(&planted) {
        Ok(ids) => Json(json!({"ids": ids})).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn settings(State(sim): State<SimGitHub>, Json(patch): Json<SettingsPatch>) -> Response {
    sim.change_settings(&patch);
    Json(sim.with(|world, _| world.settings.clone())).into_response()
}

async fn repos(State(sim): State<SimGitHub>, Json(patch): Json<ReposPatch>) -> Response {
    match sim.change_repos(&patch) {
        Ok(repos) => Json(json!({"repos": repos})).into_response(),
        Err(refused) => refused.into_response(),
    }
}

async fn add_token(State(sim): State<SimGitHub>, Json(new): Json<NewToken>) -> StatusCode {
    let expires_in_ms = new.expires_in_seconds.map(seconds_to_ms);
    let spec = TokenSpec {
        token: new.token,
        kind: new.kind,
        permissions: new.permissions,
        repos: new.repos,
    };
    sim.with(|world, now| {
        let owner = world.default_owner();
        world.accounts.add(&spec, expires_in_ms.map(|ms| now.saturating_add(ms)), &owner);
    });
    StatusCode::NO_CONTENT
}

async fn expire(State(sim): State<SimGitHub>, Json(which): Json<ExpireTokens>) -> Response {
    let expired = sim.expire_tokens(which.token.as_deref());
    Json(json!({"expired": expired})).into_response()
}

async fn table() -> Response {
    Json(unverified::TABLE).into_response()
}

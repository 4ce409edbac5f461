//! Workflow runs and jobs.

use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::Value;

use super::SimGitHub;
use super::bodies;
use super::errors::{Answer, ApiFailure};
use super::gate::Asked;
use super::ids::{JobId, RepoKey, RunId};
use super::jobs::{Job, Run};
use super::options::Level;
use super::paging::{ListQuery, Page};
use super::place::{Parts, number};
use super::routes_runners::listed;
use super::state::{Repo, World};
use super::unverified::Assumption;

/// A filtered list of runs ends here, says GitHub's documentation.
const FILTERED_RUNS_MAX: usize = 1_000;
/// How late a new job is listed in the hostile variant.
const LISTED_LATE_MS: u64 = 5_000;

/// Adds the routes under `root`, `""` or `/api/v3`.
pub(crate) fn mount(router: Router<SimGitHub>, root: &str) -> Router<SimGitHub> {
    let at = |path: &str| format!("{root}/repos/{{owner}}/{{repo}}/actions{path}");
    router
        .route(&at("/runs"), get(runs))
        .route(&at("/runs/{run_id}"), get(one_run))
        .route(&at("/runs/{run_id}/jobs"), get(jobs_of_run))
        .route(&at("/jobs/{job_id}"), get(one_job))
}

impl World {
    /// Runs of a repository that are listed by now, newest first.
    fn listed_runs(&self, repo: &Repo, status: Option<&str>, now: u64) -> Vec<&Run> {
        let late = if self.settings.hostile.hostile(Assumption::JobVisibility) {
            LISTED_LATE_MS
        } else {
            0
        };
        let fits = |run: &Run| {
            status.is_none_or(|s| run.status().word() == s || run.conclusion() == Some(s))
        };
        let runs = repo.runs.iter().rev().filter_map(|id| self.runs.get(id));
        let runs = runs.filter(|run| run.created_ms + late <= now && fits(run));
        let most = if status.is_some() { FILTERED_RUNS_MAX } else { usize::MAX };
        runs.take(most).collect()
    }

    fn run_at(&self, repo: &Repo, parts: &Parts) -> Result<&Run, ApiFailure> {
        let key = RepoKey::new(&repo.owner, &repo.name);
        let run = self.runs.get(&RunId(number(parts, "run_id")?));
        run.filter(|run| run.repo == key).ok_or_else(ApiFailure::not_found)
    }
}

async fn runs(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, now| {
        let repo = world.repo_for(&asked, &parts, "actions", Level::Read)?;
        let status = query.status.as_deref().filter(|status| !status.is_empty());
        let page = query.cut(world.listed_runs(repo, status, now), &asked.url);
        let items: Vec<Value> =
            page.items.iter().map(|run| bodies::run(&asked.places, world, run, repo)).collect();
        let page = Page { items, total: page.total, link: page.link };
        Ok(listed(page, "workflow_runs"))
    })
}

async fn one_run(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        let repo = world.repo_for(&asked, &parts, "actions", Level::Read)?;
        let run = world.run_at(repo, &parts)?;
        Ok(Json(bodies::run(&asked.places, world, run, repo)).into_response())
    })
}

async fn jobs_of_run(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
    Query(query): Query<ListQuery>,
) -> Answer {
    sim.with(|world, _| {
        let repo = world.repo_for(&asked, &parts, "actions", Level::Read)?;
        let run = world.run_at(repo, &parts)?;
        if query.filter.as_deref().is_some_and(|filter| !matches!(filter, "latest" | "all")) {
            return Err(ApiFailure::invalid("Invalid input: filter must be latest or all"));
        }
        let jobs: Vec<&Job> = run.jobs.iter().filter_map(|id| world.jobs.get(id)).collect();
        let page = query.cut(jobs, &asked.url);
        let items: Vec<Value> =
            page.items.iter().map(|job| bodies::job(&asked.places, world, job)).collect();
        let page = Page { items, total: page.total, link: page.link };
        Ok(listed(page, "jobs"))
    })
}

async fn one_job(
    State(sim): State<SimGitHub>,
    Extension(asked): Extension<Asked>,
    Path(parts): Path<Parts>,
) -> Answer {
    sim.with(|world, _| {
        let repo = world.repo_for(&asked, &parts, "actions", Level::Read)?;
        let key = RepoKey::new(&repo.owner, &repo.name);
        let job = world.jobs.get(&JobId(number(&parts, "job_id")?));
        let job = job.filter(|job| job.repo == key).ok_or_else(ApiFailure::not_found)?;
        Ok(Json(bodies::job(&asked.places, world, job)).into_response())
    })
}

//! Jobs that wait, and for each of them: why it is still waiting.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::extract::{Path, Query};
use super::problem::{Code, Problem, ProblemBody, quoted};
use super::reading::Reading;
use super::shape::{At, ReasonBody, count, reasons};
use crate::fleet::demand::WaitingJob;
use crate::fleet::id::{JobId, PoolName};
use crate::fleet::plan::PoolDecision;
use crate::fleet::pool::{Pool, Router};
use crate::fleet::reason::Reason;

/// Jobs listed when no limit is given.
const JOBS_DEFAULT: u32 = 200;
/// Jobs listed at most: a page for people, half a megabyte.
const JOBS_MAX: u32 = 1_000;

/// Which jobs.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct JobsQuery {
    /// Only jobs of this pool.
    pool: Option<String>,
    /// Only jobs in this state.
    state: Option<JobState>,
    /// At most so many, oldest first.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<u32>,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Waiting,
    /// A runner has taken a job since the last reading, probably this one.
    Taken,
    /// A matching runner listens and is not given it.
    NotAssigned,
    /// No pool of ours serves its labels.
    Unmatched,
}

/// Jobs, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Jobs {
    /// How many fit the query, listed or not.
    pub total: u32,
    pub jobs: Vec<JobBody>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// One job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobBody {
    #[schema(value_type = u64)]
    pub id: JobId,
    pub name: String,
    pub repo: String,
    pub labels: Vec<String>,
    pub state: JobState,
    #[schema(value_type = Option<String>)]
    pub pool: Option<PoolName>,
    pub queued_at: At,
    pub waiting_seconds: u64,
    /// How old the evidence for it is.
    pub evidence_age_seconds: u64,
}

/// Why a job still waits.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Why {
    pub job: JobBody,
    /// The answer in one sentence.
    pub answer: String,
    pub reasons: Vec<ReasonBody>,
    /// Its place in its pool's queue; 1 is next.
    pub position: Option<u32>,
    /// How many runners of its pool are free or coming.
    pub supply: Option<u32>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// The queue with each pool's decision, looked through once.
struct Queue<'a> {
    reading: &'a Reading,
    decisions: std::collections::BTreeMap<PoolName, PoolDecision>,
    taken: BTreeSet<JobId>,
    not_assigned: BTreeSet<JobId>,
}

impl<'a> Queue<'a> {
    fn new(state: &ApiState, reading: &'a Reading) -> Self {
        let decisions = reading.decisions(state);
        let demands = || decisions.values().map(|decision| &decision.demand);
        let taken = demands().flat_map(|demand| demand.cancelled.iter().copied()).collect();
        let not_assigned =
            demands().flat_map(|demand| demand.not_assigned.iter().copied()).collect();
        Self { reading, decisions, taken, not_assigned }
    }

    fn pool(&self, job: &WaitingJob) -> Option<&'a Pool> {
        Router::new(&self.reading.view().pools).route(&job.repo, &job.labels)
    }

    fn state(&self, job: &WaitingJob) -> JobState {
        if self.pool(job).is_none() {
            JobState::Unmatched
        } else if self.taken.contains(&job.id) {
            JobState::Taken
        } else if self.not_assigned.contains(&job.id) {
            JobState::NotAssigned
        } else {
            JobState::Waiting
        }
    }

    fn body(&self, job: &WaitingJob) -> JobBody {
        let now = self.reading.now;
        JobBody {
            id: job.id,
            name: job.name.clone(),
            repo: job.repo.to_string(),
            labels: job.labels.iter().map(str::to_owned).collect(),
            state: self.state(job),
            pool: self.pool(job).map(|pool| pool.name.clone()),
            queued_at: job.queued_at.into(),
            waiting_seconds: now.since(job.queued_at).as_secs(),
            evidence_age_seconds: now.since(job.evidence).as_secs(),
        }
    }

    fn why(&self, job: &WaitingJob) -> Why {
        let body = self.body(job);
        let decision = body.pool.as_ref().and_then(|pool| self.decisions.get(pool));
        let position = decision.and_then(|decision| self.position(job, decision));
        let supply = decision.map(|decision| decision.count.supply);
        let reasons = match body.state {
            JobState::Unmatched => vec![self.unmatched(job)],
            JobState::Taken => vec![ReasonBody {
                code: "probably_taken".to_owned(),
                detail: "a runner of its pool has taken a job since the last reading, probably \
                         this one"
                    .to_owned(),
            }],
            JobState::NotAssigned => {
                vec![ReasonBody::from(&Reason::GitHubDoesNotAssign { job: job.id })]
            }
            JobState::Waiting => waiting(decision, position),
        };
        let (stale, age_seconds) = (self.reading.is_stale(), self.reading.age().as_secs_f64());
        let answer: Vec<&str> = reasons.iter().map(|reason| reason.detail.as_str()).collect();
        Why { answer: answer.join("; "), job: body, reasons, position, supply, stale, age_seconds }
    }

    /// The place in the pool's queue: GitHub serves the oldest first.
    fn position(&self, job: &WaitingJob, decision: &PoolDecision) -> Option<u32> {
        decision.demand.waiting.contains(&job.id).then(|| {
            let book = &self.reading.view().ledger.demand;
            let ahead = decision
                .demand
                .waiting
                .iter()
                .filter_map(|id| book.job(*id))
                .filter(|other| (other.queued_at, other.id) < (job.queued_at, job.id));
            count(ahead.count()).saturating_add(1)
        })
    }

    /// Which labels stand in the way, for the pool that comes nearest.
    fn unmatched(&self, job: &WaitingJob) -> ReasonBody {
        let pools = self.reading.view().pools.values();
        let missing = |pool: &Pool| -> Vec<String> {
            let offered: BTreeSet<&str> = pool.labels.iter().collect();
            job.labels.iter().filter(|l| !offered.contains(l)).map(str::to_owned).collect()
        };
        let nearest = pools.map(|pool| (missing(pool), &pool.name));
        let detail = match nearest.min_by_key(|(missing, _)| missing.len()) {
            Some((labels, _)) if labels.is_empty() => {
                "the job asks for no label, so no pool can be told from it".to_owned()
            }
            Some((labels, pool)) => format!(
                "no pool serves its labels; pool {pool} comes nearest and lacks {}",
                labels.join(", ")
            ),
            None => "there is no pool".to_owned(),
        };
        ReasonBody { code: "no_matching_pool".to_owned(), detail }
    }
}

/// Why a job that a pool of ours serves still waits.
fn waiting(decision: Option<&PoolDecision>, position: Option<u32>) -> Vec<ReasonBody> {
    let Some(decision) = decision else { return Vec::new() };
    let mut found = Vec::new();
    let coming = decision.count.supply;
    if position.is_some_and(|position| position <= coming) {
        found.push(ReasonBody {
            code: Reason::Satisfied.code().to_owned(),
            detail: format!("{coming} runners of its pool are free or coming, enough for it"),
        });
    } else {
        found.extend(reasons(&decision.add));
        found.extend(reasons(&decision.not_added));
    }
    if found.is_empty() {
        found.push(ReasonBody {
            code: "not_decided_yet".to_owned(),
            detail: "the leader has not looked at it yet".to_owned(),
        });
    }
    found
}

/// List waiting jobs, oldest first
///
/// As last read; each says how old that is.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "observe", params(JobsQuery),
    responses((status = 200, description = "Waiting jobs", body = Jobs)))]
pub async fn list_jobs(
    State(state): State<ApiState>,
    Query(query): Query<JobsQuery>,
) -> Result<Json<Jobs>, Problem> {
    let limit = within("limit", query.limit, JOBS_DEFAULT, 1, JOBS_MAX)?;
    let reading = state.read();
    if let Some(pool) = &query.pool {
        reading.pool(pool)?;
    }
    let queue = Queue::new(&state, &reading);
    let mut found: Vec<&WaitingJob> = reading
        .view()
        .ledger
        .demand
        .jobs()
        .filter(|job| query.state.is_none_or(|wanted| queue.state(job) == wanted))
        .filter(|job| {
            query.pool.as_ref().is_none_or(|wanted| {
                queue.pool(job).is_some_and(|pool| pool.name.as_str() == wanted)
            })
        })
        .collect();
    found.sort_by_key(|job| (job.queued_at, job.id));
    let total = count(found.len());
    let listed = usize::try_from(limit).unwrap_or(usize::MAX);
    let jobs = found.into_iter().take(listed).map(|job| queue.body(job)).collect();
    let age_seconds = reading.age().as_secs_f64();
    Ok(Json(Jobs { total, jobs, stale: reading.is_stale(), age_seconds }))
}

/// Why is this job still waiting?
#[utoipa::path(get, path = "/api/v1/jobs/{id}/why", tag = "observe",
    params(("id" = u64, Path, description = "GitHub's id of the job")),
    responses(
        (status = 200, description = "The reasons", body = Why),
        (status = 404, description = "No such job waits", body = ProblemBody,
            content_type = "application/problem+json"),
    ))]
pub async fn why_waiting(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<Why>, Problem> {
    let number: u64 = id.parse().map_err(|_| {
        Problem::new(Code::InvalidPath, format!("{} is no job id: a number", quoted(&id)))
    })?;
    let reading = state.read();
    let job = reading.view().ledger.demand.job(JobId(number)).ok_or_else(|| {
        let detail = format!("job {number} does not wait: it runs, has ended, or is not ours");
        Problem::new(Code::UnknownJob, detail)
    })?;
    Ok(Json(Queue::new(&state, &reading).why(job)))
}

/// A number of the query within its bounds.
///
/// # Errors
/// `invalid_query`, naming the bounds.
pub fn within(
    name: &str,
    given: Option<u32>,
    default: u32,
    min: u32,
    max: u32,
) -> Result<u32, Problem> {
    let value = given.unwrap_or(default);
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    let detail = format!("{name} must be from {min} to {max}");
    let error = super::ask::field(name, detail.clone());
    Err(Problem::new(Code::InvalidQuery, detail).with_errors(vec![error]))
}

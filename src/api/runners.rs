//! `GET /api/v1/runners`: the original's four arrays, and every runner in full.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::reading::{Reading, SeenRunner};
use super::shape::{At, IdText, ReasonBody, at};
use super::{ApiState, streamed};
use crate::fleet::id::{
    ContainerId, GitHubRunnerId, HostId, PoolName, ReplicaId, RunnerId, RunnerName,
};
use crate::fleet::reason::Reason;
use crate::fleet::registration::Listed;
use crate::fleet::runner::RunnerPhase;

/// Runners by every witness.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Runners<'a> {
    /// Containers of this cluster.
    pub docker_runners: Vec<DockerRunner<'a>>,
    /// Registrations of this cluster, as GitHub last listed them.
    pub github_runners: Vec<GitHubRunner<'a>>,
    /// Kept for the original's clients. Other people's registrations are counted
    /// (`runners.ignored_existing` of the status), not held.
    pub ignored_runners: Vec<GitHubRunner<'a>>,
    /// Runners being cared for.
    pub active_tracked: Vec<TrackedRunner<'a>>,
    /// Every runner, all witnesses together.
    pub runners: Vec<Runner<'a>>,
    /// What is shown may no longer be so: it is old, or the store is away.
    pub stale: bool,
    /// How old the leader's last look at the fleet is.
    pub age_seconds: f64,
}

/// A container.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DockerRunner<'a> {
    #[schema(value_type = String)]
    pub id: &'a ContainerId,
    /// The container's name.
    pub name: String,
    /// As Docker calls it: `created`, `running` or `exited`.
    #[schema(example = "running")]
    pub status: &'static str,
    #[schema(value_type = String)]
    pub runner_name: &'a RunnerName,
    /// The image decides it, and does not tell; always null.
    pub runner_version: Option<&'a str>,
    pub created_at: At,
    #[schema(value_type = String)]
    pub host: HostId,
    /// `owner/name`, organisation, or `enterprises/name`.
    pub repo_url: Option<String>,
    pub image: Option<&'a str>,
}

/// A registration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GitHubRunner<'a> {
    #[schema(value_type = u64)]
    pub id: GitHubRunnerId,
    #[schema(value_type = String)]
    pub name: &'a RunnerName,
    #[schema(example = "linux")]
    pub os: &'static str,
    /// `online` or `offline`.
    pub status: &'static str,
    pub busy: bool,
    pub labels: Vec<Label<'a>>,
}

/// A runner's label.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Label<'a> {
    pub name: &'a str,
}

/// A runner being cared for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TrackedRunner<'a> {
    #[schema(value_type = String)]
    pub name: &'a RunnerName,
    pub created_at: At,
    #[schema(value_type = Option<String>)]
    pub container_id: Option<&'a ContainerId>,
    /// When its host last reported it.
    pub last_seen: Option<At>,
}

/// One runner in full.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Runner<'a> {
    #[schema(value_type = IdText)]
    pub id: RunnerId,
    #[schema(value_type = String)]
    pub name: &'a RunnerName,
    #[schema(value_type = String)]
    pub pool: &'a PoolName,
    #[schema(value_type = IdText)]
    pub host: HostId,
    pub hostname: Option<&'a str>,
    /// The replica whose agent cares for it.
    #[schema(value_type = Option<IdText>)]
    pub replica: Option<ReplicaId>,
    /// `assigned`, `accepted`, `created`, `started`, `handed`, `listening`, `running`,
    /// `unknown`, or how it ended: `ended`, `failed`, `retired`, `expired`, `lost`.
    #[schema(example = "listening")]
    pub phase: &'static str,
    /// When the phase began.
    pub since: At,
    /// Since when it listens without a job.
    pub idle_since: Option<At>,
    pub assigned_at: Option<At>,
    pub listened_at: Option<At>,
    #[schema(value_type = Option<String>)]
    pub container_id: Option<&'a ContainerId>,
    pub container_name: String,
    #[schema(value_type = Option<u64>)]
    pub github_id: Option<GitHubRunnerId>,
    /// Why it was added.
    pub reason: Option<ReasonBody>,
    /// Why it is being removed.
    pub retiring: Option<ReasonBody>,
    /// How it came to its end.
    pub end: Option<End>,
    /// Follows it through logs and labels.
    pub correlation: Option<&'a str>,
    /// Found running when its host's agent started.
    pub adopted: bool,
}

/// How a runner ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct End {
    pub exit_code: Option<i64>,
    /// The kernel killed it for its memory.
    pub oom: bool,
    pub ran_job: Option<bool>,
    /// How it failed.
    pub failure: Option<&'static str>,
    pub reason: Option<ReasonBody>,
}

/// List runners
///
/// From the last view; no call to GitHub or Docker.
#[utoipa::path(get, path = "/api/v1/runners", tag = "observe",
    responses((status = 200, description = "By every witness", body = Runners)))]
pub async fn list_runners(State(state): State<ApiState>) -> Response {
    let reading = state.read();
    streamed::json(move |out| write(&reading, out))
}

fn write(reading: &Reading, out: &mut streamed::Output) -> serde_json::Result<()> {
    let seen = reading.runners();
    let live = || seen.values().filter(|runner| !runner.phase.is_terminal());
    let pools: HashMap<&RunnerName, &PoolName> =
        seen.values().map(|runner| (runner.name, runner.pool)).collect();
    let listed = || reading.view().ledger.registrations.listed().iter();
    let rows = Rows {
        docker_runners: Lazily(|| seen.values().filter_map(|seen| docker_runner(seen, reading))),
        github_runners: Lazily(|| {
            listed().map(|(name, row)| github_runner(name, row, pools.get(name), reading))
        }),
        ignored_runners: [],
        active_tracked: Lazily(|| live().map(|runner| tracked(runner, reading))),
        runners: Lazily(|| seen.values().map(|runner| full(runner, reading))),
        stale: reading.is_stale(),
        age_seconds: reading.age().as_secs_f64(),
    };
    serde_json::to_writer(out, &rows)
}

/// [`Runners`], whose rows are made one by one while they are written: those of a large
/// fleet together would take more memory than all that is known of it.
#[derive(Serialize)]
struct Rows<D, G, T, R> {
    docker_runners: D,
    github_runners: G,
    ignored_runners: [GitHubRunner<'static>; 0],
    active_tracked: T,
    runners: R,
    stale: bool,
    age_seconds: f64,
}

struct Lazily<F>(F);

impl<F, I> Serialize for Lazily<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn docker_runner<'a>(runner: &SeenRunner<'a>, reading: &'a Reading) -> Option<DockerRunner<'a>> {
    let container = runner.container()?;
    let pool = reading.view().pools.get(runner.pool);
    Some(DockerRunner {
        id: container,
        name: runner.name.container_name(),
        status: match &runner.phase {
            RunnerPhase::Assigned { .. }
            | RunnerPhase::Accepted { .. }
            | RunnerPhase::Created { .. } => "created",
            RunnerPhase::Started { .. }
            | RunnerPhase::Handed { .. }
            | RunnerPhase::Listening { .. }
            | RunnerPhase::Running { .. }
            | RunnerPhase::Unknown { .. } => "running",
            RunnerPhase::Ended { .. }
            | RunnerPhase::Failed { .. }
            | RunnerPhase::Retired { .. }
            | RunnerPhase::Lost { .. } => "exited",
        },
        runner_name: runner.name,
        runner_version: None,
        created_at: since_when(runner),
        host: runner.host,
        repo_url: pool.map(|pool| pool.scope.path()),
        image: pool.map(|pool| pool.image.as_str()),
    })
}

fn github_runner<'a>(
    name: &'a RunnerName,
    row: &Listed,
    pool: Option<&&PoolName>,
    reading: &'a Reading,
) -> GitHubRunner<'a> {
    let pool = pool.and_then(|pool| reading.view().pools.get(*pool));
    let labels = pool.into_iter().flat_map(|pool| pool.labels.iter());
    GitHubRunner {
        id: row.id,
        name,
        // Every runner of ours is a Linux container.
        os: "linux",
        status: if row.online { "online" } else { "offline" },
        busy: row.busy,
        labels: labels.map(|name| Label { name }).collect(),
    }
}

fn tracked<'a>(runner: &SeenRunner<'a>, reading: &Reading) -> TrackedRunner<'a> {
    let reported = runner.record.and_then(|_| reading.host(&runner.host));
    TrackedRunner {
        name: runner.name,
        created_at: since_when(runner),
        container_id: runner.container(),
        last_seen: at(reported.map(|host| host.at)),
    }
}

/// When its life began, as far as that is known.
fn since_when(runner: &SeenRunner<'_>) -> At {
    let assigned = runner.assigned.map(|assigned| assigned.at);
    let recorded = runner.record.map(|record| record.assigned_at);
    assigned.or(recorded).unwrap_or_else(|| runner.phase.since()).into()
}

fn full<'a>(runner: &SeenRunner<'a>, reading: &'a Reading) -> Runner<'a> {
    let host = reading.host(&runner.host);
    let record = runner.record;
    let assigned = runner.assigned;
    let correlation = record
        .map(|record| record.correlation.as_str())
        .or_else(|| assigned.map(|assigned| assigned.correlation.as_str()));
    Runner {
        id: runner.id,
        name: runner.name,
        pool: runner.pool,
        host: runner.host,
        hostname: host.map(|host| host.hostname.as_str()),
        replica: host.map(|host| host.replica),
        phase: runner.phase.name(),
        since: runner.phase.since().into(),
        idle_since: at(runner.idle_since()),
        assigned_at: at(assigned.map(|a| a.at).or_else(|| record.map(|r| r.assigned_at))),
        listened_at: at(record.and_then(|record| record.listened_at)),
        container_id: runner.container(),
        container_name: runner.name.container_name(),
        github_id: record.and_then(|record| record.github_id),
        reason: assigned.map(|assigned| ReasonBody::from(&assigned.reason)),
        retiring: runner.retiring.map(ReasonBody::from),
        end: end(&runner.phase),
        correlation,
        adopted: record.is_some_and(|record| record.adopted),
    }
}

fn end(phase: &RunnerPhase) -> Option<End> {
    let none = End { exit_code: None, oom: false, ran_job: None, failure: None, reason: None };
    let because = |reason: &Reason| Some(ReasonBody::from(reason));
    match phase {
        RunnerPhase::Ended { ran_job, exit_code, oom, .. } => {
            Some(End { exit_code: Some(*exit_code), oom: *oom, ran_job: *ran_job, ..none })
        }
        RunnerPhase::Failed { failure, .. } => Some(End { failure: Some(failure.code()), ..none }),
        RunnerPhase::Retired { reason, .. } | RunnerPhase::Lost { reason, .. } => {
            Some(End { reason: because(reason), ..none })
        }
        RunnerPhase::Assigned { .. }
        | RunnerPhase::Accepted { .. }
        | RunnerPhase::Created { .. }
        | RunnerPhase::Started { .. }
        | RunnerPhase::Handed { .. }
        | RunnerPhase::Listening { .. }
        | RunnerPhase::Running { .. }
        | RunnerPhase::Unknown { .. } => None,
    }
}

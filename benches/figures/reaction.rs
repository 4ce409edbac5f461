//! From a cause to the Docker call it leads to, on the real engine.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use runner_orchestrator::docker::{
    ContainerEvent, ContainerEventKind, ContainerState, Docker, DockerError,
};
use runner_orchestrator::fleet::id::{ContainerId, IntentId, PoolName};
use runner_orchestrator::fleet::intent::{Intent, Wish};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::store::Topic;
use rustix::process::Pid;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::figure::{Figure, Measured, percentile, rounded, sorted};
use super::real::{Real, on_real_engine};
use super::timed::{Seen, TimedDocker};
use super::world::{self, Fleet, Orchestrator, until};

pub(crate) const API: Figure =
    Figure { name: "reaction_api_ms_p95", limit: 50.0, unit: "ms", measure: api };
pub(crate) const EXIT: Figure =
    Figure { name: "reaction_exit_ms_p95", limit: 100.0, unit: "ms", measure: exit };

const SAMPLES: usize = 40;
/// Nothing that takes longer is a reaction.
const REACTION_LIMIT: Duration = Duration::from_secs(10);
/// The floor that exits fall below.
const MIN_RUNNERS: u32 = 3;
/// A step that is no divisor of the loops' periods, so that samples fall anywhere in them.
const STEP: Duration = Duration::from_millis(173);

const HOW_API: &str = "from the record of a scale-up by one, before it is answered, until the \
    create call is sent to the engine; answered_to_create_ms counts from the answer instead \
    (negative: the call was sent before the answer was out)";
const HOW_EXIT: &str = "an idle runner's first process is killed (SIGKILL by its pid); from \
    there until the replacement's create call is sent to the engine, MIN_RUNNERS 3; \
    exit_to_die_event_ms is the daemon's own share";

fn api() -> anyhow::Result<Measured> {
    let max = u32::try_from(SAMPLES)? + 1;
    on_real_engine(max, async |real| {
        let fleet = Fleet { min_runners: 1, ..real.fleet(max) };
        with_orchestrator(real, &fleet, async |orchestrator, creates| {
            let mut recorded = Vec::new();
            let mut answered = Vec::new();
            for n in 0..SAMPLES {
                rest(orchestrator, n + 1, n).await?;
                let before = creates.borrow_and_update().creates.len();
                let begun = Instant::now();
                let answer = scale_up(orchestrator).await?;
                let sent = next_create(creates, before).await?;
                recorded.push(millis(begun, sent));
                answered.push(millis(answer, sent));
            }
            let detail = json!({
                "how": HOW_API,
                "recorded_to_create_ms": spread(&recorded),
                "answered_to_create_ms": spread(&answered),
            });
            Ok(Measured { value: p95(&recorded), detail, broken: Vec::new() })
        })
        .await
    })
}

fn exit() -> anyhow::Result<Measured> {
    let max = MIN_RUNNERS * 2;
    on_real_engine(max, async |real| {
        // One killed runner after the other is what the breaker is for; not measured here.
        let policy = Policy { breaker_failures: u32::MAX, ..Policy::default() };
        let fleet = Fleet { min_runners: MIN_RUNNERS, policy, ..real.fleet(max) };
        with_orchestrator(real, &fleet, async |orchestrator, creates| {
            let mut deaths = real.docker()?.events(&real.mark).await?;
            let (mut reactions, mut told) = (Vec::new(), Vec::new());
            for n in 0..SAMPLES {
                rest(orchestrator, MIN_RUNNERS as usize, n).await?;
                let (container, pid) = a_runner(real).await?;
                let before = creates.borrow_and_update().creates.len();
                let begun = Instant::now();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
                let (sent, died) =
                    tokio::join!(next_create(creates, before), death_of(&container, &mut deaths));
                reactions.push(millis(begun, sent?));
                told.push(millis(begun, died?));
            }
            let detail = json!({
                "how": HOW_EXIT,
                "exit_to_create_ms": spread(&reactions),
                "exit_to_die_event_ms": spread(&told),
            });
            Ok(Measured { value: p95(&reactions), detail, broken: Vec::new() })
        })
        .await
    })
}

/// Runs something beside an orchestrator with the real engine and a modelled GitHub.
async fn with_orchestrator<T>(
    real: &Real,
    fleet: &Fleet,
    work: impl AsyncFnOnce(&Orchestrator, &mut watch::Receiver<Seen>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let sim = real.github().await?;
    let docker = TimedDocker::new(real.docker()?);
    let github = world::over_http(sim.api_url())?;
    let orchestrator = Orchestrator::start(fleet, docker.clone(), github)?;
    let mut creates = docker.seen();
    let result = work(&orchestrator, &mut creates).await;
    orchestrator.stop().await?;
    sim.shutdown().await;
    result
}

/// Waits until so many runners listen and nothing else goes on, then a little more.
async fn rest(orchestrator: &Orchestrator, listening: usize, n: usize) -> anyhow::Result<()> {
    let published = &orchestrator.handle.published;
    let at_rest = || {
        let now = published.borrow();
        let mut phases = now.view.hosts.values().flat_map(|host| host.runners.values());
        let count = phases.clone().count();
        count == listening
            && phases.all(|runner| matches!(runner.phase, RunnerPhase::Listening { .. }))
    };
    let soon = Duration::from_millis(10);
    until("runners that listen", Duration::from_secs(30), soon, at_rest).await?;
    let steps = u32::try_from(n % 7)? + 1;
    tokio::time::sleep(STEP * steps).await;
    Ok(())
}

/// Asks for one runner more, as the API does; when the answer was there.
async fn scale_up(orchestrator: &Orchestrator) -> anyhow::Result<Instant> {
    let edges = &orchestrator.handle.edges;
    let id = IntentId(Uuid::now_v7());
    let mut outcomes = edges.store.changes(Topic::Outcomes);
    let wish = Wish::ScaleUp { pool: PoolName::from("default"), count: 1 };
    edges.store.record(Intent { id, at: edges.clock.now(), wish }).await?;
    loop {
        if let Some(outcome) = edges.store.outcome(id).await? {
            anyhow::ensure!(outcome.accepted.len() == 1, "refused: {:?}", outcome.reason);
            return Ok(Instant::now());
        }
        tokio::time::timeout(REACTION_LIMIT, outcomes.changed()).await.context("no answer")??;
    }
}

async fn next_create(seen: &mut watch::Receiver<Seen>, before: usize) -> anyhow::Result<Instant> {
    let next = seen.wait_for(|seen| seen.creates.len() > before);
    let next = tokio::time::timeout(REACTION_LIMIT, next).await.context("nothing was created")?;
    next?.creates.get(before).copied().context("nothing was created")
}

/// When the daemon told of a container's end.
async fn death_of(
    container: &ContainerId,
    events: &mut BoxStream<'static, Result<ContainerEvent, DockerError>>,
) -> anyhow::Result<Instant> {
    let told = async {
        while let Some(event) = events.next().await {
            let event = event?;
            if event.kind == ContainerEventKind::Died && event.container == *container {
                return Ok(Instant::now());
            }
        }
        bail!("the daemon's events ended")
    };
    tokio::time::timeout(REACTION_LIMIT, told).await.context("no event of its end")?
}

/// One running container and its first process, as the machine numbers it.
async fn a_runner(real: &Real) -> anyhow::Result<(ContainerId, Pid)> {
    let containers = real.engine.docker.containers(&real.mark).await?;
    let running = containers.into_iter().find(|seen| seen.state == ContainerState::Running);
    let id = running.context("no runner runs")?.id;
    let docker = bollard::Docker::connect_with_defaults()?;
    let inspected = docker.inspect_container(id.as_str(), None).await?;
    let pid = inspected.state.and_then(|state| state.pid).context("it has no pid")?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("it has no pid")?;
    rustix::process::test_kill_process(pid)
        .context("its process is not on this machine, or not ours to kill: run as root")?;
    Ok((id, pid))
}

pub(crate) fn millis(from: Instant, to: Instant) -> f64 {
    let later = to.saturating_duration_since(from).as_secs_f64();
    (later - from.saturating_duration_since(to).as_secs_f64()) * 1000.0
}

pub(crate) fn p95(samples: &[f64]) -> f64 {
    percentile(&sorted(samples.to_vec()), 0.95)
}

pub(crate) fn spread(samples: &[f64]) -> serde_json::Value {
    let sorted = sorted(samples.to_vec());
    let at = |share| rounded(percentile(&sorted, share));
    json!({
        "samples": sorted.len(), "min": at(0.0), "p50": at(0.5), "p95": at(0.95), "max": at(1.0),
    })
}

//! What only a modelled host can: faults on demand, a thousand containers, a paused clock.

use std::time::Duration;

use futures_util::StreamExt;
use runner_orchestrator::docker::{ContainerEventKind, ContainerState, Docker, DockerError};
use runner_orchestrator::sim::docker::{Fault, Kill, ModelSettings, Operation};
use tokio::time::Instant;

use super::programs::Program;
use super::{model, on_model};

#[tokio::test(start_paused = true)]
async fn planned_faults_happen_as_often_as_planned() {
    let docker = model(ModelSettings::default());
    let subject = on_model(&docker);
    let spec = subject.spec(Program::Drain, "none");

    docker.fail(Operation::Create, Fault::Refuse { status: 500, message: "disk".to_owned() }, 2);
    for _ in 0..2 {
        assert_eq!(docker.create(&spec).await.unwrap_err().status(), Some(500));
    }
    assert_eq!(docker.containers(&subject.mark).await.unwrap(), []);

    docker.fail(Operation::Create, Fault::DropAnswer, 1);
    let error = docker.create(&spec).await.unwrap_err();
    assert!(matches!(error, DockerError::Unreachable { .. }), "{error}");
    let made = docker.containers(&subject.mark).await.unwrap();
    assert_eq!(made.len(), 1, "done, though not answered");

    docker.fail(Operation::Start, Fault::Hang, 1);
    let asked = Instant::now();
    let error = docker.start(&made[0].id).await.unwrap_err();
    assert!(matches!(error, DockerError::Timeout { .. }), "{error}");
    assert!(asked.elapsed() >= Duration::from_secs(10));
    assert_eq!(docker.state(&made[0].id).await.unwrap(), Some(ContainerState::Created));
    docker.start(&made[0].id).await.unwrap();
    assert_eq!((docker.calls(Operation::Create), docker.calls(Operation::Start)), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_goes_away_keeps_its_containers() {
    let docker = model(ModelSettings::default());
    let subject = on_model(&docker);
    let (id, _attached) = subject.started(Program::IgnoreStop).await;
    let mut events = docker.events(&subject.mark).await.unwrap();
    docker.set_reachable(false);
    assert!(events.next().await.is_none(), "the stream ends with the connection");
    assert!(docker.containers(&subject.mark).await.is_err());
    docker.set_reachable(true);
    assert_eq!(docker.state(&id).await.unwrap(), Some(ContainerState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_kill_for_memory_is_told_as_one() {
    let docker = model(ModelSettings::default());
    let subject = on_model(&docker);
    let (id, _attached) = subject.started(Program::IgnoreStop).await;
    let mut events = docker.events(&subject.mark).await.unwrap();
    assert!(docker.kill(&id, Kill::OutOfMemory));
    for kind in [ContainerEventKind::OutOfMemory, ContainerEventKind::Died] {
        assert_eq!(events.next().await.unwrap().unwrap().kind, kind);
    }
    let ended = Some(ContainerState::Exited { code: 137, oom: true });
    assert_eq!(docker.state(&id).await.unwrap(), ended);
    assert!(!docker.kill(&id, Kill::ByHand), "there is nothing left to kill");
}

#[tokio::test(start_paused = true)]
async fn latency_and_rate_bound_a_burst() {
    let docker = model(ModelSettings {
        create_latency: Duration::from_millis(100),
        start_latency: Duration::from_millis(200),
        starts_per_second: Some(10.0),
        ..ModelSettings::default()
    });
    let subject = on_model(&docker);
    let begun = Instant::now();
    let burst = (0..50).map(|_| subject.started(Program::IgnoreStop));
    let running = futures_util::future::join_all(burst).await;
    // The last of fifty turns, a tenth of a second each, begins 4.9 s after the first.
    let spent = begun.elapsed();
    assert!((5.2..5.3).contains(&spent.as_secs_f64()), "{spent:?}");
    assert_eq!(running.len(), 50);
}

/// A thousand running containers, attached, are cheap. Memory is the process's own, so
/// other tests running at the same time can only make the figure larger.
#[tokio::test(start_paused = true)]
async fn a_thousand_containers_take_little_memory() {
    let before = resident_bytes();
    let docker = model(ModelSettings::default());
    let subject = on_model(&docker);
    let mut running = Vec::new();
    for _ in 0..1000 {
        running.push(subject.started(Program::IgnoreStop).await);
    }
    let listed = docker.containers(&subject.mark).await.unwrap();
    assert!(listed.iter().all(|seen| seen.state == ContainerState::Running));
    let grown = resident_bytes().saturating_sub(before);
    assert_eq!(listed.len(), 1000);
    assert!(grown < 20 << 20, "{} MiB", grown >> 20);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

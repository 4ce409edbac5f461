//! A short-lived container that tries something out from where runners will be.

use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::CreateContainerOptions;
use futures_util::stream::StreamExt;

use super::connection::{CHANGE_LIMIT, READ_LIMIT, answer};
use super::engine::BollardDocker;
use super::image::ROLE_PROBE;
use super::{ContainerState, Docker, DockerError, LogQuery, container, labels};
use crate::fleet::id::{ClusterMark, ContainerId};

/// Its output is one sentence; more is not worth reading.
const LINES_KEPT: u32 = 10;

/// How often a running probe is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeSpec {
    pub cluster: ClusterMark,
    pub image: String,
    pub command: Vec<String>,
    /// The network's name.
    pub network: String,
    /// How long the container may run.
    pub limit: Duration,
}

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// The command ended with 0.
    Passed,
    /// It ended otherwise; what it said, both streams.
    Failed { code: i64, output: String },
    /// It did not end in time.
    Unfinished,
}

pub(super) async fn run(docker: &BollardDocker, spec: &ProbeSpec) -> Result<Probe, DockerError> {
    let id = create(docker, spec).await?;
    let outcome = watch(docker, spec, &id).await;
    let removed = docker.remove_container(&id).await;
    let outcome = outcome?;
    removed.map(|()| outcome)
}

async fn create(docker: &BollardDocker, spec: &ProbeSpec) -> Result<ContainerId, DockerError> {
    let body = ContainerCreateBody {
        image: Some(spec.image.clone()),
        cmd: Some(spec.command.clone()),
        labels: Some(labels::of_role(&spec.cluster, ROLE_PROBE)),
        host_config: Some(HostConfig {
            network_mode: Some(spec.network.clone()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let created = docker
        .connection
        .call("creating a probe", CHANGE_LIMIT, async |client| {
            client.create_container(None::<CreateContainerOptions>, body).await
        })
        .await;
    match created {
        Ok(created) => Ok(ContainerId(created.id)),
        Err(error) => Err(container::image_missing(error, &spec.image)),
    }
}

async fn watch(
    docker: &BollardDocker,
    spec: &ProbeSpec,
    id: &ContainerId,
) -> Result<Probe, DockerError> {
    docker.start(id).await?;
    let deadline = tokio::time::Instant::now() + spec.limit;
    loop {
        match docker.state(id).await? {
            Some(ContainerState::Exited { code: 0, .. }) => return Ok(Probe::Passed),
            Some(ContainerState::Exited { code, .. }) => {
                return Ok(Probe::Failed { code, output: output(docker, id).await? });
            }
            Some(_) if tokio::time::Instant::now() >= deadline => return Ok(Probe::Unfinished),
            Some(_) => tokio::time::sleep(LOOK).await,
            None => return Err(answer("watching a probe", "the probe's container vanished")),
        }
    }
}

async fn output(docker: &BollardDocker, id: &ContainerId) -> Result<String, DockerError> {
    let query = LogQuery { tail: Some(LINES_KEPT), ..LogQuery::default() };
    let lines = docker.logs(id, &query).await?;
    let read = lines.filter_map(async |line| Some(line.ok()?.text)).collect::<Vec<_>>();
    // What it said explains the failure; without it the exit code still stands.
    Ok(tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_default().join("\n"))
}

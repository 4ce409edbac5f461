//! Containers: made, started, watched, ended.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bollard::models::{
    ContainerState as Inspected, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as Listed,
};
use bollard::query_parameters::{
    AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, ListContainersOptions,
    RemoveContainerOptions, StopContainerOptions,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::io::AsyncWrite;

use super::connection::{CHANGE_LIMIT, Connection, READ_LIMIT, REMOVE_LIMIT, answer};
use super::{
    Attached, ContainerSeen, ContainerState, DockerError, RunnerContainer, labels, logs, spec,
};
use crate::fleet::id::{ClusterMark, ContainerId};

/// Ended containers need a second look each (a list tells neither exit code nor OOM in a
/// form to rely on); this many at a time keep the daemon free for starts.
const INSPECTIONS_AT_ONCE: usize = 8;

/// How often a removal under way by somebody else is looked at.
const REMOVAL_LOOK: Duration = Duration::from_millis(100);

pub(super) async fn create(
    connection: &Connection,
    spec: &RunnerContainer,
) -> Result<ContainerId, DockerError> {
    let options =
        CreateContainerOptions { name: Some(spec.name.container_name()), ..Default::default() };
    let body = spec::create_body(spec);
    let created = connection
        .call("creating a container", CHANGE_LIMIT, async |docker| {
            docker.create_container(Some(options), body).await
        })
        .await;
    match created {
        Ok(created) => Ok(ContainerId(created.id)),
        Err(error) => Err(image_missing(error, &spec.image)),
    }
}

/// A creation answered with 404 for its image says so; anything else stays as it is.
pub(super) fn image_missing(error: DockerError, image: &str) -> DockerError {
    match error {
        DockerError::Refused { status: 404, message, .. } if message.contains("such image") => {
            DockerError::ImageMissing { image: image.to_owned() }
        }
        other => other,
    }
}

pub(super) async fn attach(
    connection: &Connection,
    id: &ContainerId,
) -> Result<Attached, DockerError> {
    const ACTION: &str = "attaching to a container";
    let options = AttachContainerOptions {
        stream: true,
        stdin: true,
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let attached = connection
        .call(ACTION, CHANGE_LIMIT, async |docker| {
            docker.attach_container(id.as_str(), Some(options)).await
        })
        .await?;
    Ok(Attached {
        stdin: Box::pin(HalfClosing(attached.input)),
        lines: logs::lines(ACTION, attached.output),
    })
}

pub(super) async fn start(connection: &Connection, id: &ContainerId) -> Result<(), DockerError> {
    let started = connection
        .call("starting a container", CHANGE_LIMIT, async |docker| {
            docker.start_container(id.as_str(), None).await
        })
        .await;
    match started {
        // Docker says 404 for a missing network too; the container itself is there.
        Err(DockerError::Refused { status: 404, message, .. })
            if !message.contains("No such container") =>
        {
            Err(DockerError::NetworkMissing { container: id.clone(), message })
        }
        other => other,
    }
}

/// Every runner container of the cluster with labels that we can read.
pub(super) async fn list(
    connection: &Connection,
    mark: &ClusterMark,
) -> Result<Vec<ContainerSeen>, DockerError> {
    let listed = summaries(connection, mark).await?;
    stream::iter(listed)
        .map(|summary| seen(connection, summary))
        .buffered(INSPECTIONS_AT_ONCE)
        .try_filter_map(async |seen| Ok(seen))
        .try_collect()
        .await
}

/// Every container of the cluster, whatever it is for.
pub(super) async fn summaries(
    connection: &Connection,
    mark: &ClusterMark,
) -> Result<Vec<ContainerSummary>, DockerError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(labels::filter(mark)),
        ..Default::default()
    };
    connection
        .call("listing containers", READ_LIMIT, async |docker| {
            docker.list_containers(Some(options)).await
        })
        .await
}

async fn seen(
    connection: &Connection,
    summary: ContainerSummary,
) -> Result<Option<ContainerSeen>, DockerError> {
    let (Some(id), Some(labels)) = (summary.id, summary.labels.as_ref().and_then(labels::parse))
    else {
        return Ok(None);
    };
    let id = ContainerId(id);
    let state = match summary.state {
        Some(Listed::CREATED) => ContainerState::Created,
        Some(Listed::RUNNING) => ContainerState::Running,
        Some(Listed::EXITED | Listed::DEAD) => match state(connection, &id).await? {
            Some(state) => state,
            None => return Ok(None),
        },
        _ => ContainerState::Other,
    };
    Ok(Some(ContainerSeen { id, labels, state, image: summary.image.unwrap_or_default() }))
}

pub(super) async fn state(
    connection: &Connection,
    id: &ContainerId,
) -> Result<Option<ContainerState>, DockerError> {
    const ACTION: &str = "inspecting a container";
    let inspected = connection
        .call(ACTION, READ_LIMIT, async |docker| {
            docker.inspect_container(id.as_str(), None::<InspectContainerOptions>).await
        })
        .await;
    match inspected {
        Ok(inspected) => {
            let state = inspected.state.ok_or_else(|| answer(ACTION, "no state given"))?;
            Ok(Some(read_state(&state)))
        }
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_state(state: &Inspected) -> ContainerState {
    match state.status {
        Some(Status::CREATED) => ContainerState::Created,
        Some(Status::RUNNING) => ContainerState::Running,
        Some(Status::EXITED | Status::DEAD) => ContainerState::Exited {
            code: state.exit_code.unwrap_or_default(),
            oom: state.oom_killed.unwrap_or_default(),
        },
        _ => ContainerState::Other,
    }
}

pub(super) async fn stop(
    connection: &Connection,
    id: &ContainerId,
    grace: Duration,
) -> Result<(), DockerError> {
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    let options = StopContainerOptions {
        t: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
        ..Default::default()
    };
    let limit = Duration::from_secs(seconds).saturating_add(CHANGE_LIMIT);
    let stopped = connection
        .call("stopping a container", limit, async |docker| {
            docker.stop_container(id.as_str(), Some(options)).await
        })
        .await;
    gone_is_fine(stopped)
}

pub(super) async fn remove(connection: &Connection, id: &ContainerId) -> Result<(), DockerError> {
    const ACTION: &str = "removing a container";
    let options = RemoveContainerOptions { v: true, force: true, ..Default::default() };
    let removed = connection
        .call(ACTION, REMOVE_LIMIT, async |docker| {
            docker.remove_container(id.as_str(), Some(options)).await
        })
        .await;
    match removed {
        // Somebody else is at it: success means that the container is gone.
        Err(error) if error.status() == Some(409) => await_removal(connection, id, error).await,
        other => gone_is_fine(other),
    }
}

async fn await_removal(
    connection: &Connection,
    id: &ContainerId,
    refusal: DockerError,
) -> Result<(), DockerError> {
    let deadline = tokio::time::Instant::now() + REMOVE_LIMIT;
    while tokio::time::Instant::now() < deadline {
        if state(connection, id).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(REMOVAL_LOOK).await;
    }
    Err(refusal)
}

fn gone_is_fine(outcome: Result<(), DockerError>) -> Result<(), DockerError> {
    match outcome {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}

/// Ends the container's standard input when dropped. The library's half of the connection
/// would stay open until its output is dropped too, and the container would wait.
struct HalfClosing(Pin<Box<dyn AsyncWrite + Send>>);

impl AsyncWrite for HalfClosing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

impl Drop for HalfClosing {
    fn drop(&mut self) {
        // Shutting down a socket never waits, so one poll does it. A failure means that
        // the connection is gone, which is what we want of it.
        let mut context = Context::from_waker(Waker::noop());
        let _ = self.0.as_mut().poll_shutdown(&mut context);
    }
}

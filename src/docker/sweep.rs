//! Taking away what is ours and no longer used. Only what carries our label *and* this
//! cluster's mark is ever looked at.

use std::collections::{HashMap, HashSet};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State, NetworkInspect};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptions};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::connection::{CHANGE_LIMIT, Connection, READ_LIMIT};
use super::engine::{BollardDocker, REMOVALS_AT_ONCE};
use super::volume::{ROLE_IDENTITY, ROLE_MARKER, Usage};
use super::{DockerError, Swept, container, image, label, network, volume};
use crate::fleet::id::{ClusterMark, ContainerId};

/// Unused volumes and networks, and probes that a crash left behind.
pub(super) async fn sweep(
    docker: &BollardDocker,
    mark: &ClusterMark,
    keep: &[String],
) -> Result<Swept, DockerError> {
    let mut swept = Swept {
        containers: remove_containers(docker, mark, is_ended_probe).await?,
        ..Swept::default()
    };
    let connection = &docker.connection;
    let mut names = Vec::new();
    for unused in volume::list(connection, mark, Usage::Unused).await? {
        if !matches!(volume::role(&unused), Some(ROLE_IDENTITY | ROLE_MARKER)) {
            names.push(unused.name);
        }
    }
    swept.volumes = remove_volumes(connection, names).await?;
    let kept: HashSet<&str> = keep.iter().map(String::as_str).collect();
    remove_networks(connection, mark, &kept, &mut swept).await?;
    Ok(swept)
}

/// Everything of the cluster, in the order in which it can go.
pub(super) async fn forget(
    docker: &BollardDocker,
    mark: &ClusterMark,
) -> Result<Swept, DockerError> {
    let connection = &docker.connection;
    let mut swept =
        Swept { containers: remove_containers(docker, mark, |_| true).await?, ..Swept::default() };
    let all = volume::list(connection, mark, Usage::Any).await?;
    let names = all.into_iter().map(|volume| volume.name).collect();
    swept.volumes = remove_volumes(connection, names).await?;
    remove_networks(connection, mark, &HashSet::new(), &mut swept).await?;
    Ok(swept)
}

fn is_ended_probe(summary: &ContainerSummary) -> bool {
    let role = summary.labels.as_ref().and_then(|labels| labels.get(label::ROLE));
    role.is_some_and(|role| role == image::ROLE_PROBE)
        && matches!(summary.state, Some(State::EXITED | State::DEAD))
}

async fn remove_containers(
    docker: &BollardDocker,
    mark: &ClusterMark,
    chosen: impl Fn(&ContainerSummary) -> bool,
) -> Result<u32, DockerError> {
    let mut listed = container::summaries(&docker.connection, mark).await?;
    listed.retain(chosen);
    let ids = listed.into_iter().filter_map(|summary| summary.id).map(ContainerId);
    stream::iter(ids)
        .map(|id| async move { docker.remove_container(&id).await })
        .buffer_unordered(REMOVALS_AT_ONCE)
        .try_fold(0, async |removed, ()| Ok(removed + 1))
        .await
}

async fn remove_volumes(connection: &Connection, names: Vec<String>) -> Result<u32, DockerError> {
    stream::iter(names)
        .map(|name| async move { volume::remove(connection, &name).await })
        .buffer_unordered(REMOVALS_AT_ONCE)
        .try_fold(0, async |removed, done| Ok(removed + u32::from(done)))
        .await
}

/// Networks go one after the other: the daemon does no two at once anyway.
async fn remove_networks(
    connection: &Connection,
    mark: &ClusterMark,
    keep: &HashSet<&str>,
    swept: &mut Swept,
) -> Result<(), DockerError> {
    for listed in network::list(connection, mark).await? {
        let (Some(id), Some(name)) = (listed.id, listed.name) else { continue };
        if keep.contains(name.as_str()) || is_named_by_a_container(connection, &name).await? {
            continue;
        }
        match remove_network(connection, &id).await? {
            Removal::Done => swept.networks += 1,
            Removal::InUse => (),
            Removal::Stuck => swept.stuck_networks.push(name),
        }
    }
    Ok(())
}

/// Whether any container, ours or not, started or not, is to run on the network. Docker
/// itself only counts started ones, and a created one could never start again.
async fn is_named_by_a_container(
    connection: &Connection,
    network: &str,
) -> Result<bool, DockerError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some([("network".to_owned(), vec![network.to_owned()])].into()),
        ..Default::default()
    };
    let users = connection
        .call("listing a network's containers", READ_LIMIT, async |docker| {
            docker.list_containers(Some(options)).await
        })
        .await?;
    Ok(!users.is_empty())
}

/// How a network's removal ended.
enum Removal {
    Done,
    InUse,
    /// "Active endpoints" with no container to be seen: only a restart of the daemon
    /// frees it, so nobody waits for it.
    Stuck,
}

async fn remove_network(connection: &Connection, id: &str) -> Result<Removal, DockerError> {
    const ACTION: &str = "removing a network";
    let removed =
        connection.call(ACTION, CHANGE_LIMIT, async |docker| docker.remove_network(id).await).await;
    match removed {
        Ok(()) => return Ok(Removal::Done),
        Err(error) if error.is_gone() => return Ok(Removal::Done),
        Err(error) if error.status() == Some(403) => (),
        Err(error) => return Err(error),
    }
    let inspected = connection
        .call(ACTION, READ_LIMIT, async |docker| {
            docker.inspect_network(id, None::<InspectNetworkOptions>).await
        })
        .await;
    match inspected {
        Ok(network) if no_users(&network) => Ok(Removal::Stuck),
        Ok(_) => Ok(Removal::InUse),
        Err(error) if error.is_gone() => Ok(Removal::Done),
        Err(error) => Err(error),
    }
}

fn no_users(network: &NetworkInspect) -> bool {
    network.containers.as_ref().is_none_or(HashMap::is_empty)
}

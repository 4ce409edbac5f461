//! What we keep on a daemon: who it is, and who cares for it. Labels on empty volumes,
//! because a volume's creation by name is atomic and outlives restarts of the daemon.

use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};

use super::connection::{CHANGE_LIMIT, Connection, READ_LIMIT, answer};
use super::{DockerError, Marker, label, labels};
use crate::fleet::id::{BootId, ClusterMark, HostId, Term};

pub(super) const ROLE_IDENTITY: &str = "identity";
/// What an inner Docker keeps; goes with its runner.
pub(super) const ROLE_DATA: &str = "data";
pub(super) const ROLE_MARKER: &str = "marker";

/// Creates the identity or, when somebody was first, reads theirs.
pub(super) async fn claim_identity(
    connection: &Connection,
    mark: &ClusterMark,
    fresh: HostId,
) -> Result<HostId, DockerError> {
    const ACTION: &str = "claiming the host's identity";
    let name = identity_name(mark);
    let mut labels = labels::of_role(mark, ROLE_IDENTITY);
    labels.insert(label::HOST.to_owned(), fresh.to_string());
    let request = VolumeCreateRequest {
        name: Some(name.clone()),
        labels: Some(labels),
        ..Default::default()
    };
    // Creating a volume that exists changes nothing and succeeds. Its labels are read in
    // a second call: what the first one answers in that case is not promised.
    let volume = connection
        .call(ACTION, CHANGE_LIMIT, async |docker| {
            docker.create_volume(request).await?;
            docker.inspect_volume(&name).await
        })
        .await?;
    volume
        .labels
        .get(label::HOST)
        .and_then(|host| host.parse().ok())
        .ok_or_else(|| answer(ACTION, "the identity volume carries no host id"))
}

/// Takes the identity `old` away and claims `fresh`.
pub(super) async fn replace_identity(
    connection: &Connection,
    mark: &ClusterMark,
    old: HostId,
    fresh: HostId,
) -> Result<HostId, DockerError> {
    // Claiming the old one reads it, or makes it when it is gone: either way what stands
    // afterwards is taken away only if it is the old one.
    if claim_identity(connection, mark, old).await? == old {
        remove(connection, &identity_name(mark)).await?;
    }
    claim_identity(connection, mark, fresh).await
}

/// The marker of the host's agent.
pub(super) async fn marker(
    connection: &Connection,
    mark: &ClusterMark,
    host: HostId,
) -> Result<Option<Marker>, DockerError> {
    let markers = markers(connection, mark).await?;
    let of_host = markers.into_iter().filter_map(|volume| parse_marker(&volume));
    // More than one only while a new one is being written: the newest counts.
    Ok(of_host.filter(|marker| marker.host == host).max_by_key(|m| (m.term, m.boot, m.beat)))
}

/// Leaves this boot's marker and takes away all others.
pub(super) async fn write_marker(
    connection: &Connection,
    mark: &ClusterMark,
    marker: &Marker,
) -> Result<(), DockerError> {
    const ACTION: &str = "writing the agent's marker";
    // A volume's labels cannot be changed: another term or beat is another volume.
    let Marker { host, boot, term, beat } = marker;
    let name = format!("runner-orchestrator-marker-{mark}-{boot}-{term}-{beat}");
    let mut labels = labels::of_role(mark, ROLE_MARKER);
    labels.insert(label::HOST.to_owned(), host.to_string());
    labels.insert(label::BOOT.to_owned(), boot.to_string());
    labels.insert(label::TERM.to_owned(), term.to_string());
    labels.insert(label::BEAT.to_owned(), beat.to_string());
    let request = VolumeCreateRequest {
        name: Some(name.clone()),
        labels: Some(labels),
        ..Default::default()
    };
    connection
        .call(ACTION, CHANGE_LIMIT, async |docker| docker.create_volume(request).await)
        .await?;
    for volume in markers(connection, mark).await? {
        if volume.name != name {
            remove(connection, &volume.name).await?;
        }
    }
    Ok(())
}

/// Takes the markers of one boot away.
pub(super) async fn remove_marker(
    connection: &Connection,
    mark: &ClusterMark,
    boot: BootId,
) -> Result<(), DockerError> {
    for volume in markers(connection, mark).await? {
        if parse_marker(&volume).is_some_and(|marker| marker.boot == boot) {
            remove(connection, &volume.name).await?;
        }
    }
    Ok(())
}

async fn markers(connection: &Connection, mark: &ClusterMark) -> Result<Vec<Volume>, DockerError> {
    let mut volumes = list(connection, mark, Usage::Any).await?;
    volumes.retain(|volume| role(volume) == Some(ROLE_MARKER));
    Ok(volumes)
}

/// `None`: not a marker, or of a version we do not know.
fn parse_marker(volume: &Volume) -> Option<Marker> {
    let get = |key: &str| volume.labels.get(key);
    Some(Marker {
        host: get(label::HOST)?.parse().ok()?,
        boot: get(label::BOOT)?.parse().ok()?,
        // Markers of the first version carry neither.
        term: Term(get(label::TERM).map_or(Some(0), |term| term.parse().ok())?),
        beat: get(label::BEAT).map_or(Some(0), |beat| beat.parse().ok())?,
    })
}

fn identity_name(mark: &ClusterMark) -> String {
    format!("runner-orchestrator-identity-{mark}")
}

/// Which volumes are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    Any,
    /// Named by no container, running or not.
    Unused,
}

/// Volumes of the cluster.
pub(super) async fn list(
    connection: &Connection,
    mark: &ClusterMark,
    usage: Usage,
) -> Result<Vec<Volume>, DockerError> {
    let mut filters = labels::filter(mark);
    if usage == Usage::Unused {
        filters.insert("dangling".to_owned(), vec!["true".to_owned()]);
    }
    let options = ListVolumesOptions { filters: Some(filters) };
    let found = connection
        .call("listing volumes", READ_LIMIT, async |docker| {
            docker.list_volumes(Some(options)).await
        })
        .await?;
    Ok(found.volumes.unwrap_or_default())
}

/// Removes a volume; one already gone counts as removed. `false`: it is in use.
pub(super) async fn remove(connection: &Connection, name: &str) -> Result<bool, DockerError> {
    let removed = connection
        .call("removing a volume", CHANGE_LIMIT, async |docker| {
            docker.remove_volume(name, None::<RemoveVolumeOptions>).await
        })
        .await;
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.is_gone() => Ok(true),
        Err(error) if error.status() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a volume is for.
pub(super) fn role(volume: &Volume) -> Option<&str> {
    volume.labels.get(label::ROLE).map(String::as_str)
}

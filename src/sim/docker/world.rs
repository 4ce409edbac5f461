//! The state of a modelled host. No waiting in here; the host's answers come from these
//! few rules, which the conformance suite compares with a real engine's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use super::log::Log;
use crate::docker::{
    ContainerLabels, ContainerSeen, ContainerState, DockerError, Marker, Network, NetworkSpec,
    RunnerContainer, Swept,
};
use crate::fleet::id::{BootId, ClusterMark, ContainerId, HostId};

/// Networks every engine has; they need not be made.
const NETWORKS_GIVEN: [&str; 3] = ["none", "bridge", "host"];

/// Everything on one host.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) images: BTreeSet<String>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    networks: BTreeMap<String, (ClusterMark, Network)>,
    identities: BTreeMap<ClusterMark, HostId>,
    markers: BTreeMap<ClusterMark, Marker>,
    /// How many ids were made; no id is made twice.
    made: u32,
}

/// One container, a state machine: created, running, exited.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: Arc<RunnerContainer>,
    /// As they are read back, once for all the lists it will be in.
    pub(super) labels: Option<ContainerLabels>,
    pub(super) state: ContainerState,
    pub(super) log: Arc<Log>,
    /// The writing end of its input, until somebody attaches.
    pub(super) feed: Option<DuplexStream>,
    /// The reading end, until the start.
    pub(super) stdin: Option<DuplexStream>,
    pub(super) stop: CancellationToken,
    pub(super) kill: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) oom: bool,
}

impl World {
    pub(super) fn with_images(images: &[String]) -> Self {
        Self { images: images.iter().cloned().collect(), ..Self::default() }
    }

    pub(super) fn create(
        &mut self,
        spec: &RunnerContainer,
        container: Container,
    ) -> Result<ContainerId, DockerError> {
        const ACTION: &str = "creating a container";
        if !self.images.contains(&spec.image) {
            return Err(DockerError::ImageMissing { image: spec.image.clone() });
        }
        if self.containers.values().any(|other| other.spec.name == spec.name) {
            let message = format!("the name {} is in use", spec.name.container_name());
            return Err(DockerError::Refused { action: ACTION, status: 409, message });
        }
        let id = ContainerId(self.fresh_id(spec.name.as_str()));
        self.containers.insert(id.clone(), container);
        Ok(id)
    }

    pub(super) fn get(
        &mut self,
        action: &'static str,
        id: &ContainerId,
    ) -> Result<&mut Container, DockerError> {
        self.containers.get_mut(id).ok_or_else(|| DockerError::Refused {
            action,
            status: 404,
            message: format!("No such container: {id}"),
        })
    }

    /// Takes what a start needs, or `None` when the container runs already.
    pub(super) fn start(&mut self, id: &ContainerId) -> Result<Option<DuplexStream>, DockerError> {
        const ACTION: &str = "starting a container";
        let networks: Vec<String> = self.networks.keys().cloned().collect();
        let container = self.get(ACTION, id)?;
        let network = &container.spec.network;
        if !NETWORKS_GIVEN.contains(&network.as_str()) && !networks.contains(network) {
            let message = format!("network {network} not found");
            return Err(DockerError::NetworkMissing { container: id.clone(), message });
        }
        match (container.state, container.stdin.take()) {
            (ContainerState::Created, Some(stdin)) => {
                container.state = ContainerState::Running;
                Ok(Some(stdin))
            }
            (ContainerState::Running, _) => Ok(None),
            // A real engine would run it again. A runner that did would be a bug of ours.
            _ => Err(DockerError::Refused {
                action: ACTION,
                status: 400,
                message: "a modelled container runs once".to_owned(),
            }),
        }
    }

    pub(super) fn list(&self, mark: &ClusterMark) -> Vec<ContainerSeen> {
        let seen = |(id, container): (&ContainerId, &Container)| {
            Some(ContainerSeen {
                id: id.clone(),
                labels: container.labels.clone()?,
                state: container.state,
                image: container.spec.image.clone(),
            })
        };
        let ours = self.containers.iter().filter(|(_, c)| c.spec.cluster == *mark);
        ours.filter_map(seen).collect()
    }

    pub(super) fn claim_identity(&mut self, mark: &ClusterMark, fresh: HostId) -> HostId {
        *self.identities.entry(mark.clone()).or_insert(fresh)
    }

    pub(super) fn replace_identity(
        &mut self,
        mark: &ClusterMark,
        old: HostId,
        fresh: HostId,
    ) -> HostId {
        if self.identities.get(mark) == Some(&old) {
            self.identities.remove(mark);
        }
        self.claim_identity(mark, fresh)
    }

    pub(super) fn marker(&self, mark: &ClusterMark, host: HostId) -> Option<Marker> {
        self.markers.get(mark).copied().filter(|marker| marker.host == host)
    }

    pub(super) fn write_marker(&mut self, mark: &ClusterMark, marker: Marker) {
        self.markers.insert(mark.clone(), marker);
    }

    pub(super) fn remove_marker(&mut self, mark: &ClusterMark, boot: BootId) {
        if self.markers.get(mark).is_some_and(|marker| marker.boot == boot) {
            self.markers.remove(mark);
        }
    }

    pub(super) fn prune_volumes(&mut self) {
        self.identities.clear();
        self.markers.clear();
    }

    pub(super) fn ensure_network(&mut self, spec: &NetworkSpec) -> Network {
        if let Some((_, network)) = self.networks.get(&spec.name) {
            return network.clone();
        }
        let id = self.fresh_id(&spec.name);
        let [_, _, high, low] = self.made.to_be_bytes();
        let network = Network {
            bridge: Some(format!("model{}", self.made)),
            gateway: Some(format!("10.{high}.{low}.1")),
            name: spec.name.clone(),
            id,
        };
        self.networks.insert(spec.name.clone(), (spec.cluster.clone(), network.clone()));
        network
    }

    pub(super) fn sweep(&mut self, mark: &ClusterMark, keep: &[String]) -> Swept {
        let used: BTreeSet<&str> =
            self.containers.values().map(|container| container.spec.network.as_str()).collect();
        let before = self.networks.len();
        self.networks.retain(|name, (cluster, _)| {
            cluster != mark || keep.contains(name) || used.contains(name.as_str())
        });
        Swept { networks: count(before - self.networks.len()), ..Swept::default() }
    }

    /// Removes all of the cluster; the containers taken out are the caller's to kill.
    pub(super) fn forget(&mut self, mark: &ClusterMark) -> (Swept, Vec<(ContainerId, Container)>) {
        let all = std::mem::take(&mut self.containers);
        let (containers, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, container)| container.spec.cluster == *mark);
        self.containers = others.into_iter().collect();
        let volumes = usize::from(self.identities.remove(mark).is_some())
            + usize::from(self.markers.remove(mark).is_some());
        let swept = Swept {
            containers: count(containers.len()),
            volumes: count(volumes),
            ..self.sweep(mark, &[])
        };
        (swept, containers)
    }

    /// Sixty-four hexadecimal digits, as the engine's.
    fn fresh_id(&mut self, seed: &str) -> String {
        self.made += 1;
        format!("{:x}", Sha256::digest(format!("{} {seed}", self.made)))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

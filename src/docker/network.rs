//! One dedicated bridge per pool, its containers kept from each other.

use std::collections::HashMap;

use bollard::models::{Ipam, IpamConfig, Network as Listed, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;

use super::connection::{CHANGE_LIMIT, Connection, READ_LIMIT, answer};
use super::subnet::{Subnet, Supernet, bridge_name, prefix_for};
use super::{DockerError, Network, NetworkSpec, label, labels};
use crate::fleet::id::ClusterMark;

/// The role of a pool's network.
const ROLE_POOL: &str = "pool";

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const BRIDGE_ICC: &str = "com.docker.network.bridge.enable_icc";

/// Docker answers this when addresses overlap or the bridge's name is taken.
const TAKEN: u16 = 403;

/// Each attempt costs the daemon little; more than this many overlaps in a row mean that
/// something else than an overlap is wrong.
const SUBNETS_TRIED_MAX: usize = 64;

/// Returns the network, made when it was missing. Callers that race end with the same one.
pub(super) async fn ensure(
    connection: &Connection,
    supernet: Supernet,
    spec: &NetworkSpec,
) -> Result<Network, DockerError> {
    const ACTION: &str = "creating a network";
    if let Some(network) = find(connection, spec).await? {
        return Ok(network);
    }
    let mut refusal = answer(ACTION, "no subnet to try");
    let candidates = supernet.candidates(prefix_for(spec.capacity), &spec.name);
    for subnet in candidates.take(SUBNETS_TRIED_MAX) {
        let request = create_request(spec, subnet);
        let created = connection
            .call(ACTION, CHANGE_LIMIT, async |docker| docker.create_network(request).await)
            .await;
        match created {
            Ok(created) => return settle(connection, spec, &created.id).await,
            Err(error) if error.status() == Some(TAKEN) => refusal = error,
            // A later engine says so; 20.10 refuses the second bridge of the same name.
            Err(error) if error.status() == Some(409) => refusal = error,
            Err(error) => return Err(error),
        }
        // Refused: perhaps because somebody else has just made the very same network.
        if let Some(network) = find(connection, spec).await? {
            return Ok(network);
        }
    }
    Err(refusal)
}

/// After a creation: where a race made two of one name, everybody keeps the oldest, and
/// whoever made another one takes it away again.
async fn settle(
    connection: &Connection,
    spec: &NetworkSpec,
    created: &str,
) -> Result<Network, DockerError> {
    const ACTION: &str = "creating a network";
    let network = find(connection, spec)
        .await?
        .ok_or_else(|| answer(ACTION, "the network just created is not listed"))?;
    if network.id != created {
        connection
            .call(ACTION, CHANGE_LIMIT, async |docker| docker.remove_network(created).await)
            .await?;
    }
    Ok(network)
}

/// The oldest network of this name that is ours.
async fn find(connection: &Connection, spec: &NetworkSpec) -> Result<Option<Network>, DockerError> {
    let mut found = list(connection, &spec.cluster).await?;
    found.retain(|network| network.name.as_deref() == Some(&spec.name));
    found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok(found.into_iter().next().and_then(read))
}

/// Every network of the cluster.
pub(super) async fn list(
    connection: &Connection,
    mark: &ClusterMark,
) -> Result<Vec<Listed>, DockerError> {
    let options = ListNetworksOptions { filters: Some(labels::filter(mark)) };
    connection
        .call("listing networks", READ_LIMIT, async |docker| {
            docker.list_networks(Some(options)).await
        })
        .await
}

fn read(listed: Listed) -> Option<Network> {
    let gateway = listed
        .ipam
        .and_then(|ipam| ipam.config)
        .and_then(|config| config.into_iter().find_map(|range| range.gateway));
    let bridge = listed.options.and_then(|mut options| options.remove(BRIDGE_NAME));
    Some(Network { id: listed.id?, name: listed.name?, gateway, bridge })
}

fn create_request(spec: &NetworkSpec, subnet: Subnet) -> NetworkCreateRequest {
    let mut labels = labels::of_role(&spec.cluster, ROLE_POOL);
    labels.insert(label::POOL.to_owned(), spec.pool.to_string());
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        labels: Some(labels),
        options: Some(HashMap::from([
            (BRIDGE_NAME.to_owned(), bridge_name(&spec.name)),
            // Jobs of strangers run side by side: no runner reaches its neighbour.
            (BRIDGE_ICC.to_owned(), "false".to_owned()),
        ])),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.cidr()),
                gateway: Some(subnet.gateway()),
                ..IpamConfig::default()
            }]),
            options: None,
        }),
        ..NetworkCreateRequest::default()
    }
}

//! What every simulated replica is told, and what else is on its host.

use std::time::Duration;

use runner_orchestrator::app::Settings;
use runner_orchestrator::docker::RunnerContainer;
use runner_orchestrator::fleet::id::{BootId, ClusterMark, HostId, RepoName, RunnerId, RunnerName};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{InnerDocker, Resources, Scope};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::loops::announce::Peers;
use runner_orchestrator::loops::host::Shutdown;

use super::super::clock::EPOCH_MS;
use super::super::plan::Layout;
use super::{CLUSTER, IMAGE, REPO};

pub(super) fn settings_of(layout: &Layout, index: usize) -> Settings {
    Settings {
        peers: Peers::default(),
        cluster_name: Some(CLUSTER.to_owned()),
        hostname: format!("host-{index}"),
        pools: layout.pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect(),
        poll_interval: Duration::from_secs(5),
        host_max_runners: layout.host_max,
        shutdown: Shutdown { drain: layout.drains, timeout: Duration::from_secs(30) },
        policy: policy(),
    }
}

/// The rule's figures, with what only makes a run longer made shorter.
fn policy() -> Policy {
    Policy {
        list_staleness: Duration::from_secs(20),
        ended_memory: Duration::from_secs(40),
        does_not_assign_backoff_max: Duration::from_secs(60),
        brake_window: Duration::from_secs(20),
        breaker_backoff: Duration::from_secs(5),
        breaker_backoff_max: Duration::from_secs(20),
        breaker_proof: Duration::from_secs(10),
        boost_ttl: Duration::from_secs(40),
        ..Policy::default()
    }
}

/// A container of another cluster that happens to be on the same daemon.
pub(super) fn foreign(daemon: usize) -> RunnerContainer {
    let id = uuid::Uuid::from_u128(0xF0E1 + daemon as u128);
    let cluster = ClusterMark::derive("somebody else");
    RunnerContainer {
        runner: RunnerId(id),
        name: RunnerName::compose(&cluster, &HostId(id), &RunnerId(id)),
        pool: "default".into(),
        cluster,
        host: HostId(id),
        boot: BootId(id),
        term: 1,
        image: IMAGE.to_owned(),
        command: None,
        network: "bridge".to_owned(),
        resources: Resources::default(),
        docker: InnerDocker::None,
        scope: Scope::Repo(RepoName::from(REPO)),
        revision: "1".to_owned(),
        created_at: Timestamp(EPOCH_MS),
        correlation: String::new(),
    }
}

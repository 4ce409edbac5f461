//! The real Docker engine under a cluster of its own, and the modelled GitHub where its
//! containers reach it. Whatever happens, nothing of it stays that the daemon lets go.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use runner_orchestrator::cli::demo::engine::{RealEngine, fresh_cluster_name};
use runner_orchestrator::cli::print;
use runner_orchestrator::docker::{BollardDocker, ContainerState, Docker};
use runner_orchestrator::fleet::id::ClusterMark;
use runner_orchestrator::sim::github::{SimGitHub, SimHandle, SimOptions};
use tokio_util::sync::CancellationToken;

use super::world::{Fleet, in_real_time};

/// The product's binary: its stand-in listener is what the containers run.
pub(crate) const EXECUTABLE: &str = env!("CARGO_BIN_EXE_runner-orchestrator");
/// More at a time leaves networks that can no longer be removed.
const REMOVALS_AT_ONCE: usize = 8;
/// After a removal the daemon tidies up for a moment; the next measurement waits.
const QUIET: Duration = Duration::from_secs(2);

/// An engine, with an image and the pool's network on it.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) engine: RealEngine,
    pub(crate) mark: ClusterMark,
    pub(crate) cluster: String,
}

/// Measures on the real engine, then removes all that was made on it, also after a
/// failure or an interrupt.
pub(crate) fn on_real_engine<T>(
    max_runners: u32,
    measure: impl AsyncFnOnce(&Real) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    in_real_time(async {
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let engine = RealEngine::prepare(Some(Path::new(EXECUTABLE)), &mark, max_runners)
            .await
            .context("this figure needs a Docker engine")?;
        let real = Real { engine, mark, cluster };
        let result = tokio::select! { biased;
            result = measure(&real) => result,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        let removed = real.remove_everything().await;
        let result = result?;
        removed?;
        Ok(result)
    })
}

impl Real {
    /// A fleet of this cluster, with the network sized as prepared.
    pub(crate) fn fleet(&self, max_runners: u32) -> Fleet {
        Fleet::eager(&self.cluster, &self.engine.image, max_runners)
    }

    /// A fresh connection.
    pub(crate) fn docker(&self) -> anyhow::Result<Arc<dyn Docker>> {
        Ok(Arc::new(BollardDocker::connect(self.engine.docker_host.as_deref())?))
    }

    /// A fresh modelled GitHub on the pool network's gateway.
    pub(crate) async fn github(&self) -> anyhow::Result<SimHandle> {
        let (gateway, bridge) = self.engine.place()?;
        let address: SocketAddr = format!("{gateway}:0").parse()?;
        let sim = SimGitHub::new(&SimOptions::default());
        Ok(sim.listen(address, Some(bridge), CancellationToken::new()).await?)
    }

    /// Checks that so many containers run.
    pub(crate) async fn ensure_running(&self, count: usize) -> anyhow::Result<()> {
        let containers = self.engine.docker.containers(&self.mark).await?;
        let running = containers.iter().filter(|seen| seen.state == ContainerState::Running);
        let running = running.count();
        ensure!(running == count, "{running} containers run instead of {count}");
        Ok(())
    }

    /// Removes all runner containers of this cluster.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let containers = self.engine.docker.containers(&self.mark).await?;
        stream::iter(containers)
            .map(|seen| async move { self.engine.docker.remove(&seen.id).await })
            .buffer_unordered(REMOVALS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        tokio::time::sleep(QUIET).await;
        Ok(())
    }

    async fn remove_everything(&self) -> anyhow::Result<()> {
        if let Err(error) = self.clear().await {
            print::message(&format!("could not remove the containers one by one: {error:#}"));
        }
        let swept = self.engine.docker.forget_cluster(&self.mark).await?;
        // The daemon holds on to endpoints of containers that are gone; only its restart
        // helps, and what was measured before stands.
        if !swept.stuck_networks.is_empty() {
            let names = swept.stuck_networks.join(", ");
            print::message(&format!("the daemon does not let go of networks: {names}"));
        }
        Ok(())
    }
}

//! A Docker engine with what the demo makes on it: image and network.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use uuid::Uuid;

use crate::docker::{BollardDocker, Docker, Network, NetworkSpec};
use crate::fleet::id::{ClusterMark, PoolName};
use crate::sim::image::{self, ImageSpec};

/// A real engine with what the demo made on it.
#[derive(Debug)]
pub struct RealEngine {
    pub docker: BollardDocker,
    pub docker_host: Option<String>,
    pub image: String,
    pub network: Network,
}

/// The pool of the demo.
pub const POOL: &str = "default";

impl RealEngine {
    /// Makes image and network on the engine that `DOCKER_HOST` names. The image is made
    /// from `executable`, or from the running one.
    pub async fn prepare(
        executable: Option<&Path>,
        mark: &ClusterMark,
        max_runners: u32,
    ) -> anyhow::Result<Self> {
        Self::prepare_at(crate::config::docker_host(), executable, mark, max_runners).await
    }

    /// The same on the engine at this address; `None` = the usual socket.
    pub async fn prepare_at(
        docker_host: Option<String>,
        executable: Option<&Path>,
        mark: &ClusterMark,
        max_runners: u32,
    ) -> anyhow::Result<Self> {
        let docker = BollardDocker::connect(docker_host.as_deref())?;
        docker.daemon().await.context("the engine does not answer")?;
        let image = image::ensure(&docker, &ImageSpec::demo(executable))
            .await
            .context("could not make the demo's image")?;
        let spec = NetworkSpec::of_pool(mark.clone(), PoolName::from(POOL), max_runners);
        let network = docker.ensure_network(&spec).await.context("could not make a network")?;
        Ok(Self { docker, docker_host, image, network })
    }

    /// The address the modelled GitHub is bound to: the network's gateway, on its bridge
    /// device, so that no other network reaches it.
    pub fn place(&self) -> anyhow::Result<(&str, &str)> {
        match (&self.network.gateway, &self.network.bridge) {
            (Some(gateway), Some(bridge)) => Ok((gateway, bridge)),
            _ => bail!("the network {} has no gateway or bridge", self.network.name),
        }
    }

    /// Asks from inside the network whether `url` is reachable.
    pub async fn check_way(&self, mark: &ClusterMark, url: &str) -> anyhow::Result<()> {
        use image::reach::{PROBE, Place, Reach, probe};
        let place = Place {
            cluster: mark.clone(),
            image: self.image.clone(),
            network: self.network.name.clone(),
        };
        match probe(&self.docker, &place, &PROBE, url).await.context("the probe did not run")? {
            Reach::Open => Ok(()),
            Reach::Closed(why) => bail!("containers do not reach the modelled GitHub: {why}"),
        }
    }
}

/// A cluster name nobody else has.
#[must_use]
pub fn fresh_cluster_name() -> String {
    format!("demo-{}", &Uuid::new_v4().simple().to_string()[..8])
}

/// Where children write their messages, if anywhere.
#[must_use]
pub fn log_file(dir: Option<&PathBuf>, name: &str) -> Option<PathBuf> {
    dir.map(|dir| dir.join(name))
}

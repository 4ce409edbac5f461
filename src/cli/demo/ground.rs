//! Where the runners of the demo's replicas live: on one engine that all share, each on a
//! host of its own, or in the modelled engines inside the replicas.

use std::path::Path;

use anyhow::Context;

use super::engine::RealEngine;
use super::{DemoArgs, EngineChoice, HostsChoice};
use crate::cli::print;
use crate::docker::Docker;
use crate::fleet::id::ClusterMark;
use crate::sim::hosts::{self, Hosts};

/// Files of daemons of our own: on a disk, which `/tmp` need not be, and with a short name,
/// which their sockets need.
const HOSTS_DIR: &str = "/var/tmp";

/// The ground of one demo.
#[derive(Debug)]
pub enum Ground {
    Model,
    Shared(Box<RealEngine>),
    Own(Box<OwnHosts>),
}

/// A host for each replica.
#[derive(Debug)]
pub struct OwnHosts {
    /// `None` once they have been taken away.
    hosts: Option<Hosts>,
    engines: Vec<RealEngine>,
    gateway: String,
    device: String,
}

impl Ground {
    /// Chooses, and says why when it is less than was hoped for.
    pub async fn choose(
        args: &DemoArgs,
        cluster: &str,
        mark: &ClusterMark,
    ) -> anyhow::Result<Self> {
        if args.engine == EngineChoice::Model {
            return Ok(Self::Model);
        }
        let wanted = args.hosts == HostsChoice::Own;
        if wanted || (args.hosts == HostsChoice::Auto && args.replicas > 1) {
            match Self::own(args, cluster, mark).await {
                Ok(own) => return Ok(own),
                Err(error) if wanted => return Err(error),
                Err(error) => print::message(&format!(
                    "note: no Docker host for each orchestrator ({error:#}); all share the \
                     local engine: one is its agent, the others stand by"
                )),
            }
        }
        match RealEngine::prepare(None, mark, args.max_runners).await {
            Ok(engine) => Ok(Self::Shared(Box::new(engine))),
            Err(error) if args.engine == EngineChoice::Auto => {
                print::message(&format!(
                    "note: no usable Docker engine ({error:#}); \
                     using the modelled engine inside the orchestrator instead"
                ));
                Ok(Self::Model)
            }
            Err(error) => Err(error),
        }
    }

    async fn own(args: &DemoArgs, cluster: &str, mark: &ClusterMark) -> anyhow::Result<Self> {
        if let Some(obstacle) = hosts::obstacle() {
            anyhow::bail!("{obstacle}");
        }
        let own = OwnHosts::start(None, cluster, args.replicas, (mark, args.max_runners)).await?;
        Ok(Self::Own(Box::new(own)))
    }

    /// The word of the report and of `serve --engine`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Shared(_) | Self::Own(_) => "docker",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn described(&self) -> &'static str {
        match self {
            Self::Model => "the modelled engine",
            Self::Shared(_) => "the docker engine",
            Self::Own(_) => "docker hosts of their own",
        }
    }

    /// Every engine of it.
    #[must_use]
    pub fn engines(&self) -> &[RealEngine] {
        match self {
            Self::Model => &[],
            Self::Shared(engine) => std::slice::from_ref(engine),
            Self::Own(own) => &own.engines,
        }
    }

    /// The engine of a replica.
    #[must_use]
    pub fn engine_of(&self, replica: usize) -> Option<&RealEngine> {
        match self {
            Self::Model => None,
            Self::Shared(engine) => Some(engine),
            Self::Own(own) => own.engines.get(replica),
        }
    }

    /// The address the modelled GitHub is bound to, and the device, where there is one: no
    /// other network reaches it.
    pub fn place(&self) -> anyhow::Result<(String, Option<String>)> {
        Ok(match self {
            Self::Model => ("127.0.0.1".to_owned(), None),
            Self::Shared(engine) => {
                let (gateway, bridge) = engine.place()?;
                (gateway.to_owned(), Some(bridge.to_owned()))
            }
            Self::Own(own) => (own.gateway.clone(), Some(own.device.clone())),
        })
    }

    /// Asks from inside each host's network whether `url` is reachable.
    pub async fn check_way(&self, mark: &ClusterMark, url: &str) -> anyhow::Result<()> {
        for engine in self.engines() {
            engine.check_way(mark, url).await?;
        }
        Ok(())
    }

    /// Takes away everything of the cluster, and the hosts themselves. Names what is left.
    pub async fn forget(&mut self, mark: &ClusterMark) -> Vec<String> {
        let mut left = Vec::new();
        for engine in self.engines() {
            match engine.docker.forget_cluster(mark).await {
                Ok(swept) => left.extend(
                    swept.stuck_networks.into_iter().map(|name| format!("stuck network {name}")),
                ),
                Err(error) => left.push(format!("the demo's network: {error}")),
            }
        }
        if let Self::Own(own) = self {
            left.extend(own.end().await);
        }
        left
    }
}

impl OwnHosts {
    /// Makes hosts with the demo's image and `pool`'s network on each.
    pub async fn start(
        executable: Option<&Path>,
        cluster: &str,
        count: u32,
        pool: (&ClusterMark, u32),
    ) -> anyhow::Result<Self> {
        let name = cluster.to_owned();
        let made = blocking(move || Hosts::start(Path::new(HOSTS_DIR), &name, count)).await?;
        let hosts = made.context("could not make hosts")?;
        let (gateway, device) = (hosts.gateway(), hosts.device().to_owned());
        let addresses = hosts.addresses();
        let mut own = Self { hosts: Some(hosts), engines: Vec::new(), gateway, device };
        for address in addresses {
            match RealEngine::prepare_at(Some(address), executable, pool.0, pool.1).await {
                Ok(engine) => own.engines.push(engine),
                Err(error) => {
                    own.end().await;
                    return Err(error);
                }
            }
        }
        Ok(own)
    }

    #[must_use]
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    #[must_use]
    pub fn engines(&self) -> &[RealEngine] {
        &self.engines
    }

    /// Does something to the hosts, where blocking is allowed.
    pub async fn with<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&mut Hosts) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut hosts = self.hosts.take().context("the hosts have been taken away")?;
        let (hosts, done) = blocking(move || {
            let done = what(&mut hosts);
            (hosts, done)
        })
        .await?;
        self.hosts = Some(hosts);
        Ok(done)
    }

    /// Takes the hosts away; names what had to be removed by force.
    pub async fn end(&mut self) -> Vec<String> {
        self.engines.clear();
        match self.hosts.take() {
            Some(hosts) => match blocking(move || hosts.end()).await {
                Ok(left) => left,
                Err(error) => vec![format!("{error:#}")],
            },
            None => Vec::new(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(what).await.context("a step with the hosts broke off")
}

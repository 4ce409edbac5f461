//! Replicas as processes of their own around one real redis-server. The modelled GitHub is
//! another process; runners live in the replicas' modelled engines.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use redis::aio::MultiplexedConnection;
use runner_orchestrator::cli::demo::model::{ModelledGitHub, REPO, Settings, TOKEN};
use runner_orchestrator::cli::demo::replica::{Plan, Replica};
use runner_orchestrator::sim::redis::RedisServer;
use tokio::time::Instant;

use super::real::EXECUTABLE;

/// Every figure with several replicas has so many.
pub(crate) const REPLICAS: usize = 3;
const CLUSTER: &str = "figures";
const LEADER_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Redis, GitHub and replicas, running. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Cluster {
    env: Vec<(String, String)>,
    replicas: Vec<Option<Replica>>,
    pub(crate) github: ModelledGitHub,
    pub(crate) redis: Redis,
    http: reqwest::Client,
}

/// The server and a connection to ask it.
#[derive(Debug)]
pub(crate) struct Redis {
    server: RedisServer,
    client: redis::Client,
    link: MultiplexedConnection,
}

impl Cluster {
    /// Starts everything and waits until somebody leads. `env` = what a replica is told
    /// beside where Redis and GitHub are.
    pub(crate) async fn start(env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let redis = Redis::start().await?;
        let github = ModelledGitHub::start(&Settings {
            executable: PathBuf::from(EXECUTABLE),
            address: "127.0.0.1".to_owned(),
            device: None,
            seed: 1,
            lost_after_seconds: 600,
            log: None,
        })
        .await?;
        let api_url = format!("{}/api/v3", github.url);
        let common = [
            ("GITHUB_API_URL", api_url.as_str()),
            ("GITHUB_TOKEN", TOKEN),
            ("GITHUB_REPO", REPO),
            ("CLUSTER_NAME", CLUSTER),
            ("RUNNER_IMAGE", "model"),
            ("LISTEN_ADDR", "127.0.0.1:0"),
        ];
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env = common.iter().chain(env).map(own).collect();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let replicas = (0..REPLICAS).map(|_| None).collect();
        let mut cluster = Self { env, replicas, github, redis, http };
        for number in 0..REPLICAS {
            cluster.start_replica(number).await?;
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    /// Starts the replica of this number. Each has a user of its own at Redis, so that its
    /// connections can be told apart.
    pub(crate) async fn start_replica(&mut self, number: usize) -> anyhow::Result<()> {
        let mut env = self.env.clone();
        env.push(("REDIS_URL".to_owned(), self.redis.url_of(&user(number)).await?));
        let executable = PathBuf::from(EXECUTABLE);
        let replica = Replica::start(&Plan { executable, engine: "model", env, log: None }).await?;
        self.replicas[number] = Some(replica);
        Ok(())
    }

    /// Takes a running replica out, to be ended by the caller.
    pub(crate) fn take(&mut self, number: usize) -> anyhow::Result<Replica> {
        self.replicas[number].take().context("it does not run")
    }

    /// Waits until all replicas answer and one holds the lease; its number and term.
    pub(crate) async fn leader(&mut self) -> anyhow::Result<(usize, u64)> {
        let begun = Instant::now();
        while begun.elapsed() < LEADER_WITHIN {
            let mut ids = Vec::new();
            for replica in self.replicas.iter().flatten() {
                ids.extend(replica.ask(&self.http).await.map(|said| said.replica));
            }
            let held = self.redis.lease().await?;
            let leads = held
                .and_then(|(holder, term)| Some((ids.iter().position(|id| *id == holder)?, term)));
            if let Some(leads) = leads.filter(|_| ids.len() == REPLICAS) {
                return Ok(leads);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("no replica leads after {} s", LEADER_WITHIN.as_secs())
    }

    /// Stops everything.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for replica in self.replicas.into_iter().flatten() {
            replica.program.stop(STOP_WITHIN).await?;
        }
        self.github.stop().await
    }
}

/// The name of a replica's user at Redis.
pub(crate) fn user(number: usize) -> String {
    format!("replica-{}", number + 1)
}

impl Redis {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let server = tokio::task::spawn_blocking(RedisServer::start).await??;
        let client = redis::Client::open(server.url())?;
        // A busy machine may keep an answer back for longer than the library would wait.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let link = client.get_multiplexed_async_connection_with_config(&patient).await?;
        Ok(Self { server, client, link })
    }

    /// For `REDIS_URL`.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// The same with a user who may do everything.
    async fn url_of(&self, user: &str) -> anyhow::Result<String> {
        let password = format!(">{user}");
        let words = ["SETUSER", user, "on", &password, "~*", "&*", "+@all"];
        self.ask::<()>(redis::cmd("ACL").arg(&words)).await?;
        Ok(format!("redis://{user}:{user}@{}/", self.server.address()))
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> anyhow::Result<T> {
        Ok(command.query_async(&mut self.link.clone()).await?)
    }

    /// A field of `INFO`, as a number.
    pub(crate) async fn info(&self, field: &str) -> anyhow::Result<u64> {
        let text: String = self.ask(&redis::cmd("INFO")).await?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("INFO without {field}"))?.trim().parse()?)
    }

    /// The leader and its term.
    pub(crate) async fn lease(&self) -> anyhow::Result<Option<(String, u64)>> {
        let held = redis::cmd("HMGET").arg(key("lease:leader")).arg(&["replica", "term"]).clone();
        let (replica, term): (Option<String>, Option<u64>) = self.ask(&held).await?;
        Ok(replica.zip(term))
    }

    /// Every command the server is sent from now on, and those of scripts.
    pub(crate) async fn monitor(&self) -> anyhow::Result<BoxStream<'static, String>> {
        Ok(self.client.get_async_monitor().await?.into_on_message::<String>().boxed())
    }
}

/// One of our keys, with the cluster's prefix.
pub(crate) fn key(name: &str) -> String {
    format!("{{ro:{CLUSTER}}}:{name}")
}

/// The term of a commit, by a line of `MONITOR`: what its script wrote, so that it has passed
/// the fence. It reads `<time> [<db> lua] "HSET" "<key>" "<host>" "<assignment>"`.
pub(crate) fn committed_in(line: &str) -> Option<u64> {
    let write = format!(" lua] \"HSET\" \"{}\" ", key("assignments"));
    let assignment = line.split_once(&write)?.1;
    assignment.split_once("\\\"term\\\":")?.1.split(',').next()?.parse().ok()
}

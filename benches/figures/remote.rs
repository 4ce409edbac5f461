//! A job's way through leader, Redis and another host's agent, against the way inside one
//! replica.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use runner_orchestrator::docker::Docker;
use runner_orchestrator::fleet::id::JobId;
use runner_orchestrator::sim::github::{SimGitHub, SimHandle, SimOptions};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cluster::Redis;
use super::figure::{Figure, Measured, rounded};
use super::reaction::{millis, p95, spread};
use super::timed::{Seen, TimedDocker, TimedGitHub};
use super::world::{self, Fleet, Orchestrator, in_real_time, jobs, until};

pub(crate) const EXTRA: Figure =
    Figure { name: "remote_extra_ms_p95", limit: 30.0, unit: "ms", measure };

const SAMPLES: usize = 40;
const MAX_RUNNERS: u32 = 4;
/// Long enough to see the runner take it, short enough to wait for.
const JOB_SECONDS: f64 = 0.05;
/// Faster, and GitHub's limits would be what is measured.
const POLL: Duration = Duration::from_secs(1);
/// A step that is no divisor of the loops' periods, so that samples fall anywhere in them.
const STEP: Duration = Duration::from_millis(37);
const CREATE_WITHIN: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(10);

const HOW: &str = "from the start of the reading of GitHub's queue whose answer first contained \
    the job until the create call is sent to the engine; alone: one replica with the store in \
    its process; remote: the leader's own host may hold nothing, so a second replica's agent \
    gets the job through a real redis-server; jobs alternate between the two; modelled GitHub \
    and engines without delay; value = p95 remote - p95 alone";

fn measure() -> anyhow::Result<Measured> {
    in_real_time(async {
        let redis = Redis::start().await?;
        let alone = Side::alone().await?;
        let remote = Side::remote(&redis.url()).await?;
        let (mut alone_ms, mut remote_ms) = (Vec::new(), Vec::new());
        for n in 0..SAMPLES {
            let step = STEP * (u32::try_from(n % 11)? + 1);
            alone_ms.push(alone.one_job(step).await.context("alone")?);
            remote_ms.push(remote.one_job(step).await.context("remote")?);
        }
        alone.stop().await?;
        remote.stop().await?;
        let detail = json!({
            "how": HOW,
            "alone_ms": spread(&alone_ms),
            "remote_ms": spread(&remote_ms),
        });
        let value = rounded(p95(&remote_ms) - p95(&alone_ms));
        Ok(Measured { value, detail, broken: Vec::new() })
    })
}

/// A GitHub of its own, and who works on its queue.
struct Side {
    sim: SimHandle,
    github: Arc<TimedGitHub>,
    /// Where the runners are created.
    creates: watch::Receiver<Seen>,
    /// The leader first.
    orchestrators: Vec<Orchestrator>,
}

impl Side {
    async fn begin() -> anyhow::Result<(SimHandle, Arc<TimedGitHub>, Arc<TimedDocker>)> {
        let sim = SimGitHub::new(&SimOptions::default());
        let engine = TimedDocker::new(world::model_docker(&sim));
        let sim = sim.listen("127.0.0.1:0".parse()?, None, CancellationToken::new()).await?;
        let github = TimedGitHub::new(world::over_http(sim.api_url())?);
        Ok((sim, github, engine))
    }

    fn fleet() -> Fleet {
        Fleet { poll_interval: POLL, ..Fleet::modelled(MAX_RUNNERS) }
    }

    async fn alone() -> anyhow::Result<Self> {
        let (sim, github, engine) = Self::begin().await?;
        let orchestrator = Orchestrator::start(&Self::fleet(), engine.clone(), github.clone())?;
        orchestrator.until_ready().await?;
        Ok(Self { sim, github, creates: engine.seen(), orchestrators: vec![orchestrator] })
    }

    async fn remote(redis_url: &str) -> anyhow::Result<Self> {
        let (sim, github, engine) = Self::begin().await?;
        let own: Arc<dyn Docker> = world::model_docker(sim.sim());
        let fleet = Fleet { host_max_runners: Some(0), ..Self::fleet() };
        let leader = Orchestrator::start_on_redis(redis_url, &fleet, own, github.clone())?;
        leader.until_ready().await?;
        // Of another process it would have a client of its own; it never reads the queue.
        let other = world::over_http(sim.api_url())?;
        let agent = Orchestrator::start_on_redis(redis_url, &Self::fleet(), engine.clone(), other)?;
        let published = leader.handle.published.clone();
        let has_room = || published.borrow().view.hosts.values().any(|host| host.max_runners > 0);
        until("the other host", Duration::from_secs(30), SOON, has_room).await?;
        Ok(Self { sim, github, creates: engine.seen(), orchestrators: vec![leader, agent] })
    }

    /// Queues a job after `wait`; how long its way was, in milliseconds. Waits for its end.
    async fn one_job(&self, wait: Duration) -> anyhow::Result<f64> {
        let mut creates = self.creates.clone();
        tokio::time::sleep(wait).await;
        let before = creates.borrow_and_update().creates.len();
        let queued = self.sim.sim().post_jobs(&jobs(1, JOB_SECONDS))?;
        let job = JobId(queued.first().context("no job was queued")?.0);
        let sent = creates.wait_for(|seen| seen.creates.len() > before);
        let sent = tokio::time::timeout(CREATE_WITHIN, sent).await.with_context(|| {
            let leader = self.orchestrators.first().map(|it| it.handle.published.borrow().clone());
            format!("nothing was created: {:?}", leader.map(|now| now.plan.pools.clone()))
        })?;
        let sent = sent?.creates.get(before).copied().context("nothing was created")?;
        let read = self.github.first_seen(job).context("the job was never read")?;
        let leader = self.orchestrators.first().context("nobody leads")?;
        let at_rest = || {
            let now = leader.handle.published.borrow();
            self.sim.sim().open_jobs() == 0
                && now.view.hosts.values().all(|host| host.runners.is_empty())
                && now.view.assignments.values().all(|assigned| assigned.runners.is_empty())
        };
        until("the end of the job", Duration::from_secs(30), SOON, at_rest).await?;
        Ok(millis(read, sent))
    }

    async fn stop(self) -> anyhow::Result<()> {
        for orchestrator in self.orchestrators {
            orchestrator.stop().await?;
        }
        self.sim.shutdown().await;
        Ok(())
    }
}

//! The cluster under test: what it is made of, and how it is asked, killed and started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use runner_orchestrator::cli::demo::engine::fresh_cluster_name;
use runner_orchestrator::cli::demo::ground::OwnHosts;
use runner_orchestrator::cli::demo::model::{self, ModelledGitHub, REPO, TOKEN};
use runner_orchestrator::cli::demo::replica::{Plan, Replica};
use runner_orchestrator::fleet::id::ClusterMark;
use runner_orchestrator::sim::random::Random;
use runner_orchestrator::sim::redis::{Options, RedisServer};
use tempfile::TempDir;

use super::fault::Fault;
use crate::it::support::stall_proxy::StallProxy;

pub(super) const REPLICAS: usize = 3;
pub(super) const MAX_RUNNERS: u32 = 9;
/// Three hosts of three: with one away the others are full at once.
const HOST_MAX_RUNNERS: u32 = 3;
/// Long enough for a host that is off the network for a while, short enough to be seen.
const LOST_AFTER_SECONDS: u64 = 60;
const EXECUTABLE: &str = env!("CARGO_BIN_EXE_runner-orchestrator");
/// A lease, a look, and a machine that is busy with three daemons.
const LEADER_WITHIN: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Fields are dropped in this order: replicas before the daemons they work on.
#[derive(Debug)]
pub(super) struct World {
    pub(super) replicas: Vec<Option<Replica>>,
    pub(super) lines: Vec<StallProxy>,
    pub(super) github: ModelledGitHub,
    pub(super) redis: RedisServer,
    _redis_dir: TempDir,
    pub(super) hosts: OwnHosts,
    pub(super) mark: ClusterMark,
    pub(super) take_overs: Vec<(&'static str, f64)>,
    pub(super) faults: BTreeMap<Fault, u32>,
    pub(super) max_seen: usize,
    pub(super) http: reqwest::Client,
    cluster: String,
}

impl World {
    pub(super) async fn build(seed: u64) -> Self {
        let cluster = fresh_cluster_name();
        let mark = ClusterMark::derive(&cluster);
        let executable = Path::new(EXECUTABLE);
        let pool = (&mark, MAX_RUNNERS);
        let hosts = OwnHosts::start(Some(executable), &cluster, 3, pool).await.unwrap();
        let github = ModelledGitHub::start(&model::Settings {
            executable: executable.to_owned(),
            address: hosts.gateway().to_owned(),
            device: Some(hosts.device().to_owned()),
            seed,
            lost_after_seconds: LOST_AFTER_SECONDS,
            log: log("github"),
        })
        .await
        .unwrap();
        let redis_dir = TempDir::new().unwrap();
        let kept = Options {
            dir: Some(redis_dir.path().to_owned()),
            sheltered: true,
            ..Options::default()
        };
        let redis = tokio::task::block_in_place(|| RedisServer::with(&kept)).unwrap();
        let mut world = Self {
            replicas: Vec::new(),
            lines: Vec::new(),
            github,
            redis,
            _redis_dir: redis_dir,
            hosts,
            mark,
            take_overs: Vec::new(),
            faults: BTreeMap::new(),
            max_seen: 0,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            cluster,
        };
        for number in 0..REPLICAS {
            world.lines.push(StallProxy::before(world.redis.address()).await);
            world.replicas.push(None);
            world.start(number).await;
        }
        world
    }

    pub(super) async fn start(&mut self, number: usize) {
        let engine = &self.hosts.engines()[number];
        let (max, host_max) = (MAX_RUNNERS.to_string(), HOST_MAX_RUNNERS.to_string());
        let env = [
            ("GITHUB_API_URL", format!("{}/api/v3", self.github.url).as_str()),
            ("GITHUB_TOKEN", TOKEN),
            ("GITHUB_REPO", REPO),
            ("CLUSTER_NAME", &self.cluster),
            ("CLUSTER_SECRET", "a secret of the chaos test".replace(' ', "-").as_str()),
            ("REDIS_URL", &format!("redis://{}/", self.lines[number].address)),
            ("DOCKER_HOST", engine.docker_host.as_deref().unwrap()),
            ("RUNNER_IMAGE", &engine.image),
            ("MIN_RUNNERS", "0"),
            ("MAX_RUNNERS", &max),
            ("HOST_MAX_RUNNERS", &host_max),
            ("SCALE_UP_THRESHOLD", "1"),
            ("SCALE_DOWN_THRESHOLD", "0"),
            ("POLL_INTERVAL", "1"),
            ("IDLE_TIMEOUT", "20"),
            ("LISTEN_ADDR", "127.0.0.1:0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        let plan = Plan {
            executable: PathBuf::from(EXECUTABLE),
            engine: "docker",
            env,
            log: log(&format!("orchestrator-{}", number + 1)),
        };
        self.replicas[number] = Some(Replica::start(&plan).await.unwrap());
    }

    /// kill -9.
    pub(super) async fn kill(&mut self, number: usize) {
        self.replicas[number].take().unwrap().program.kill().await.unwrap();
    }

    /// TERM, as a rolling update does; its runners stay.
    pub(super) async fn stop(&mut self, number: usize) {
        let replica = self.replicas[number].take().unwrap();
        assert!(replica.program.stop(Duration::from_secs(60)).await.unwrap(), "no good end");
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) {
        let pid = self.replicas[number].as_ref().and_then(|replica| replica.program.pid());
        let pid = Pid::from_raw(i32::try_from(pid.unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(super) fn struck(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Who leads now, waited for.
    pub(super) async fn leader(&self) -> usize {
        self.leader_but(None).await
    }

    /// Who leads, and one who does not.
    pub(super) async fn leader_and_other(&self, random: &mut Random) -> (usize, usize) {
        let leader = self.leader().await;
        (leader, (leader + 1 + random.below(REPLICAS - 1)) % REPLICAS)
    }

    /// Waits until another one leads, and notes how long that took.
    pub(super) async fn take_over(&mut self, from: usize, how: &'static str) {
        let begun = Instant::now();
        self.leader_but(Some(from)).await;
        self.take_overs.push((how, begun.elapsed().as_secs_f64()));
    }

    async fn leader_but(&self, not: Option<usize>) -> usize {
        let end = Instant::now() + LEADER_WITHIN;
        while Instant::now() < end {
            for (number, replica) in self.replicas.iter().enumerate() {
                let Some(replica) = replica.as_ref().filter(|_| Some(number) != not) else {
                    continue;
                };
                if replica.ask(&self.http).await.is_some_and(|said| said.leader) {
                    return number;
                }
            }
            sleep(LOOK_EVERY).await;
        }
        panic!("nobody leads after {LEADER_WITHIN:?}");
    }

    pub(super) async fn queue(&mut self, seconds: &[u32]) {
        self.github.queue(seconds).await.unwrap();
    }

    /// A few jobs of one to six seconds; how many.
    pub(super) async fn queue_some(&mut self, random: &mut Random) -> usize {
        let count = 5 + random.below(7);
        let seconds: Vec<u32> =
            (0..count).map(|_| 1 + u32::try_from(random.below(6)).unwrap()).collect();
        self.queue(&seconds).await;
        count
    }

    pub(super) async fn progress(&mut self) -> String {
        let state = self.github.state().await.unwrap();
        self.max_seen = self.max_seen.max(state.runners.len());
        let done = state.count(|job| job.status == "completed");
        let running = state.count(|job| job.status == "in_progress");
        format!("{done} of {} done, {running} running", state.jobs.len())
    }
}

/// Where the processes' messages are kept, when somebody asks for them.
fn log(name: &str) -> Option<PathBuf> {
    std::env::var_os("TEST_LOGS").map(|dir| Path::new(&dir).join(format!("chaos-{name}.log")))
}

//! A hundred Docker hosts as the store and GitHub see them: each has its lease, its reports
//! and its runners' registrations; no process and no container stands behind them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use runner_orchestrator::election::{self, Agency};
use runner_orchestrator::fleet::host::{Assigned, Capacity, HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::id::{
    BootId, ContainerId, GitHubRunnerId, HostId, ReplicaId, RepoName, RunnerId,
};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::fleet::runner::{RunnerPhase, RunnerRecord};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::github::{PlantedRunners, SimHandle};
use runner_orchestrator::store::{Store, Topic};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::cluster::{Redis, key};
use super::world::{REPO, TOKEN};

pub(crate) const HOSTS: usize = 100;
const RUNNERS_OF_A_HOST: u32 = 100;
/// Every host reports and every replica announces itself this often, as the product does.
const BEAT_EVERY: Duration = Duration::from_secs(5);
const ANNOUNCE_TTL: Duration = Duration::from_secs(15);
/// As many runners end a second as GitHub lets one installation register anew.
const ENDS_EVERY: Duration = Duration::from_millis(333);

/// How far they are, for whoever waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Runners that listen.
    pub(crate) listening: usize,
    /// Runners that have ended so far.
    pub(crate) ended: usize,
    /// Reports the store did not take in time; the next one of the host says the same.
    pub(crate) missed: usize,
}

/// All of them, driven by one task.
pub(crate) struct Hosts<'a> {
    store: Arc<dyn Store>,
    redis: &'a Redis,
    github: &'a SimHandle,
    http: reqwest::Client,
    agents: Vec<Agent>,
    /// The assignments' version taken in last.
    version: String,
    next_beat: usize,
    next_end: usize,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
    leases: JoinSet<()>,
}

/// One host and its agent.
struct Agent {
    record: HostRecord,
    announced: ReplicaRecord,
    agency: watch::Receiver<Option<Agency>>,
}

impl<'a> Hosts<'a> {
    /// Gets every lease and reports every host, without runners.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        redis: &'a Redis,
        github: &'a SimHandle,
        image: &str,
    ) -> anyhow::Result<Self> {
        let mut hosts = Self {
            store,
            redis,
            github,
            http: reqwest::Client::builder().no_proxy().user_agent("figures").build()?,
            agents: Vec::new(),
            version: "0".to_owned(),
            next_beat: 0,
            next_end: 0,
            progress: watch::Sender::default(),
            stop: CancellationToken::new(),
            leases: JoinSet::new(),
        };
        for number in 0..HOSTS {
            let (tell, mut agency) = watch::channel(None);
            let (replica, host) = (ReplicaId(Uuid::now_v7()), HostId(Uuid::new_v4()));
            let (store, stop) = (hosts.store.clone(), hosts.stop.clone());
            hosts.leases.spawn(election::serve(store, replica, host, tell, stop));
            agency.wait_for(Option::is_some).await?;
            let hostname = format!("host-{number:03}.example.internal");
            let record = record(replica, host, &hostname, image);
            let announced = announcement(replica, host, &hostname);
            hosts.agents.push(Agent { record, announced, agency });
            hosts.beat(number).await?;
        }
        Ok(hosts)
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Beats, starts what is assigned, and as long as `ends` says so ends runners at GitHub's
    /// pace. Goes on until it fails; dropping it gives nothing back.
    pub(crate) async fn run(mut self, ends: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut assignments = self.store.changes(Topic::Assignments);
        let mut beats = interval(BEAT_EVERY / u32::try_from(HOSTS)?);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended_at = Instant::now();
        let mut behind = false;
        loop {
            tokio::select! { biased;
                changed = assignments.changed() => {
                    changed?;
                    behind = true;
                }
                _ = beats.tick() => {
                    self.beat(self.next_beat).await?;
                    self.next_beat = (self.next_beat + 1) % HOSTS;
                }
            }
            // What the store did not answer in time is asked again with the next beat.
            if behind {
                behind = !self.take_assignments().await?;
            }
            if *ends.borrow() && ended_at.elapsed() >= ENDS_EVERY {
                ended_at = Instant::now();
                self.end_one().await?;
            }
        }
    }

    /// Reads the assignments that changed, and reports what came of each. `false`: the store
    /// did not answer for all of them.
    async fn take_assignments(&mut self) -> anyhow::Result<bool> {
        let changed = redis::cmd("ZRANGEBYSCORE")
            .arg(key("assignments:versions"))
            .arg(format!("({}", self.version))
            .arg("+inf")
            .arg("WITHSCORES")
            .clone();
        let changed: Vec<(String, String)> = self.redis.ask(&changed).await?;
        for (host, _) in &changed {
            let host: HostId = host.parse()?;
            let Some(number) = self.agents.iter().position(|agent| agent.record.host == host)
            else {
                // The leader's own.
                continue;
            };
            let Ok(assignment) = self.store.assignment(host).await else {
                self.progress.send_modify(|progress| progress.missed += 1);
                return Ok(false);
            };
            let agent = &mut self.agents[number];
            let at = now()?;
            for assigned in assignment.runners.values() {
                if let Entry::Vacant(place) = agent.record.runners.entry(assigned.id) {
                    let github = register(self.github, assigned)?;
                    place.insert(listening(assigned, github, at));
                    self.progress.send_modify(|progress| progress.listening += 1);
                }
            }
            agent.record.runners.retain(|id, runner| {
                !runner.phase.is_terminal() || assignment.runners.contains_key(id)
            });
            self.report(number).await?;
        }
        // Only now: many hosts have the version of one commit.
        if let Some((_, version)) = changed.into_iter().next_back() {
            self.version = version;
        }
        Ok(true)
    }

    /// Ends the oldest runner of the next host: GitHub forgets it, the host reports it.
    async fn end_one(&mut self) -> anyhow::Result<()> {
        let number = self.next_end;
        self.next_end = (self.next_end + 1) % HOSTS;
        let at = now()?;
        let mut runners = self.agents[number].record.runners.values_mut();
        let Some(runner) = runners.find(|runner| !runner.phase.is_terminal()) else {
            return Ok(());
        };
        runner.phase = RunnerPhase::Ended { at, ran_job: Some(true), exit_code: 0, oom: false };
        let id = runner.github_id.context("it was never registered")?;
        let url = format!("{}/repos/{REPO}/actions/runners/{id}", self.github.api_url());
        self.http.delete(url).bearer_auth(TOKEN).send().await?.error_for_status()?;
        self.progress.send_modify(|progress| {
            progress.listening -= 1;
            progress.ended += 1;
        });
        self.report(number).await
    }

    async fn beat(&mut self, number: usize) -> anyhow::Result<()> {
        self.report(number).await?;
        let announced = self.agents[number].announced.clone();
        let told = self.store.announce(announced, ANNOUNCE_TTL).await.is_ok();
        self.progress.send_modify(|progress| progress.missed += usize::from(!told));
        Ok(())
    }

    async fn report(&mut self, number: usize) -> anyhow::Result<()> {
        let agent = &mut self.agents[number];
        agent.record.seq += 1;
        agent.record.at = now()?;
        let agency = agent.agency.borrow().clone();
        let told = match agency {
            Some(agency) => self.store.report(&agency, agent.record.clone()).await.is_ok(),
            None => false,
        };
        self.progress.send_modify(|progress| progress.missed += usize::from(!told));
        Ok(())
    }
}

/// The machine's time, in step with the store's on the same machine.
fn now() -> anyhow::Result<Timestamp> {
    let since = std::time::UNIX_EPOCH.elapsed()?;
    Ok(Timestamp(u64::try_from(since.as_millis())?))
}

fn record(replica: ReplicaId, host: HostId, hostname: &str, image: &str) -> HostRecord {
    HostRecord {
        version: RECORD_VERSION,
        host,
        boot: BootId(Uuid::now_v7()),
        replica,
        seq: 0,
        at: Timestamp::default(),
        hostname: hostname.to_owned(),
        docker_version: Some("28.5.2".to_owned()),
        docker_up: true,
        stopping: false,
        max_runners: RUNNERS_OF_A_HOST,
        images: [image.to_owned()].into(),
        runners: BTreeMap::new(),
        refused: BTreeMap::new(),
        capacity: Capacity {
            cpus: Some(64),
            memory_bytes: Some(256 << 30),
            disk_free_bytes: Some(900 << 30),
            architecture: Some("x86_64".to_owned()),
        },
    }
}

fn announcement(replica: ReplicaId, host: HostId, hostname: &str) -> ReplicaRecord {
    ReplicaRecord {
        version: RECORD_VERSION,
        replica,
        hostname: hostname.to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        advertise: Some(format!("http://{hostname}:8080")),
        host: Some(host),
        agent: true,
        started_at: Timestamp::default(),
        clock: Timestamp::default(),
        at: Timestamp::default(),
        secret_fingerprint: Some("01234567".to_owned()),
        pools_fingerprint: "0123456789abcdef".to_owned(),
    }
}

/// Its registration, online from now on.
fn register(github: &SimHandle, assigned: &Assigned) -> anyhow::Result<GitHubRunnerId> {
    let planted = PlantedRunners {
        name_prefix: assigned.name.as_str().to_owned(),
        labels: vec!["self-hosted".to_owned(), "linux".to_owned()],
        status: "online".to_owned(),
        repo: Some(REPO.to_owned()),
        ..PlantedRunners::default()
    };
    let ids = github.sim().plant_runners(&planted)?;
    Ok(GitHubRunnerId(ids.first().context("not registered")?.0))
}

fn listening(assigned: &Assigned, github: GitHubRunnerId, at: Timestamp) -> RunnerRecord {
    RunnerRecord {
        id: assigned.id,
        name: assigned.name.clone(),
        pool: assigned.pool.clone(),
        phase: RunnerPhase::Listening { since: at },
        container: Some(container(assigned.id)),
        github_id: Some(github),
        assigned_at: assigned.at,
        listened_at: Some(at),
        revision: assigned.revision.clone(),
        correlation: assigned.correlation.clone(),
        retiring: None,
        retire_blocked_until: None,
        adopted: false,
        scope: Some(Scope::Repo(RepoName(REPO.to_owned()))),
    }
}

/// 64 digits, as Docker's are.
fn container(runner: RunnerId) -> ContainerId {
    let id = runner.0.simple();
    ContainerId(format!("{id}{id}"))
}

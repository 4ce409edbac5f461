//! What one seed means: the fleet, the work, the faults, and when each happens.

use std::collections::BTreeMap;
use std::time::Duration;

use runner_orchestrator::fleet::id::RepoName;
use runner_orchestrator::fleet::pool::{Pool, Resources, Scope};
use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};
use runner_orchestrator::sim::github::Fault as GitHubFault;
use runner_orchestrator::sim::random::Random;

use super::gate::{Moment, Point};
use super::store::Trouble;
use super::world::{IMAGE, REPO};

const MINT: &str = "POST /repos/{owner}/{repo}/actions/runners/generate-jitconfig";

/// The fleet.
#[derive(Clone)]
pub(super) struct Layout {
    pub(super) replicas: usize,
    pub(super) daemons: usize,
    pub(super) host_max: u32,
    /// The machines' clocks are up to twenty seconds apart.
    pub(super) clocks_differ: bool,
    /// A replica that is told to stop drains its host; else it leaves its runners.
    pub(super) drains: bool,
    pub(super) pools: Vec<Pool>,
}

/// Whom a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    Leader,
    Replica(usize),
    Everybody,
}

/// One thing that goes wrong, from its beginning to its end.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Fault {
    Kill(Who),
    /// Dies in the middle of its next such step.
    DieAt(Who, Point, Moment),
    Pause(Who),
    Stop(Who),
    Store(Who, Trouble),
    Flush,
    Docker(usize, Operation, DockerFault),
    DaemonAway(usize),
    /// A host without network, its runners included.
    HostLost(usize),
    GitHub(GitHubFault),
}

impl Fault {
    /// The name the whole run must have met.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "fault: a process was killed",
            Self::DieAt(..) => "fault: a process was to die at a chosen step",
            Self::Pause(_) => "fault: a process was stopped past its lease",
            Self::Stop(_) => "fault: a process was told to stop",
            Self::Store(Who::Everybody, _) => "fault: the store was away for everybody",
            Self::Store(_, Trouble::Unreachable) => "fault: store unreachable",
            Self::Store(_, Trouble::BlackHole) => "fault: store requests lost",
            Self::Store(_, Trouble::OneWay) => "fault: store answers lost",
            Self::Store(_, Trouble::Flaky) => "fault: store flaky",
            Self::Store(_, Trouble::Slow) => "fault: store slow",
            Self::Store(_, Trouble::ReadOnly) => "fault: store read-only",
            Self::Flush => "fault: the store was emptied",
            Self::Docker(_, _, DockerFault::Refuse { .. }) => "fault: docker refused",
            Self::Docker(_, _, DockerFault::Unreachable) => "fault: docker unreachable",
            Self::Docker(_, _, DockerFault::DropAnswer) => "fault: docker answers lost",
            Self::Docker(_, _, DockerFault::Hang) => "fault: docker hung",
            Self::DaemonAway(_) => "fault: a daemon was away",
            Self::HostLost(_) => "fault: a host was lost",
            Self::GitHub(fault) if fault.drop_response => "fault: github answers lost",
            Self::GitHub(fault) if fault.stale_seconds.is_some() => "fault: github lists stale",
            Self::GitHub(fault) if fault.latency_ms.is_some() => "fault: github slow",
            Self::GitHub(fault) if fault.status == Some(429) => "fault: github limits",
            Self::GitHub(_) => "fault: github fails",
        }
    }

    /// Every name, for the list of what a whole run must have met.
    pub(super) const NAMES: [&'static str; 21] = [
        "fault: a process was killed",
        "fault: a process was to die at a chosen step",
        "fault: a process was stopped past its lease",
        "fault: a process was told to stop",
        "fault: the store was away for everybody",
        "fault: store unreachable",
        "fault: store requests lost",
        "fault: store answers lost",
        "fault: store flaky",
        "fault: store slow",
        "fault: store read-only",
        "fault: the store was emptied",
        "fault: docker refused",
        "fault: docker unreachable",
        "fault: docker answers lost",
        "fault: docker hung",
        "fault: a daemon was away",
        "fault: a host was lost",
        "fault: github answers lost",
        "fault: github lists stale",
        "fault: github slow",
    ];
}

/// What an operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    ScaleUp(usize, u32),
    ScaleDown(usize, u32),
    Drain(usize),
    Undrain(usize),
    DrainReplica(usize),
    UndrainReplica(usize),
    Pause(usize),
    Resume(usize),
    Freeze,
    Unfreeze,
    /// The n-th of the living runners, if there are so many.
    Delete(usize),
}

/// Something that happens at its time.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Deed {
    Jobs(usize, Vec<f64>),
    Ask(Request),
    Begin(usize),
    End(usize),
}

/// A whole run.
pub(super) struct Script {
    pub(super) layout: Layout,
    pub(super) faults: Vec<Fault>,
    pub(super) deeds: BTreeMap<(u64, u32), Deed>,
    pub(super) length: Duration,
    /// When jobs come: most faults strike while they run.
    bursts: Vec<u64>,
}

impl Script {
    /// The run of a seed. Every tenth is ten modelled minutes with five faults or more,
    /// the others two minutes with two.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let long = seed.is_multiple_of(10);
        let layout = Layout::drawn(&mut random);
        let length = Duration::from_secs(if long { 600 } else { 120 });
        let mut script =
            Self { layout, faults: Vec::new(), deeds: BTreeMap::new(), length, bursts: Vec::new() };
        script.work(&mut random, long);
        let faults = if long { 5 + random.below(4) } else { 2 };
        for _ in 0..faults {
            let (fault, lasts_ms) = script.fault(&mut random);
            let latest = script.length_ms() - 30_000;
            let begin = if random.chance(0.3) {
                3_000 + random.below(latest) as u64
            } else {
                one_of(&mut random, &script.bursts) + random.below(12_000) as u64
            };
            script.break_something(begin, lasts_ms, fault);
        }
        script
    }

    /// A run without any fault or work, to be filled in by hand.
    pub(super) fn quiet(layout: Layout, length: Duration) -> Self {
        Self { layout, faults: Vec::new(), deeds: BTreeMap::new(), length, bursts: Vec::new() }
    }

    /// A fault from `begin` on, for so long.
    pub(super) fn break_something(&mut self, begin: u64, lasts_ms: u64, fault: Fault) {
        let index = self.faults.len();
        self.faults.push(fault);
        self.at(begin, Deed::Begin(index));
        self.at(begin + lasts_ms, Deed::End(index));
    }

    pub(super) fn at(&mut self, ms: u64, deed: Deed) {
        let number = u32::try_from(self.deeds.len()).unwrap();
        self.deeds.insert((ms, number), deed);
    }

    fn length_ms(&self) -> usize {
        usize::try_from(self.length.as_millis()).unwrap()
    }

    fn work(&mut self, random: &mut Random, long: bool) {
        let bursts = if long { 12 } else { 4 };
        for _ in 0..bursts {
            let pool = random.below(self.layout.pools.len());
            let jobs = 1 + random.below(8);
            let durations =
                (0..jobs).map(|_| f64::from(1 + u8::try_from(random.below(50)).unwrap()) / 3.0);
            let durations = durations.collect();
            let at = 1_000 + random.below(self.length_ms() * 3 / 4) as u64;
            self.bursts.push(at);
            self.at(at, Deed::Jobs(pool, durations));
        }
        let requests = if long { 3 } else { random.below(2) };
        for _ in 0..requests {
            self.request(random);
        }
    }

    fn request(&mut self, random: &mut Random) {
        let pool = random.below(self.layout.pools.len());
        let daemon = random.below(self.layout.daemons);
        let begin = 1_000 + random.below(self.length_ms() * 3 / 4) as u64;
        let end = begin + 5_000 + random.below(40_000) as u64;
        let count = 1 + u32::try_from(random.below(3)).unwrap();
        let replica = random.below(self.layout.replicas);
        let (first, then) = match random.below(7) {
            0 => (Request::ScaleUp(pool, count), None),
            1 => (Request::ScaleDown(pool, count), None),
            2 => (Request::Drain(daemon), Some(Request::Undrain(daemon))),
            3 => (Request::Pause(pool), Some(Request::Resume(pool))),
            4 => (Request::Freeze, Some(Request::Unfreeze)),
            5 => (Request::DrainReplica(replica), Some(Request::UndrainReplica(replica))),
            _ => (Request::Delete(random.below(6)), None),
        };
        self.at(begin, Deed::Ask(first));
        if let Some(then) = then {
            self.at(end, Deed::Ask(then));
        }
    }

    /// A fault and how long it lasts, in milliseconds.
    fn fault(&self, random: &mut Random) -> (Fault, u64) {
        let who = if random.chance(0.5) {
            Who::Leader
        } else {
            Who::Replica(random.below(self.layout.replicas))
        };
        let daemon = random.below(self.layout.daemons);
        let mut seconds = |least: u64, most: u64| {
            let span = usize::try_from((most - least) * 1_000).unwrap();
            least * 1_000 + random.below(span) as u64
        };
        let (short, lease, long) = (seconds(1, 25), seconds(5, 20), seconds(50, 90));
        let lasts = if random.chance(0.2) { long } else { short };
        match random.below(13) {
            0 => (Fault::Kill(who), lasts),
            1 | 2 => (Fault::DieAt(who, point(random), moment(random)), short),
            3 => (Fault::Pause(who), lease),
            4 => (Fault::Stop(who), 35_000),
            5 | 6 => (Fault::Store(who, trouble(random)), lasts),
            7 => (Fault::Store(Who::Everybody, Trouble::Unreachable), lasts),
            8 => (Fault::Flush, 0),
            9 => {
                let (operation, fault) = docker_fault(random);
                (Fault::Docker(daemon, operation, fault), 20_000)
            }
            10 => (Fault::DaemonAway(daemon), lasts),
            11 => (Fault::HostLost(daemon), lasts),
            _ => (Fault::GitHub(github_fault(random)), short),
        }
    }
}

impl Layout {
    fn drawn(random: &mut Random) -> Self {
        let mut pools = vec![pool("default", &["self-hosted", "linux"])];
        if random.chance(0.5) {
            pools.push(pool("large", &["self-hosted", "linux", "large"]));
        }
        for pool in &mut pools {
            pool.min_runners = u32::try_from(random.below(3)).unwrap();
            pool.max_runners = 4 + u32::try_from(random.below(6)).unwrap();
        }
        Self {
            replicas: 3,
            // Sometimes the third replica stands by for the first one's daemon.
            daemons: if random.chance(0.25) { 2 } else { 3 },
            clocks_differ: random.chance(0.25),
            host_max: 3 + u32::try_from(random.below(4)).unwrap(),
            drains: random.chance(0.3),
            pools,
        }
    }

    /// Three replicas, a daemon each, one pool.
    pub(super) fn plain() -> Self {
        let pools = vec![pool("default", &["self-hosted", "linux"])];
        Self { replicas: 3, daemons: 3, clocks_differ: false, host_max: 6, drains: false, pools }
    }
}

/// A pool of the simulated fleet.
fn pool(name: &str, labels: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        scope: Scope::Repo(RepoName::from(REPO)),
        labels: labels.iter().copied().collect(),
        image: IMAGE.to_owned(),
        command: None,
        runner_group_id: 1,
        resources: Resources::default(),
        min_runners: 0,
        max_runners: 8,
        min_idle_runners: 0,
        scale_up_threshold: 1,
        scale_down_threshold: 0,
        scale_up_max_wait: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(10),
        start_deadline: Duration::from_secs(40),
        weight: 1,
        priority: 0,
        revision: "1".to_owned(),
    }
}

fn one_of<T: Clone>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len())].clone()
}

fn point(random: &mut Random) -> Point {
    use Point::{Acquire, Commit, Create, Deregister, Mint, Remove, Report, Start};
    // The leader's write is the step that matters most.
    one_of(random, &[Commit, Commit, Report, Acquire, Create, Start, Remove, Mint, Deregister])
}

fn moment(random: &mut Random) -> Moment {
    one_of(random, &[Moment::Before, Moment::After])
}

fn trouble(random: &mut Random) -> Trouble {
    use Trouble::{BlackHole, Flaky, OneWay, ReadOnly, Slow, Unreachable};
    one_of(random, &[Unreachable, BlackHole, OneWay, Flaky, Flaky, Slow, ReadOnly])
}

fn docker_fault(random: &mut Random) -> (Operation, DockerFault) {
    use Operation::{Attach, Containers, Create, Events, Network, Remove, Start, State, Stop};
    let operation = one_of(
        random,
        &[Attach, Containers, Create, Create, Events, Network, Remove, Start, Start, State, Stop],
    );
    let refuse = DockerFault::Refuse { status: 500, message: "no".to_owned() };
    let faults = [
        refuse,
        DockerFault::Unreachable,
        DockerFault::DropAnswer,
        DockerFault::DropAnswer,
        DockerFault::Hang,
    ];
    (operation, one_of(random, &faults))
}

fn github_fault(random: &mut Random) -> GitHubFault {
    let any =
        || GitHubFault { route: "*".to_owned(), probability: Some(0.4), ..Default::default() };
    let route = one_of(random, &[MINT, "DELETE *", "GET *"]).to_owned();
    match random.below(6) {
        0 => GitHubFault { status: Some(502), ..any() },
        1 => GitHubFault { status: Some(429), retry_after: Some(8), count: Some(4), ..any() },
        2 => GitHubFault { latency_ms: Some(3_000), ..any() },
        3 => GitHubFault { route: "GET *".to_owned(), stale_seconds: Some(15), ..any() },
        4 => GitHubFault { route, drop_response: true, ..any() },
        _ => GitHubFault { route, truncate: true, ..any() },
    }
}

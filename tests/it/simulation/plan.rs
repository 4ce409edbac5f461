//! What one seed means: the fleet, the work, the faults, and when each happens.

use std::collections::BTreeMap;
use std::time::Duration;

use runner_orchestrator::fleet::id::RepoName;
use runner_orchestrator::fleet::pool::{InnerDocker, Pool, Resources, Scope};
use runner_orchestrator::sim::random::Random;

use super::fault::Fault;
use super::world::{IMAGE, REPO};

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
    /// This replica is of the release before: it knows one record version less.
    pub(super) older: Option<usize>,
    pub(super) pools: Vec<Pool>,
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
    /// The n-th of the living runners, if there are so many; by force or not.
    Delete(usize, bool),
    /// The last delete once more, as an operator does who saw no answer.
    DeleteAgain,
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
            let (fault, lasts) = Fault::drawn(&script.layout, &mut random);
            let latest = script.length_ms() - 30_000;
            let begin = if random.chance(0.3) {
                3_000 + random.below(latest) as u64
            } else {
                one_of(&mut random, &script.bursts) + random.below(12_000) as u64
            };
            let lasts_ms = u64::try_from(lasts.as_millis()).unwrap();
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
        let (first, then) = match random.below(8) {
            0 => (Request::ScaleUp(pool, count), None),
            1 => (Request::ScaleDown(pool, count), None),
            2 => (Request::Drain(daemon), Some(Request::Undrain(daemon))),
            3 => (Request::Pause(pool), Some(Request::Resume(pool))),
            4 => (Request::Freeze, Some(Request::Unfreeze)),
            5 => (Request::DrainReplica(replica), Some(Request::UndrainReplica(replica))),
            6 => (Request::Delete(random.below(6), false), Some(Request::DeleteAgain)),
            _ => (Request::Delete(random.below(6), true), Some(Request::DeleteAgain)),
        };
        self.at(begin, Deed::Ask(first));
        if let Some(then) = then {
            self.at(end, Deed::Ask(then));
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
            older: random.chance(0.2).then(|| random.below(3)),
            pools,
        }
    }

    /// Three replicas, a daemon each, one pool.
    pub(super) fn plain() -> Self {
        let pools = vec![pool("default", &["self-hosted", "linux"])];
        Self {
            replicas: 3,
            daemons: 3,
            clocks_differ: false,
            host_max: 6,
            drains: false,
            older: None,
            pools,
        }
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
        docker: InnerDocker::None,
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

pub(super) fn one_of<T: Clone>(random: &mut Random, all: &[T]) -> T {
    all[random.below(all.len())].clone()
}

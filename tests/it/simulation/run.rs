//! One seed, from its first moment to the calm after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::fleet::id::IntentId;
use runner_orchestrator::fleet::intent::{Intent, Wish};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::sim::github::NewJobs;
use runner_orchestrator::store::Store;
use tokio::time::Instant;

use super::clock::EPOCH_MS;
use super::invariants::Invariants;
use super::plan::{Deed, Fault, Request, Script, Who};
use super::world::{REPO, World};

/// Every invariant is checked this often.
const STEP: Duration = Duration::from_millis(100);
/// And in the calm, when nothing goes wrong any more.
const CALM_STEP: Duration = Duration::from_millis(500);
/// Everything has healed within this time after the last fault.
const CALM_WITHIN: Duration = Duration::from_secs(600);
/// Twenty turns of the slowest loop without any change.
const QUIET: Duration = Duration::from_secs(20);
/// How often one Docker call of a kind fails.
const DOCKER_TIMES: u32 = 3;

/// What came of a seed.
pub(super) struct Outcome {
    pub(super) seed: u64,
    pub(super) violations: Vec<String>,
    pub(super) tail: Vec<String>,
    pub(super) trace: (u64, u64),
    pub(super) situations: BTreeSet<&'static str>,
    pub(super) faults: Vec<String>,
    pub(super) modelled: Duration,
}

/// A run under way.
struct Run {
    world: World,
    script: Script,
    invariants: Invariants,
    /// Whom each fault that has begun struck.
    struck: BTreeMap<usize, usize>,
    began: Instant,
    asked: u128,
}

/// Runs a script to its end.
pub(super) async fn run(seed: u64, script: Script, verbose: bool) -> Outcome {
    let layout = script.layout.clone();
    let mut run = Run {
        world: World::new(seed, layout, verbose).await,
        script,
        invariants: Invariants::default(),
        struck: BTreeMap::new(),
        began: Instant::now(),
        asked: 0,
    };
    run.storm().await;
    if run.holds() {
        run.calm().await;
    }
    let witness = &run.world.witness;
    Outcome {
        seed,
        violations: witness.violations(),
        tail: witness.tail(),
        trace: witness.trace(),
        situations: witness.situations(),
        faults: run.script.faults.iter().map(|fault| format!("{fault:?}")).collect(),
        modelled: run.began.elapsed(),
    }
}

impl Run {
    fn holds(&self) -> bool {
        self.world.witness.violations().is_empty()
    }

    /// Work and faults as the script has them.
    async fn storm(&mut self) {
        for replica in 0..self.world.replicas.len() {
            self.world.start(replica);
        }
        let mut deeds: Vec<_> = std::mem::take(&mut self.script.deeds).into_iter().collect();
        deeds.reverse();
        while self.began.elapsed() < self.script.length && self.holds() {
            tokio::time::sleep(STEP).await;
            let now = self.began.elapsed().as_millis();
            while deeds.last().is_some_and(|((at, _), _)| u128::from(*at) <= now) {
                if let Some((_, deed)) = deeds.pop() {
                    self.carry_out(deed).await;
                }
            }
            self.check().await;
        }
    }

    async fn check(&mut self) {
        self.world.tend();
        self.invariants.check(&self.world).await;
    }

    /// Everything heals; within a bound the work is done and nothing moves any more.
    async fn calm(&mut self) {
        self.world.witness.note("world: calm");
        self.heal();
        let begun = Instant::now();
        loop {
            tokio::time::sleep(CALM_STEP).await;
            self.check().await;
            for replica in 0..self.world.replicas.len() {
                self.world.start(replica);
            }
            if !self.holds() {
                return;
            }
            self.undo_requests().await;
            let unsettled = self.invariants.unsettled(&self.world).await;
            if unsettled.is_none() && self.world.witness.quiet_for() >= QUIET {
                break;
            }
            if begun.elapsed() > CALM_WITHIN {
                let why = unsettled.unwrap_or_else(|| "something is changed for ever".to_owned());
                self.world.witness.violated("11-14", format_args!("not settled: {why}"));
                return;
            }
        }
        self.invariants.at_the_end(&self.world).await;
    }

    fn heal(&mut self) {
        self.world.github.clear_faults();
        for replica in 0..self.world.replicas.len() {
            self.world.replicas[replica].link.set(None);
            self.world.go_on(replica);
        }
        for (daemon, uplink) in self.world.daemons.iter().zip(&self.world.uplinks) {
            daemon.clear_faults();
            daemon.set_reachable(true);
            uplink.set(true);
        }
        self.world.witness.outage(false);
    }

    async fn carry_out(&mut self, deed: Deed) {
        match deed {
            Deed::Jobs(pool, durations) => self.post(pool, durations),
            Deed::Ask(request) => self.ask(request).await,
            Deed::Begin(index) => self.begin(index),
            Deed::End(index) => self.end(index),
        }
    }

    fn post(&self, pool: usize, durations: Vec<f64>) {
        let labels = self.world.layout.pools[pool].labels.iter().map(str::to_owned).collect();
        self.world.witness.note(format_args!("github: {} jobs", durations.len()));
        let jobs = NewJobs {
            count: durations.len(),
            labels,
            durations,
            repo: Some(REPO.to_owned()),
            ..NewJobs::default()
        };
        self.world.github.post_jobs(&jobs).unwrap();
    }

    async fn ask(&mut self, request: Request) {
        let name = |pool: usize| self.world.layout.pools[pool].name.clone();
        let host = |daemon: usize| self.world.witness.host_of(daemon);
        let process = |index: usize| self.world.process(index);
        let living = || {
            let daemons = 0..self.world.daemons.len();
            daemons.flat_map(|daemon| self.world.living(daemon)).map(|spec| spec.runner)
        };
        let wish = match request {
            Request::ScaleUp(pool, count) => Some(Wish::ScaleUp { pool: name(pool), count }),
            Request::ScaleDown(pool, count) => Some(Wish::ScaleDown { pool: name(pool), count }),
            Request::Pause(pool) => Some(Wish::Pause { pool: name(pool) }),
            Request::Resume(pool) => Some(Wish::Resume { pool: name(pool) }),
            Request::Drain(daemon) => host(daemon).map(|host| Wish::Drain { host }),
            Request::Undrain(daemon) => host(daemon).map(|host| Wish::Undrain { host }),
            Request::DrainReplica(index) => {
                if self.world.leader() == Some(index) {
                    self.world.witness.reached("the leader was drained");
                }
                process(index).map(|replica| Wish::DrainReplica { replica })
            }
            Request::UndrainReplica(index) => {
                process(index).map(|replica| Wish::UndrainReplica { replica })
            }
            Request::Freeze => Some(Wish::Freeze),
            Request::Unfreeze => Some(Wish::Unfreeze),
            Request::Delete(n) => {
                living().nth(n).map(|runner| Wish::Delete { runner, force: false })
            }
        };
        if let Some(wish) = wish {
            self.world.witness.note(format_args!("operator: {wish:?}"));
            self.record(wish).await;
        }
    }

    async fn record(&mut self, wish: Wish) {
        self.asked += 1;
        let at = Timestamp(EPOCH_MS) + self.began.elapsed();
        let id = IntentId(uuid::Uuid::from_u128(0x0A5C_ED00 + self.asked));
        // A full list of intents is an answer like another: the operator asks again.
        let _ = self.world.store.record(Intent { id, at, wish }).await;
    }

    /// The operator takes back what still holds the fleet.
    async fn undo_requests(&mut self) {
        let Ok(snapshot) = self.world.store.snapshot().await else { return };
        if !snapshot.intents.is_empty() {
            return;
        }
        let mut wishes: Vec<Wish> = Vec::new();
        wishes.extend(snapshot.operator.frozen_since.map(|_| Wish::Unfreeze));
        wishes.extend(snapshot.operator.paused.into_iter().map(|pool| Wish::Resume { pool }));
        wishes.extend(snapshot.operator.draining.into_iter().map(|host| Wish::Undrain { host }));
        let drained = snapshot.operator.draining_replicas.into_iter();
        wishes.extend(drained.map(|replica| Wish::UndrainReplica { replica }));
        for wish in wishes {
            self.record(wish).await;
        }
    }

    fn resolve(&self, who: Who) -> usize {
        match who {
            Who::Leader => self.world.leader().unwrap_or(0),
            Who::Replica(index) => index,
            Who::Everybody => 0,
        }
    }

    fn begin(&mut self, index: usize) {
        let fault = self.script.faults[index].clone();
        let world = &mut self.world;
        world.witness.note(format_args!("world: {fault:?}"));
        world.witness.reached(fault.name());
        match fault {
            Fault::Kill(who) | Fault::DieAt(who, ..) | Fault::Pause(who) | Fault::Stop(who) => {
                let replica = self.resolve(who);
                self.struck.insert(index, replica);
                if self.world.leader() == Some(replica) {
                    self.world.witness.reached("a process fault struck the leader");
                }
                self.strike(&fault, replica);
            }
            Fault::Store(Who::Everybody, trouble) => {
                world.witness.outage(true);
                for replica in &world.replicas {
                    replica.link.set(Some(trouble));
                }
            }
            Fault::Store(who, trouble) => {
                let replica = self.resolve(who);
                self.struck.insert(index, replica);
                self.world.replicas[replica].link.set(Some(trouble));
            }
            Fault::Flush => {
                world.store.flush();
                world.witness.emptied();
                self.invariants.emptied();
            }
            Fault::Docker(daemon, operation, fault) => {
                world.daemons[daemon].fail(operation, fault, DOCKER_TIMES);
            }
            Fault::DaemonAway(daemon) => world.daemons[daemon].set_reachable(false),
            Fault::HostLost(daemon) => {
                world.uplinks[daemon].set(false);
                self.invariants.cut_off(&self.world, daemon);
                for replica in &self.world.replicas {
                    if replica.daemon == daemon {
                        replica.link.set(Some(super::store::Trouble::BlackHole));
                    }
                }
            }
            Fault::GitHub(fault) => world.github.add_fault(fault).unwrap(),
        }
    }

    /// Something befalls one process.
    fn strike(&mut self, fault: &Fault, replica: usize) {
        let life = self.world.replicas[replica].life.as_ref();
        match fault {
            Fault::Kill(_) => self.world.kill(replica),
            Fault::Stop(_) => self.world.stop(replica),
            Fault::Pause(_) => {
                if let Some(life) = life {
                    life.gate.stop();
                }
            }
            Fault::DieAt(_, point, moment) => {
                if let Some(life) = life {
                    life.gate.die_at(*point, *moment);
                }
            }
            _ => (),
        }
    }

    fn end(&mut self, index: usize) {
        let fault = self.script.faults[index].clone();
        let struck = self.struck.get(&index).copied();
        self.world.witness.note(format_args!("world: over: {fault:?}"));
        let world = &mut self.world;
        match fault {
            Fault::Kill(_) | Fault::DieAt(..) | Fault::Stop(_) => {
                if let Some(replica) = struck {
                    world.start(replica);
                }
            }
            Fault::Pause(_) => {
                if let Some(replica) = struck {
                    world.go_on(replica);
                }
            }
            Fault::Store(Who::Everybody, _) => {
                world.witness.outage(false);
                for replica in &world.replicas {
                    replica.link.set(None);
                }
            }
            Fault::Store(..) => {
                if let Some(replica) = struck {
                    world.replicas[replica].link.set(None);
                }
            }
            Fault::Flush => (),
            Fault::Docker(daemon, ..) => world.daemons[daemon].clear_faults(),
            Fault::DaemonAway(daemon) => world.daemons[daemon].set_reachable(true),
            Fault::HostLost(daemon) => {
                world.uplinks[daemon].set(true);
                for replica in world.replicas.iter().filter(|r| r.daemon == daemon) {
                    replica.link.set(None);
                }
            }
            Fault::GitHub(_) => world.github.clear_faults(),
        }
    }
}

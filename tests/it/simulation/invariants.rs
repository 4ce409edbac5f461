//! The rules that are checked between effects: after every step, and when all is calm.
//! Each is named after its number in the test plan of the coordination.
//!
//! Those of a single effect are judged where it happens: 1, 2, 7 to 10, 17, 19, 21 and 23 by
//! the witness. 20 has a file of its own. 11 to 14, 18 and 26 are what "settled" means: work
//! done, nothing left over, records true, no change any more, without a restart by hand. 25
//! is all of them in the runs in which one replica is of the release before. The product
//! takes no webhooks: 15 is the property test of the order of learning, 16 says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::docker::ContainerState;
use runner_orchestrator::fleet::id::{PoolName, RunnerName};
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::store::Store;
use tokio::time::Instant;

use super::shown::Shown;
use super::world::{CANARY, STRANGER, World, mark};

/// A lease (5 s), 1.5 s, a turn of the new leader by which it is seen, and some steps.
const LEADER_WITHIN: Duration = Duration::from_secs(8);
/// A leader of an emptied store learns of it by its next renewal.
const AFTER_FLUSH: Duration = Duration::from_secs(4);
/// From here on the rule calls a host lost, and places its runners elsewhere.
const LOST_AFTER: Duration = Duration::from_secs(45);

/// Containers are counted after a step in which anything happened, and this often besides.
const ROOM_EVERY: u64 = 10;
/// The store is searched for secrets this often: it is all written out for that.
const SECRETS_EVERY: u64 = 300;

/// What is remembered between steps.
#[derive(Default)]
pub(super) struct Invariants {
    emptied_at: Option<Instant>,
    led_at: Option<Instant>,
    /// When some answers were lost by chance last.
    flaky_at: Option<Instant>,
    well_since: BTreeMap<usize, Instant>,
    /// Runners on hosts silent so long that the rule has placed others for them.
    written_off: BTreeSet<RunnerName>,
    /// Runners whose host lost its network while they lived: GitHub may have lost them.
    cut_off: BTreeSet<RunnerName>,
    checks: u64,
    /// How many events there were when containers were last counted.
    events: u64,
    pub(super) shown: Shown,
}

impl Invariants {
    pub(super) fn emptied(&mut self) {
        self.emptied_at = Some(Instant::now());
    }

    pub(super) fn cut_off(&mut self, world: &World, daemon: usize) {
        self.cut_off.extend(world.living(daemon).into_iter().map(|spec| spec.name.clone()));
    }

    /// After every step.
    pub(super) async fn check(&mut self, world: &World) {
        self.one_leader(world);
        self.a_leader(world);
        let events = world.witness.trace().1;
        if self.events != events || self.checks.is_multiple_of(ROOM_EVERY) {
            self.events = events;
            self.room(world);
        }
        self.shown.check(world);
        self.checks += 1;
        if self.checks.is_multiple_of(SECRETS_EVERY) {
            no_secret(world).await;
        }
    }

    /// 3: at most one replica believes to lead.
    fn one_leader(&self, world: &World) {
        let leading = world.witness.leading();
        let just_emptied = self.emptied_at.is_some_and(|at| at.elapsed() < AFTER_FLUSH);
        if leading.len() > 1 && !just_emptied {
            world.witness.violated("3", format_args!("leading at once: {leading:?}"));
        }
    }

    /// 4: where a replica is well, somebody leads before long.
    fn a_leader(&mut self, world: &World) {
        let now = Instant::now();
        for index in 0..world.replicas.len() {
            if world.is_well(index) {
                self.well_since.entry(index).or_insert(now);
            } else {
                self.well_since.remove(&index);
            }
        }
        let leads = (!world.witness.leading().is_empty()).then_some(now);
        self.led_at = self.led_at.max(leads).max(world.witness.led_at());
        // Answers lost by chance may be lost several times in a row, and what arrives late
        // keeps the lease for one who does not hear of it, also when that is just over.
        if world.replicas.iter().any(|it| it.life.is_some() && it.link.is_flaky()) {
            self.flaky_at = Some(now);
        }
        let flaky = self.flaky_at.is_some_and(|at| at.elapsed() < LEADER_WITHIN);
        let within = if flaky { 2 * LEADER_WITHIN } else { LEADER_WITHIN };
        let Some(well_since) = self.well_since.values().min() else { return };
        let since = self.led_at.map_or(*well_since, |led_at| led_at.max(*well_since));
        if since.elapsed() > within {
            world.witness.violated("4", "nobody leads although a replica reaches the store");
            self.led_at = Some(now);
        }
    }

    /// 5 and 6: no daemon has more than its maximum, no pool more than its own but for
    /// what lives on hosts that were given up.
    fn room(&mut self, world: &World) {
        let mut pools: BTreeMap<PoolName, u32> = BTreeMap::new();
        for daemon in 0..world.daemons.len() {
            let mut living = world.living(daemon);
            // Never started, and not to be: found and discarded by the next list.
            let running = world.running(daemon);
            living.retain(|spec| !world.witness.is_stray(&spec.name) || running.contains(spec));
            let occupied = living.len() + world.witness.creating_on(daemon) as usize;
            if occupied > world.layout.host_max as usize {
                let most = world.layout.host_max;
                world
                    .witness
                    .violated("5", format_args!("{occupied} on d{daemon}, at most {most}"));
            }
            let given_up = world.witness.silent_for(daemon) >= LOST_AFTER;
            for spec in living {
                if given_up {
                    self.written_off.insert(spec.name.clone());
                } else if !self.written_off.contains(&spec.name) {
                    match pools.get_mut(&spec.pool) {
                        Some(count) => *count += 1,
                        None => drop(pools.insert(spec.pool.clone(), 1)),
                    }
                }
            }
        }
        for pool in &world.layout.pools {
            let count = pools.get(&pool.name).copied().unwrap_or_default();
            if count > pool.max_runners {
                let (name, most) = (&pool.name, pool.max_runners);
                world.witness.violated("6", format_args!("{count} in pool {name}, at most {most}"));
            }
        }
    }

    /// Why the fleet has not come to rest, if it has not.
    pub(super) async fn unsettled(&self, world: &World) -> Option<String> {
        let open = world.github.open_jobs();
        if open > 0 {
            return Some(format!("{open} jobs have not ended"));
        }
        let snapshot = world.store.snapshot().await.ok()?;
        let operator = &snapshot.operator;
        if !snapshot.intents.is_empty() {
            return Some(format!("intents wait: {:?}", snapshot.intents));
        }
        if operator.frozen_since.is_some()
            || !operator.paused.is_empty()
            || !operator.draining.is_empty()
            || !operator.draining_replicas.is_empty()
            || !operator.boosts.is_empty()
        {
            return Some(format!("the operator's state stands: {operator:?}"));
        }
        let mut living = BTreeMap::new();
        for daemon in 0..world.daemons.len() {
            living.extend(world.living(daemon).into_iter().map(|spec| (spec.name.clone(), spec)));
        }
        for pool in &world.layout.pools {
            let count = living.values().filter(|spec| spec.pool == pool.name).count();
            if count != pool.min_runners as usize {
                return Some(format!("{count} in pool {}, wanted {}", pool.name, pool.min_runners));
            }
        }
        let registered: BTreeSet<RunnerName> = world
            .github
            .runner_names()
            .into_iter()
            .map(RunnerName)
            .filter(|name| name.is_of(mark()))
            .collect();
        if !registered.iter().eq(living.keys()) {
            return Some(format!("registered {registered:?}, living {:?}", living.keys()));
        }
        let has_exited = |state| matches!(state, ContainerState::Exited { .. });
        let exited: usize =
            world.daemons.iter().map(|daemon| daemon.in_state(has_exited).len()).sum();
        if exited > 0 {
            return Some(format!("{exited} exited containers are left"));
        }
        // 18: the records are the truth.
        let reported: BTreeSet<&RunnerName> = snapshot
            .hosts
            .values()
            .flat_map(|record| record.runners.values())
            .filter(|runner| matches!(runner.phase, RunnerPhase::Listening { .. }))
            .map(|runner| &runner.name)
            .collect();
        let same = reported.into_iter().eq(living.keys());
        (!same).then(|| format!("the records differ from what lives: {:?}", living.keys()))
    }

    /// When all is calm.
    pub(super) async fn at_the_end(&self, world: &World) {
        no_secret(world).await;
        let state = world.github.state();
        for job in &state.jobs {
            let name = RunnerName(job.runner_name.clone().unwrap_or_default());
            let excused = self.cut_off.contains(&name) || world.witness.was_forced(&name);
            if job.attempts != 1 {
                world
                    .witness
                    .violated("9/14", format_args!("a job ran {} times: {job:?}", job.attempts));
            } else if !excused && (job.lost || job.conclusion.as_deref() != Some("success")) {
                world.witness.violated("7", format_args!("a job did not end well: {job:?}"));
            }
        }
        // 21, its second half: what was to go has gone.
        let deleted = world.witness.deleted();
        let left = (0..world.daemons.len()).flat_map(|daemon| world.living(daemon));
        for spec in left.filter(|spec| deleted.contains(&spec.runner)) {
            world.witness.violated("21", format_args!("{} was deleted and lives", spec.name));
        }
        if !state.runners.iter().any(|runner| runner.name == STRANGER) {
            world.witness.violated("8", "a registration that is not ours is gone");
        }
        for (index, daemon) in world.daemons.iter().enumerate() {
            let foreign =
                daemon.inventory().iter().filter(|(_, s, _)| s.cluster != *mark()).count();
            if foreign != 1 {
                world
                    .witness
                    .violated("8", format_args!("a foreign container of d{index} is gone"));
            }
        }
        if state.limit_crossings.primary + state.limit_crossings.secondary > 0 {
            let crossings = state.limit_crossings;
            world.witness.violated("22", format_args!("over GitHub's limits: {crossings:?}"));
        }
    }
}

/// 24: no secret has come into the store.
async fn no_secret(world: &World) {
    let Ok(snapshot) = world.store.snapshot().await else { return };
    let text = format!("{snapshot:?}");
    let secrets = world.witness.secrets();
    if secrets.iter().any(|secret| text.contains(secret.as_str())) || text.contains(CANARY) {
        world.witness.violated("24", "a secret is in the store");
    }
}

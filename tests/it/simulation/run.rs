//! One seed, from its first moment to the calm after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::fleet::id::RunnerId;
use runner_orchestrator::store::memory::Saved;
use tokio::time::Instant;

use super::invariants::Invariants;
use super::plan::Script;
use super::world::World;

mod deeds;

/// Every invariant is checked this often.
const STEP: Duration = Duration::from_millis(100);
/// And in the calm, when nothing goes wrong any more.
const CALM_STEP: Duration = Duration::from_millis(500);
/// Everything has healed within this time after the last fault.
const CALM_WITHIN: Duration = Duration::from_secs(600);
/// Twenty turns of the slowest loop without any change.
const QUIET: Duration = Duration::from_secs(20);

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
    /// The store as it was when each fault began that makes it go back.
    saved: BTreeMap<usize, Saved>,
    began: Instant,
    asked: u128,
    /// The last runner an operator wanted gone, and whether by force.
    deleted: Option<(RunnerId, bool)>,
}

/// Runs a script to its end.
pub(super) async fn run(seed: u64, script: Script, verbose: bool) -> Outcome {
    let layout = script.layout.clone();
    let mut run = Run {
        world: World::new(seed, layout, verbose).await,
        script,
        invariants: Invariants::default(),
        struck: BTreeMap::new(),
        saved: BTreeMap::new(),
        began: Instant::now(),
        asked: 0,
        deleted: None,
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
            self.world.set_clock(replica, 0);
            self.world.go_on(replica);
        }
        for (index, daemon) in self.world.daemons.iter().enumerate() {
            daemon.clear_faults();
            daemon.set_reachable(true);
            self.world.uplinks[index].set(true);
            self.invariants.shown.daemon_fails(index, false);
        }
        self.world.witness.outage(false);
    }
}

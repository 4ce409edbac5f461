//! Invariant 20: what any replica shows is what the daemons held when the report it is
//! taken from was made, and that report is at most ten seconds old, or its age is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runner_orchestrator::api::reading::{Reading, STALE_AFTER, SeenRunner};
use runner_orchestrator::fleet::host::HostRecord;
use runner_orchestrator::fleet::id::RunnerName;
use tokio::time::Instant;

use super::clock::EPOCH_MS;
use super::world::World;

/// Looked at this often; it costs as much as an answer of the API does.
const EVERY: Duration = Duration::from_secs(2);
/// What a daemon did this long before a report is in it: its events are on their way, and
/// what is under way there is not yet done.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// After a daemon failed, its containers are listed again within this time.
const LISTED_WITHIN: Duration = Duration::from_secs(20);
/// A report claims to be no newer than it is, but for the noise of the way to the store.
const CLOCKS_WITHIN: Duration = Duration::from_millis(500);

/// When each container of ours ran. One that was created and never started is no runner
/// yet, and none any more once its agent is gone.
#[derive(Default)]
pub(super) struct Shown {
    looked_at: Option<Instant>,
    lives: BTreeMap<RunnerName, Life>,
    /// Daemons that answer wrongly or not at all, until when.
    failing: BTreeMap<usize, Option<Instant>>,
}

struct Life {
    daemon: usize,
    began: Duration,
    ended: Option<Duration>,
}

impl Shown {
    /// A daemon fails from here on, or does no longer.
    pub(super) fn daemon_fails(&mut self, daemon: usize, fails: bool) {
        let until = (!fails).then(|| Instant::now() + LISTED_WITHIN);
        self.failing.insert(daemon, until);
    }

    pub(super) fn check(&mut self, world: &World) {
        if self.looked_at.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.looked_at = Some(Instant::now());
        self.look(world);
        let now = Instant::now();
        self.failing.retain(|_, until| until.is_none_or(|until| until > now));
        for index in 0..world.replicas.len() {
            let Some(reading) = world.reading(index) else { continue };
            if reading.is_stale() {
                world.witness.reached("a replica said that what it shows is stale");
                continue;
            }
            let shown: Vec<SeenRunner<'_>> = reading.runners().into_values().collect();
            for (daemon, record) in hosts(world, &reading) {
                if !self.failing.contains_key(&daemon) {
                    self.compare(world, index, daemon, record, &shown);
                }
            }
        }
    }

    fn look(&mut self, world: &World) {
        let now = world.time();
        let mut alive = BTreeSet::new();
        for daemon in 0..world.daemons.len() {
            for spec in world.running(daemon) {
                let life = || Life { daemon, began: now, ended: None };
                self.lives.entry(spec.name.clone()).or_insert_with(life);
                alive.insert(spec.name.clone());
            }
        }
        for (name, life) in &mut self.lives {
            if life.ended.is_none() && !alive.contains(name) {
                life.ended = Some(now);
            }
        }
    }

    fn compare(
        &self,
        world: &World,
        index: usize,
        daemon: usize,
        record: &HostRecord,
        shown: &[SeenRunner<'_>],
    ) {
        let now = world.time();
        let at = Duration::from_millis(record.at.0.saturating_sub(EPOCH_MS));
        let wrong = |what: &str, name: &RunnerName| {
            let when = at.as_millis();
            world
                .witness
                .violated("20", format_args!("r{index}, d{daemon} at {when}: {what} {name}"));
        };
        if at > now + CLOCKS_WITHIN {
            let ahead = at.saturating_sub(now).as_millis();
            let text = format_args!("r{index}: d{daemon}'s report is {ahead} ms too new");
            world.witness.violated("20", text);
            return;
        }
        if now.saturating_sub(at) > STALE_AFTER || !record.docker_up {
            return;
        }
        let shown: BTreeSet<&RunnerName> = shown
            .iter()
            .filter(|runner| runner.host == record.host && runner.has_live_container())
            .map(|runner| runner.name)
            .collect();
        for (name, life) in self.lives.iter().filter(|(_, life)| life.daemon == daemon) {
            let lived_then = life.began + NOTICED_WITHIN < at
                && life.ended.is_none_or(|ended| ended > at + NOTICED_WITHIN);
            if lived_then && !shown.contains(name) {
                wrong("does not show", name);
            }
        }
        for name in shown {
            let gone = self.lives.get(name).and_then(|life| life.ended);
            if gone.is_some_and(|ended| ended + NOTICED_WITHIN < at) {
                wrong("still shows", name);
            }
        }
    }
}

/// The hosts a reading has reports of, by their daemons.
fn hosts<'a>(
    world: &'a World,
    reading: &'a Reading,
) -> impl Iterator<Item = (usize, &'a HostRecord)> {
    (0..world.daemons.len()).filter_map(|daemon| {
        let host = world.witness.host_of(daemon)?;
        Some((daemon, &**reading.view().hosts.get(&host)?))
    })
}

//! What must hold for every fleet, not only for those somebody thought of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use runner_orchestrator::fleet::converge::{Action, converge};
use runner_orchestrator::fleet::demand::DemandBook;
use runner_orchestrator::fleet::drain::{Left, progress};
use runner_orchestrator::fleet::host::{Assignment, RECORD_VERSION};
use runner_orchestrator::fleet::id::{BootId, JobId, RepoName, RunnerId, Term};
use runner_orchestrator::fleet::ledger::brake_per_minute;
use runner_orchestrator::fleet::plan::plan;
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::Pool;
use runner_orchestrator::fleet::runner::RunnerPhase;
use runner_orchestrator::fleet::view::View;
use uuid::Uuid;

mod given;
mod walk;

use crate::it::scenarios::events::happen;
use crate::it::scenarios::hub::mark;
use crate::it::scenarios::words;
use crate::it::scenarios::world::World;
use given::{agent, assigned, base, rank, reading, shuffled, sight};
use walk::{ALL, CALM, at_rest, calm_down, fleet, play, walk_of};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    /// Without faults a fleet is never above a pool's maximum.
    #[test]
    fn a_fleet_without_faults_stays_within_its_bounds(walk in walk_of(0..CALM)) {
        let mut world = fleet();
        for event in walk {
            if let Err(error) = play(&mut world, &[event]) {
                prop_assert!(false, "{error}");
            }
            for (name, pool) in &world.pools {
                let running = world.daemons.values().flat_map(|d| d.containers.values());
                let count = running.filter(|c| c.found.pool == *name).count();
                prop_assert!(count <= pool.max_runners as usize, "{name} has {count}");
            }
        }
        let end = calm_down(&mut world).and_then(|()| at_rest(&world));
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }

    /// Whatever goes wrong, no rule is broken on the way, and once nothing goes wrong any
    /// more every pool comes to rest at its minimum with nothing left over.
    #[test]
    fn a_fleet_with_faults_breaks_no_rule_and_comes_to_rest(walk in walk_of(0..ALL)) {
        let mut world = fleet();
        let played = play(&mut world, &walk);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
        let end = calm_down(&mut world).and_then(|()| at_rest(&world));
        prop_assert!(end.is_ok(), "{}", end.unwrap_err());
    }

    /// Unknown is never zero: readings that fail add no retirement.
    #[test]
    fn a_failed_reading_retires_nobody(walk in walk_of(0..ALL), later in 0..60_u64) {
        let mut world = fleet();
        let _ = play(&mut world, &walk);
        let later = Duration::from_secs(later);
        world.now = world.now + later;
        let view = world.view();
        let mut blind = view.clone();
        let repos: Vec<RepoName> = view.ledger.demand.repos().keys().cloned().collect();
        for repo in &repos {
            Arc::make_mut(&mut blind.ledger).demand.unread(repo, world.now, "no answer".to_owned());
        }
        for pool in view.pools.values() {
            Arc::make_mut(&mut blind.ledger).registrations.unread(&pool.scope, world.now, "no answer".to_owned());
        }
        let retired = |view: &View| -> BTreeSet<RunnerId> {
            let mut next = 1 << 64;
            let mut fresh = || { next += 1; RunnerId(Uuid::from_u128(next)) };
            let plan = plan(view, &world.policy, &mut fresh, world.now);
            plan.retire.iter().map(|order| order.runner).collect()
        };
        prop_assert!(retired(&blind).is_subset(&retired(&view)));
    }

    /// The order in which things are learnt changes nothing.
    #[test]
    fn the_order_of_learning_changes_nothing(
        readings in proptest::collection::vec(reading(), 1..12),
        edges in proptest::collection::vec((0..9_u128, 0..60_u64), 0..9),
        seed in any::<u64>(),
    ) {
        let pools = fleet().pools;
        let mut book = DemandBook::default();
        let mut other = DemandBook::default();
        for (repo, at, jobs) in &readings {
            book.read(repo, *at, jobs.clone());
        }
        for (repo, at, jobs) in shuffled(&readings, seed) {
            other.read(&repo, at, jobs);
        }
        let at = |seconds: u64| base() + Duration::from_secs(seconds);
        for (runner, seconds) in &edges {
            let id = RunnerId(Uuid::from_u128(*runner));
            book.runner_took_job(id, "a".into(), at(*seconds).min(at(60)));
        }
        let mut first: BTreeMap<u128, u64> = BTreeMap::new();
        for (runner, seconds) in &edges {
            first.entry(*runner).or_insert(*seconds);
        }
        for (runner, seconds) in shuffled(&first.into_iter().collect::<Vec<_>>(), seed) {
            other.runner_took_job(RunnerId(Uuid::from_u128(runner)), "a".into(), at(seconds));
        }
        book.settle(&pools, at(60));
        other.settle(&pools, at(60));
        let policy = Policy::default();
        prop_assert_eq!(
            book.by_pool(&pools, &policy, at(60)),
            other.by_pool(&pools, &policy, at(60))
        );
    }

    /// Nor does the order of a runner list's rows.
    #[test]
    fn the_order_of_rows_changes_nothing(walk in walk_of(0..CALM), seed in any::<u64>()) {
        let mut world = fleet();
        let _ = play(&mut world, &walk);
        let scope = world.pools.values().next().unwrap().scope.clone();
        let reading = world.hub.list(&scope, world.now);
        let mut other = reading.clone();
        other.rows = shuffled(&reading.rows, seed);
        let mut ledger = world.ledger.clone();
        let World { records, policy, pools, .. } = &world;
        ledger.absorb_registrations(other, &mark(), pools, records, policy);
        let mut same = world.ledger.clone();
        same.absorb_registrations(reading, &mark(), pools, records, policy);
        prop_assert_eq!(ledger, same);
    }

    /// A reading removes no job whose evidence is newer, and no more jobs are cancelled
    /// than runners took one.
    #[test]
    fn a_reading_removes_only_what_it_can_know(
        readings in proptest::collection::vec(reading(), 1..12),
        edges in proptest::collection::vec(0..60_u64, 0..9),
    ) {
        let pools = fleet().pools;
        let policy = Policy::default();
        let mut book = DemandBook::default();
        for (n, seconds) in edges.iter().enumerate() {
            let at = base() + Duration::from_secs(*seconds);
            book.runner_took_job(RunnerId(Uuid::from_u128(n as u128)), "a".into(), at);
        }
        for (repo, begun_at, jobs) in readings {
            let newer: BTreeSet<JobId> = book
                .jobs()
                .filter(|job| job.repo == repo && job.evidence > begun_at)
                .map(|job| job.id)
                .collect();
            let others: BTreeSet<JobId> =
                book.jobs().filter(|job| job.repo != repo).map(|job| job.id).collect();
            book.read(&repo, begun_at, jobs);
            book.settle(&pools, base() + Duration::from_secs(60));
            let after: BTreeSet<JobId> = book.jobs().map(|job| job.id).collect();
            prop_assert!(newer.is_subset(&after));
            prop_assert!(others.is_subset(&after));
            let demand = book.by_pool(&pools, &policy, base() + Duration::from_secs(60));
            let cancelled: usize = demand.values().map(|demand| demand.cancelled.len()).sum();
            prop_assert!(cancelled <= edges.len());
        }
    }

    /// A phase only moves forward and never leaves its end.
    #[test]
    fn a_phase_only_moves_forward(sights in proptest::collection::vec(sight(), 1..20)) {
        let mut phase = RunnerPhase::Assigned { since: base() };
        for seen in sights {
            let before = phase.clone();
            let Ok(after) = phase.clone().observe(seen, base()) else { continue };
            prop_assert!(!before.is_terminal(), "left its end: {before:?} -> {after:?}");
            prop_assert!(rank(&after) >= rank(&before), "went back: {before:?} -> {after:?}");
            phase = after;
        }
    }

    /// Nothing is started from an old reading, for another boot, twice, or while frozen.
    #[test]
    fn an_agent_starts_only_what_is_meant_for_it(
        ids in proptest::collection::btree_set(0..20_u128, 0..12),
        spent in proptest::collection::btree_set(0..20_u128, 0..12),
        other_boot in any::<bool>(), frozen in any::<bool>(), age in 0..20_u64, room in 0..12_u32,
        stopping in 0..3_u8,
    ) {
        let now = base() + Duration::from_secs(100);
        let agent = agent(room, stopping, &spent);
        let boot = if other_boot { BootId(Uuid::from_u128(9)) } else { agent.boot };
        let mut assignment = Assignment { frozen, ..Assignment::default() };
        for id in &ids {
            let assigned = assigned(*id, boot, now);
            assignment.runners.insert(assigned.id, assigned);
        }
        let read_at = now - Duration::from_secs(age);
        let actions = converge(&agent, &assignment, read_at, None, now);
        let mut accepted = BTreeSet::new();
        for action in &actions {
            if let Action::Accept(assigned) = action {
                prop_assert!(!spent.contains(&assigned.id.0.as_u128()));
                prop_assert!(accepted.insert(assigned.id));
            }
        }
        let may = !other_boot && !frozen && age <= 10 && stopping == 0;
        prop_assert!(may || accepted.is_empty());
        prop_assert!(accepted.len() <= room as usize);
        let wanted = ids.difference(&spent).count();
        prop_assert_eq!(accepted.len(), if may { wanted.min(room as usize) } else { 0 });
    }

    /// The brake never lets more than a fifth go, or two.
    #[test]
    fn the_brake_is_a_fifth_or_two(size in 0..5000_u32) {
        prop_assert_eq!(brake_per_minute(size, &Policy::default()), (size / 5).max(2));
    }
}

/// A thousand runners in five hundred pools are planned well inside a turn.
#[test]
fn a_large_fleet_is_planned_quickly() {
    let mut world = World::new();
    for n in 0..500 {
        let settings = format!("min 2 max 9 up 1 down 0 labels self-hosted,l{n}");
        let words: Vec<&str> = settings.split(' ').collect();
        let pool: Pool = words::pool(&format!("p{n:03}"), &words).unwrap();
        world.pools.insert(pool.name.clone(), pool);
    }
    for n in 1..=20 {
        happen(&mut world, &format!("host h{n} room 100")).unwrap();
    }
    world.budget.mints_now = 2000;
    world.read_lists();
    world.rest().unwrap();
    let groups: Vec<String> = (0..1000).map(|n| format!("job {n} labels l{}", n / 2)).collect();
    happen(&mut world, &format!("queue acme/demo: {}", groups.join(";"))).unwrap();
    let view = world.view();
    assert_eq!(view.roster().runners.len(), 1000);
    let mut next = 1 << 64;
    let mut fresh = || {
        next += 1;
        RunnerId(Uuid::from_u128(next))
    };
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        let plan = plan(&view, &world.policy, &mut fresh, world.now);
        best = best.min(begun.elapsed());
        assert!(plan.place.is_empty(), "{:?}", plan.place.first());
    }
    // Ten milliseconds in a release build; unoptimised code is an order slower, and this
    // must not fail because the machine is busy. What is quadratic takes seconds.
    assert!(best < Duration::from_millis(400), "planning took {best:?}");
}

/// During a roll, hosts report in the new format and in the one before it: both are planned
/// together, and what an older record does not say yet is not held against it.
#[test]
fn records_of_two_versions_are_planned_together() {
    let mut world = World::new();
    for line in ["pool default min 6 max 9 up 1 down 0", "host h1 room 4", "host h2 room 4"] {
        happen(&mut world, line).unwrap();
    }
    world.hosts().unwrap();
    let (old, new) = (RECORD_VERSION - 1, RECORD_VERSION);
    for (record, version) in world.records.values_mut().zip([old, new]) {
        Arc::make_mut(record).version = version;
        // What a reader of another version does not know is left out or unknown to it.
        let mut json = serde_json::to_value(&**record).unwrap();
        json["added_tomorrow"] = serde_json::json!({ "unknown": true });
        *record = Arc::new(serde_json::from_value(json).unwrap());
    }
    let view = world.view();
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        RunnerId(Uuid::from_u128(next))
    };
    let plan = plan(&view, &world.policy, &mut fresh, world.now);
    let hosts: BTreeSet<_> = plan.place.iter().map(|placement| placement.host).collect();
    assert_eq!((plan.place.len(), hosts.len()), (6, 2));

    // A leader of the version before wrote an assignment without what came later.
    let written = plan.assignments(&view, Term(7));
    for assignment in written.values() {
        let mut json = serde_json::to_value(assignment).unwrap();
        json["version"] = old.into();
        json.as_object_mut().unwrap().remove("frozen");
        let read: Assignment = serde_json::from_value(json).unwrap();
        assert_eq!((read.version, read.frozen), (old, false));
        assert_eq!(read.runners, assignment.runners);
    }
}

#[test]
fn a_drain_tells_what_is_left() {
    let mut world = World::new();
    let play = |world: &mut World, line: &str| happen(world, line).and_then(|()| world.rest());
    for line in ["pool default min 3 max 9 up 1 down 0", "host h1 room 4"] {
        play(&mut world, line).unwrap();
    }
    let host = world.daemons["h1"].agent.host;
    let drain = |world: &mut World| {
        let (view, policy) = (world.view(), world.policy.clone());
        progress(&view, &host, &policy, world.now)
    };
    assert_eq!(drain(&mut world), None, "nobody drains it");
    for line in ["r1..r3 listen", "r3 runs", "operator drains h1"] {
        play(&mut world, line).unwrap();
    }
    let left = |world: &mut World| drain(world).unwrap();
    assert_eq!(left(&mut world).left, Left { idle: 2, busy: 1, ..Left::default() });
    assert_eq!(left(&mut world).at_first, Some(3));
    assert!(!left(&mut world).is_done());
    play(&mut world, "at 2m").unwrap();
    assert_eq!(left(&mut world).left, Left { busy: 1, ..Left::default() });
    play(&mut world, "r3 exits 0").unwrap();
    play(&mut world, "at 4m").unwrap();
    assert_eq!(left(&mut world).left, Left::default());
    assert!(!left(&mut world).is_done(), "GitHub's list was not read since");
    play(&mut world, "list").unwrap();
    assert!(left(&mut world).is_done());
    assert_eq!(left(&mut world).since, Some(world.began));
}

//! What must hold for every fleet, not only for those somebody thought of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use runner_orchestrator::fleet::converge::{Action, Agent, Stopping, converge};
use runner_orchestrator::fleet::demand::{DemandBook, WaitingJob};
use runner_orchestrator::fleet::host::{Assigned, Assignment};
use runner_orchestrator::fleet::id::{
    BootId, HostId, JobId, PoolName, RepoName, RunnerId, RunnerName,
};
use runner_orchestrator::fleet::ledger::brake_per_minute;
use runner_orchestrator::fleet::plan::plan;
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::{Labels, Pool};
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::fleet::runner::{Failure, RunnerPhase, Seen};
use runner_orchestrator::fleet::time::Timestamp;
use runner_orchestrator::fleet::view::View;
use uuid::Uuid;

use crate::scenarios::events::happen;
use crate::scenarios::hub::mark;
use crate::scenarios::words;
use crate::scenarios::world::World;

/// One thing that happens in a walk: which, to whom, and how much time passes after it.
type Event = (u8, u8, u8);

const EVENTS: usize = 40;

fn walk_of(events: impl Strategy<Value = u8>) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec((events, any::<u8>(), 0..20_u8), 1..EVENTS)
}

fn fleet() -> World {
    let mut world = World::new();
    world.step = Duration::from_secs(5);
    world.policy.breaker_backoff_max = Duration::from_secs(60);
    for line in [
        "pool a min 2 max 6 up 2 down 1 idle 20s wait 20s deadline 40s labels a,x",
        "pool b min 0 max 8 up 1 down 0 idle 20s wait 20s deadline 40s labels b,x weight 2",
        "host h1 room 5",
        "host h2 room 3",
        "host h3 room 2",
        "poll 15s",
    ] {
        happen(&mut world, line).unwrap();
    }
    world
}

/// Calm things first: those up to here are no faults.
const CALM: u8 = 16;
const ALL: u8 = 40;

fn line_of(world: &World, (kind, who, _): Event) -> String {
    let ids: Vec<RunnerId> = everybody(world).into_iter().collect();
    let id = |n: u8| {
        let count = ids.len().max(1);
        ids.get(usize::from(n) % count).map_or("r0".to_owned(), |id| format!("r{}", id.0.as_u128()))
    };
    let (r, host) = (id(who), who % 3 + 1);
    let pool = if who % 2 == 0 { "a" } else { "b" };
    match kind {
        0..=3 => format!("{r} listens"),
        4..=6 => format!("{r} runs"),
        7 | 8 => format!("{r} exits {}", who % 2),
        9 => format!("queue acme/demo: jobs {who}..{} labels a", u16::from(who) + 3),
        10 => format!("queue acme/demo: jobs {who}..{} labels b", u16::from(who) + 9),
        11 | 12 => "queue acme/demo: empty".to_owned(),
        13 => format!("operator scales up {pool} {}", who % 4),
        14 => format!("operator scales down {pool} {}", who % 4),
        15 => format!("operator deletes {r}"),
        16 => format!("host h{host} silent"),
        17..=19 => format!("host h{host} returns"),
        20 => format!("host h{host} restarts"),
        21 => format!("host h{host} record vanishes"),
        22 => format!("assignment h{host} vanishes"),
        23 => "list fails".to_owned(),
        24 => "list works".to_owned(),
        25 => "queue acme/demo fails".to_owned(),
        26 => format!("github hides {r}"),
        27 => "github shows everything".to_owned(),
        28 => "github answers 404 to deletes".to_owned(),
        29 => "github answers 500 to deletes".to_owned(),
        30 => "github answers truthfully".to_owned(),
        31 => format!("github calls {r} busy"),
        32 => format!(
            "host h{host} starts {}",
            ["wait", "fail", "work", "work"][usize::from(who % 4)]
        ),
        33 => format!("{r} container vanishes"),
        34 => format!("operator {} h{host}", if who % 2 == 0 { "drains" } else { "undrains" }),
        35 => format!("operator {}", ["freezes", "unfreezes", "unfreezes"][usize::from(who % 3)]),
        36 => format!("operator {} {pool}", if who % 2 == 0 { "pauses" } else { "resumes" }),
        37 => format!("host h{host} docker {}", if who % 2 == 0 { "down" } else { "up" }),
        38 => "leader changes".to_owned(),
        _ => format!("host h{host} lists without {r}"),
    }
}

/// Plays a walk. What cannot happen just now does not; what must hold is checked at every
/// turn by the world itself.
fn play(world: &mut World, walk: &[Event]) -> Result<(), String> {
    let mut told = Vec::new();
    for event in walk {
        let line = line_of(world, *event);
        let before = world.clone();
        if happen(world, &line).is_err() {
            *world = before;
            continue;
        }
        told.push(line);
        let to = world.now + Duration::from_secs(u64::from(event.2));
        world.advance(to).map_err(|error| format!("{}\n{error}", told.join("\n")))?;
    }
    Ok(())
}

/// Ends every fault and every wish, serves every job, and waits.
fn calm_down(world: &mut World) -> Result<(), String> {
    let hosts = ["h1", "h2", "h3"];
    let mut lines: Vec<String> = ["queue acme/demo: empty", "list works", "operator unfreezes"]
        .into_iter()
        .chain(["github shows everything", "github answers truthfully", "operator resumes a"])
        .chain(["operator resumes b"])
        .map(str::to_owned)
        .collect();
    for host in hosts {
        for what in ["returns", "docker up", "starts work", "lists everything"] {
            lines.push(format!("host {host} {what}"));
        }
        lines.push(format!("operator undrains {host}"));
    }
    for line in lines {
        happen(world, &line)?;
    }
    world.hub.secretly_busy.clear();
    world.operator.boosts.clear();
    world.step = Duration::from_secs(15);
    for _ in 0..40 {
        world.advance(world.now + Duration::from_secs(15))?;
        let ids = everybody(world);
        for id in ids {
            let name = format!("r{}", id.0.as_u128());
            let next = match crate::scenarios::events::phase_of(world, id) {
                Some(RunnerPhase::Accepted { .. }) => "starts",
                Some(RunnerPhase::Handed { .. }) => "listens",
                Some(RunnerPhase::Running { .. } | RunnerPhase::Unknown { .. }) => "exits 0",
                _ => continue,
            };
            // One whose container somebody removed cannot, and is found out by a list.
            let _ = happen(world, &format!("{name} {next}"));
        }
        // What has no container is offline sooner or later.
        let alive: BTreeSet<RunnerName> = world
            .daemons
            .values()
            .flat_map(|daemon| daemon.containers.values())
            .map(|container| container.found.name.clone())
            .collect();
        for (name, row) in &mut world.hub.rows {
            if !alive.contains(name) {
                (row.online, row.busy) = (false, false);
            }
        }
    }
    Ok(())
}

fn everybody(world: &World) -> BTreeSet<RunnerId> {
    let daemons = || world.daemons.values();
    let living = daemons().flat_map(|daemon| {
        let local = daemon.agent.local.iter();
        local.filter(|(_, l)| !l.record.phase.is_terminal()).map(|(id, _)| *id)
    });
    living.chain(daemons().flat_map(|daemon| daemon.containers.keys().copied())).collect()
}

/// At rest: every pool at its minimum, everybody listening, nothing left over anywhere.
fn at_rest(world: &World) -> Result<(), String> {
    let containers: usize = world.daemons.values().map(|daemon| daemon.containers.len()).sum();
    let min: u32 = world.pools.values().map(|pool| pool.min_runners).sum();
    if containers != min as usize || world.hub.rows.len() != min as usize {
        return Err(format!(
            "{containers} containers and {} registrations instead of {min}\n{:#?}\n{:?}",
            world.hub.rows.len(),
            world.daemons.values().map(|d| &d.agent.local).collect::<Vec<_>>(),
            world.last
        ));
    }
    for assignment in world.assignments.values() {
        if !assignment.retire.is_empty() {
            return Err(format!("orders are left over: {:?}", assignment.retire));
        }
    }
    Ok(())
}

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
            blind.ledger.demand.unread(repo, world.now, "no answer".to_owned());
        }
        for pool in view.pools.values() {
            blind.ledger.registrations.unread(&pool.scope, world.now, "no answer".to_owned());
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
        let (records, policy) = (world.records.clone(), world.policy.clone());
        ledger.absorb_registrations(other, &mark(), &records, &policy);
        world.ledger.absorb_registrations(reading, &mark(), &records, &policy);
        prop_assert_eq!(ledger, world.ledger);
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

fn base() -> Timestamp {
    Timestamp(1_800_000_000_000)
}

/// A reading of one of two repositories. Equal instants say the same, as one answer does.
fn reading() -> impl Strategy<Value = (RepoName, Timestamp, Vec<WaitingJob>)> {
    (0..2_u64, 0..60_u64, any::<u16>()).prop_map(|(repo, at, bits)| {
        let evidence = base() + Duration::from_secs(at);
        let name = RepoName(format!("acme/{repo}"));
        let bits = u64::from(bits).wrapping_mul(0x9e37_79b9 ^ at);
        let jobs = (0..8).filter(|n| bits >> n & 1 == 1).map(|n| WaitingJob {
            id: JobId(repo * 100 + n),
            repo: name.clone(),
            labels: Labels::from_iter(["a"]),
            queued_at: base(),
            name: String::new(),
            evidence,
        });
        let jobs = jobs.collect();
        (name, evidence, jobs)
    })
}

fn shuffled<T: Clone>(list: &[T], seed: u64) -> Vec<T> {
    let mut left = list.to_vec();
    let mut shuffled = Vec::new();
    let mut state = seed;
    while !left.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let index = usize::try_from(state >> 33).unwrap_or(0) % left.len();
        shuffled.push(left.swap_remove(index));
    }
    shuffled
}

fn sight() -> impl Strategy<Value = Seen> {
    let lost = || Reason::NeverStarted;
    prop_oneof![
        Just(Seen::Accepted),
        Just(Seen::Created),
        Just(Seen::Started),
        Just(Seen::Handed),
        Just(Seen::ListeningLine),
        Just(Seen::JobLine),
        Just(Seen::Exited { code: 0, oom: false }),
        Just(Seen::Failed(Failure::Start { message: String::new() })),
        Just(Seen::Removed(lost())),
        Just(Seen::Expired(lost())),
        Just(Seen::Lost(lost())),
    ]
}

fn rank(phase: &RunnerPhase) -> u8 {
    match phase {
        RunnerPhase::Assigned { .. } => 0,
        RunnerPhase::Accepted { .. } => 1,
        RunnerPhase::Created { .. } => 2,
        RunnerPhase::Started { .. } => 3,
        RunnerPhase::Handed { .. } | RunnerPhase::Unknown { .. } => 4,
        RunnerPhase::Listening { .. } => 5,
        RunnerPhase::Running { .. } => 6,
        RunnerPhase::Ended { .. }
        | RunnerPhase::Failed { .. }
        | RunnerPhase::Retired { .. }
        | RunnerPhase::Expired { .. }
        | RunnerPhase::Lost { .. } => 7,
    }
}

fn agent(room: u32, stopping: u8, spent: &BTreeSet<u128>) -> Agent {
    Agent {
        host: HostId(Uuid::from_u128(1)),
        boot: BootId(Uuid::from_u128(1)),
        max_runners: room,
        pools: BTreeMap::from([(PoolName::from("a"), "image".to_owned())]),
        images: BTreeSet::from(["image".to_owned()]),
        docker_up: true,
        stopping: [Stopping::No, Stopping::Drain, Stopping::Detach][usize::from(stopping)],
        local: BTreeMap::new(),
        refused: BTreeMap::new(),
        spent: spent.iter().map(|id| RunnerId(Uuid::from_u128(*id))).collect(),
    }
}

fn assigned(id: u128, boot: BootId, at: Timestamp) -> Assigned {
    Assigned {
        id: RunnerId(Uuid::from_u128(id)),
        name: RunnerName(format!("orchestrated-abcdef-00000001-{id:012x}")),
        pool: "a".into(),
        boot,
        revision: String::new(),
        at,
        reason: Reason::BelowMinimum { have: 0, min: 1 },
        correlation: String::new(),
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

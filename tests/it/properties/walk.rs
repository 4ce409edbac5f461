//! Random walks: a small fleet to which anything may happen in any order.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use runner_orchestrator::fleet::id::{RunnerId, RunnerName};
use runner_orchestrator::fleet::runner::RunnerPhase;

use crate::it::scenarios::events::{happen, phase_of};
use crate::it::scenarios::world::World;

/// One thing that happens in a walk: which, to whom, and how much time passes after it.
pub(crate) type Event = (u8, u8, u8);

const EVENTS: usize = 40;

pub(crate) fn walk_of(events: impl Strategy<Value = u8>) -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec((events, any::<u8>(), 0..20_u8), 1..EVENTS)
}

pub(crate) fn fleet() -> World {
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
pub(crate) const CALM: u8 = 16;
pub(crate) const ALL: u8 = 48;

pub(crate) fn line_of(world: &World, (kind, who, _): Event) -> String {
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
        39 => "leader regains".to_owned(),
        40 => "store emptied".to_owned(),
        41 => "store saved".to_owned(),
        42 => "store rolls back".to_owned(),
        43 => "store away".to_owned(),
        44 => "store back".to_owned(),
        45 => "list moves".to_owned(),
        46 => "list holds still".to_owned(),
        _ => format!("host h{host} lists without {r}"),
    }
}

/// Plays a walk. What cannot happen just now does not; what must hold is checked at every
/// turn by the world itself.
pub(crate) fn play(world: &mut World, walk: &[Event]) -> Result<(), String> {
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
pub(crate) fn calm_down(world: &mut World) -> Result<(), String> {
    let hosts = ["h1", "h2", "h3"];
    if world.shared.away_since.is_some() {
        happen(world, "store back")?;
    }
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
    // What was asked for while nobody could be reached is answered first.
    world.advance(world.now + Duration::from_secs(15))?;
    world.operator.boosts.clear();
    // A change like any other: an older copy that somebody kept does not undo it.
    world.operator.revision += 1;
    world.step = Duration::from_secs(15);
    for _ in 0..40 {
        world.advance(world.now + Duration::from_secs(15))?;
        let ids = everybody(world);
        for id in ids {
            let name = format!("r{}", id.0.as_u128());
            let next = match phase_of(world, id) {
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

pub(crate) fn everybody(world: &World) -> BTreeSet<RunnerId> {
    let daemons = || world.daemons.values();
    let living = daemons().flat_map(|daemon| {
        let local = daemon.agent.local.iter();
        local.filter(|(_, l)| !l.record.phase.is_terminal()).map(|(id, _)| *id)
    });
    living.chain(daemons().flat_map(|daemon| daemon.containers.keys().copied())).collect()
}

/// At rest: every pool at its minimum, everybody listening, nothing left over anywhere.
pub(crate) fn at_rest(world: &World) -> Result<(), String> {
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

//! Comparing what was decided with what the scenario expects.

use runner_orchestrator::fleet::reason::Reason;

use super::events::phase_of;
use super::words::{number, numbers, runners, span};
use super::world::World;

/// Compares an `expect` block. Actions must match exactly, the rest is looked up.
pub(crate) fn compare(world: &mut World, lines: &[(usize, String)]) -> Result<(), String> {
    let mut wanted: Vec<(Option<u64>, String)> = Vec::new();
    for (number, line) in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let looked_up = look_up(world, &words);
        match looked_up {
            Some(result) => result.map_err(|error| format!("line {number}: {line}\n  {error}"))?,
            None => wanted.extend(actions(&words).map_err(|e| format!("line {number}: {e}"))?),
        }
    }
    let any_host = wanted.iter().all(|(_, line)| !line.contains(" on "));
    let began = world.began;
    let mut got: Vec<(u64, String)> = world
        .told
        .drain(..)
        .map(|(at, line)| {
            let line = match line.split_once(" on ") {
                Some((head, _)) if any_host => head.to_owned(),
                _ => line,
            };
            (at.since(began).as_secs(), line)
        })
        .collect();
    let mut missing = Vec::new();
    // Lines with a time are pickier and choose first.
    wanted.sort_by_key(|(at, _)| at.is_none());
    for (at, line) in wanted {
        let found =
            got.iter().position(|(then, told)| *told == line && at.is_none_or(|at| at == *then));
        match found {
            Some(index) => drop(got.remove(index)),
            None => missing.push(at.map_or(line.clone(), |at| format!("at {at}s {line}"))),
        }
    }
    if missing.is_empty() && got.is_empty() {
        return Ok(());
    }
    let got: Vec<String> = got.into_iter().map(|(at, line)| format!("at {at}s {line}")).collect();
    Err(format!("expected and not done: {missing:#?}\ndone and not expected: {got:#?}"))
}

/// The lines that say how things stand. `None`: the line names an action.
fn look_up(world: &World, words: &[&str]) -> Option<Result<(), String>> {
    match *words {
        ["because", pool, ref codes @ ..] => Some(because(world, pool, codes)),
        ["count", pool, ref pairs @ ..] => Some(count(world, pool, pairs)),
        [who, "is" | "are", phase] => Some(phase_is(world, who, phase)),
        ["drained", "replicas", count] => Some(drained_replicas(world, count)),
        ["deletes", "asked", count] => Some(deletes(world, count)),
        ["containers", host, count] => Some(containers(world, host, count)),
        _ => None,
    }
}

fn because(world: &World, pool: &str, codes: &[&str]) -> Result<(), String> {
    let decision = world.last.pools.get(&pool.into()).ok_or("no such pool")?;
    let given: Vec<&str> =
        decision.not_added.iter().chain(&decision.kept).map(Reason::code).collect();
    for code in codes {
        let (wanted, code) = match code.strip_prefix('-') {
            Some(code) => (false, code),
            None => (true, *code),
        };
        if given.contains(&code) != wanted {
            return Err(format!("the reasons are {given:?}"));
        }
    }
    Ok(())
}

fn count(world: &World, pool: &str, pairs: &[&str]) -> Result<(), String> {
    let decision = world.last.pools.get(&pool.into()).ok_or("no such pool")?;
    let (count, demand) = (decision.count, &decision.demand);
    let len = |jobs: &[_]| u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    for pair in pairs.chunks(2) {
        let &[what, wanted] = pair else { return Err("a count without a figure".to_owned()) };
        let have = match what {
            "occupied" => count.occupied,
            "supply" => count.supply,
            "running" => count.running,
            "listening" => count.listening,
            "starting" => count.starting,
            "unknown" => count.unknown,
            "retiring" => count.retiring,
            "unclaimed" => count.unclaimed,
            "desired" => decision.desired,
            "unplaced" => decision.unplaced,
            "waiting" => len(&demand.waiting),
            "cancelled" => len(&demand.cancelled),
            "not-assigned" => len(&demand.not_assigned),
            _ => return Err(format!("nobody counts {what:?}")),
        };
        if have != number::<u32>(wanted)? {
            return Err(format!("{what} is {have}"));
        }
    }
    Ok(())
}

fn phase_is(world: &World, who: &str, phase: &str) -> Result<(), String> {
    for id in runners(who)? {
        let have = phase_of(world, id).map_or("unheard-of", |phase| phase.name());
        if have != phase {
            return Err(format!("{who} is {have}"));
        }
    }
    Ok(())
}

fn containers(world: &World, host: &str, count: &str) -> Result<(), String> {
    let have = world.daemons.get(host).ok_or("no such host")?.containers.len();
    if have == number::<usize>(count)? { Ok(()) } else { Err(format!("it has {have}")) }
}

fn drained_replicas(world: &World, count: &str) -> Result<(), String> {
    let have = world.operator.draining_replicas.len();
    if have == number::<usize>(count)? { Ok(()) } else { Err(format!("they are {have}")) }
}

fn deletes(world: &World, count: &str) -> Result<(), String> {
    let have = world.hub.deletes_asked;
    if have == number::<u32>(count)? { Ok(()) } else { Err(format!("they are {have}")) }
}

/// One action line, spread out: a line for each runner.
fn actions(words: &[&str]) -> Result<Vec<(Option<u64>, String)>, String> {
    let (at, words) = match words {
        ["at", time, rest @ ..] => (Some(span(time)?.as_secs()), rest),
        _ => (None, words),
    };
    let lines: Vec<String> = match *words {
        ["nothing"] => Vec::new(),
        ["assign", count, ref rest @ ..] => {
            let line = format!("assign 1 {}", rest.join(" "));
            vec![line; number(count)?]
        }
        ["answer", ref rest @ ..] => vec![format!("answer {}", rest.join(" "))],
        [verb @ ("retire" | "release"), who, ref rest @ ..] => {
            numbers(who)?.into_iter().map(|n| format!("{verb} r{n} {}", rest.join(" "))).collect()
        }
        ["deregister", who] => match numbers(who) {
            Ok(ids) => ids.into_iter().map(|n| format!("deregister r{n}")).collect(),
            Err(_) => vec![format!("deregister {who}")],
        },
        [host, verb, who, ref rest @ ..] if host.starts_with('h') => numbers(who)?
            .into_iter()
            .map(|n| format!("{host} {verb} r{n} {}", rest.join(" ")).trim_end().to_owned())
            .collect(),
        _ => return Err(format!("{words:?} is nothing to expect")),
    };
    Ok(lines.into_iter().map(|line| (at, line)).collect())
}

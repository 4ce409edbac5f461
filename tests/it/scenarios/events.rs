//! What can happen in a scenario: one line, one event.

use runner_orchestrator::fleet::converge::{Found, FoundState, Stopping};
use runner_orchestrator::fleet::id::{
    ClusterMark, ContainerId, HostId, PoolName, RepoName, RunnerId, RunnerName, Term,
};
use runner_orchestrator::fleet::intent::{Operator, Wish};
use runner_orchestrator::fleet::policy::Placement;
use runner_orchestrator::fleet::pool::{Pool, Scope};
use runner_orchestrator::fleet::rebuild::StoreMemory;
use runner_orchestrator::fleet::runner::{Failure, RunnerPhase, Seen};
use uuid::Uuid;

use super::daemon::{Container, Daemon, Outside, Starts};
use super::hub::{Deletes, mark};
use super::words::{jobs, number, pool, runners, span};
use super::world::World;

type Done = Result<(), String>;

/// Carries one line out.
pub(crate) fn happen(world: &mut World, line: &str) -> Done {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["pool", name, ref settings @ ..] => set_pool(world, pool(name, settings)?),
        ["host", name, ref rest @ ..] => return host(world, name, rest),
        ["poll", "off"] => world.poll = None,
        ["poll", every] => {
            world.poll = Some(span(every)?);
            world.read_all();
        }
        ["at", time] => return world.advance(world.began + span(time)?),
        ["after", time] => return world.advance(world.now + span(time)?),
        ["queue", ..] => return queue(world, line),
        ["list", ref how @ ..] => return list(world, how),
        ["github", ref rest @ ..] => return github(world, rest),
        ["ghost", name, "on", host, state] => ghost(world, name, host, state, &mark())?,
        ["stranger", name, state] => {
            ghost(world, name, "h1", state, &ClusterMark::derive("another"))?;
        }
        ["budget", mints, "mints"] => world.budget.mints_now = number(mints)?,
        ["assignment", host, "vanishes"] => {
            let id = daemon(world, host)?.agent.host;
            world.assignments.remove(&id).ok_or("there is none")?;
        }
        ["assignment", host, "unreadable"] => {
            let id = daemon(world, host)?.agent.host;
            world.withheld.hosts.insert(id);
        }
        ["assignment", host, "readable"] => {
            let id = daemon(world, host)?.agent.host;
            world.withheld.hosts.remove(&id);
        }
        ["operator", "state", "unreadable"] => world.withheld.operator = true,
        ["operator", "state", "readable"] => world.withheld.operator = false,
        ["leader", "away"] => world.leaderless = true,
        ["leader", "back"] => world.leaderless = false,
        ["leader", "changes"] => {
            world.shared.term += 1;
            world.shared.memory = StoreMemory::default();
            // What is read before its first turn is its own.
            world.ledger.begin_term(Term(world.shared.term));
            world.shared.begins = true;
        }
        ["leader", "regains"] => {
            world.shared.term += 1;
            world.ledger.begin_term(Term(world.shared.term));
            world.shared.begins = true;
        }
        ["store", ref rest @ ..] => return store(world, rest),
        ["placement", "binpack"] => world.policy.placement = Placement::Binpack,
        ["operator", ref rest @ ..] => return operator(world, rest),
        [who, ref rest @ ..] if who.starts_with('r') => {
            for id in runners(who)? {
                runner(world, id, rest)?;
            }
        }
        _ => return Err("nobody knows what that means".to_owned()),
    }
    Ok(())
}

/// The runner lists are read, from now on in this way.
fn list(world: &mut World, how: &[&str]) -> Done {
    match how {
        [] => (),
        ["fails"] => world.hub.list_fails = true,
        ["works"] => world.hub.list_fails = false,
        ["moves"] => world.hub.list_moves = true,
        ["holds", "still"] => world.hub.list_moves = false,
        _ => return Err(format!("list {how:?}?")),
    }
    world.read_lists();
    Ok(())
}

fn store(world: &mut World, rest: &[&str]) -> Done {
    match *rest {
        ["emptied"] => {
            world.records.clear();
            world.assignments.clear();
            world.intents.clear();
            world.operator = Operator::default();
            world.shared.incarnation += 1;
            world.shared.led = false;
        }
        ["saved"] => {
            let state = (world.records.clone(), world.assignments.clone(), world.operator.clone());
            world.shared.saved = Some(state);
        }
        ["rolls", "back"] => {
            let saved = world.shared.saved.clone().ok_or("nothing was saved")?;
            (world.records, world.assignments, world.operator) = saved;
        }
        ["away"] => world.shared.away_since = Some(world.now),
        ["back"] => {
            let since = world.shared.away_since.take().ok_or("it is not away")?;
            world.ledger.excuse(world.now.since(since), world.now);
        }
        _ => return Err(format!("a store cannot {rest:?}")),
    }
    Ok(())
}

fn set_pool(world: &mut World, pool: Pool) {
    for daemon in world.daemons.values_mut() {
        daemon.agent.pools.insert(pool.name.clone(), pool.image.clone());
        daemon.agent.images.insert(pool.image.clone());
    }
    if let Scope::Repo(repo) = &pool.scope {
        world.hub.queues.entry(repo.clone()).or_default();
    }
    let scope = pool.scope.clone();
    world.pools.insert(pool.name.clone(), pool);
    // The first leader of a story has read the runner lists; a later one reads by `list`.
    if world.ledger.registrations.read_at(&scope).is_none() {
        world.read_list(&scope);
    }
}

fn daemon<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Daemon, String> {
    world.daemons.get_mut(name).ok_or_else(|| format!("there is no host {name}"))
}

fn host(world: &mut World, name: &str, rest: &[&str]) -> Done {
    if let ["room", room] = rest {
        let room = number(room)?;
        if let Some(daemon) = world.daemons.get_mut(name) {
            daemon.agent.max_runners = room;
            daemon.touch();
            return Ok(());
        }
        let n = world.daemons.len() as u128 + 1;
        let id = HostId(Uuid::from_u128(n << 96));
        world.daemons.insert(name.to_owned(), Daemon::new(id, room, &world.pools));
        return Ok(());
    }
    if let ["record", "vanishes"] = rest {
        let id = daemon(world, name)?.agent.host;
        return world.records.remove(&id).map(drop).ok_or("there is none".to_owned());
    }
    if let ["has", "a" | "an", state, "container", id] = rest {
        return runners(id)?.into_iter().try_for_each(|id| container(world, name, id, state));
    }
    let daemon = daemon(world, name)?;
    daemon.touch();
    match *rest {
        ["silent"] => daemon.silent = true,
        ["returns"] => daemon.silent = false,
        ["restarts"] => daemon.restart(),
        ["lists"] => daemon.list_now(),
        ["lists", "without", ids] => {
            daemon.hidden = runners(ids)?.into_iter().collect();
            daemon.ever_hidden.extend(daemon.hidden.iter().copied());
        }
        ["lists", "everything"] => daemon.hidden.clear(),
        ["cpus", count] => daemon.agent.capacity.cpus = Some(number(count)?),
        ["memory", gib] => daemon.agent.capacity.memory_bytes = Some(number::<u64>(gib)? << 30),
        ["disk", gib] => daemon.agent.capacity.disk_free_bytes = Some(number::<u64>(gib)? << 30),
        ["docker", "down"] => daemon.agent.docker_up = false,
        ["docker", "up"] => daemon.agent.docker_up = true,
        ["loses", "image", image] => {
            daemon.agent.images.remove(image);
        }
        ["gets", "image", image] => {
            daemon.agent.images.insert(image.to_owned());
        }
        ["starts", "wait"] => daemon.starts = Starts::Wait,
        ["starts", "fail"] => daemon.starts = Starts::Fail,
        ["starts", "work"] => daemon.starts = Starts::Work,
        ["logs", "unreadable"] => daemon.logs_readable = false,
        ["stops", "draining"] => daemon.agent.stopping = Stopping::Drain,
        ["stops", "detached"] => daemon.agent.stopping = Stopping::Detach,
        _ => return Err(format!("a host cannot {rest:?}")),
    }
    Ok(())
}

/// A container that stands there before its agent starts, and its registration.
fn container(world: &mut World, host: &str, id: RunnerId, state: &str) -> Done {
    let state = match state {
        "created" => FoundState::NeverStarted,
        "running" => FoundState::Alive,
        "exited" => FoundState::Exited,
        _ => return Err(format!("a container is not {state:?}")),
    };
    let pool = world.pools.values().next().ok_or("no pool yet")?.clone();
    let World { daemons, hub, .. } = world;
    let daemon = daemons.get_mut(host).ok_or("no such host")?;
    let name = RunnerName::compose(&mark(), &daemon.agent.host, &id);
    hub.register(&name, &pool.scope);
    if let Some(row) = hub.rows.get_mut(&name) {
        row.online = state == FoundState::Alive;
    }
    let container = ContainerId(format!("found-{id}"));
    let found =
        Found { id: container, runner: id, name, pool: pool.name, scope: Some(pool.scope), state };
    daemon.containers.insert(id, Container { found, lines: Vec::new(), exit_code: 0 });
    Ok(())
}

/// `queue R: jobs ...` (becomes so and is read), `queue R begun 5s ago: ...`,
/// `queue R becomes: ...` (is not read), `queue R reads`, `queue R fails`.
fn queue(world: &mut World, line: &str) -> Done {
    let (head, list) = match line.split_once(':') {
        Some((head, list)) => (head, Some(list)),
        None => (line, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let repo = RepoName::from(*words.get(1).ok_or("which repository?")?);
    let begun_at = match words[2..] {
        ["begun", ago, "ago"] => world.now - span(ago)?,
        _ => world.now,
    };
    match (&words[2..], list) {
        (["fails"], None) => {
            world.hub.queue_fails.insert(repo.clone());
            world.read_queue(&repo, world.now);
        }
        (["reads"], None) => {
            world.hub.queue_fails.remove(&repo);
            world.read_queue(&repo, world.now);
        }
        ([] | ["begun", _, "ago"] | ["becomes"], Some(list)) => {
            let known = world.hub.queues.get(&repo).cloned().unwrap_or_default();
            let jobs = jobs(list, &repo, &world.pools, &known, world.now)?;
            world.hub.queues.insert(repo.clone(), jobs);
            if words.get(2) != Some(&"becomes") {
                world.hub.queue_fails.remove(&repo);
                world.read_queue(&repo, begun_at);
            }
        }
        _ => return Err("a queue cannot do that".to_owned()),
    }
    Ok(())
}

fn github(world: &mut World, rest: &[&str]) -> Done {
    let mut names = Vec::new();
    for word in rest.iter().filter(|word| word.starts_with('r') && word.len() > 1) {
        if let Ok(ids) = runners(word) {
            names.extend(ids.into_iter().filter_map(|id| name_of(world, id)));
        }
    }
    let ghosts = world.names.iter().filter(|(_, short)| rest.contains(&short.as_str()));
    names.extend(ghosts.map(|(full, _)| full.clone()));
    let hub = &mut world.hub;
    match *rest {
        ["has", count, "foreign", "runners"] => hub.foreign = number(count)?,
        ["hides", _] => hub.hidden.extend(names.into_iter().map(|name| (name, None))),
        ["shows", _, "offline"] => {
            hub.hidden.extend(names.into_iter().map(|name| (name, Some(()))));
        }
        ["shows", "everything"] => hub.hidden.clear(),
        ["serves", "a", "stale", "list"] => hub.stale = Some(hub.rows.clone()),
        ["serves", "fresh", "lists"] => hub.stale = None,
        ["answers", "404", "to", "deletes"] => hub.deletes = Deletes::NotFound,
        ["answers", "500", "to", "deletes"] => hub.deletes = Deletes::Failing,
        ["answers", "truthfully"] => hub.deletes = Deletes::Truthfully,
        ["calls", _, "busy"] => hub.secretly_busy.extend(names),
        ["calls", _, "idle"] => names.iter().for_each(|name| {
            hub.secretly_busy.remove(name);
        }),
        ["loses", _] => names.iter().for_each(|name| {
            hub.rows.remove(name);
        }),
        ["gives", _, "a", "job", "when", "deleted"] => hub.takes_job_when_deleted.extend(names),
        ["blocks", "for", time] => {
            world.budget.blocked_until = Some(world.now + span(time)?);
        }
        _ => return Err(format!("github cannot {rest:?}")),
    }
    Ok(())
}

fn name_of(world: &World, id: RunnerId) -> Option<RunnerName> {
    world
        .daemons
        .values()
        .find_map(|daemon| daemon.containers.get(&id))
        .map(|container| container.found.name.clone())
        .or_else(|| {
            let mut names = world.hub.rows.keys();
            names.find(|name| super::world::runner_of(name) == Some(id)).cloned()
        })
}

fn ghost(world: &mut World, name: &str, host: &str, state: &str, mark: &ClusterMark) -> Done {
    let host = match world.daemons.get(host) {
        Some(daemon) => daemon.agent.host,
        None => HostId(Uuid::from_u128(0xdead << 96)),
    };
    let known = world.names.iter().find(|(_, short)| *short == name).map(|(full, _)| full.clone());
    let full = known.unwrap_or_else(|| {
        let id = RunnerId(Uuid::from_u128(0xffff_0000 + world.names.len() as u128));
        RunnerName::compose(mark, &host, &id)
    });
    world.names.insert(full.clone(), name.to_owned());
    if !world.hub.rows.contains_key(&full) {
        let scope = world.pools.values().next().ok_or("no pool yet")?.scope.clone();
        world.hub.register(&full, &scope);
    }
    let row = world.hub.rows.get_mut(&full).ok_or("it was just registered")?;
    (row.online, row.busy) = match state {
        "offline" => (false, false),
        "online" => (true, false),
        "busy" => (true, true),
        "offline-busy" => (false, true),
        _ => return Err(format!("a registration is not {state:?}")),
    };
    Ok(())
}

fn operator(world: &mut World, rest: &[&str]) -> Done {
    let wish = match *rest {
        ["scales", "up", pool, count] => Wish::ScaleUp { pool: pool.into(), count: number(count)? },
        ["scales", "down", pool, count] => {
            Wish::ScaleDown { pool: pool.into(), count: number(count)? }
        }
        ["deletes", id] => Wish::Delete { runner: runners(id)?[0], force: false },
        ["deletes", id, "by", "force"] => Wish::Delete { runner: runners(id)?[0], force: true },
        ["pauses", pool] => Wish::Pause { pool: pool.into() },
        ["resumes", pool] => Wish::Resume { pool: pool.into() },
        ["freezes"] => Wish::Freeze,
        ["unfreezes"] => Wish::Unfreeze,
        ["drains", host] => Wish::Drain { host: daemon(world, host)?.agent.host },
        ["drains", "replica", "of", host] => {
            Wish::DrainReplica { replica: daemon(world, host)?.replica() }
        }
        ["undrains", "replica", "of", host] => {
            Wish::UndrainReplica { replica: daemon(world, host)?.replica() }
        }
        ["undrains", host] => Wish::Undrain { host: daemon(world, host)?.agent.host },
        ["removes", "pool", pool] => {
            world.pools.remove(&PoolName::from(pool)).ok_or("no such pool")?;
            return Ok(());
        }
        _ => return Err(format!("an operator cannot {rest:?}")),
    };
    world.wish(wish);
    Ok(())
}

fn runner(world: &mut World, id: RunnerId, rest: &[&str]) -> Done {
    let now = world.now;
    let World { daemons, hub, pools, .. } = world;
    let daemon = daemons
        .values_mut()
        .find(|d| d.containers.contains_key(&id) || d.agent.local.contains_key(&id))
        .ok_or_else(|| format!("no host has {id}"))?;
    let name = daemon.containers.get(&id).map(|container| container.found.name.clone());
    let pool = daemon.agent.local.get(&id).and_then(|local| pools.get(&local.record.pool)).cloned();
    let mut outside = Outside { hub, pools, now };
    match *rest {
        ["start" | "starts"] => daemon.hand_over(id, &mut outside),
        ["fail" | "fails", "to", "start"] => {
            let failure = Failure::Start { message: "no space left on device".to_owned() };
            if let Some(local) = daemon.agent.local.get_mut(&id) {
                local.work = None;
            }
            daemon.see(id, Seen::Failed(failure), now)
        }
        ["listen" | "listens"] => {
            if let Some(row) = name.and_then(|name| outside.hub.rows.get_mut(&name)) {
                row.online = true;
            }
            daemon.line(id, Seen::ListeningLine, now)
        }
        ["run" | "runs"] => {
            if let (Some(name), Some(pool)) = (name, pool) {
                outside.hub.give_job(&name, &pool.labels, &pool.scope);
            }
            daemon.line(id, Seen::JobLine, now)
        }
        ["exit" | "exits", code, ref more @ ..] => {
            let container = daemon.containers.get_mut(&id).ok_or("it has no container")?;
            container.exit_code = number(code)?;
            container.found.state = FoundState::Exited;
            leave_github(&mut outside, &container.found.name);
            if more == ["unnoticed"] { Ok(()) } else { daemon.exited(id, &mut outside) }
        }
        ["container", "vanishes"] => {
            daemon.containers.remove(&id).map(|_: Container| ()).ok_or("none".to_owned())
        }
        _ => Err(format!("a runner cannot {rest:?}")),
    }
}

/// GitHub removes the registration of a runner that ran its job; another goes offline.
fn leave_github(outside: &mut Outside<'_>, name: &RunnerName) {
    if let Some(row) = outside.hub.rows.get_mut(name) {
        if row.busy {
            outside.hub.rows.remove(name);
        } else {
            row.online = false;
        }
    }
}

/// A phase by name, for lines like `r1 is listening`.
pub(crate) fn phase_of(world: &World, id: RunnerId) -> Option<RunnerPhase> {
    world.daemons.values().find_map(|d| d.agent.local.get(&id)).map(|l| l.record.phase.clone())
}

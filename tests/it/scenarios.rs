//! Runs the scenarios in `tests/scenarios`: what is written there is what must happen.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[path = "scenarios/daemon.rs"]
mod daemon;
#[path = "scenarios/events.rs"]
mod events;
#[path = "scenarios/expect.rs"]
mod expect;
#[path = "scenarios/hub.rs"]
mod hub;
#[path = "scenarios/rules.rs"]
mod rules;
#[path = "scenarios/words.rs"]
mod words;
#[path = "scenarios/world.rs"]
pub(crate) mod world;

use world::World;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// A test for each file, and one that no file lacks its test.
macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_file_has_its_test() {
            let listed = [$(stringify!($name)),*];
            let mut files: Vec<String> = std::fs::read_dir(directory())
                .unwrap()
                .filter_map(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    name.strip_suffix(".txt").map(str::to_owned)
                })
                .collect();
            files.sort();
            assert_eq!(files, listed, "tests/it/scenarios.rs and tests/scenarios differ");
        }
    };
}

/// Plays one file and panics with file, line, what was expected, what happened and the
/// whole state.
fn run(name: &str) {
    let file = format!("tests/scenarios/{name}.txt");
    let text = std::fs::read_to_string(directory().join(format!("{name}.txt"))).unwrap();
    let mut world = World::new();
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split('#').next().unwrap_or("").trim_end()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let mut rest = &lines[..];
    while let Some(((number, line), more)) = rest.split_first() {
        rest = more;
        let result = if line.trim() == "expect" {
            let block: Vec<(usize, String)> = rest
                .iter()
                .take_while(|(_, line)| line.starts_with(' '))
                .map(|(number, line)| (*number, line.trim().to_owned()))
                .collect();
            rest = &rest[block.len()..];
            world.rest().and_then(|()| expect::compare(&mut world, &block))
        } else {
            events::happen(&mut world, line.trim())
        };
        if let Err(error) = result {
            panic!("\n{file}:{number}: {}\n{error}\n\n{}", line.trim(), state(&world));
        }
    }
}

/// The whole state, for whoever must find out why.
fn state(world: &World) -> String {
    let mut text = format!("at {} s\n", world.now.since(world.began).as_secs());
    for (name, daemon) in &world.daemons {
        let _ = writeln!(text, "host {name}: silent {}", daemon.silent);
        for (id, local) in &daemon.agent.local {
            let retiring = world
                .assignments
                .get(&daemon.agent.host)
                .and_then(|assignment| assignment.retire.get(id))
                .map_or("", |order| order.reason.code());
            let container = daemon.containers.get(id).map(|c| c.found.state);
            let runner = world::short(*id);
            let _ = writeln!(
                text,
                "  {runner} {:?} container {container:?} retire {retiring:?}",
                local.record.phase
            );
        }
    }
    for (name, row) in &world.hub.rows {
        let _ = writeln!(text, "github {name}: online {} busy {}", row.online, row.busy);
    }
    for (name, decision) in &world.last.pools {
        let _ = writeln!(text, "pool {name}: {decision:?}");
    }
    let _ = writeln!(text, "operator {:?}", world.operator);
    text
}

scenarios! {
    d14_one_job_below_threshold
    floor_is_filled_and_refilled
    freeze_stops_everything
    idle_runners_go_after_idle_timeout
    maximum_bounds_occupied
    one_running_runner_is_never_chosen
    queue_scales_up_at_once
    ten_short_jobs_read_once
    unread_queue_is_not_zero
}

//! Three orchestrators as real processes, each with a real Docker daemon of its own, one
//! real Redis, the modelled GitHub: while jobs come in, everything is killed, paused, cut
//! off, slowed and emptied. Then it is quiet, and every job must have run exactly once.
//!
//! The short form is part of `make test`, by itself; `make chaos` runs longer. To repeat a
//! run: `CHAOS_SEED=n CHAOS_SECONDS=s cargo test --locked --test it -- it::chaos::`.

mod fault;
mod verdict;
mod world;

use std::time::{Duration, Instant};

use runner_orchestrator::cli::print;
use runner_orchestrator::sim::random::Random;

use self::fault::Fault;
use self::world::World;

/// The short form: each fault once takes about this long, within the four minutes that
/// `make test` has for it, its set-up and its calm end.
const SHORT: Duration = Duration::from_secs(120);
const SEED: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var_os(name)?.into_string().ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_runs_once_whatever_is_done_to_the_cluster() {
    let seed = number("CHAOS_SEED").unwrap_or(SEED);
    let limit = number("CHAOS_SECONDS").map_or(SHORT, Duration::from_secs);
    let mut random = Random::seeded(seed);
    let mut world = World::build(seed).await;
    let begun = Instant::now();
    let mut jobs = 0;
    let mut waiting: Vec<Fault> = Vec::new();
    while begun.elapsed() < limit {
        // Every kind comes once before any comes twice.
        if waiting.is_empty() {
            waiting = shuffled(&mut random);
        }
        let Some(fault) = waiting.pop() else { break };
        jobs += world.queue_some(&mut random).await;
        print::message(&format!(
            "{:6.1} s  {fault:?}  {}",
            begun.elapsed().as_secs_f64(),
            world.progress().await
        ));
        fault.strike(&mut world, &mut random).await;
    }
    jobs += world.queue_some(&mut random).await;
    world.calm().await;
    world.judge(seed, jobs).await;
}

fn shuffled(random: &mut Random) -> Vec<Fault> {
    let mut faults = Fault::ALL.to_vec();
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.below(last + 1));
    }
    faults
}

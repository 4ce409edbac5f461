//! Many seeds, on all cores, and what all of them together must have met.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::gate::lock;
use super::plan::Script;
use super::run::{Outcome, run};

/// Seeds of the usual run: so many meet everything there is.
const SEEDS: u64 = 2_000;
/// One of so many runs twice, and must leave the same trace.
const TWICE: u64 = 20;
/// What they together must have met, besides every kind of fault.
const SITUATIONS: [&str; 24] = [
    "a busy runner was removed by force",
    "a delete was accepted twice",
    "a delete was refused",
    "a new process adopted what ran",
    "a plan of a leader that had lost its term was refused",
    "a process died in the middle of a chosen step",
    "a process fault struck the leader",
    "a replica of the release before led",
    "a replica said that what it shows is stale",
    "a runner was reported lost",
    "a stopped agent woke up after another took over",
    "a write came after a later one",
    "another replica began to lead while jobs ran",
    "another replica took a daemon over",
    "github refused to delete a busy runner",
    "reports of two record versions were in the store",
    "some answer of the store was lost after its effect",
    "the answer to a plan's write was lost after its effect",
    "the answer to a registration was lost",
    "the answer to a report was lost after its effect",
    "the answer to taking a lease was lost after its effect",
    "the leader was drained",
    "the operator's state was written back",
    "the store went back over a leader's plan",
];

/// Every kind of fault is drawn by some seed, and none has a name that is not on the list.
#[test]
fn the_list_of_faults_is_what_seeds_draw() {
    let drawn: BTreeSet<&str> =
        (1..=SEEDS).flat_map(|seed| Script::of(seed).faults).map(|fault| fault.name()).collect();
    assert_eq!(drawn, BTreeSet::from(Fault::NAMES));
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|text| text.into_string().unwrap().parse().unwrap())
}

/// One script, in a runtime of its own with a paused clock.
pub(super) fn outcome(seed: u64, script: Script, verbose: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run(seed, script, verbose))
}

/// How a failed seed is told.
pub(super) fn told(outcome: &Outcome) -> String {
    let Outcome { seed, violations, tail, faults, .. } = outcome;
    format!(
        "SEED={seed} cargo test --locked --test it simulation::\n{}\n{}\nfaults: {}",
        tail.join("\n"),
        violations.join("\n"),
        faults.join("; "),
    )
}

#[derive(Default)]
struct Tally {
    failed: Vec<String>,
    situations: BTreeSet<&'static str>,
    modelled: Duration,
    events: u64,
}

#[test]
fn every_invariant_holds_for_every_seed() {
    if let Some(seed) = number("SEED") {
        return replay(seed);
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST_SEED").unwrap_or(1);
    let begun = Instant::now();
    let next = AtomicU64::new(first);
    let tally = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || lock(&tally).failed.len() >= 3 {
                        return;
                    }
                    one_seed(seed, &tally);
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    say(&format!(
        "{seeds} seeds, {} events, {:.0} modelled minutes in {:.1} s",
        tally.events,
        tally.modelled.as_secs_f64() / 60.0,
        begun.elapsed().as_secs_f64(),
    ));
    assert!(tally.failed.is_empty(), "{}", tally.failed.join("\n\n"));
    // A handful of seeds need not meet everything.
    if seeds >= SEEDS {
        let wanted = SITUATIONS.into_iter().chain(Fault::NAMES);
        let missed: Vec<&str> = wanted.filter(|name| !tally.situations.contains(name)).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

fn one_seed(seed: u64, tally: &Mutex<Tally>) {
    let outcome_of = || std::panic::catch_unwind(|| outcome(seed, Script::of(seed), false));
    let outcome = outcome_of();
    let Ok(outcome) = outcome else {
        lock(tally).failed.push(format!("SEED={seed} panicked"));
        return;
    };
    if !outcome.violations.is_empty() {
        lock(tally).failed.push(told(&outcome));
        return;
    }
    if seed.is_multiple_of(TWICE) {
        let again = outcome_of().map(|again| again.trace);
        if again.as_ref().ok() != Some(&outcome.trace) {
            let text = format!("SEED={seed} left another trace when run again: {again:?}");
            lock(tally).failed.push(text);
        }
    }
    let mut tally = lock(tally);
    tally.situations.extend(&outcome.situations);
    tally.modelled += outcome.modelled;
    tally.events += outcome.trace.1;
}

/// One seed with its whole trace.
fn replay(seed: u64) {
    let outcome = outcome(seed, Script::of(seed), true);
    say(&told(&outcome));
    assert!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
}

#[expect(clippy::print_stderr, reason = "shown with --nocapture and beside a failure")]
fn say(text: &str) {
    eprintln!("{text}");
}

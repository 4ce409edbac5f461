//! What the simulation found, each as a short script of its own.

use std::time::Duration;

use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};

use super::plan::{Deed, Fault, Layout, Script, Who};
use super::seeds::{outcome, told};
use super::store::Trouble;

fn holds(script: Script) {
    let outcome = outcome(1, script, false);
    assert!(outcome.violations.is_empty(), "{}", told(&outcome));
}

/// Three replicas, thirty jobs, nothing goes wrong.
#[test]
fn thirty_jobs_on_three_hosts_without_any_fault() {
    let mut script = Script::quiet(Layout::plain(), Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![5.0; 30]));
    holds(script);
}

/// Regression: a leader that the store heard, and that did not hear the store, asked for
/// the lease again and again and so kept it from everybody: nobody led.
#[test]
fn a_leader_whose_answers_are_lost_does_not_keep_the_lease() {
    let mut script = Script::quiet(Layout::plain(), Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![20.0; 6]));
    script.break_something(6_000, 40_000, Fault::Store(Who::Leader, Trouble::OneWay));
    script.at(20_000, Deed::Jobs(0, vec![5.0; 6]));
    holds(script);
}

/// Regression: after the store was emptied a leader that had never led before was given
/// the term of the one before it.
#[test]
fn terms_grow_although_the_store_has_forgotten_them() {
    let mut script = Script::quiet(Layout::plain(), Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![20.0; 6]));
    script.break_something(6_000, 20_000, Fault::Store(Who::Leader, Trouble::BlackHole));
    script.break_something(30_000, 0, Fault::Flush);
    script.break_something(31_000, 5_000, Fault::Kill(Who::Leader));
    script.at(32_000, Deed::Jobs(0, vec![5.0; 6]));
    holds(script);
}

/// Regression: containers whose creation was carried out and not answered stayed until the
/// next list, and others were created in their place: more than the host's maximum.
#[test]
fn a_creation_without_an_answer_takes_no_room_from_the_next() {
    let mut layout = Layout::plain();
    layout.host_max = 2;
    let mut script = Script::quiet(layout, Duration::from_secs(60));
    let fault = |daemon| Fault::Docker(daemon, Operation::Create, DockerFault::DropAnswer);
    for daemon in 0..3 {
        script.break_something(1_500, 20_000, fault(daemon));
    }
    script.at(2_000, Deed::Jobs(0, vec![5.0; 12]));
    holds(script);
}

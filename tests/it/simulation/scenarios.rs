//! What the simulation found, each as a short script of its own.

use std::time::Duration;

use runner_orchestrator::sim::docker::{Fault as DockerFault, Operation};

use super::fault::{Fault, Who};
use super::gate::{Moment, Point};
use super::plan::{Deed, Layout, Script};
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

/// Regression: an agent whose first list of containers failed never asked for another, and
/// kept the host for itself without doing anything there.
#[test]
fn an_agent_whose_first_list_fails_asks_again() {
    let mut layout = Layout::plain();
    layout.daemons = 2;
    let mut script = Script::quiet(layout, Duration::from_secs(90));
    script.at(2_000, Deed::Jobs(0, vec![20.0; 8]));
    let hang = |operation| Fault::Docker(0, operation, DockerFault::Hang);
    script.break_something(9_900, 70_000, hang(Operation::Containers));
    script.break_something(10_000, 60_000, Fault::Kill(Who::Replica(0)));
    script.at(60_000, Deed::Jobs(0, vec![5.0; 8]));
    holds(script);
}

/// Regression: a new agent took on runners while it was still removing containers that its
/// predecessor had created and not started: more than the host's maximum.
#[test]
fn a_new_agent_counts_what_it_has_yet_to_remove() {
    let mut layout = Layout::plain();
    layout.daemons = 2;
    layout.host_max = 2;
    let mut script = Script::quiet(layout, Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![40.0; 8]));
    for replica in [0, 2] {
        let dies = Fault::DieAt(Who::Replica(replica), Point::Create, Moment::After);
        script.break_something(1_900 + 10_000 * replica as u64, 8_000, dies);
    }
    holds(script);
}

/// Regression: a machine that came up an hour ahead of the store stayed so for two hours:
/// its reports looked new for as long, however old they were.
#[test]
fn a_machine_that_comes_up_with_a_wrong_clock_goes_by_the_stores() {
    let mut script = Script::quiet(Layout::plain(), Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![20.0; 6]));
    for off_ms in [3_600_000, -3_600_000] {
        let clock = Fault::Clock { who: Who::Leader, off_ms, reboots: true };
        script.break_something(if off_ms > 0 { 5_000 } else { 30_000 }, 20_000, clock);
    }
    holds(script);
}

/// Regression: the first leader after the store was emptied forgot that hosts had yet to
/// report: what a dead agent had created there and not registered was placed once more.
#[test]
fn a_leader_after_a_flush_waits_for_hosts_known_before() {
    let mut layout = Layout::plain();
    layout.pools[0].max_runners = 5;
    let mut script = Script::quiet(layout, Duration::from_secs(60));
    script.at(2_000, Deed::Jobs(0, vec![30.0; 8]));
    let dies = Fault::DieAt(Who::Replica(1), Point::Create, Moment::After);
    script.break_something(1_900, 50_000, dies);
    script.break_something(8_000, 0, Fault::Flush);
    holds(script);
}

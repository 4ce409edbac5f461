//! What the simulation found, each as a short script of its own.

use std::time::Duration;

use super::plan::{Deed, Layout, Script};
use super::seeds::{outcome, told};

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

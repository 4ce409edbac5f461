//! What operators asked for, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use runner_orchestrator::fleet::id::{IntentId, RunnerId, RunnerName};
use runner_orchestrator::fleet::intent::Wish;
use runner_orchestrator::fleet::reason::Reason;
use runner_orchestrator::store::Commit;

use super::Witness;

/// The deletes of a run.
#[derive(Default)]
pub(super) struct Asked {
    /// Whom each was to remove, and whether by force.
    deletes: BTreeMap<IntentId, (RunnerId, bool)>,
    /// Runners whose delete a leader accepted.
    accepted: BTreeSet<RunnerId>,
    /// Those that were ended by force: a job of theirs need not end well.
    forced: BTreeSet<RunnerName>,
}

impl Witness {
    /// An operator asked for this.
    pub(in super::super) fn asked(&self, intent: IntentId, wish: &Wish) {
        if let Wish::Delete { runner, force } = wish {
            self.state().asked.deletes.insert(intent, (*runner, *force));
        }
    }

    /// Invariant 21: a delete hits the runner that was named, by force only where that was
    /// said, and however often it is asked for.
    pub(super) fn carries_out(&self, commit: &Commit) {
        for assignment in commit.assignments.values() {
            for (runner, order) in &assignment.retire {
                let Reason::OperatorDelete { intent, force } = &order.reason else { continue };
                let named = self.state().asked.deletes.get(intent).copied();
                if named != Some((*runner, *force)) {
                    self.violated("21", format_args!("{runner}: {order:?}, asked: {named:?}"));
                }
            }
        }
        for outcome in &commit.outcomes {
            let named = self.state().asked.deletes.get(&outcome.intent).copied();
            let Some((runner, _)) = named else { continue };
            if outcome.accepted.iter().any(|accepted| *accepted != runner) {
                self.violated("21", format_args!("asked for {runner}: {outcome:?}"));
            }
            let mut state = self.state();
            if outcome.accepted.is_empty() {
                state.reached.insert("a delete was refused");
            } else if !state.asked.accepted.insert(runner) {
                state.reached.insert("a delete was accepted twice");
            }
        }
    }

    /// Runners whose delete was accepted: at the end none of them lives.
    pub(in super::super) fn deleted(&self) -> BTreeSet<RunnerId> {
        self.state().asked.accepted.clone()
    }

    /// Whether an operator wants this runner gone whatever it does.
    pub(super) fn is_forced(&self, runner: RunnerId) -> bool {
        self.state().asked.deletes.values().any(|asked| *asked == (runner, true))
    }

    /// A runner is ended as an operator said.
    pub(in super::super) fn ended_by_force(&self, name: &RunnerName, busy: bool) {
        if busy {
            self.reached("a busy runner was removed by force");
        }
        self.state().asked.forced.insert(name.clone());
    }

    /// Whether this runner was ended by force.
    pub(in super::super) fn was_forced(&self, name: &RunnerName) -> bool {
        self.state().asked.forced.contains(name)
    }
}

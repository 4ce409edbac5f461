//! One reading of the last published view: what every answer is rendered from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ApiState;
use super::problem::{Code, Problem, quoted};
use crate::fleet::host::{Assigned, HostRecord};
use crate::fleet::id::{ContainerId, HostId, PoolName, RunnerId, RunnerName};
use crate::fleet::plan::PoolDecision;
use crate::fleet::pool::Pool;
use crate::fleet::reason::Reason;
use crate::fleet::runner::{RunnerPhase, RunnerRecord};
use crate::fleet::time::Timestamp;
use crate::fleet::view::View;
use crate::loops::lead::Published;

/// The leader decides every second; a view older than this is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(10);
/// The pool that the environment variables describe.
pub const DEFAULT_POOL: &str = "default";
/// What `docker ps` prints of an id: less than this names nothing.
const CONTAINER_ID_SHORT: usize = 12;

/// The last published view and the instant it is looked at.
#[derive(Clone, Debug)]
pub struct Reading {
    pub published: Arc<Published>,
    pub now: Timestamp,
    /// Why the store cannot be used, if so.
    pub store_away: Option<String>,
}

/// One runner, the turn's own decisions included: a runner assigned a moment ago shows
/// before the next turn has read it back.
#[derive(Clone, Debug)]
pub struct SeenRunner<'a> {
    pub id: RunnerId,
    pub name: &'a RunnerName,
    pub pool: &'a PoolName,
    pub host: HostId,
    pub phase: RunnerPhase,
    pub assigned: Option<&'a Assigned>,
    pub record: Option<&'a RunnerRecord>,
    pub retiring: Option<&'a Reason>,
}

impl<'a> SeenRunner<'a> {
    /// Its container, once it has one.
    #[must_use]
    pub fn container(&self) -> Option<&'a ContainerId> {
        self.record.and_then(|record| record.container.as_ref())
    }

    /// Since when it listens without a job.
    #[must_use]
    pub fn idle_since(&self) -> Option<Timestamp> {
        match self.phase {
            RunnerPhase::Listening { since } => Some(since),
            _ => None,
        }
    }

    /// Whether its container exists and has not ended.
    #[must_use]
    pub fn has_live_container(&self) -> bool {
        self.container().is_some() && !self.phase.is_terminal()
    }
}

impl ApiState {
    /// What is known now.
    #[must_use]
    pub fn read(&self) -> Reading {
        let published = self.handle.published.borrow().clone();
        let store_away = self.store_away();
        Reading { published, now: self.handle.edges.clock.now(), store_away }
    }
}

impl Reading {
    /// The view itself.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.published.view
    }

    /// How old the view is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.now.since(self.published.at)
    }

    /// Whether what is shown may no longer be so.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.age() > STALE_AFTER || self.away().is_some()
    }

    /// Why the store cannot be used, by its last call or the last turn's.
    #[must_use]
    pub fn away(&self) -> Option<&String> {
        self.published.store_error.as_ref().or(self.store_away.as_ref())
    }

    /// Every runner known, by id.
    #[must_use]
    pub fn runners(&self) -> BTreeMap<RunnerId, SeenRunner<'_>> {
        let (view, plan) = (self.view(), &self.published.plan);
        let mut runners: BTreeMap<RunnerId, SeenRunner<'_>> = view
            .runners()
            .into_values()
            .map(|seen| {
                let ordered = seen.retirement.map(|retirement| &retirement.reason);
                let carried_out = seen.record.and_then(|record| record.retiring.as_ref());
                let runner = SeenRunner {
                    id: seen.id,
                    name: seen.name,
                    pool: seen.pool,
                    host: seen.host,
                    phase: seen.phase,
                    assigned: seen.assigned,
                    record: seen.record,
                    retiring: ordered.or(carried_out),
                };
                (seen.id, runner)
            })
            .collect();
        if self.published.store_error.is_some() {
            return runners;
        }
        for placement in &plan.place {
            let assigned = &placement.assigned;
            runners.entry(assigned.id).or_insert_with(|| SeenRunner {
                id: assigned.id,
                name: &assigned.name,
                pool: &assigned.pool,
                host: placement.host,
                phase: RunnerPhase::Assigned { since: assigned.at },
                assigned: Some(assigned),
                record: None,
                retiring: None,
            });
        }
        for order in &plan.retire {
            if let Some(runner) = runners.get_mut(&order.runner) {
                runner.retiring.get_or_insert(&order.retirement.reason);
            }
        }
        runners
    }

    /// Each pool's counts, demand and reasons. While nobody here leads there are no
    /// reasons, and counts and demand are taken from the view.
    #[must_use]
    pub fn decisions(&self, state: &ApiState) -> BTreeMap<PoolName, PoolDecision> {
        let decided = &self.published.plan.pools;
        if !decided.is_empty() {
            return decided.clone();
        }
        let view = self.view();
        let at = self.published.at;
        let mut counts = view.roster().count(view, &state.handle.settings.policy, at);
        let mut demand = view.ledger.demand.by_pool(&view.pools, &state.handle.settings.policy, at);
        view.pools
            .keys()
            .map(|name| {
                let decision = PoolDecision {
                    count: counts.remove(name).unwrap_or_default(),
                    demand: demand.remove(name).unwrap_or_default(),
                    ..PoolDecision::default()
                };
                (name.clone(), decision)
            })
            .collect()
    }

    /// The pool that is meant when none is named: `default`, or the only one.
    #[must_use]
    pub fn main_pool(&self) -> Option<&Pool> {
        let pools = &self.view().pools;
        pools.get(&PoolName::from(DEFAULT_POOL)).or_else(|| match pools.len() {
            1 => pools.values().next(),
            _ => None,
        })
    }

    /// A pool by its name.
    ///
    /// # Errors
    /// `unknown_pool`, naming those there are.
    pub fn pool(&self, name: &str) -> Result<&Pool, Problem> {
        self.view().pools.get(&PoolName::from(name)).ok_or_else(|| {
            let detail = format!("no pool {}; there are {}", quoted(name), self.pool_names());
            Problem::new(Code::UnknownPool, detail)
        })
    }

    /// The pools' names for a sentence.
    #[must_use]
    pub fn pool_names(&self) -> String {
        self.view().pools.keys().map(PoolName::as_str).collect::<Vec<_>>().join(", ")
    }

    /// A runner by our id, its name, its container's name, or its container's id in full
    /// or from twelve digits on. Only runners of this cluster can be found.
    ///
    /// # Errors
    /// `unknown_runner` when none or more than one is meant.
    pub fn runner(&self, asked: &str) -> Result<SeenRunner<'_>, Problem> {
        let id: Option<RunnerId> = asked.parse().ok();
        let is_container = asked.len() >= CONTAINER_ID_SHORT
            && asked.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut found = self.runners().into_values().filter(|runner| {
            Some(runner.id) == id
                || runner.name.as_str() == asked
                || runner.name.container_name() == asked
                || (is_container
                    && runner.container().is_some_and(|id| id.as_str().starts_with(asked)))
        });
        match (found.next(), found.next()) {
            (Some(runner), None) => Ok(runner),
            (Some(_), Some(_)) => {
                let detail = format!("{} fits more than one runner", quoted(asked));
                Err(Problem::new(Code::UnknownRunner, detail))
            }
            (None, _) => {
                let detail = format!(
                    "no runner of ours is {}; give a runner's id or name, or its container's id",
                    quoted(asked)
                );
                Err(Problem::new(Code::UnknownRunner, detail))
            }
        }
    }

    /// What a host's agent last reported.
    #[must_use]
    pub fn host(&self, host: &HostId) -> Option<&HostRecord> {
        self.view().hosts.get(host).map(Arc::as_ref)
    }
}

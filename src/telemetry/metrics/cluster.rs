//! The cluster as a whole, the same on every replica: rendered from what is shared and
//! from instants written there, never from this process's own clock or counters. What only
//! a leader knows is left out while nobody leads.

use std::collections::BTreeMap;

use prometheus::{IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::declare::{Declare, MetricsError};
use super::edges::unix_seconds;
use super::label::{RunnerEnd, RunnerState};
use super::legacy;
use crate::fleet::drain::dispensable;
use crate::fleet::host::Liveness;
use crate::fleet::ledger::Totals;
use crate::fleet::plan::Plan;
use crate::fleet::policy::Policy;
use crate::fleet::replica::Common;
use crate::fleet::time::Timestamp;
use crate::fleet::view::View;

/// What the cluster's metrics are made of.
#[derive(Debug)]
pub struct Cluster<'a> {
    pub view: &'a View,
    pub policy: &'a Policy,
    /// The leader's last turn; `None`: nobody leads, or it has not told yet.
    pub decided: Option<Decided<'a>>,
    /// The holder's term, when somebody holds the lease.
    pub term: Option<u64>,
    pub replicas: usize,
    /// How many replicas differ from the others, by what.
    pub problems: BTreeMap<&'static str, usize>,
    pub unreadable: usize,
    /// The store could be read just now.
    pub store_up: bool,
    /// What the answering replica finds wrong with the store.
    pub store_warnings: usize,
}

/// A leader's turn.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    pub plan: &'a Plan,
    pub at: Timestamp,
}

/// The text for Prometheus, format 0.0.4.
#[must_use]
pub fn render(cluster: &Cluster<'_>) -> String {
    let registry = Registry::new();
    let shown = Shown { declare: Declare { registry: &registry } };
    let mut legacy = Vec::new();
    let text = shown
        .all(cluster, &mut legacy)
        .map_err(|error| crate::telemetry::chain(&error))
        .and_then(|()| {
            let families = registry.gather();
            TextEncoder::new().encode_to_string(&families).map_err(|error| error.to_string())
        });
    let mut text = text.unwrap_or_else(|error| {
        tracing::error!(%error, "the cluster's metrics could not be written");
        String::new()
    });
    legacy::write(&mut text, &legacy);
    text
}

struct Shown<'a> {
    declare: Declare<'a>,
}

type Declared = Result<(), MetricsError>;

impl Shown<'_> {
    fn all(&self, cluster: &Cluster<'_>, legacy: &mut Vec<legacy::Row>) -> Declared {
        self.store(cluster)?;
        self.hosts(cluster)?;
        self.configured(cluster)?;
        let active = self.runners(cluster)?;
        legacy.extend([
            legacy::RUNNERS_ACTIVE.row(active),
            legacy::ORCHESTRATOR_RUNNING.row(1.0),
            legacy::RUNNERS_TOTAL.row(active),
        ]);
        if let Some(decided) = cluster.decided {
            self.decided(cluster, decided, legacy)?;
        }
        Ok(())
    }

    fn store(&self, cluster: &Cluster<'_>) -> Declared {
        self.one(
            "orchestrator_cluster_store_up",
            "Whether the store could be read for this answer (1) or what is shown is older (0).",
            i64::from(cluster.store_up),
        )?;
        self.one(
            "orchestrator_cluster_store_warnings",
            "What this replica finds wrong with the store: read-only, full, evicting, too old.",
            whole(cluster.store_warnings),
        )?;
        self.one(
            "orchestrator_cluster_leader",
            "Whether a replica holds the lease to decide (1) or none does (0).",
            i64::from(cluster.term.is_some()),
        )?;
        if let Some(term) = cluster.term {
            self.one(
                "orchestrator_cluster_term",
                "The leader's fencing token; grows with every change of leader.",
                i64::try_from(term).unwrap_or(i64::MAX),
            )?;
        }
        self.one(
            "orchestrator_cluster_replicas",
            "Replicas that have announced themselves within 15 seconds.",
            whole(cluster.replicas),
        )?;
        let problems = self.declare.gauges(
            "orchestrator_cluster_replica_problems",
            "Replicas that differ from the others where all must agree, by what.",
            &["problem"],
        )?;
        for code in Common::CODES {
            let count = cluster.problems.get(code).copied().unwrap_or(0);
            problems.with_label_values(&[code]).set(whole(count));
        }
        self.one(
            "orchestrator_cluster_unreadable_records",
            "Records of the store that this version cannot read; they are left as they are.",
            whole(cluster.unreadable),
        )?;
        self.one(
            "orchestrator_cluster_intents_waiting",
            "Requests of operators that no leader has answered yet.",
            whole(cluster.view.intents.len()),
        )?;
        self.one(
            "orchestrator_cluster_frozen",
            "Whether an operator has stopped every change (1) or not (0).",
            i64::from(cluster.view.operator.frozen_since.is_some()),
        )
    }

    fn hosts(&self, cluster: &Cluster<'_>) -> Declared {
        let view = cluster.view;
        let hosts = || view.hosts.values();
        self.one(
            "orchestrator_cluster_hosts_docker_down",
            "Hosts whose Docker engine did not answer when they last reported.",
            whole(hosts().filter(|host| !host.docker_up).count()),
        )?;
        self.one(
            "orchestrator_cluster_hosts_draining",
            "Hosts that get nothing new, by an operator's wish.",
            whole(hosts().filter(|host| view.operator.drains(host)).count()),
        )?;
        self.one(
            "orchestrator_cluster_capacity_runners",
            "Runners that all hosts together may hold.",
            hosts().map(|host| i64::from(host.max_runners)).sum(),
        )
    }

    /// From this replica's configuration; where replicas differ in it, the metric
    /// `orchestrator_cluster_replica_problems` says so.
    fn configured(&self, cluster: &Cluster<'_>) -> Declared {
        let min = self.per_pool("orchestrator_cluster_runners_min", "MIN_RUNNERS of the pool.")?;
        let max = self.per_pool("orchestrator_cluster_runners_max", "MAX_RUNNERS of the pool.")?;
        let paused = self.per_pool(
            "orchestrator_cluster_pool_paused",
            "Whether an operator has paused the pool (1) or not (0).",
        )?;
        for (name, pool) in cluster.view.pools.iter() {
            let label = [name.as_str()];
            min.with_label_values(&label).set(pool.min_runners.into());
            max.with_label_values(&label).set(pool.max_runners.into());
            let is_paused = cluster.view.operator.paused.contains(name);
            paused.with_label_values(&label).set(is_paused.into());
        }
        Ok(())
    }

    /// Runners as assigned and reported. Returns how many have a container.
    fn runners(&self, cluster: &Cluster<'_>) -> Result<f64, MetricsError> {
        let runners = self.declare.gauges(
            "orchestrator_cluster_runners",
            "Live runners of the pool by state, on all hosts.",
            &["pool", "state"],
        )?;
        for name in cluster.view.pools.keys() {
            for state in RunnerState::ALL {
                runners.with_label_values(&[name.as_str(), state.as_str()]).set(0);
            }
        }
        let roster = cluster.view.roster();
        for runner in roster.runners.values() {
            let Some(state) = RunnerState::of(&runner.phase) else { continue };
            let state = if runner.is_retiring() { RunnerState::Retiring } else { state };
            let pool = if cluster.view.pools.contains_key(runner.pool) {
                runner.pool.as_str()
            } else {
                super::OTHER_POOL
            };
            runners.with_label_values(&[pool, state.as_str()]).inc();
        }
        let states = legacy::WITH_CONTAINER.map(RunnerState::as_str);
        Ok(legacy::sum(&runners, Some(("state", &states))))
    }

    /// What only the leader knows: the queue, GitHub, and what it made of them.
    fn decided(
        &self,
        cluster: &Cluster<'_>,
        decided: Decided<'_>,
        legacy: &mut Vec<legacy::Row>,
    ) -> Declared {
        self.one(
            "orchestrator_cluster_decided_timestamp_seconds",
            "When the leader last looked at the fleet and decided.",
            unix_seconds(decided.at),
        )?;
        let (queue, breaker) = self.pools(cluster, decided)?;
        self.liveness(cluster, decided.at)?;
        let ledger = &cluster.view.ledger;
        self.one(
            "orchestrator_cluster_jobs_unmatched",
            "Queued jobs whose labels no pool serves.",
            whole(ledger.demand.unmatched(&cluster.view.pools).len()),
        )?;
        let foreign: u32 = ledger.registrations.scopes().values().map(|it| it.foreign).sum();
        self.one(
            "orchestrator_cluster_foreign_runners",
            "Registrations in our scopes that are not ours; they are never touched.",
            foreign.into(),
        )?;
        let (created, destroyed) = self.totals(&ledger.totals)?;
        self.github(cluster)?;
        legacy.extend([
            legacy::TOTAL_CREATED.row(created),
            legacy::TOTAL_DESTROYED.row(destroyed),
            legacy::IGNORED_EXISTING.row(f64::from(foreign)),
            legacy::GITHUB_QUEUE_LENGTH.row(queue),
            legacy::CREATED_TOTAL.row(created),
            legacy::QUEUE_LENGTH.row(queue),
            legacy::BREAKER_ACTIVE.row(breaker),
        ]);
        Ok(())
    }

    /// Returns the length of all queues, and whether any breaker is open.
    fn pools(
        &self,
        cluster: &Cluster<'_>,
        decided: Decided<'_>,
    ) -> Result<(f64, f64), MetricsError> {
        let gauge = |name, help| self.per_pool(name, help);
        let queued = gauge("orchestrator_cluster_jobs_queued", "Queued jobs routed to the pool.")?;
        let oldest = gauge(
            "orchestrator_cluster_oldest_queued_job_timestamp_seconds",
            "Since when the oldest queued job of the pool has waited; 0 = none waits.",
        )?;
        let desired =
            gauge("orchestrator_cluster_runners_desired", "Runners the scaling rule asks for.")?;
        let supply = gauge(
            "orchestrator_cluster_runners_supply",
            "Runners that can take a job now or within their start deadline.",
        )?;
        let unplaced = gauge(
            "orchestrator_cluster_runners_unplaced",
            "Runners that are asked for and find no place.",
        )?;
        let breaker = gauge(
            "orchestrator_cluster_breaker_active",
            "Whether failing runners hold the pool back (1) or not (0).",
        )?;
        for (name, pool) in &decided.plan.pools {
            let label = [name.as_str()];
            queued.with_label_values(&label).set(pool.demand.waiting_count().into());
            let since = pool.demand.oldest.map_or(0, |(queued_at, _)| unix_seconds(queued_at));
            oldest.with_label_values(&label).set(since);
            desired.with_label_values(&label).set(pool.desired.into());
            supply.with_label_values(&label).set(pool.count.supply.into());
            unplaced.with_label_values(&label).set(pool.unplaced.into());
            let known = cluster.view.ledger.breakers.get(name);
            let is_open = known.is_some_and(|breaker| breaker.is_open(decided.at));
            breaker.with_label_values(&label).set(is_open.into());
        }
        Ok((legacy::sum(&queued, None), legacy::sum(&breaker, None).min(1.0)))
    }

    fn liveness(&self, cluster: &Cluster<'_>, at: Timestamp) -> Declared {
        let hosts = self.declare.gauges(
            "orchestrator_cluster_hosts",
            "Hosts by how lately the leader has heard of them, but for drained ones that are empty.",
            &["liveness"],
        )?;
        let (view, policy) = (cluster.view, cluster.policy);
        let dispensable = dispensable(view);
        for (liveness, label) in
            [(Liveness::Live, "live"), (Liveness::Suspect, "suspect"), (Liveness::Lost, "lost")]
        {
            let so = view.hosts.keys().filter(|host| {
                view.liveness(host, policy, at) == liveness && !dispensable.contains(*host)
            });
            hosts.with_label_values(&[label]).set(whole(so.count()));
        }
        Ok(())
    }

    /// Returns how many were made, and how many of them are gone.
    fn totals(&self, totals: &Totals) -> Result<(f64, f64), MetricsError> {
        let assigned = self.declare.counters(
            "orchestrator_cluster_runners_assigned_total",
            "Runners assigned to a host since the leader began.",
            &[],
        )?;
        assigned.with_label_values::<&str>(&[]).inc_by(totals.assigned);
        let ended = self.declare.counters(
            "orchestrator_cluster_runners_ended_total",
            "Runners whose life ended since the leader began, by how.",
            &["outcome"],
        )?;
        for (end, count) in [
            (RunnerEnd::Ended, totals.ended),
            (RunnerEnd::Retired, totals.retired),
            (RunnerEnd::Failed, totals.failed),
            (RunnerEnd::Expired, totals.expired),
            (RunnerEnd::Lost, totals.lost),
        ] {
            ended.with_label_values(&[end.as_str()]).inc_by(count);
        }
        let gone = legacy::GONE.map(RunnerEnd::as_str);
        let created = legacy::sum(&assigned, None)
            - legacy::sum(&ended, Some(("outcome", &[RunnerEnd::Expired.as_str()])));
        Ok((created.max(0.0), legacy::sum(&ended, Some(("outcome", &gone)))))
    }

    fn github(&self, cluster: &Cluster<'_>) -> Declared {
        let budget = &cluster.view.budget;
        let number = |it: Option<u64>| it.map_or(-1, |it| i64::try_from(it).unwrap_or(i64::MAX));
        for (name, help, value) in [
            (
                "orchestrator_cluster_github_rate_limit_remaining",
                "Requests left until the primary rate limit resets; -1 = not known.",
                number(budget.remaining),
            ),
            (
                "orchestrator_cluster_github_rate_limit_limit",
                "Requests the primary rate limit allows; -1 = not known.",
                number(budget.limit),
            ),
            (
                "orchestrator_cluster_github_rate_limit_reset_timestamp_seconds",
                "When the primary rate limit resets; 0 = not known.",
                budget.resets_at.map_or(0, unix_seconds),
            ),
            (
                "orchestrator_cluster_github_blocked_until_timestamp_seconds",
                "Until when GitHub told us to wait; 0 = it did not.",
                budget.blocked_until.map_or(0, unix_seconds),
            ),
            (
                "orchestrator_cluster_github_registrations_available",
                "Runners that can be registered now without crossing a limit.",
                budget.mints_now.into(),
            ),
        ] {
            self.one(name, help, value)?;
        }
        Ok(())
    }

    fn one(&self, name: &'static str, help: &str, value: i64) -> Declared {
        let gauge: IntGauge = self.declare.gauge(name, help)?;
        gauge.set(value);
        Ok(())
    }

    fn per_pool(&self, name: &'static str, help: &str) -> Result<IntGaugeVec, MetricsError> {
        self.declare.gauges(name, help, &["pool"])
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
